//! Values of the gateway's settings, as flags, variables and keys of the file write them.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use voxline_gateway::{Dialect, UnknownDialect, WyomingAddress};

/// Longest time that can be configured, in seconds.
const YEAR: u64 = 365 * 86_400;

/// An integer from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct Whole<const MIN: u64, const MAX: u64>(pub(super) u64);

/// A time in seconds.
pub type Seconds = Whole<0, YEAR>;
/// A non-zero time in seconds.
pub type SomeSeconds = Whole<1, YEAR>;
/// A maximum number, at least 1.
pub type Count = Whole<1, { u16::MAX as u64 }>;
/// A maximum number, where 0 means no limit.
pub type Limit = Whole<0, { u32::MAX as u64 }>;
/// A number of bytes, up to 1 PiB.
pub type Bytes = Whole<1, { 1 << 50 }>;

impl<const MIN: u64, const MAX: u64> Whole<MIN, MAX> {
    pub(crate) fn seconds(self) -> Duration {
        Duration::from_secs(self.0)
    }

    pub(crate) fn count(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const MIN: u64, const MAX: u64> TryFrom<u64> for Whole<MIN, MAX> {
    type Error = String;

    fn try_from(number: u64) -> Result<Self, String> {
        if (MIN..=MAX).contains(&number) {
            Ok(Whole(number))
        } else {
            Err(format!("{number} is not a whole number from {MIN} to {MAX}"))
        }
    }
}

impl<const MIN: u64, const MAX: u64> FromStr for Whole<MIN, MAX> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().parse::<u64>();
        number.map_err(|_| format!("expected a whole number from {MIN} to {MAX}"))?.try_into()
    }
}

/// Parses a network, or a single address.
///
/// # Errors
/// Returns a message with an example if the text is neither.
pub fn network(text: &str) -> Result<IpNet, String> {
    let text = text.trim();
    let alone = || text.parse::<IpAddr>().map(IpNet::from).ok();
    text.parse()
        .ok()
        .or_else(alone)
        .ok_or_else(|| "expected a network such as 10.0.0.0/8 or 2001:db8::/32, or an address".to_owned())
}

/// Parses the address to listen on: an IP address and a port, `localhost` and a port, or a colon and a port.
/// The last means all IPv4 addresses of the machine, as it does for most servers.
///
/// # Errors
/// Returns a message with an example if the text is none of these.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None if text.starts_with(':') => format!("0.0.0.0{text}"),
        None => text.to_owned(),
    };
    numeric.parse().map_err(|_| {
        "expected an address and a port, as 127.0.0.1:8085 or [::1]:8085, or :8085 for all addresses"
            .to_owned()
    })
}

/// Parses the address to speak the Wyoming protocol on: as [`listen_address`], or the path of a Unix socket.
///
/// # Errors
/// Returns a message with an example if the text is neither.
pub fn wyoming_address(text: &str) -> Result<WyomingAddress, String> {
    let text = text.trim();
    let path = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:"));
    if let Some(path) = path.filter(|path| !path.is_empty()) {
        return Ok(WyomingAddress::Unix(path.into()));
    }
    let address = listen_address(text.strip_prefix("tcp://").unwrap_or(text));
    address.map(WyomingAddress::Tcp).map_err(|expected| format!("{expected}, or unix:PATH"))
}

pub(super) fn wyoming<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<WyomingAddress>, D::Error> {
    let text = String::deserialize(deserializer)?;
    wyoming_address(&text)
        .map(Some)
        .map_err(|expected| serde::de::Error::custom(format!("\"{text}\": {expected}")))
}

pub(super) fn listen<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    listen_address(&text)
        .map(Some)
        .map_err(|expected| serde::de::Error::custom(format!("\"{text}\": {expected}")))
}

pub(super) fn networks<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<IpNet>>, D::Error> {
    let named = |text: &String| {
        network(text).map_err(|expected| serde::de::Error::custom(format!("\"{text}\": {expected}")))
    };
    Vec::<String>::deserialize(deserializer)?.iter().map(named).collect::<Result<_, _>>().map(Some)
}

/// Dialects of other services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Dialects(pub(super) Vec<Dialect>);

/// Parses a list of dialects, or `none`.
///
/// # Errors
/// Returns [`UnknownDialect`] if the list has a name that no dialect has.
pub fn dialects(text: &str) -> Result<Dialects, UnknownDialect> {
    if text.trim() == "none" {
        return Ok(Dialects(Vec::new()));
    }
    text.split(',').map(|name| name.trim().parse()).collect::<Result<_, _>>().map(Dialects)
}
