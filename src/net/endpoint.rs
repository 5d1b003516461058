//! The address of a service.

use std::fmt;
use std::str::FromStr;

use url::{Host, Url};

/// The base address of a service: `https://host[:port][/prefix]`. Plain `http` is taken for loopback addresses only,
/// since a token in clear on a network is a token lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(Url);

/// Why an address can't be used. Names the address without query, user or password.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadEndpoint {
    /// Not an URL at all.
    #[error("endpoint is not an address such as https://host:port ({0})")]
    Syntax(url::ParseError),
    /// Another scheme, or no host.
    #[error("endpoint {0} should begin with https:// (or http:// for loopback)")]
    Scheme(String),
    /// `http` to another machine.
    #[error("endpoint {0} would send the token unencrypted: use https (http is for loopback only)")]
    Plaintext(String),
    /// User, password, query or fragment.
    #[error("endpoint {0} carries a user, a query or a fragment, which have no place in a base address")]
    Extras(String),
}

impl Endpoint {
    /// The URL of `path` (with its leading slash) at this endpoint.
    #[must_use]
    pub fn url(&self, path: &str) -> Url {
        let mut url = self.0.clone();
        let prefix = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{prefix}{path}"));
        url
    }

    /// The host's name or address, as TCP and TLS take it (no brackets around IPv6).
    #[must_use]
    pub fn host(&self) -> String {
        match self.0.host().expect("checked when parsed") {
            Host::Domain(name) => name.to_owned(),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        }
    }

    /// The TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.0.port_or_known_default().expect("both schemes have one")
    }

    /// Whether the connection is encrypted.
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
        // From here on the address can be printed.
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
    fn paths_are_appended() {
        let endpoint: Endpoint = "https://speech.example/api/".parse().unwrap();
        assert_eq!(endpoint.url("/tts").as_str(), "https://speech.example/api/tts");
        assert_eq!((endpoint.host().as_str(), endpoint.port()), ("speech.example", 443));
    }
}
