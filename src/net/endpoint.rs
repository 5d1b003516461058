//! Base address of a service.

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use http::Uri;
use serde::{Deserialize, Serialize};

use super::UriError;

/// Base address of a service: `https://host[:port][/prefix]`. Plain `http` is accepted for loopback
/// addresses only, since a token sent unencrypted over a network must be considered lost. Without the
/// feature `tls` nothing else is accepted.
///
/// A host name beyond ASCII is given in its encoded form (`xn--...`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Endpoint {
    tls: bool,
    host: HostName,
    port: u16,
    /// Path before those of the service, without a slash at its end.
    prefix: String,
}

/// Name or address of a host, as [`Endpoint::host`] returns it: in lower case, without brackets around
/// IPv6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostName(String);

/// Error parsing a text that names no host.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a host such as b.speech.example or 10.0.0.2, without a scheme, a port or a path")]
pub struct HostNameError;

/// Error parsing an [`Endpoint`]. Names the address without query, user or password, and the form that is
/// expected.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndpointError {
    /// The text is not a URL.
    #[error("endpoint is not an address such as https://host:port ({0})")]
    Syntax(String),
    /// The URL has another scheme than `https` and `http`.
    #[error("endpoint {0} should begin with https:// (or http:// for loopback)")]
    Scheme(String),
    /// The URL uses `http` to another machine.
    #[error("endpoint {0} would send the token unencrypted: use https (http is for loopback only)")]
    Plaintext(String),
    /// The URL has a user, a password, a query or a fragment.
    #[error("endpoint {0} carries a user, a query or a fragment, which have no place in a base address")]
    Extras(String),
    /// The URL uses `https`, and the library was built without it.
    #[error("endpoint {0} needs TLS, which this build is without: enable the feature `tls` of voxline")]
    NoTls(String),
}

impl Endpoint {
    /// Returns the URL of `path` (with its leading slash) at this endpoint.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{self}{path}")
    }

    /// Returns the URL of `path` as a request has it. The path must be a constant, with what follows it
    /// [encoded](query).
    ///
    /// # Errors
    /// Returns [`UriError`] if the URL is too long for a request (65,534 bytes).
    pub(crate) fn uri(&self, path: &str) -> Result<Uri, UriError> {
        let url = self.url(path);
        url.parse().map_err(|error: http::uri::InvalidUri| UriError { bytes: url.len(), error: error.into() })
    }

    /// Returns the name or address of the host, as TCP and TLS take it (without brackets around IPv6).
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host.0
    }

    /// Returns whether the endpoint is on `host`.
    #[must_use]
    pub fn is_on(&self, host: &HostName) -> bool {
        self.host == *host
    }

    /// Returns the TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns whether the connection is encrypted.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Returns the address without its path.
    pub(super) fn origin(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let (open, close) = if self.host.0.contains(':') { ("[", "]") } else { ("", "") };
        let port = Some(self.port).filter(|port| *port != Endpoint::default_port(self.tls));
        let port = port.map_or_else(String::new, |port| format!(":{port}"));
        format!("{scheme}://{open}{}{close}{port}", self.host)
    }

    /// Returns whether `other` has the same scheme, host and port.
    #[cfg(any(feature = "oauth", feature = "speech"))]
    pub(super) fn is_same_origin(&self, other: &Endpoint) -> bool {
        (self.tls, &self.host, self.port) == (other.tls, &other.host, other.port)
    }

    /// Returns the port of addresses that name none.
    fn default_port(tls: bool) -> u16 {
        if tls { 443 } else { 80 }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Endpoint, EndpointError> {
        let syntax = |why: &str| EndpointError::Syntax(why.to_owned());
        // `Uri` drops fragments.
        let (address, fragment) =
            text.trim().split_once('#').map_or((text.trim(), false), |(a, _)| (a, true));
        let uri: Uri = address.parse().map_err(|error: http::uri::InvalidUri| syntax(&error.to_string()))?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(syntax("no scheme"));
        };
        let (user, place) =
            authority.as_str().rsplit_once('@').map_or((false, authority.as_str()), |(_, p)| (true, p));
        let host: HostName = authority.host().parse().map_err(|_| syntax("invalid host"))?;
        let port = match &place[authority.host().len()..] {
            "" | ":" => None,
            port => Some(port_number(port).ok_or_else(|| syntax("invalid port number"))?),
        };
        if !uri.path().is_ascii() {
            return Err(syntax("invalid path"));
        }
        let shown = || format!("{scheme}://{place}{}", uri.path().trim_end_matches('/'));
        if user || fragment || uri.query().is_some() {
            return Err(EndpointError::Extras(shown()));
        }
        let tls = match scheme {
            "https" if cfg!(feature = "tls") => true,
            "https" => return Err(EndpointError::NoTls(shown())),
            "http" if host.is_loopback() => false,
            "http" => return Err(EndpointError::Plaintext(shown())),
            _ => return Err(EndpointError::Scheme(shown())),
        };
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Endpoint { tls, host, port: port.unwrap_or(Endpoint::default_port(tls)), prefix })
    }
}

/// Returns the port of `:port`. `Uri` accepts other text behind an IPv6 address, and `u16` a sign.
fn port_number(text: &str) -> Option<u16> {
    let digits = text.strip_prefix(':')?;
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.origin(), self.prefix)
    }
}

impl TryFrom<String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: String) -> Result<Endpoint, EndpointError> {
        text.parse()
    }
}

impl TryFrom<&String> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: &String) -> Result<Endpoint, EndpointError> {
        text.parse()
    }
}

impl TryFrom<&str> for Endpoint {
    type Error = EndpointError;

    fn try_from(text: &str) -> Result<Endpoint, EndpointError> {
        text.parse()
    }
}

/// Conversion of the error that an [`Endpoint`] taken as it is doesn't have.
impl From<Infallible> for EndpointError {
    fn from(never: Infallible) -> EndpointError {
        match never {}
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> String {
        endpoint.to_string()
    }
}

impl HostName {
    /// Returns whether the host is this machine, whatever a resolver says.
    fn is_loopback(&self) -> bool {
        self.0 == "localhost" || self.0.parse().is_ok_and(|address: IpAddr| address.is_loopback())
    }
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(text: &str) -> Result<HostName, HostNameError> {
        let bare = text.trim();
        if let Some(address) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let address: Ipv6Addr = address.parse().map_err(|_| HostNameError)?;
            return Ok(HostName(address.to_string()));
        }
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(HostName(address.to_string()));
        }
        let is_plain = bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
        // A last label of digits is that of an IPv4 address, which resolvers read in several notations.
        let last = bare.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        let is_name = is_plain && !last.is_empty() && !last.bytes().all(|byte| byte.is_ascii_digit());
        if is_name { Ok(HostName(bare.to_ascii_lowercase())) } else { Err(HostNameError) }
    }
}

/// Returns the query of a URL, with its question mark. Everything is encoded but what RFC 3986, section 2.3,
/// leaves unreserved.
pub(crate) fn query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut query = String::new();
    for (name, value) in pairs {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(name);
        query.push('=');
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    query.push(byte.into());
                }
                byte => query.push_str(&format!("%{byte:02X}")),
            }
        }
    }
    query
}

impl TryFrom<String> for HostName {
    type Error = HostNameError;

    fn try_from(text: String) -> Result<HostName, HostNameError> {
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
        assert!(matches!(refused("http://10.0.0.1"), EndpointError::Plaintext(_)));
        assert!(matches!(refused("http://localhost.example"), EndpointError::Plaintext(_)));
        assert!(matches!(refused("ftp://localhost"), EndpointError::Scheme(_)));
        assert!(matches!(refused("speech.example"), EndpointError::Syntax(_)));
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
            assert_eq!(wrong.parse::<HostName>(), Err(HostNameError), "{wrong}");
        }
    }

    #[test]
    fn paths_are_appended() {
        let endpoint: Endpoint = "https://speech.example/api/".parse().unwrap();
        assert_eq!(endpoint.url("/tts"), "https://speech.example/api/tts");
        assert_eq!((endpoint.host(), endpoint.port()), ("speech.example", 443));
        let named = query([("session", "a b&c=d/\u{fc}"), ("n", "1.5")]);
        assert_eq!(named, "?session=a%20b%26c%3Dd%2F%C3%BC&n=1.5");
        assert_eq!(endpoint.uri(&format!("/tts{named}")).unwrap().query(), Some(&named[1..]));
    }

    #[test]
    fn a_port_is_digits_behind_a_colon() {
        for wrong in [
            "https://[2001:db8::1]8443",
            "http://[::1].evil.example",
            "https://h:+443",
            "https://h:65536",
            "https://h:4 43",
        ] {
            assert!(matches!(wrong.parse::<Endpoint>(), Err(EndpointError::Syntax(_))), "{wrong}");
        }
        assert_eq!("https://h:".parse::<Endpoint>().unwrap().port(), 443);
    }

    /// A service can name a session, and a user a voice, in as many bytes as they like.
    #[test]
    fn an_address_too_long_for_a_request_is_an_error() {
        let endpoint: Endpoint = "https://speech.example".parse().unwrap();
        let path = format!("/tts?voice={}", "a".repeat(70_000));
        assert!(endpoint.uri(&path).unwrap_err().to_string().starts_with("address of 700"));
    }

    #[test]
    fn one_service_has_one_address() {
        for (given, kept) in [
            ("HTTPS://Speech.Example:443/", "https://speech.example"),
            (" https://speech.example:8443/api/ ", "https://speech.example:8443/api"),
            ("http://localhost:80", "http://localhost"),
            ("http://localhost:443", "http://localhost:443"),
            ("http://[0:0::1]:8080", "http://[::1]:8080"),
            ("https://speech.example:", "https://speech.example"),
        ] {
            let endpoint: Endpoint = given.parse().unwrap();
            assert_eq!(endpoint.to_string(), kept);
            assert_eq!(endpoint.to_string().parse(), Ok(endpoint));
        }
    }

    #[test]
    fn what_is_no_base_address_is_told_without_its_secrets() {
        let told = |text: &str| text.parse::<Endpoint>().unwrap_err().to_string();
        for wrong in [
            "",
            "https://",
            "https:///tts",
            "https://speech.example:99999",
            "https://speech.example:x",
            "https://canary:canary",
            "https://127.1",
            "https://0x7f.0.0.1",
            "https://[::g]",
            "https://b\u{fc}cher.example",
            "https://speech.example/\u{fc}",
            "https://speech.example/a b",
            "/canary",
        ] {
            let told = told(wrong);
            assert!(
                told.starts_with("endpoint is not an address such as https://host:port ("),
                "{wrong}: {told}"
            );
            assert!(!told.contains("canary"), "{told}");
        }
        for address in
            ["https://canary@a.example/b", "https://a.example/b?canary", "https://a.example/b#canary"]
        {
            assert_eq!(
                told(address),
                "endpoint https://a.example/b carries a user, a query or a fragment, which have no place in a base \
                 address",
            );
        }
        assert_eq!(
            told("wss://a.example/"),
            "endpoint wss://a.example should begin with https:// (or http:// for loopback)"
        );
    }
}
