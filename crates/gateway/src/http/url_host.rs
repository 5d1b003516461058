//! Hosts whose addresses clients may name.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// Host whose addresses clients may name, written as `HOST` or `HOST:PORT`. Without a port, the standard
/// ports of `http` and `https` are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UrlHost {
    host: Host,
    port: Option<u16>,
}

/// Error of a text that is no [`UrlHost`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected HOST or HOST:PORT, such as files.example or 10.0.0.5:8080")]
pub struct BadUrlHost;

impl UrlHost {
    /// Returns whether an address is one of this host and port.
    pub(crate) fn admits(&self, url: &Url) -> bool {
        let is_port =
            self.port.map_or(url.port().is_none(), |port| url.port_or_known_default() == Some(port));
        is_port && url.host().is_some_and(|host| host.to_owned() == self.host)
    }

    /// Returns whether this is the host with this address, at the standard ports: who finds an address by a
    /// name can't tell the port.
    pub(crate) fn is_address(&self, address: IpAddr) -> bool {
        if self.port.is_some() {
            return false;
        }
        match (&self.host, address) {
            (Host::Ipv4(host), IpAddr::V4(address)) => *host == address,
            (Host::Ipv6(host), IpAddr::V6(address)) => *host == address,
            _ => false,
        }
    }
}

impl FromStr for UrlHost {
    type Err = BadUrlHost;

    fn from_str(text: &str) -> Result<UrlHost, BadUrlHost> {
        // The colons of an IPv6 address are in brackets.
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, Some(port.parse().ok().filter(|port| *port > 0).ok_or(BadUrlHost)?))
            }
            _ => (text, None),
        };
        let host = Host::parse(host).ok().filter(|_| !host.contains('*')).ok_or(BadUrlHost)?;
        Ok(UrlHost { host, port })
    }
}

impl TryFrom<String> for UrlHost {
    type Error = BadUrlHost;

    fn try_from(text: String) -> Result<UrlHost, BadUrlHost> {
        text.parse()
    }
}

impl From<UrlHost> for String {
    fn from(host: UrlHost) -> String {
        host.to_string()
    }
}

impl fmt::Display for UrlHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => write!(f, "{}", self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_written_as_in_an_address() {
        for good in
            ["files.example", "files.example:8080", "10.0.0.5", "10.0.0.5:1", "[::1]", "[fd00::1]:8080"]
        {
            assert_eq!(good.parse::<UrlHost>().unwrap().to_string(), good);
        }
        assert_eq!("FILES.Example".parse::<UrlHost>().unwrap().to_string(), "files.example");
        for bad in ["", ":80", "a:0", "a:70000", "a:b", "*.example", "http://a", "a/b", "::1", "a b"] {
            assert_eq!(bad.parse::<UrlHost>(), Err(BadUrlHost), "{bad}");
        }
    }
}
