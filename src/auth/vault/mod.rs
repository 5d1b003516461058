//! Tokens on disk.

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

#[cfg(feature = "test-util")]
pub use self::file::VaultStep;
#[cfg(not(feature = "test-util"))]
use self::file::VaultStep;
use self::format::BadContents;
pub use self::format::VaultKey;
use super::slots::Slots;
use super::token::TokenSet;
use crate::net::Endpoint;

/// How long to wait for another process that holds the lock: longer than a request to the token endpoint may take.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// How often to look whether it is free: nobody tells.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Why tokens can't be kept or read. Names the file, never its contents.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// The file or its directory can't be read or written.
    #[error("token file {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// Others could have read the tokens.
    #[error("token file {path} can be read by others: run chmod 600 on it, or delete it to get new tokens")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// Others could replace the tokens.
    #[error("token directory {path} can be changed by others: run chmod 700 on it, as its owner")]
    ExposedDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The file is another user's.
    #[error("token file {path} belongs to another user: remove it, or name another directory")]
    NotOurs {
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
    #[error("token file {path} is damaged")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A later version wrote it.
    #[error("token file {path} was written by a later version of voxline: use that, or delete the file")]
    Newer {
        /// The file.
        path: PathBuf,
    },
    /// It is encrypted, and no key was given.
    #[error("token file {path} is encrypted: name the file of its key (vault_key_file)")]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// The key is not the one it was encrypted by.
    #[error(
        "token file {path} can't be decrypted: give the key it was encrypted by, or delete it to get new tokens"
    )]
    Undecryptable {
        /// The file.
        path: PathBuf,
    },
    /// Another process holds the lock.
    #[error("token file {path} is locked by another process for more than {} s", LOCK_TIMEOUT.as_secs())]
    Locked {
        /// The file.
        path: PathBuf,
    },
}

impl VaultError {
    fn io(path: &Path, error: io::Error) -> VaultError {
        VaultError::Io { path: path.to_owned(), source: Arc::new(error) }
    }
}

/// What is kept of one client of one service.
#[derive(Clone, Debug, Default)]
pub struct Account {
    /// The tokens in force.
    pub tokens: Option<TokenSet>,
    /// What is known of the project's slots.
    pub slots: Slots,
    /// A refresh was asked for, and its answer not kept. Where the service replaces refresh tokens, the one here may be
    /// dead, and nobody has its successor.
    pub refreshing: bool,
}

/// Keeps the account of one client of one service in a file that only its owner can read, encrypted where a key is
/// given. The file is replaced as a whole: a reader, and whoever comes after a crash, sees the old account or the new one.
///
/// Any number of processes may share it. Whoever changes it holds a lock from reading to writing.
#[derive(Clone)]
pub struct Vault {
    path: PathBuf,
    key: Option<VaultKey>,
    #[cfg(feature = "test-util")]
    on_step: Option<Arc<dyn Fn(VaultStep) -> io::Result<()> + Send + Sync>>,
}

impl Vault {
    /// The vault in `directory` for what `client_id` has at `endpoint`. Creates nothing yet.
    #[must_use]
    pub fn new(directory: &Path, endpoint: &Endpoint, client_id: &str) -> Vault {
        let digest = Sha256::digest(format!("{endpoint} {client_id}"));
        Vault {
            path: directory.join(format!("{}.vault", hex(&digest[..16]))),
            key: None,
            #[cfg(feature = "test-util")]
            on_step: None,
        }
    }

    /// The same, encrypted by `key` from the next change on. What is there in clear can still be read.
    #[must_use]
    pub fn encrypted(self, key: VaultKey) -> Vault {
        Vault { key: Some(key), ..self }
    }

    /// The same, which asks `fault` after each step of a change whether the disk fails there.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn failing(self, fault: impl Fn(VaultStep) -> io::Result<()> + Send + Sync + 'static) -> Vault {
        Vault { on_step: Some(Arc::new(fault)), ..self }
    }

    /// Where the account is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the next change is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.key.is_some()
    }

    /// The account as it is now; an empty one where there is no file.
    ///
    /// # Errors
    /// See [`VaultError`]. A file that others could read is refused, since its tokens may be known.
    pub fn load(&self) -> Result<Account, VaultError> {
        let Some(bytes) = file::read(&self.path)? else { return Ok(Account::default()) };
        let path = || self.path.clone();
        format::decode(&bytes, self.key.as_ref()).map_err(|bad| match bad {
            BadContents::Damaged => VaultError::Damaged { path: path() },
            BadContents::Newer => VaultError::Newer { path: path() },
            BadContents::NoKey => VaultError::NoKey { path: path() },
            BadContents::Undecryptable => VaultError::Undecryptable { path: path() },
        })
    }

    /// Takes the lock, waiting while another process has it, and reads the account as it is then. A damaged file is set
    /// aside: what was in it is lost either way, and its owner can look at it.
    ///
    /// # Errors
    /// See [`VaultError`].
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
        let directory = self.path.parent().expect("a vault is a file in a directory");
        private_file::create_dir(directory).map_err(io_error)?;
        file::check_directory(directory)?;
        file::open_lock(&self.path.with_extension("lock")).map_err(io_error)
    }

    fn load_or_set_aside(&self) -> Result<Account, VaultError> {
        match self.load() {
            Err(VaultError::Damaged { path }) => {
                let aside = path.with_extension("damaged");
                tracing::error!(file = %path.display(), aside = %aside.display(), "token file is damaged, set aside");
                fs::rename(&path, &aside).map_err(|error| VaultError::io(&path, error))?;
                Ok(Account::default())
            }
            account => account,
        }
    }
}

/// Runs `work` on a thread that may wait for the disk.
async fn on_disk<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, VaultError> {
    let ended = |_| VaultError::io(path, io::Error::other("the program ends"));
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Vault({})", self.path.display())
    }
}

/// A vault that nobody else changes.
#[derive(Debug)]
pub struct LockedVault {
    vault: Vault,
    /// The account: what was read, then what is to be saved.
    pub account: Account,
    /// Closing the file gives the lock back, as does the end of the process.
    _lock: File,
}

impl LockedVault {
    /// Saves the account, which is on the disk when this returns; and the lock is still held.
    ///
    /// # Errors
    /// [`VaultError::Io`]; the file then still holds what it held, or the new account whole.
    pub async fn save(self) -> Result<LockedVault, VaultError> {
        let path = self.vault.path.clone();
        on_disk(&path, move || self.replace().map(|()| self)).await
    }

    fn replace(&self) -> Result<(), VaultError> {
        let Vault { path, key, .. } = &self.vault;
        let bytes = format::encode(&self.account, key.as_ref());
        let replaced = file::replace(path, &bytes, |step| self.step(step));
        replaced.map_err(|error| VaultError::io(path, error))
    }

    /// Removes the account.
    ///
    /// # Errors
    /// [`VaultError::Io`].
    pub async fn remove(self) -> Result<(), VaultError> {
        let path = self.vault.path.clone();
        let removing = path.clone();
        let remove = move || file::remove_all(&removing).map_err(|error| VaultError::io(&removing, error));
        on_disk(&path, remove).await
    }

    #[cfg(feature = "test-util")]
    fn step(&self, step: VaultStep) -> io::Result<()> {
        self.vault.on_step.as_ref().map_or(Ok(()), |fault| fault(step))
    }

    #[cfg(not(feature = "test-util"))]
    #[expect(clippy::unused_self, clippy::unnecessary_wraps, reason = "faults are for tests")]
    fn step(&self, _: VaultStep) -> io::Result<()> {
        Ok(())
    }
}
