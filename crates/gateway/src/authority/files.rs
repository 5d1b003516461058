//! The files of the state: who may touch them, how a store comes to be, and its backups.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use redb::{Database, DatabaseError, StorageError};

use super::store::{Change, Dump};
use voxline_support::private_file;

/// The store's file.
pub(super) const STORE: &str = "authority.redb";

/// Why the files of the state are not used. Each message says what helps.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Others could replace the store.
    #[error("state directory {path} can be changed by others: run chmod 700 on it, as its owner")]
    ExposedDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// Others could read the hashes of secrets, or change what they open.
    #[error("gateway state {path} can be read or written by others: run chmod 600 on it, as its owner")]
    Exposed {
        /// The store.
        path: PathBuf,
    },
    /// The directory or the store is another user's.
    #[error("gateway state {path} belongs to another user: act as that user, or name another directory")]
    NotOurs {
        /// The directory or the store.
        path: PathBuf,
    },
    /// The name leads elsewhere.
    #[error("gateway state {path} is not a regular file: put the store itself there, or name its directory")]
    NotAFile {
        /// The store.
        path: PathBuf,
    },
    /// A store was there, and was cut to nothing.
    #[error(
        "gateway state {path} is empty, which a store never is: restore a backup, or remove the file to begin without \
         projects and tokens"
    )]
    Empty {
        /// The store.
        path: PathBuf,
    },
    /// The contents are no store.
    #[error("gateway state {path} is damaged ({reason}): restore a backup")]
    Damaged {
        /// The store.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Another process has the store open.
    #[error("gateway state {path}: in use by a gateway that is starting or stopping, or by another command")]
    InUse {
        /// The store.
        path: PathBuf,
    },
    /// There is nothing to back up.
    #[error("no gateway state in {path}")]
    Missing {
        /// The directory.
        path: PathBuf,
    },
    /// A backup overwrites nothing.
    #[error("backup {path} exists already: name another file")]
    BackupExists {
        /// The file.
        path: PathBuf,
    },
    /// A file can't be read or written.
    #[error("{path}: {reason}")]
    Unusable {
        /// The file or directory.
        path: PathBuf,
        /// Why.
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
            // Cut off, overwritten, or never a store.
            error => StateError::Damaged { path, reason: error.to_string() },
        }
    }
}

/// Returns whether an error says that the file was read, and is no store.
fn is_nonsense(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof)
}

/// Opens the store in `directory`; both are created where missing. Refuses those that others can touch.
pub(super) fn open(directory: &Path) -> Result<Database, StateError> {
    private_file::create_dir(directory).map_err(|error| StateError::unusable(directory, error))?;
    check_directory(directory)?;
    let path = directory.join(STORE);
    if is_missing(&path)? {
        // Unless another process is faster, in which case its store is as good.
        write_new(&path, Change::create_tables)?;
    }
    check_store(&path)?;
    Database::open(&path).map_err(|error| StateError::of_database(&path, error))
}

/// Says what [`open`] would refuse, and changes nothing. What is not there yet is in order.
pub(super) fn check(directory: &Path) -> Result<(), StateError> {
    if is_missing(directory)? {
        return Ok(());
    }
    check_directory(directory)?;
    let path = directory.join(STORE);
    if is_missing(&path)? { Ok(()) } else { check_store(&path) }
}

/// Refuses a directory that has no store.
pub(crate) fn require_store(directory: &Path) -> Result<(), StateError> {
    if is_missing(&directory.join(STORE))? {
        return Err(StateError::Missing { path: directory.to_owned() });
    }
    Ok(())
}

/// Refuses a name of a backup that is taken.
pub(crate) fn require_no_backup(path: &Path) -> Result<(), StateError> {
    if is_missing(path)? { Ok(()) } else { Err(StateError::BackupExists { path: path.to_owned() }) }
}

impl Dump {
    /// Writes a store with these records to the new file `path`, which only its owner can read. It is on the
    /// disk when this returns.
    ///
    /// # Errors
    /// [`StateError::BackupExists`], or [`StateError::Unusable`].
    pub(crate) fn write(&self, path: &Path) -> Result<(), StateError> {
        if write_new(path, |change| change.restore(self))? {
            Ok(())
        } else {
            Err(StateError::BackupExists { path: path.to_owned() })
        }
    }
}

/// Makes a store, and puts it at `path` once all of it is on the disk: there is no moment at which a crash
/// leaves half of it there. Returns whether the name was free.
fn write_new(path: &Path, fill: impl FnOnce(&Change) -> Result<(), redb::Error>) -> Result<bool, StateError> {
    let error = |error: io::Error| StateError::unusable(path, error);
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    // Its mode is 0600 from the first.
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
        // The name is durable once the directory is.
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
    if writable_by_others(&metadata) {
        Err(StateError::ExposedDirectory { path: path() })
    } else if !is_trusted(&metadata) {
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
    } else if !is_trusted(&metadata) {
        Err(StateError::NotOurs { path })
    } else if metadata.len() == 0 {
        Err(StateError::Empty { path })
    } else {
        Ok(())
    }
}

#[cfg(unix)]
fn writable_by_others(metadata: &Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o022 != 0
}

/// Returns whether the owner is this user or root, who can do anything anyway. Root administers the stopped
/// gateways of other users.
#[cfg(unix)]
fn is_trusted(metadata: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    let user = rustix::process::geteuid();
    user.is_root() || metadata.uid() == user.as_raw() || metadata.uid() == 0
}

#[cfg(not(unix))]
fn writable_by_others(_: &Metadata) -> bool {
    false
}

#[cfg(not(unix))]
fn is_trusted(_: &Metadata) -> bool {
    true
}
