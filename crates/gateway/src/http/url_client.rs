//! Requests to addresses that clients name. A client must not reach by the gateway what it can't reach by
//! itself, so only hosts that the operator lists are asked, and a name that is listed must not lead into a
//! private network (server-side request forgery).

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use http::header::LOCATION;
use http::{HeaderMap, Method, StatusCode};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, Response};
use tokio::net::lookup_host;
use tokio::sync::OnceCell;
use tokio::task::JoinError;
use url::Url;

use super::error::ApiError;
use super::request_log;
use super::url_host::UrlHost;
use voxline::error::chain;
use voxline::net::{TlsError, client_builder};

/// Most redirects of one request.
const REDIRECTS_MAX: usize = 5;

/// A client for addresses that clients name.
pub(crate) struct UrlClient {
    hosts: Arc<[UrlHost]>,
    client: OnceCell<Client>,
}

/// Reason why an address is not asked, or its server has no answer. No message has the path or the query of
/// an address, which may hold secrets.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UrlError {
    #[error("addresses are not used: the operator of the gateway lists their hosts with --url-host")]
    Off,
    #[error("the address should begin with http:// or https://")]
    Invalid,
    #[error("host {0} is not used: the operator of the gateway lists hosts with --url-host")]
    NotListed(String),
    #[error("the address leads to another host")]
    Redirected,
    #[error("the address leads to too many others")]
    Redirects,
    #[error("the server of the address answers {0}")]
    Status(StatusCode),
    #[error("the server of the address can't be asked")]
    Unreachable(#[source] reqwest::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Panicked(#[from] JoinError),
}

impl From<UrlError> for ApiError {
    fn from(error: UrlError) -> ApiError {
        match error {
            UrlError::Tls(_) | UrlError::Panicked(_) => ApiError::internal(&chain(&error)),
            error => ApiError::bad_request(400, chain(&error).to_string()),
        }
    }
}

impl From<reqwest::Error> for UrlError {
    fn from(error: reqwest::Error) -> UrlError {
        UrlError::Unreachable(error.without_url())
    }
}

impl UrlClient {
    pub(crate) fn new(hosts: &[UrlHost]) -> UrlClient {
        UrlClient { hosts: hosts.into(), client: OnceCell::new() }
    }

    /// Returns whether no address is used at all.
    pub(crate) fn is_off(&self) -> bool {
        self.hosts.is_empty()
    }

    /// Parses an address, and checks that its host is listed.
    ///
    /// # Errors
    /// Returns [`UrlError::Off`], [`UrlError::Invalid`] or [`UrlError::NotListed`].
    pub(crate) fn check(&self, address: &str) -> Result<Url, UrlError> {
        if self.is_off() {
            return Err(UrlError::Off);
        }
        let url = Url::parse(address).map_err(|_| UrlError::Invalid)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UrlError::Invalid);
        }
        if self.hosts.iter().any(|host| host.admits(&url)) {
            return Ok(url);
        }
        let shown: String = url.host_str().unwrap_or_default().chars().take(100).collect();
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Err(UrlError::NotListed(format!("{shown}{port}")))
    }

    /// Fetches what is at an address. It is not read yet. Redirects are followed within the host.
    ///
    /// # Errors
    /// Returns [`UrlError`] if the host or a redirect is not listed, or the server has no such thing.
    pub(crate) async fn get(
        &self,
        mut url: Url,
    ) -> Result<impl Stream<Item = Result<Bytes, reqwest::Error>> + Send + 'static, UrlError> {
        let client = self.client().await?;
        for _ in 0..=REDIRECTS_MAX {
            let response = client.get(url.clone()).send().await?;
            if !response.status().is_redirection() {
                return match response.status() {
                    status if status.is_success() => Ok(response.bytes_stream()),
                    status => Err(UrlError::Status(status)),
                };
            }
            url = self.target(&url, &response)?;
        }
        Err(UrlError::Redirects)
    }

    /// Returns where a redirect leads to.
    fn target(&self, from: &Url, response: &Response) -> Result<Url, UrlError> {
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let target = location.and_then(|location| from.join(location).ok());
        let target = target.ok_or(UrlError::Status(response.status()))?;
        if target.host() != from.host() {
            return Err(UrlError::Redirected);
        }
        self.check(target.as_str())
    }

    /// Sends a request with a body, and returns the status of the answer. Redirects are not followed.
    ///
    /// # Errors
    /// Returns [`UrlError`] if there is no answer.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<StatusCode, UrlError> {
        let request = self.client().await?.request(method, url).headers(headers).body(body);
        Ok(request.send().await?.status())
    }

    async fn client(&self) -> Result<&Client, UrlError> {
        let make = || async {
            let hosts = self.hosts.clone();
            // The trusted roots are read from the disk.
            let make = move || -> Result<Client, UrlError> {
                let builder = client_builder()?.dns_resolver(Arc::new(PublicResolver { hosts }));
                builder.build().map_err(UrlError::from)
            };
            request_log::spawn_blocking(make).await?
        };
        self.client.get_or_try_init(make).await
    }
}

impl fmt::Debug for UrlClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UrlClient")
    }
}

/// A resolver whose names have public addresses, and those that the operator lists. The check is made on the
/// addresses that are connected to, so that a name can't change between the two.
struct PublicResolver {
    hosts: Arc<[UrlHost]>,
}

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let hosts = self.hosts.clone();
        Box::pin(async move {
            let is_usable = |address: &SocketAddr| {
                let address = address.ip();
                is_public(address) || hosts.iter().any(|host| host.is_address(address))
            };
            let usable: Vec<SocketAddr> = lookup_host((name.as_str(), 0)).await?.filter(is_usable).collect();
            if usable.is_empty() {
                return Err(
                    io::Error::other("its name leads to a private address, which is not listed").into()
                );
            }
            let usable: Addrs = Box::new(usable.into_iter());
            Ok(usable)
        })
    }
}

/// Returns whether an address is one of the public internet (IANA's special-purpose address registries).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => address.to_ipv4_mapped().map_or_else(|| is_public_v6(address), is_public_v4),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match (a, b) {
        // This network, private, loopback, link-local, and what lies above multicast.
        (0 | 10 | 127 | 224.., _) | (169, 254) | (172, 16..=31) | (192, 168) => true,
        // Carrier-grade NAT, and benchmarks.
        (100, 64..=127) | (198, 18 | 19) => true,
        // Protocol assignments, documentation, 6to4 relays.
        (192, 0) => matches!(c, 0 | 2),
        (192, 88) => c == 99,
        (198, 51) => c == 100,
        (203, 0) => c == 113,
        _ => false,
    };
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    // Global unicast is 2000::/3. Of it, 2001::/23 is for protocols such as Teredo, 2002::/16 is 6to4, and
    // 2001:db8::/32 and 3fff::/20 are for documentation.
    let is_special = matches!((a, b), (0x2001, 0..=0x01FF | 0x0DB8) | (0x2002, _) | (0x3FFF, 0..=0x0FFF));
    a & 0xE000 == 0x2000 && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_private_networks_are_told_from_public_ones() {
        for public in ["1.1.1.1", "100.63.0.1", "172.32.0.1", "192.0.1.1", "223.255.255.1", "2606:4700::1"] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2001:db8::1",
            "2002:a00:1::",
            "fc00::1",
            "fe80::1",
            "ff02::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn only_listed_hosts_are_asked_at_their_ports() {
        let hosts = ["files.example", "10.0.0.5:8080", "[::1]:81"].map(|host| host.parse().unwrap());
        let client = UrlClient::new(&hosts);
        for good in [
            "http://files.example/a.wav",
            "https://FILES.example:443/a?b",
            "http://user:secret@10.0.0.5:8080",
            "http://[::1]:81/",
            "http://0x0a.0.0.5:8080/",
        ] {
            assert!(client.check(good).is_ok(), "{good}");
        }
        for bad in [
            "http://files.example:8080/",
            "http://files.example./",
            "http://a.files.example/",
            "http://10.0.0.5/",
            "http://[::1]/",
            "http://other/?token=secret",
            "ftp://files.example/",
            "file:///etc/passwd",
            "files.example/a.wav",
            "",
        ] {
            let error = client.check(bad).unwrap_err().to_string();
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(matches!(UrlClient::new(&[]).check("http://files.example/"), Err(UrlError::Off)));
    }
}
