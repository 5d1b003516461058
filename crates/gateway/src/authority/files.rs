//! The files of the state: access checks, creation of a store, and backups.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, StorageError};

use super::store::{Change, Dump};
use voxline_support::private_file;

/// File name of the store.
pub(super) const STORE: &str = "authority.redb";

/// Reason why the state's files are not used. Each message says what helps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A directory in which other users could replace the store.
    #[error("state directory {path} can be changed by others: run chmod 700 on it, as its owner")]
    ExposedDirectory {
        /// Path of the directory.
        path: PathBuf,
    },
    /// A store that other users can read or write: the hashes of secrets, and the permissions they grant.
    #[error("gateway state {path} can be read or written by others: run chmod 600 on it, as its owner")]
    Exposed {
        /// Path of the store.
        path: PathBuf,
    },
    /// A directory or store that belongs to another user.
    #[error("gateway state {path} belongs to another user: act as that user, or name another directory")]
    NotOurs {
        /// Path of the directory or store.
        path: PathBuf,
    },
    /// A store path that is not a regular file.
    #[error("gateway state {path} is not a regular file: put the store itself there, or name its directory")]
    NotAFile {
        /// Path of the store.
        path: PathBuf,
    },
    /// A store that was truncated to nothing.
    #[error(
        "gateway state {path} is empty, which a store never is: restore a backup, or remove the file to begin without \
         projects and tokens"
    )]
    Empty {
        /// Path of the store.
        path: PathBuf,
    },
    /// A file whose contents are not a store.
    #[error("gateway state {path} is damaged ({reason}): restore a backup")]
    Damaged {
        /// Path of the store.
        path: PathBuf,
        /// Description of the damage.
        reason: String,
    },
    /// A store that another process has open.
    #[error("gateway state {path}: in use by a gateway that is starting or stopping, or by another command")]
    InUse {
        /// Path of the store.
        path: PathBuf,
    },
    /// A directory without a store to back up.
    #[error("no gateway state in {path}")]
    Missing {
        /// Path of the directory.
        path: PathBuf,
    },
    /// A backup file that exists already. A backup overwrites nothing.
    #[error("backup {path} exists already: name another file")]
    BackupExists {
        /// Path of the file.
        path: PathBuf,
    },
    /// A file that can't be read or written.
    #[error("{path}: {reason}")]
    Unusable {
        /// Path of the file or directory.
        path: PathBuf,
        /// Cause of the failure.
        reason: String,
    },
}

impl StateError {
    fn unusable(path: &Path, reason: impl ToString) -> StateError {
        StateError::Unusable { path: path.to_owned(), reason: reason.to_string() }
    }

    fn of_database(path: &Path, error: DatabaseError) -> StateError {
        let path = path.to_owned();
        match error {
            DatabaseError::DatabaseAlreadyOpen => StateError::InUse { path },
            DatabaseError::Storage(StorageError::Io(error)) if !is_nonsense(&error) => {
                StateError::unusable(&path, error)
            }
            // The file is truncated, overwritten, or was never a store.
            error => StateError::Damaged { path, reason: error.to_string() },
        }
    }
}

/// Returns whether an error says that the file was read and is not a store.
fn is_nonsense(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Opens the store in `directory`; both are created if missing. Refuses files that other users can access.
pub(super) fn open(directory: &Path) -> Result<Database, StateError> {
    private_file::create_dir(directory).map_err(|error| StateError::unusable(directory, error))?;
    check_directory(directory)?;
    let path = directory.join(STORE);
    if is_missing(&path)? {
        // If another process creates the store first, its store serves as well.
        write_new(&path, Change::create_tables)?;
    }
    check_store(&path)?;
    Database::open(&path).map_err(|error| StateError::of_database(&path, error))
}

/// Checks the files as [`open`] does, without changing any. Missing files are accepted.
pub(super) fn check(directory: &Path) -> Result<(), StateError> {
    if is_missing(directory)? {
        return Ok(());
    }
    check_directory(directory)?;
    let path = directory.join(STORE);
    if is_missing(&path)? { Ok(()) } else { check_store(&path) }
}

/// Refuses a directory without a store.
pub(crate) fn require_store(directory: &Path) -> Result<(), StateError> {
    if is_missing(&directory.join(STORE))? {
        return Err(StateError::Missing { path: directory.to_owned() });
    }
    Ok(())
}

/// Refuses a backup path that exists.
pub(crate) fn require_no_backup(path: &Path) -> Result<(), StateError> {
    if is_missing(path)? { Ok(()) } else { Err(StateError::BackupExists { path: path.to_owned() }) }
}

impl Dump {
    /// Writes a store with these records to the new file `path`, which only its owner can read. The file is
    /// on the disk when this returns.
    ///
    /// # Errors
    /// Returns [`StateError::BackupExists`] if the file exists, or [`StateError::Unusable`] if it can't be
    /// written.
    pub(crate) fn write(&self, path: &Path) -> Result<(), StateError> {
        if write_new(path, |change| change.restore(self))? {
            Ok(())
        } else {
            Err(StateError::BackupExists { path: path.to_owned() })
        }
    }
}

/// Creates a store, and moves it to `path` once all of it is on the disk: a crash never leaves a partial
/// store there. Returns whether the path was free.
fn write_new(path: &Path, fill: impl FnOnce(&Change) -> Result<(), redb::Error>) -> Result<bool, StateError> {
    let error = |error: io::Error| StateError::unusable(path, error);
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // The temporary file has mode 0600 from the start.
    let new = tempfile::Builder::new().prefix(".authority").tempfile_in(directory).map_err(error)?;
    let filled = || -> Result<(), redb::Error> {
        let database = Database::create(new.path())?;
        let change = Change(database.begin_write()?);
        fill(&change)?;
        change.0.commit()?;
        database.close()?;
        Ok(())
    };
    filled().map_err(|error| StateError::unusable(path, error))?;
    new.as_file().sync_all().map_err(error)?;
    match new.persist_noclobber(path) {
        Ok(_) => {}
        Err(taken) if taken.error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(failed) => return Err(error(failed.error)),
    }
    if cfg!(unix) {
        // The new name is durable once the directory is synced.
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(error)?;
    }
    Ok(true)
}

fn is_missing(path: &Path) -> Result<bool, StateError> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(StateError::unusable(path, error)),
    }
}

fn check_directory(directory: &Path) -> Result<(), StateError> {
    let metadata = fs::metadata(directory).map_err(|error| StateError::unusable(directory, error))?;
    let path = || directory.to_owned();
    if private_file::is_writable_by_others(&metadata) {
        Err(StateError::ExposedDirectory { path: path() })
    } else if !private_file::is_ours_or_roots(&metadata) {
        Err(StateError::NotOurs { path: path() })
    } else {
        Ok(())
    }
}

fn check_store(store: &Path) -> Result<(), StateError> {
    let metadata = fs::symlink_metadata(store).map_err(|error| StateError::unusable(store, error))?;
    let path = store.to_owned();
    if !metadata.is_file() {
        Err(StateError::NotAFile { path })
    } else if private_file::is_exposed(&metadata) {
        Err(StateError::Exposed { path })
    } else if !private_file::is_ours_or_roots(&metadata) {
        Err(StateError::NotOurs { path })
    } else if metadata.len() == 0 {
        Err(StateError::Empty { path })
    } else {
        Ok(())
    }
}
