//! Token storage on disk.

mod file;
mod format;

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use voxline_support::{hex, private_file};

pub use self::file::{SystemDisk, VaultDisk};
use self::format::ContentsError;
pub use self::format::VaultKey;
use super::slots::Slots;
use super::token::TokenSet;
use crate::net::Endpoint;

/// Longest wait for a lock that another process holds: longer than a request to the token endpoint may
/// take.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval between attempts to take the lock, since no notification exists.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Error storing or reading tokens. Names the file, never its contents, and what the user may do about it.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// The file or its directory cannot be read or written.
    #[error("token file {path}: cannot be read or written")]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Underlying I/O error.
        source: Arc<io::Error>,
    },
    /// Other users could have read the tokens.
    #[error("token file {path} can be read by others: run chmod 600 on it, or remove it to get new tokens")]
    Exposed {
        /// Path of the file.
        path: PathBuf,
    },
    /// Other users could replace the tokens.
    #[error("token directory {path} can be changed by others: run chmod 700 on it as its owner")]
    ExposedDirectory {
        /// Path of the directory.
        path: PathBuf,
    },
    /// The file belongs to another user.
    #[error("token file {path} belongs to another user: remove it, or use another token directory")]
    NotOurs {
        /// Path of the file.
        path: PathBuf,
    },
    /// The path does not lead to a regular file.
    #[error("token file {path} is not a regular file: remove it")]
    NotAFile {
        /// Path of the file.
        path: PathBuf,
    },
    /// The contents are not those of a vault.
    #[error("token file {path} is damaged: remove it to get new tokens")]
    Damaged {
        /// Path of the file.
        path: PathBuf,
    },
    /// A later version of voxline wrote the file.
    #[error(
        "token file {path} was written by a later version of voxline: use that version, or remove the file to get \
         new tokens"
    )]
    Newer {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file is encrypted, and no key was given.
    #[error("token file {path} is encrypted, and no key is given: set vault_key_file")]
    NoKey {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file was encrypted by another key than the one given.
    #[error(
        "token file {path} can't be decrypted by the given key: set vault_key_file to the key that encrypted it, \
         or remove the file to get new tokens"
    )]
    Undecryptable {
        /// Path of the file.
        path: PathBuf,
    },
    /// Another process holds the lock.
    #[error(
        "token file {path} was locked by another process for {} s: try again, or end that process",
        LOCK_TIMEOUT.as_secs()
    )]
    Locked {
        /// Path of the file.
        path: PathBuf,
    },
}

impl VaultError {
    fn io(path: &Path, error: io::Error) -> VaultError {
        VaultError::Io { path: path.to_owned(), source: Arc::new(error) }
    }
}

/// Stored state of one client of one service.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// Tokens in force.
    pub tokens: Option<TokenSet>,
    /// Requests for the project's refresh-token slots.
    pub slots: Slots,
    /// True if a refresh was requested whose response was not kept. If the service rotates refresh
    /// tokens, the stored one may be invalid and its successor lost.
    pub refreshing: bool,
}

/// Store of the account of one client of one service, in a file that only its owner can read, encrypted
/// if a key is given. The file is replaced atomically: readers, even after a crash, see the old account
/// or the new one.
///
/// Any number of processes may share a vault. A process that changes it holds a lock from reading to
/// writing.
#[derive(Clone)]
pub struct Vault {
    path: PathBuf,
    key: Option<VaultKey>,
    disk: Arc<dyn VaultDisk>,
}

impl Vault {
    /// Creates the vault in `directory` for the account of `client_id` at `endpoint`. Creates no file
    /// yet.
    #[must_use]
    pub fn new(directory: &Path, endpoint: &Endpoint, client_id: &str) -> Vault {
        let digest = Sha256::digest(format!("{endpoint} {client_id}"));
        Vault {
            path: directory.join(format!("{}.vault", hex(&digest[..16]))),
            key: None,
            disk: Arc::new(SystemDisk),
        }
    }

    /// Encrypts the vault by `key` from the next change on. A plain file stays readable.
    #[must_use]
    pub fn encrypted(self, key: VaultKey) -> Vault {
        Vault { key: Some(key), ..self }
    }

    /// Changes the vault through `disk`: for tests of failures.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn with_disk(self, disk: impl VaultDisk + 'static) -> Vault {
        Vault { disk: Arc::new(disk), ..self }
    }

    /// Returns the path of the account's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether the next change is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.key.is_some()
    }

    /// Returns the current account, or an empty one if there is no file.
    ///
    /// # Errors
    /// Returns [`VaultError`] if the file cannot be read or decoded. A file that other users could read
    /// is refused, since they may know its tokens.
    pub fn load(&self) -> Result<Account, VaultError> {
        let Some(bytes) = file::read(&self.path)? else { return Ok(Account::default()) };
        let path = || self.path.clone();
        format::decode(&bytes, self.key.as_ref()).map_err(|bad| match bad {
            ContentsError::Damaged => VaultError::Damaged { path: path() },
            ContentsError::Newer => VaultError::Newer { path: path() },
            ContentsError::NoKey => VaultError::NoKey { path: path() },
            ContentsError::Undecryptable => VaultError::Undecryptable { path: path() },
        })
    }

    /// Takes the lock, waiting while another process holds it, and then reads the account. A damaged file
    /// is set aside for inspection, since its contents are lost either way.
    ///
    /// # Errors
    /// Returns [`VaultError`] if the lock cannot be taken, or if the account cannot be read.
    pub async fn lock(&self) -> Result<LockedVault, VaultError> {
        let vault = self.clone();
        let lock = on_disk(&self.path, move || vault.open_lock()).await?;
        let taken = async {
            loop {
                match lock.try_lock() {
                    Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_POLL).await,
                    taken => return taken,
                }
            }
        };
        match tokio::time::timeout(LOCK_TIMEOUT, taken).await {
            Ok(Ok(())) => {}
            Ok(Err(TryLockError::Error(error))) => return Err(VaultError::io(&self.path, error)),
            Ok(Err(TryLockError::WouldBlock)) | Err(_) => {
                return Err(VaultError::Locked { path: self.path.clone() });
            }
        }
        let vault = self.clone();
        let account = on_disk(&self.path, move || vault.load_or_set_aside()).await?;
        Ok(LockedVault { vault: self.clone(), account, _lock: lock })
    }

    fn open_lock(&self) -> Result<File, VaultError> {
        let io_error = |error| VaultError::io(&self.path, error);
        let directory = file::directory(&self.path);
        private_file::create_dir(directory).map_err(io_error)?;
        file::check_directory(directory)?;
        file::open_lock(&self.path.with_extension("lock")).map_err(io_error)
    }

    fn load_or_set_aside(&self) -> Result<Account, VaultError> {
        match self.load() {
            Err(VaultError::Damaged { path }) => {
                let aside = path.with_extension("damaged");
                fs::rename(&path, &aside).map_err(|error| VaultError::io(&path, error))?;
                tracing::error!(
                    file = %path.display(),
                    renamed_to = %aside.display(),
                    "token file is damaged and was renamed: new tokens are requested"
                );
                Ok(Account::default())
            }
            account => account,
        }
    }
}

/// Runs `work` on a thread that may block on the disk.
async fn on_disk<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    let ended = |_| VaultError::io(path, io::Error::other("interrupted by the end of the runtime"));
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({})", self.path.display())
    }
}

/// A vault that this process has locked against changes by others.
#[derive(Debug)]
pub struct LockedVault {
    vault: Vault,
    /// The account: as read at first, then as to be saved.
    pub account: Account,
    /// The lock, released when the file is closed or the process ends.
    _lock: File,
}

impl LockedVault {
    /// Saves the account, which is on disk when this method returns. The lock stays held.
    ///
    /// # Errors
    /// Returns [`VaultError::Io`] if the file cannot be written. The file then holds the previous account
    /// or the whole new one.
    pub async fn save(self) -> Result<LockedVault, VaultError> {
        let path = self.vault.path.clone();
        on_disk(&path, move || self.replace().map(|()| self)).await
    }

    fn replace(&self) -> Result<(), VaultError> {
        let Vault { path, key, disk } = &self.vault;
        let bytes = format::encode(&self.account, key.as_ref());
        file::replace(&**disk, path, &bytes).map_err(|error| VaultError::io(path, error))
    }

    /// Removes the account.
    ///
    /// # Errors
    /// Returns [`VaultError::Io`] if a file cannot be removed.
    pub async fn remove(self) -> Result<(), VaultError> {
        let path = self.vault.path.clone();
        on_disk(&path, move || {
            let Vault { path, disk, .. } = &self.vault;
            file::remove_all(&**disk, path).map_err(|error| VaultError::io(path, error))
        })
        .await
    }
}
