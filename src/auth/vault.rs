//! Tokens on disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::token::{RefreshToken, TokenSet};
use crate::net::Endpoint;

/// The format's version; a file of another is not read.
const VERSION: u32 = 1;
/// The longest file read.
const MAX_FILE: u64 = 64 * 1024;

/// Why tokens can't be kept or read. Names the file, never its contents.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// The file or its directory can't be read or written.
    #[error("token file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could have read the tokens.
    #[error("token file {path} can be read by others: run chmod 600 on it, or delete it to get new tokens")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// The name leads elsewhere.
    #[error("token file {path} is not a regular file: remove it")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// The contents are not ours.
    #[error("token file {path} is damaged: delete it to get new tokens")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// Keeps the tokens of one client of one service in a file that only its owner can read. The file is replaced as a
/// whole: a reader sees the old tokens or the new ones.
#[derive(Clone, Debug)]
pub struct Vault {
    path: PathBuf,
}

/// The file's contents.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    access_token: String,
    refresh_token: Option<String>,
    granted_at: u64,
    lifetime: u64,
}

impl Vault {
    /// The vault in `directory` for the tokens that `client_id` has at `endpoint`. Creates nothing yet.
    #[must_use]
    pub fn new(directory: &Path, endpoint: &Endpoint, client_id: &str) -> Vault {
        let digest = Sha256::digest(format!("{endpoint} {client_id}"));
        let name: String = digest[..16].iter().map(|byte| format!("{byte:02x}")).collect();
        Vault { path: directory.join(format!("{name}.json")) }
    }

    /// Where the tokens are.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The tokens kept; `None` where there are none yet.
    ///
    /// # Errors
    /// See [`VaultError`]. A file that others could read is refused, since its tokens may be known.
    pub fn load(&self) -> Result<Option<TokenSet>, VaultError> {
        let path = || self.path.clone();
        let io_error = |source| VaultError::Io { path: path(), source };
        match fs::symlink_metadata(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io_error(error)),
            Ok(metadata) if !metadata.is_file() => return Err(VaultError::NotAFile { path: path() }),
            Ok(metadata) if exposed(&metadata) => return Err(VaultError::Exposed { path: path() }),
            Ok(_) => {}
        }
        let mut text = String::new();
        let file = File::open(&self.path).map_err(io_error)?;
        file.take(MAX_FILE).read_to_string(&mut text).map_err(io_error)?;
        let stored: Stored = serde_json::from_str(&text).map_err(|_| VaultError::Damaged { path: path() })?;
        if stored.version != VERSION {
            return Err(VaultError::Damaged { path: path() });
        }
        Ok(Some(TokenSet {
            access: SecretString::from(stored.access_token),
            refresh: stored.refresh_token.map(|token| RefreshToken(SecretString::from(token))),
            granted_at: Duration::from_secs(stored.granted_at),
            lifetime: Duration::from_secs(stored.lifetime),
        }))
    }

    /// Keeps `tokens`; they are on the disk when this returns.
    ///
    /// # Errors
    /// [`VaultError::Io`]; the file then still holds what it held.
    pub fn save(&self, tokens: &TokenSet) -> Result<(), VaultError> {
        self.replace(tokens).map_err(|source| VaultError::Io { path: self.path.clone(), source })
    }

    fn replace(&self, tokens: &TokenSet) -> io::Result<()> {
        let stored = Stored {
            version: VERSION,
            access_token: tokens.access.expose_secret().to_owned(),
            refresh_token: tokens.refresh.as_ref().map(|token| token.0.expose_secret().to_owned()),
            granted_at: tokens.granted_at.as_secs(),
            lifetime: tokens.lifetime.as_secs(),
        };
        let directory = self.path.parent().expect("a vault is a file in a directory");
        create_private_dir(directory)?;
        // tempfile creates its files with mode 0600.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(&serde_json::to_vec(&stored)?)?;
        file.flush()?;
        file.as_file().sync_all()?;
        file.persist(&self.path).map_err(|error| error.error)?;
        // The rename itself is durable only once the directory is.
        File::open(directory)?.sync_all()
    }
}

/// Whether others than the owner may do anything with the file.
#[cfg(unix)]
pub(crate) fn exposed(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o077 != 0
}

#[cfg(not(unix))]
pub(crate) fn exposed(_: &fs::Metadata) -> bool {
    false
}

/// Creates `directory`, open to its owner alone, unless it is there.
#[cfg(unix)]
pub(crate) fn create_private_dir(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

/// Creates an empty file that only its owner can read, unless it is there.
#[cfg(unix)]
pub(crate) fn create_private_file(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    fs::OpenOptions::new().append(true).create(true).mode(0o600).open(path).map(drop)
}

#[cfg(not(unix))]
pub(crate) fn create_private_file(path: &Path) -> io::Result<()> {
    fs::OpenOptions::new().append(true).create(true).open(path).map(drop)
}

#[cfg(not(unix))]
pub(crate) fn create_private_dir(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)
}
