//! The gateway's part of the configuration: table `[gateway]` of the file, with a key for each flag of
//! `voxline serve`.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{ConfigError, secret};
use voxline::net::Endpoint;
use voxline_gateway::authority::{AtLimit, Policy, Refreshing};
use voxline_gateway::{Options, Origin, TlsFiles};

/// Default listening address: on loopback, since there is no certificate by default.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8085);
/// Default lifetime of access tokens in seconds: the documented hour.
const TOKEN_LIFETIME: u64 = 3600;
/// Longest time that can be configured, in seconds.
const YEAR: u64 = 365 * 86_400;

/// An integer from `MIN` to `MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64")]
pub struct Whole<const MIN: u64, const MAX: u64>(u64);

/// A time in seconds.
pub type Seconds = Whole<0, YEAR>;
/// A non-zero time in seconds.
pub type SomeSeconds = Whole<1, YEAR>;
/// A maximum number, at least 1.
pub type Count = Whole<1, { u16::MAX as u64 }>;
/// A maximum number, where 0 means no limit.
pub type Limit = Whole<0, { u32::MAX as u64 }>;

impl<const MIN: u64, const MAX: u64> Whole<MIN, MAX> {
    fn seconds(self) -> Duration {
        Duration::from_secs(self.0)
    }

    fn count(self) -> usize {
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

fn listen<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    listen_address(&text).map_err(|expected| serde::de::Error::custom(format!("\"{text}\": {expected}")))
}

fn networks<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let named = |text: &String| {
        network(text).map_err(|expected| serde::de::Error::custom(format!("\"{text}\": {expected}")))
    };
    Vec::<String>::deserialize(deserializer)?.iter().map(named).collect()
}

/// Behaviour when a refresh or access token exceeds the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum TokenLimit {
    /// Refuse the new token
    Refuse,
    /// Revoke the oldest token to make room
    Evict,
}

/// Effect of a refresh on the refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum RefreshTokens {
    /// Keep the same token
    Keep,
    /// Replace the token; the old one stays valid until the new one is used
    Rotate,
}

/// Configuration of the gateway. `voxline serve --help` and `samples/gateway.toml` document the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "they are told once, where users look")]
pub struct GatewayConfig {
    #[serde(deserialize_with = "listen")]
    pub listen: SocketAddr,
    pub state: Option<PathBuf>,
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub token_lifetime: SomeSeconds,
    pub token_limit: TokenLimit,
    pub refresh_tokens: RefreshTokens,
    pub documented_status: bool,
    pub in_band_auth: bool,
    pub console: bool,
    pub demo: bool,
    pub threads: Option<Count>,
    pub max_sessions: Option<Count>,
    pub max_requests: Count,
    pub max_connections: Count,
    pub max_connections_per_address: Limit,
    pub max_failures: Limit,
    #[serde(deserialize_with = "networks")]
    pub trusted_proxy: Vec<IpNet>,
    pub header_timeout: SomeSeconds,
    pub body_timeout: SomeSeconds,
    pub write_timeout: SomeSeconds,
    pub resume_window: Seconds,
    pub drain: Seconds,
    pub successor: Vec<Endpoint>,
    pub cors_origin: Vec<Origin>,
}

impl Default for GatewayConfig {
    fn default() -> GatewayConfig {
        let options = Options::default();
        GatewayConfig {
            listen: LISTEN,
            state: None,
            tls_cert: None,
            tls_key: None,
            token_lifetime: Whole(TOKEN_LIFETIME),
            token_limit: TokenLimit::Refuse,
            refresh_tokens: RefreshTokens::Keep,
            documented_status: options.documented_status,
            in_band_auth: options.in_band_auth,
            console: options.console,
            demo: options.demo,
            threads: None,
            max_sessions: None,
            max_requests: Whole(options.max_requests as u64),
            max_connections: Whole(options.max_connections as u64),
            max_connections_per_address: Whole(options.max_connections_per_address as u64),
            max_failures: Whole(options.max_failures.into()),
            trusted_proxy: options.trusted_proxies,
            header_timeout: Whole(options.header_timeout.as_secs()),
            body_timeout: Whole(options.body_timeout.as_secs()),
            write_timeout: Whole(options.write_timeout.as_secs()),
            resume_window: Whole(options.resume_window.as_secs()),
            drain: Whole(options.drain.as_secs()),
            successor: options.successors,
            cors_origin: options.cors_origins,
        }
    }
}

impl GatewayConfig {
    /// Returns the options of the gateway.
    #[must_use]
    pub fn options(&self) -> Options {
        let options = Options::default();
        let threads = self.threads.and_then(|threads| NonZero::new(threads.count()));
        Options {
            threads: threads.unwrap_or(options.threads),
            max_sessions: self.max_sessions.map_or(options.max_sessions, Count::count),
            max_requests: self.max_requests.count(),
            max_connections: self.max_connections.count(),
            max_connections_per_address: self.max_connections_per_address.count(),
            max_failures: u32::try_from(self.max_failures.0).unwrap_or(u32::MAX),
            trusted_proxies: self.trusted_proxy.clone(),
            header_timeout: self.header_timeout.seconds(),
            body_timeout: self.body_timeout.seconds(),
            write_timeout: self.write_timeout.seconds(),
            resume_window: self.resume_window.seconds(),
            drain: self.drain.seconds(),
            successors: self.successor.clone(),
            cors_origins: self.cors_origin.clone(),
            in_band_auth: self.in_band_auth,
            console: self.console,
            demo: self.demo,
            documented_status: self.documented_status,
            ..options
        }
    }

    /// Returns the token policy of the gateway's authority.
    #[must_use]
    pub fn policy(&self) -> Policy {
        Policy {
            at_limit: match self.token_limit {
                TokenLimit::Refuse => AtLimit::Refuse,
                TokenLimit::Evict => AtLimit::Evict,
            },
            refreshing: match self.refresh_tokens {
                RefreshTokens::Keep => Refreshing::Keep,
                RefreshTokens::Rotate => Refreshing::Rotate,
            },
        }
    }

    /// Returns the lifetime of access tokens.
    #[must_use]
    pub fn token_lifetime(&self) -> Duration {
        self.token_lifetime.seconds()
    }

    /// Returns the directory of the gateway's projects and tokens.
    ///
    /// # Errors
    /// Returns [`ConfigError::Incomplete`] if no directory is configured.
    pub fn state(&self) -> Result<&PathBuf, ConfigError> {
        self.state.as_ref().ok_or(ConfigError::Incomplete {
            key: "gateway.state",
            reason: "the gateway needs a directory for its state: --state, or state in [gateway] of the \
                     configuration file",
        })
    }

    /// Returns the files of the certificate and its key, if TLS is configured.
    ///
    /// # Errors
    /// Returns [`ConfigError::Incomplete`] if only one of the two is given.
    pub fn tls_files(&self) -> Result<Option<TlsFiles>, ConfigError> {
        match (&self.tls_cert, &self.tls_key) {
            (None, None) => Ok(None),
            (Some(certificates), Some(key)) => Ok(Some(TlsFiles {
                certificates: certificates.clone(),
                key: key.clone(),
                key_is_guarded: secret::is_systemd_credential(key),
            })),
            (given, _) => Err(ConfigError::Incomplete {
                key: if given.is_some() { "gateway.tls_key" } else { "gateway.tls_cert" },
                reason: "tls_cert and tls_key go together",
            }),
        }
    }
}
