//! Where a service is, and the TLS and HTTP clients that reach it: one set of trusted roots for HTTP and WebSocket.

mod endpoint;
pub(crate) mod refusal;
mod tls;

use std::time::Duration;

use tokio_rustls::rustls::ClientConfig;

pub use endpoint::{BadEndpoint, BadHostName, Endpoint, HostName};
pub(crate) use tls::objection;
pub use tls::{TlsError, Trust};

/// How long a TCP connection and its TLS handshake may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may say nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

const USER_AGENT: &str = concat!("voxline/", env!("CARGO_PKG_VERSION"));

/// An HTTP client that trusts the system's roots, follows redirects within one origin only (a token must not travel
/// to another host), uses no proxy (neither does the WebSocket, and a proxy would see what goes to loopback in clear),
/// and gives up on a server that says nothing for a minute.
///
/// # Errors
/// [`TlsError`] where TLS can't be set up.
pub fn http_client() -> Result<reqwest::Client, TlsError> {
    http_client_trusting(&Trust::system()?)
}

/// [`http_client`], for a service that only `trust` knows.
///
/// # Errors
/// [`TlsError`] where TLS can't be set up.
pub fn http_client_trusting(trust: &Trust) -> Result<reqwest::Client, TlsError> {
    let same_origin = reqwest::redirect::Policy::custom(|attempt| {
        let origin = attempt.previous().last().map(reqwest::Url::origin);
        match origin == Some(attempt.url().origin()) && attempt.previous().len() <= 5 {
            true => attempt.follow(),
            false => attempt.stop(),
        }
    });
    client_with(trust, same_origin, reqwest::ClientBuilder::no_proxy)
}

/// An HTTP client for public files, which hubs keep on other hosts: it follows redirects anywhere, goes through the
/// proxy the environment names, and must not be given a token.
///
/// # Errors
/// [`TlsError`] where TLS can't be set up.
pub fn download_client() -> Result<reqwest::Client, TlsError> {
    client_with(&Trust::system()?, reqwest::redirect::Policy::limited(5), std::convert::identity)
}

/// A blocking client for recordings on public servers, with the caller's idea of a good redirect; otherwise as
/// [`download_client`].
pub(crate) fn blocking_client(
    redirects: reqwest::redirect::Policy,
) -> Result<reqwest::blocking::Client, TlsError> {
    reqwest::blocking::Client::builder()
        .tls_backend_preconfigured(ClientConfig::clone(Trust::system()?.config()))
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        // Of a blocking client this is the longest wait for one read, not for the whole.
        .timeout(READ_TIMEOUT)
        .redirect(redirects)
        .build()
        .map_err(|error| TlsError::Client(error.to_string()))
}

fn client_with(
    trust: &Trust,
    redirects: reqwest::redirect::Policy,
    proxy: fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder,
) -> Result<reqwest::Client, TlsError> {
    proxy(reqwest::Client::builder())
        .tls_backend_preconfigured(ClientConfig::clone(trust.config()))
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(redirects)
        .build()
        .map_err(|error| TlsError::Client(error.to_string()))
}

/// Why a request failed, for a message that names the service. The error's own text repeats the URL with its query, and
/// hides what is wrong with a certificate behind "error sending request".
pub(crate) fn reason(error: &reqwest::Error) -> String {
    objection(error).unwrap_or_else(|| {
        let kind = match error {
            error if error.is_timeout() => "no answer in time",
            error if error.is_connect() => "connection failed",
            error if error.is_redirect() => "redirected too often",
            _ => "connection lost",
        };
        kind.to_owned()
    })
}

/// The body of an answer, as far as `limit` bytes go.
pub(crate) async fn read_answer(response: &mut reqwest::Response, limit: usize) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        body.extend_from_slice(&part[..part.len().min(limit - body.len())]);
        if body.len() == limit {
            break;
        }
    }
    Ok(body)
}
