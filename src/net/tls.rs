//! TLS as a client: rustls with the system's certificates, and those of a file where one is given.

use std::error::Error;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore};

/// The longest file of certificates read; the system's own has a quarter of that.
const MAX_FILE: u64 = 1024 * 1024;

/// TLS can't be set up on this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The cryptography has no protocol version in common with us.
    #[error("tls: {0}")]
    Config(#[from] rustls::Error),
    /// The HTTP client didn't take the configuration.
    #[error("http client: {0}")]
    Client(String),
    /// A file that should hold certificates can't be read.
    #[error("certificates {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file that should hold certificates holds none, or something that is none.
    #[error("certificates {path}: {reason}")]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it. Its contents are not repeated: it may be a key, named by mistake.
        reason: String,
    },
}

/// Who is believed to be a service: whoever shows a certificate for its name that leads to one of these roots.
#[derive(Clone, Debug)]
pub struct Trust {
    config: Arc<ClientConfig>,
}

impl Trust {
    /// The roots in the system's store. A certificate in it that can't be read is passed over: one bad file must not
    /// disable the others. A machine without any store can still speak to loopback.
    ///
    /// # Errors
    /// [`TlsError::Config`] where rustls refuses its own defaults.
    pub fn system() -> Result<Trust, TlsError> {
        Trust::roots(system_roots())
    }

    /// The roots in the system's store, and those in the PEM file at `path`: for a service whose certificate is from an
    /// authority of one's own.
    ///
    /// # Errors
    /// [`TlsError::Read`] and [`TlsError::Certificates`] where the file is no use, and the same as [`Trust::system`].
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

    /// What rustls makes of it.
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

/// What TLS has to say against the peer, where that is why `error` happened.
pub(crate) fn objection(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref() {
            return Some(worded(error));
        }
        // An io::Error keeps what it was made of from those who ask for its source.
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
