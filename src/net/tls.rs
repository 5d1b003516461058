//! TLS client configuration: rustls with the system's certificates, and optionally those of a file.

use std::error::Error;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore};

/// Largest certificate file that is read, in bytes; the system's own has a quarter of that.
const MAX_FILE: u64 = 1024 * 1024;

/// Error setting up TLS on this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The cryptography provider supports none of the protocol versions.
    #[error("tls: {0}")]
    Config(#[from] rustls::Error),
    /// The HTTP client rejected the configuration.
    #[error("http client: {0}")]
    Client(String),
    /// A certificate file cannot be read.
    #[error("certificates {path}: {error}")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Underlying I/O error.
        error: io::Error,
    },
    /// A certificate file holds no certificate, or something other than certificates.
    #[error("certificates {path}: {reason}")]
    Certificates {
        /// Path of the file.
        path: PathBuf,
        /// Description of the defect. The contents are not repeated: the file may be a key, named by
        /// mistake.
        reason: String,
    },
}

/// Trusted roots of a TLS client. A service is trusted if its certificate is for its name and chains to
/// one of the roots.
#[derive(Clone, Debug)]
pub struct Trust {
    config: Arc<ClientConfig>,
}

impl Trust {
    /// Trusts the roots in the system's store. Unreadable certificates in the store are skipped: one bad
    /// file must not disable the others. A machine without any store can still connect to loopback.
    ///
    /// # Errors
    /// Returns [`TlsError::Config`] if rustls rejects its own defaults.
    pub fn system() -> Result<Trust, TlsError> {
        Trust::roots(system_roots())
    }

    /// Trusts the roots in the system's store and those in the PEM file at `path`, for a service whose
    /// certificate comes from a private authority.
    ///
    /// # Errors
    /// Returns [`TlsError::Read`] or [`TlsError::Certificates`] if the file is unusable, and the error of
    /// [`Trust::system`] otherwise.
    pub fn with_file(path: &Path) -> Result<Trust, TlsError> {
        let certificates = |reason: String| TlsError::Certificates { path: path.to_owned(), reason };
        let mut text = Vec::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text))
            .map_err(|error| TlsError::Read { path: path.to_owned(), error })?;
        if text.len() as u64 > MAX_FILE {
            return Err(certificates(format!("is larger than {MAX_FILE} bytes")));
        }
        let mut roots = system_roots();
        let mut count = 0;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            count += 1;
            let garbled = || certificates(format!("certificate {count} is damaged"));
            roots.add(certificate.map_err(|_| garbled())?).map_err(|_| garbled())?;
        }
        match count {
            0 => Err(certificates("holds no certificate, PEM was expected".to_owned())),
            _ => Trust::roots(roots),
        }
    }

    fn roots(roots: RootCertStore) -> Result<Trust, TlsError> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Trust { config: Arc::new(config) })
    }

    /// Returns the rustls configuration.
    pub(crate) fn config(&self) -> &Arc<ClientConfig> {
        &self.config
    }
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let store = rustls_native_certs::load_native_certs();
    let (_, unreadable) = roots.add_parsable_certificates(store.certs);
    tracing::debug!(trusted = roots.len(), unreadable, "system certificates");
    roots
}

/// Returns the TLS failure that caused `error`, if there is one.
pub(crate) fn objection(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref() {
            return Some(worded(error));
        }
        // The source of an `io::Error` skips the error that it wraps, so `get_ref` is tried first.
        next = match error.downcast_ref().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

fn worded(error: &rustls::Error) -> String {
    use CertificateError as Fault;
    let rustls::Error::InvalidCertificate(fault) = error else { return format!("tls: {error}") };
    let fault = match fault {
        Fault::Expired | Fault::ExpiredContext { .. } => "has expired",
        Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
            "is not valid yet, or this machine's clock is wrong"
        }
        Fault::NotValidForName | Fault::NotValidForNameContext { .. } => "is for another host",
        Fault::UnknownIssuer => "is from an unknown issuer",
        fault => return format!("certificate is not accepted: {fault}"),
    };
    format!("certificate {fault}")
}
