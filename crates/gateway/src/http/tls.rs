//! TLS termination in the gateway: rustls with a certificate and a key from files, which may be replaced
//! while the gateway runs.

use std::fs::File;
use std::io::{self, Read};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest, Sha256};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

use voxline::net::InProcessListener;
use voxline_support::{hex, private_file};

/// Longest file that is read, in bytes. A certificate chain has a few thousand bytes.
const MAX_FILE: u64 = 1024 * 1024;
/// Application protocol that is negotiated within TLS: the gateway speaks no other.
const ALPN: &[u8] = b"http/1.1";

/// A TCP listener, with TLS or without, or a listener within this process.
pub struct Listener(pub(crate) Door);

/// The connections of a listener.
pub(crate) enum Door {
    Tcp(TcpListener, Option<Arc<Tls>>),
    InProcess(InProcessListener),
}

impl Listener {
    /// Creates a listener that accepts only TLS connections.
    #[must_use]
    pub fn with_tls(tcp: TcpListener, tls: Arc<Tls>) -> Listener {
        Listener(Door::Tcp(tcp, Some(tls)))
    }
}

/// Creates a listener for plain connections: for loopback, or behind a proxy that terminates TLS.
impl From<TcpListener> for Listener {
    fn from(tcp: TcpListener) -> Listener {
        Listener(Door::Tcp(tcp, None))
    }
}

/// Creates a listener for clients in the same process. They count as clients on loopback.
impl From<InProcessListener> for Listener {
    fn from(listener: InProcessListener) -> Listener {
        Listener(Door::InProcess(listener))
    }
}

/// Files of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The server's certificate and the chain up to its root, in PEM.
    pub certificates: PathBuf,
    /// The key of the server's certificate, in PEM: PKCS #8, PKCS #1 or SEC 1.
    pub key: PathBuf,
    /// True if something other than the file's mode keeps others from the key, as with systemd's
    /// credentials.
    pub key_is_guarded: bool,
}

/// A certificate with its key, as last read from their files.
pub struct Tls {
    files: TlsFiles,
    served: RwLock<Served>,
}

/// The certificate and key that new connections get.
struct Served {
    config: Arc<ServerConfig>,
    /// SHA-256 of the certificate in hexadecimal, as `openssl x509 -fingerprint -sha256` computes it.
    fingerprint: String,
}

/// Error for an unusable certificate or key. The operator replaces the [file](BadTls::path); a gateway that
/// runs keeps the previous ones.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BadTls {
    /// A file can't be read.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// A file doesn't have the expected content.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Description of the fault.
        reason: String,
    },
    /// Other users could have read the key.
    #[error("{path}: can be read by others: {remedy}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Change to the file after which it is accepted.
        remedy: &'static str,
    },
    /// The key doesn't belong to the certificate.
    #[error("{key}: is not the key of the certificate {certificates}")]
    Mismatch {
        /// The file of the certificate.
        certificates: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
}

impl BadTls {
    /// Returns the file that has to be changed.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            BadTls::Read { path, .. } | BadTls::File { path, .. } | BadTls::Exposed { path, .. } => path,
            BadTls::Mismatch { key, .. } => key,
        }
    }
}

impl Tls {
    /// Reads the certificate and the key.
    ///
    /// # Errors
    /// Returns [`BadTls`] if a file can't be read or used, if others could have read the key, or if the key
    /// doesn't belong to the certificate.
    pub fn load(files: TlsFiles) -> Result<Tls, BadTls> {
        let served = RwLock::new(read(&files)?);
        Ok(Tls { files, served })
    }

    /// Reads the certificate and the key as [`Tls::load`] does, and returns the server's certificate in DER.
    ///
    /// # Errors
    /// Returns every problem with the files.
    pub fn check(files: &TlsFiles) -> Result<Vec<u8>, Vec<BadTls>> {
        // invariant: each file is read once, since a pipe can't be read again.
        let chain = read_chain(&files.certificates);
        let key = read_key(&files.key, files.key_is_guarded);
        match (chain, key) {
            (Ok(chain), Ok(key)) => {
                let certificate = chain[0].to_vec();
                served(files, chain, key).map(|_| certificate).map_err(|error| vec![error])
            }
            (chain, key) => Err(chain.err().into_iter().chain(key.err()).collect()),
        }
    }

    /// Reads the certificate and the key again, for new connections. If they can't be used, the old ones
    /// stay in force. Either outcome is logged.
    pub fn reload(&self) {
        let path = self.files.certificates.display();
        match read(&self.files) {
            Ok(new) => {
                let sha256 = new.fingerprint.clone();
                let served = self.served.write();
                let old = mem::replace(&mut *served.unwrap_or_else(PoisonError::into_inner), new);
                let replaced = old.fingerprint;
                if sha256 == replaced {
                    tracing::info!(
                        target: "voxline::operation",
                        certificate = %path,
                        sha256,
                        "certificate and key reloaded, the certificate is unchanged"
                    );
                } else {
                    tracing::info!(
                        target: "voxline::operation",
                        certificate = %path,
                        sha256,
                        replaced,
                        "certificate and key reloaded"
                    );
                }
            }
            Err(error) => {
                tracing::error!(%error, "certificate and key not reloaded, keeping the previous ones");
            }
        }
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.served.read().unwrap_or_else(PoisonError::into_inner).config.clone().into()
    }
}

fn read(files: &TlsFiles) -> Result<Served, BadTls> {
    let chain = read_chain(&files.certificates)?;
    served(files, chain, read_key(&files.key, files.key_is_guarded)?)
}

/// Returns what new connections get with the contents of `files`.
fn served(
    files: &TlsFiles,
    chain: Vec<CertificateDer<'static>>,
    key_der: PrivateKeyDer<'static>,
) -> Result<Served, BadTls> {
    let TlsFiles { certificates, key, .. } = files;
    let fingerprint = chain.first().map(|certificate| hex(&Sha256::digest(certificate))).unwrap_or_default();
    let bad = |error| match error {
        rustls::Error::InconsistentKeys(_) => {
            BadTls::Mismatch { certificates: certificates.clone(), key: key.clone() }
        }
        rustls::Error::InvalidCertificate(_) => file(certificates, "certificate 1 is damaged"),
        // For a bad key, rustls gives no further reason.
        _ => file(key, "is no private key that serves for TLS"),
    };
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(bad)?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key_der).map_err(bad)?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Served { config: Arc::new(config), fingerprint })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, BadTls> {
    let (pem, _) = read_file(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(file(path, "holds no certificate, PEM was expected")),
        Ok(chain) => Ok(chain),
        Err(_) => Err(file(path, "holds a damaged certificate")),
    }
}

fn read_key(path: &Path, is_guarded: bool) -> Result<PrivateKeyDer<'static>, BadTls> {
    let (pem, exposed) = read_file(path)?;
    if let Some(remedy) = exposed
        && !is_guarded
    {
        return Err(BadTls::Exposed { path: path.to_owned(), remedy });
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|error| match error {
        pem::Error::NoItemsFound => file(path, "holds no private key, PEM was expected"),
        _ => file(path, "holds a damaged private key"),
    })
}

/// Returns the contents of a file and, if others could have read them, the remedy.
fn read_file(path: &Path) -> Result<(Vec<u8>, Option<&'static str>), BadTls> {
    let read = || -> io::Result<(Vec<u8>, Option<&'static str>)> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let exposed = private_file::exposes_secret(&metadata).then(|| private_file::secret_remedy(&metadata));
        let mut contents = Vec::new();
        file.take(MAX_FILE + 1).read_to_end(&mut contents)?;
        Ok((contents, exposed))
    };
    let (contents, exposed) = read().map_err(|error| BadTls::Read { path: path.to_owned(), error })?;
    if contents.len() as u64 > MAX_FILE {
        return Err(file(path, &format!("is larger than {MAX_FILE} bytes")));
    }
    Ok((contents, exposed))
}

fn file(path: &Path, reason: &str) -> BadTls {
    BadTls::File { path: path.to_owned(), reason: reason.to_owned() }
}
