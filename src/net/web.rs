//! HTTP clients for public files, which services do not serve and which take no token: reqwest, with the
//! roots of the other connections.

use reqwest::redirect::Policy;
use tokio_rustls::rustls::ClientConfig;

use super::{CONNECT_TIMEOUT, READ_TIMEOUT, TlsError, Trust, USER_AGENT};

/// Creates an HTTP client for public files, which hubs keep on other hosts. The client follows redirects
/// to any host, uses the proxy that the environment names, and must not be given a token.
///
/// # Errors
/// Returns [`TlsError`] if TLS cannot be set up.
#[cfg(feature = "download")]
pub fn download_client() -> Result<reqwest::Client, TlsError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(ClientConfig::clone(Trust::system()?.config()))
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(Policy::limited(5))
        .build()
        .map_err(|error| TlsError::Client(error.into()))
}

/// Returns a builder of HTTP clients for addresses that others name. Such a client has the roots and the
/// timeouts of the other connections, follows no redirects, and uses no proxy.
///
/// # Errors
/// Returns [`TlsError`] if TLS cannot be set up.
#[cfg(feature = "download")]
pub fn client_builder() -> Result<reqwest::ClientBuilder, TlsError> {
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(ClientConfig::clone(Trust::system()?.config()))
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
        .redirect(Policy::none())
        .no_proxy())
}

/// Creates a blocking client for recordings on public servers, with the caller's redirect policy. Otherwise
/// it is like the client of downloads.
#[cfg(feature = "url-source")]
pub(crate) fn blocking_client(redirects: Policy) -> Result<reqwest::blocking::Client, TlsError> {
    reqwest::blocking::Client::builder()
        .tls_backend_preconfigured(ClientConfig::clone(Trust::system()?.config()))
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        // In a blocking client this limits each read, not the whole request.
        .timeout(READ_TIMEOUT)
        .redirect(redirects)
        .build()
        .map_err(|error| TlsError::Client(error.into()))
}
