//! HTTP client of the tests that ask a gateway as any program does, with an implementation that isn't ours.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// Longest time that a gateway may send nothing: a test that hangs is to fail.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// Returns a client for gateways on loopback, which trusts no certificate.
pub(crate) fn http_client() -> reqwest::Result<Client> {
    http_client_over(tls(RootCertStore::empty()))
}

/// Returns a client that sets up TLS by `config`.
pub(crate) fn http_client_over(config: ClientConfig) -> reqwest::Result<Client> {
    Client::builder().no_proxy().tls_backend_preconfigured(config).read_timeout(READ_TIMEOUT).build()
}

/// Returns the configuration of a client that trusts `roots`.
pub(crate) fn tls(roots: RootCertStore) -> ClientConfig {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}
