//! Base address of a service.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

/// Base address of a service: `https://host[:port][/prefix]`. Plain `http` is accepted for loopback
/// addresses only, since a token sent unencrypted over a network must be considered lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint(Url);

/// Name or address of a host, as [`Endpoint::host`] returns it: in lower case, without brackets around
/// IPv6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// Error parsing a text that names no host.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a host such as b.speech.example or 10.0.0.2, without a scheme, a port or a path")]
pub struct BadHostName;

/// Error parsing an [`Endpoint`]. Names the address without query, user or password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadEndpoint {
    /// The text is not a URL.
    #[error("endpoint is not an address such as https://host:port ({0})")]
    Syntax(url::ParseError),
    /// The URL has another scheme, or no host.
    #[error("endpoint {0} should begin with https:// (or http:// for loopback)")]
    Scheme(String),
    /// The URL uses `http` to another machine.
    #[error("endpoint {0} would send the token unencrypted: use https (http is for loopback only)")]
    Plaintext(String),
    /// The URL has a user, a password, a query or a fragment.
    #[error("endpoint {0} carries a user, a query or a fragment, which have no place in a base address")]
    Extras(String),
}

impl Endpoint {
    /// Returns the URL of `path` (with its leading slash) at this endpoint.
    #[must_use]
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        url
    }

    /// Returns the name or address of the host, as TCP and TLS take it (without brackets around IPv6).
    #[must_use]
    pub fn host(&self) -> String {
        match self.0.host().expect("checked when parsed") {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        }
    }

    /// Returns whether the endpoint is on `host`.
    #[must_use]
    pub fn is_on(&self, host: &HostName) -> bool {
        self.host() == host.0
    }

    /// Returns the TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().expect("both schemes have one")
    }

    /// Returns whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.0.scheme() == "https"
    }
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Endpoint, BadEndpoint> {
        let mut url = Url::parse(text.trim()).map_err(BadEndpoint::Syntax)?;
        let extras = !url.username().is_empty()
            || url.password().is_some()
            || url.query().is_some()
            || url.fragment().is_some();
        // The secrets are removed: from here on the address can be printed.
        let _ = (url.set_username(""), url.set_password(None));
        url.set_query(None);
        url.set_fragment(None);
        if extras {
            return Err(BadEndpoint::Extras(url.into()));
        }
        let loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => return Err(BadEndpoint::Scheme(url.into())),
        };
        match url.scheme() {
            "https" => Ok(Endpoint(url)),
            "http" if loopback => Ok(Endpoint(url)),
            "http" => Err(BadEndpoint::Plaintext(url.into())),
            _ => Err(BadEndpoint::Scheme(url.into())),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl TryFrom<String> for Endpoint {
    type Error = BadEndpoint;

    fn try_from(text: String) -> Result<Endpoint, BadEndpoint> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> String {
        endpoint.to_string()
    }
}

impl FromStr for HostName {
    type Err = BadHostName;

    fn from_str(text: &str) -> Result<HostName, BadHostName> {
        let bare = text.trim();
        let address = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(bare);
        if let Ok(address) = address.parse::<IpAddr>() {
            return Ok(HostName(address.to_string()));
        }
        let host = Host::parse(bare).map_err(|_| BadHostName)?.to_string();
        // The URL standard accepts more characters, such as `*`, which would look like a pattern and
        // match no host.
        let is_plain = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        if is_plain { Ok(HostName(host)) } else { Err(BadHostName) }
    }
}

impl TryFrom<String> for HostName {
    type Error = BadHostName;

    fn try_from(text: String) -> Result<HostName, BadHostName> {
        text.parse()
    }
}

impl From<HostName> for String {
    fn from(host: HostName) -> String {
        host.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_may_be_plain() {
        for good in
            ["http://127.0.0.1:8080", "http://[::1]:1", "http://localhost", "https://speech.example/api"]
        {
            assert!(good.parse::<Endpoint>().is_ok(), "{good}");
        }
        let refused = |text: &str| text.parse::<Endpoint>().unwrap_err();
        assert!(matches!(refused("http://10.0.0.1"), BadEndpoint::Plaintext(_)));
        assert!(matches!(refused("http://localhost.example"), BadEndpoint::Plaintext(_)));
        assert!(matches!(refused("ftp://localhost"), BadEndpoint::Scheme(_)));
        assert!(matches!(refused("speech.example"), BadEndpoint::Syntax(_)));
        assert!(!refused("https://user:canary@speech.example?token=canary").to_string().contains("canary"));
    }

    #[test]
    fn a_host_is_named_without_what_an_address_has_around_it() {
        let on = |host: &str, endpoint: &str| {
            endpoint.parse::<Endpoint>().unwrap().is_on(&host.parse::<HostName>().unwrap())
        };
        assert!(on("B.Speech.Example", "https://b.speech.example:8443/prefix"));
        assert!(on("::1", "http://[::1]:1") && on("[0:0::1]", "http://[::1]:1"));
        assert!(on("127.0.0.1", "http://127.0.0.1:2") && !on("localhost", "http://127.0.0.1:2"));
        assert!(!on("speech.example", "https://b.speech.example"), "a subdomain is another host");
        for wrong in
            ["", "https://b.example", "b.example:8443", "b.example/", "user@b.example", "b example", "*"]
        {
            assert_eq!(wrong.parse::<HostName>(), Err(BadHostName), "{wrong}");
        }
    }

    #[test]
    fn paths_are_appended() {
        let endpoint: Endpoint = "https://speech.example/api/".parse().unwrap();
        assert_eq!(endpoint.url("/tts").as_str(), "https://speech.example/api/tts");
        assert_eq!((endpoint.host().as_str(), endpoint.port()), ("speech.example", 443));
    }
}
