//! TLS as a client: rustls with the system's certificates.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// TLS can't be set up on this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The cryptography has no protocol version in common with us.
    #[error("tls: {0}")]
    Config(#[from] tokio_rustls::rustls::Error),
    /// The HTTP client didn't take the configuration.
    #[error("http client: {0}")]
    Client(String),
}

/// A client configuration that trusts the certificates in the system's store. A certificate in it that can't be read
/// is passed over: one bad file must not disable the others. A machine without any store can still speak to loopback.
///
/// # Errors
/// [`TlsError::Config`] where rustls refuses its own defaults.
pub fn client_config() -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    let store = rustls_native_certs::load_native_certs();
    let (_, unreadable) = roots.add_parsable_certificates(store.certs);
    tracing::debug!(trusted = roots.len(), unreadable, "system certificates");
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
