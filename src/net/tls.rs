//! TLS client configuration: rustls with the system's certificates, and optionally those of a file.

use std::error::Error;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::verify_server_cert_signed_by_trust_anchor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{self, CertificateError, ClientConfig, RootCertStore};

use super::Stream;

/// Largest certificate file that is read, in bytes; the system's own has a quarter of that.
const MAX_FILE: u64 = 1024 * 1024;

/// Error setting up TLS on this machine, before any connection. The caller names another file, or leaves it
/// out; an error without a file is a defect of the build.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The cryptography provider supports none of the protocol versions.
    #[error("TLS cannot be set up")]
    Config(#[source] Box<dyn Error + Send + Sync>),
    /// The HTTP client for public files rejected the configuration.
    #[error("HTTP client for public files cannot be set up")]
    Client(#[source] Box<dyn Error + Send + Sync>),
    /// A certificate file cannot be read.
    #[error("certificates {path}: cannot be read")]
    Read {
        /// Path of the file.
        path: PathBuf,
        /// Underlying I/O error.
        #[source]
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
        let mut roots = system_roots();
        for (index, certificate) in read_certificates(path)?.into_iter().enumerate() {
            roots.add(certificate).map_err(|_| damaged(path, index + 1))?;
        }
        Trust::roots(roots)
    }

    fn roots(roots: RootCertStore) -> Result<Trust, TlsError> {
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Config(error.into()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Trust { config: Arc::new(config) })
    }

    /// Returns the rustls configuration.
    #[cfg(any(feature = "download", feature = "url-source"))]
    pub(super) fn config(&self) -> &ClientConfig {
        &self.config
    }

    /// Performs the TLS handshake with `host`.
    pub(super) async fn encrypt(&self, host: &str, tcp: TcpStream) -> io::Result<Box<dyn Stream>> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(TlsConnector::from(self.config.clone()).connect(name, tcp).await?))
    }
}

/// Checks that clients can accept the certificate of a server, in DER, at the time `now` since the Unix
/// epoch. The check covers what does not depend on the client: the certificate's period, and that it is
/// meant for a server. Issuer and host name are not checked. `path` names the certificate's file in errors.
///
/// # Errors
/// Returns [`TlsError::Certificates`] with the reason for which each client refuses the certificate.
pub fn check_server_certificate(certificate: &[u8], path: &Path, now: Duration) -> Result<(), TlsError> {
    let certificate = CertificateDer::from(certificate);
    let checked = ParsedCertificate::try_from(&certificate).and_then(|certificate| {
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            // Without roots a certificate that passes all other checks ends as one of an unknown issuer.
            &RootCertStore::empty(),
            &[],
            UnixTime::since_unix_epoch(now),
            ring::default_provider().signature_verification_algorithms.all,
        )
    });
    match checked {
        Ok(()) | Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => Ok(()),
        Err(rustls::Error::InvalidCertificate(fault)) => {
            Err(TlsError::Certificates { path: path.to_owned(), reason: described(&fault) })
        }
        Err(error) => Err(TlsError::Config(error.into())),
    }
}

/// Reads the certificates of a PEM file, at least one.
fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let refused = |reason: String| TlsError::Certificates { path: path.to_owned(), reason };
    let mut text = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut text))
        .map_err(|error| TlsError::Read { path: path.to_owned(), error })?;
    if text.len() as u64 > MAX_FILE {
        return Err(refused(format!("is larger than {MAX_FILE} bytes")));
    }
    let certificates = CertificateDer::pem_slice_iter(&text)
        .enumerate()
        .map(|(index, certificate)| certificate.map_err(|_| damaged(path, index + 1)))
        .collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() {
        return Err(refused("holds no certificate, PEM was expected".to_owned()));
    }
    Ok(certificates)
}

fn damaged(path: &Path, number: usize) -> TlsError {
    TlsError::Certificates { path: path.to_owned(), reason: format!("certificate {number} is damaged") }
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let store = rustls_native_certs::load_native_certs();
    let (_, unreadable) = roots.add_parsable_certificates(store.certs);
    tracing::debug!(trusted = roots.len(), unreadable, "system certificates");
    roots
}

/// Returns the TLS failure that caused `error`, if there is one.
pub(super) fn tls_failure(error: &(dyn Error + 'static)) -> Option<String> {
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
    match error {
        rustls::Error::InvalidCertificate(fault) => format!("certificate {}", described(fault)),
        error => format!("tls: {error}"),
    }
}

/// Returns the predicate of a sentence about a certificate that is refused.
fn described(fault: &CertificateError) -> String {
    use CertificateError as Fault;
    let described = match fault {
        Fault::Expired | Fault::ExpiredContext { .. } => "has expired",
        Fault::NotValidYet | Fault::NotValidYetContext { .. } => {
            "is not valid yet, or this machine's clock is wrong"
        }
        Fault::NotValidForName | Fault::NotValidForNameContext { .. } => "is for another host",
        Fault::UnknownIssuer => "is from an unknown issuer",
        Fault::Other(other) if is_authority(&*other.0) => {
            "is a certificate authority's own (CA:TRUE), not a server's: the server needs one with CA:FALSE, \
             signed by that authority or by itself"
        }
        Fault::Other(other) => return format!("is not accepted: {}", other.0),
        fault => return format!("is not accepted: {fault}"),
    };
    described.to_owned()
}

/// Returns whether the verifier refused a certificate of a server because its basic constraints (RFC 5280,
/// 4.2.1.9) mark it as an authority's. rustls passes this error of webpki on as an opaque one.
fn is_authority(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(webpki::Error::CaUsedAsEndEntity))
}
