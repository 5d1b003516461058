//! Addresses of services, and the TLS and HTTP clients that connect to them, with one set of trusted
//! roots for HTTP and WebSocket.

mod endpoint;
pub(crate) mod refusal;
mod tls;

use std::error::Error;
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

/// Returns whether a failed request certainly did not reach the server: there was no connection, or the connection
/// ended before any of the request was written to it.
pub(crate) fn never_left(error: &reqwest::Error) -> bool {
    error.is_connect() || is_unwritten(error)
}

/// Returns whether hyper gave the request back unwritten: it cancels a request whose connection ends first.
fn is_unwritten(error: &(dyn Error + 'static)) -> bool {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.filter_map(|error| error.downcast_ref()).any(hyper::Error::is_canceled)
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

#[cfg(test)]
mod tests {
    use hyper::client::conn::http1;
    use hyper_util::rt::TokioIo;
    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn a_request_is_unwritten_if_its_connection_ended_before() {
        let request = || http::Request::post("/token").body(String::from("{}")).expect("a valid request");
        let (near, far) = tokio::io::duplex(1024);
        let (mut client, connection) = http1::handshake(TokioIo::new(near)).await.expect("no I/O yet");
        drop(far);
        let (sent, _) = tokio::join!(client.send_request(request()), connection);
        assert!(is_unwritten(&sent.expect_err("nobody answers")));

        // The server has read the request: it may have acted on it.
        let (near, mut far) = tokio::io::duplex(1024);
        let (mut client, connection) = http1::handshake(TokioIo::new(near)).await.expect("no I/O yet");
        let reading = async move {
            let mut head = [0; 16];
            far.read_exact(&mut head).await.map(|_| head)
        };
        let (sent, _, read) = tokio::join!(client.send_request(request()), connection, reading);
        assert_eq!(&read.expect("the request arrives"), b"POST /token HTTP");
        assert!(!is_unwritten(&sent.expect_err("nobody answers")));
    }
}
