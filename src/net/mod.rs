//! Addresses of services, and the TLS and HTTP clients that connect to them, with one set of trusted
//! roots for HTTP and WebSocket.

mod endpoint;
pub(crate) mod refusal;
mod tls;

use std::time::Duration;

use tokio_rustls::rustls::ClientConfig;

pub use endpoint::{BadEndpoint, BadHostName, Endpoint, HostName};
pub(crate) use tls::objection;
pub use tls::{TlsError, Trust, check_server_certificate};

/// Time limit of a TCP connection and its TLS handshake together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that a server may send nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

const USER_AGENT: &str = concat!("voxline/", env!("CARGO_PKG_VERSION"));

/// Creates an HTTP client that trusts the system's roots. The client follows redirects within one origin
/// only, since a token must not be sent to another host. It uses no proxy: the WebSocket uses none
/// either, and a proxy would see unencrypted loopback traffic. It gives up on a server that sends nothing
/// for a minute.
///
/// # Errors
/// Returns [`TlsError`] if TLS cannot be set up.
pub fn http_client() -> Result<reqwest::Client, TlsError> {
    http_client_trusting(&Trust::system()?)
}

/// Creates an [`http_client`] that trusts the roots of `trust`.
///
/// # Errors
/// Returns [`TlsError`] if TLS cannot be set up.
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

/// Creates an HTTP client for public files, which hubs keep on other hosts. The client follows redirects
/// to any host, uses the proxy that the environment names, and must not be given a token.
///
/// # Errors
/// Returns [`TlsError`] if TLS cannot be set up.
pub fn download_client() -> Result<reqwest::Client, TlsError> {
    client_with(&Trust::system()?, reqwest::redirect::Policy::limited(5), std::convert::identity)
}

/// Creates a blocking client for recordings on public servers, with the caller's redirect policy;
/// otherwise like [`download_client`].
pub(crate) fn blocking_client(
    redirects: reqwest::redirect::Policy,
) -> Result<reqwest::blocking::Client, TlsError> {
    reqwest::blocking::Client::builder()
        .tls_backend_preconfigured(ClientConfig::clone(Trust::system()?.config()))
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        // In a blocking client this limits each read, not the whole request.
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

/// Returns the reason why a request failed, for a message that names the service. The error's own text
/// repeats the URL with its query, and hides certificate problems behind "error sending request".
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

/// Reads the body of a response, at most `limit` bytes.
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
