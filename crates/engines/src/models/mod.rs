//! The store of model files: what there should be, what there is, and how the rest gets here.
//!
//! A [`Store`] is a directory with one directory for each [`Model`] of its catalogue. Every file is pinned by its
//! SHA-256, so it doesn't matter who hands it over: [`Store::pull`] asks one [`Source`] after another, and a file gets
//! its name only after its hash matched.
//!
//! Layout: `<store>/<model>/<file>`; work in progress, and the locks, are under `<store>/.partial/<model>/`, on the
//! same file system, so that the last step is a rename.

mod catalogue;
mod hub;
mod landing;
mod pull;
mod wheel;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use self::catalogue::{
    HubFolder, Model, ModelFile, PIPER_JOE, WHISPER_BASE, WHISPER_TINY_EN, WheelMember, catalogue,
};
pub use self::pull::{HUB, Progress, Source};

/// Why a model is not there, or not as it should be.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The catalogue has no such model.
    #[error("model {name:?} is unknown; known: {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// A file is not there.
    #[error("{path} is missing; run: voxline models pull {model}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// The model it belongs to.
        model: String,
    },
    /// A file is shorter or longer than the pinned one.
    #[error("{path} has {actual} bytes instead of {expected}")]
    Size {
        /// The file.
        path: PathBuf,
        /// The size it should have, in bytes.
        expected: u64,
        /// The size it has.
        actual: u64,
    },
    /// A file's content is not the pinned one.
    #[error("{path} has SHA-256 {actual} instead of {expected}")]
    Hash {
        /// The file.
        path: PathBuf,
        /// The pinned hash, in hexadecimal.
        expected: String,
        /// The file's hash.
        actual: String,
    },
    /// The disk has no room for the file.
    #[error("{path}: the disk is full; the model's file takes {needed} bytes")]
    DiskFull {
        /// The file being written.
        path: PathBuf,
        /// Its whole size in bytes.
        needed: u64,
    },
    /// A file or directory could not be read or written.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// A server could not be reached at all.
    #[error("{url}: {reason}")]
    Unreachable {
        /// The address.
        url: String,
        /// What happened.
        reason: String,
    },
    /// A server didn't hand over a file.
    #[error("{url}: {reason}")]
    Download {
        /// The address.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The packages that carry a model couldn't be fetched or opened.
    #[error("package {package}: {reason}")]
    Package {
        /// The package and its version.
        package: String,
        /// What happened.
        reason: String,
    },
    /// No source had the file.
    #[error("{file} of {model} came from no source: {}", attempts.join("; "))]
    NoSource {
        /// The model.
        model: String,
        /// The file.
        file: String,
        /// What each source answered, in the order they were asked.
        attempts: Vec<String>,
    },
}

/// Whether a model can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Each file is there, with its right size.
    Present,
    /// Nothing is there.
    Missing,
    /// A file has the wrong size.
    Damaged,
    /// A part of it is there: some of the files, or a pull that was interrupted.
    Partial,
}

/// What a list of models says about one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// Its directory, there or not.
    pub path: PathBuf,
    /// The size of all its files, in bytes.
    pub size: u64,
    /// Whether it can be used.
    pub state: State,
    /// Its licence.
    pub license: String,
    /// Whether voxline uses it without being told to.
    pub usual: bool,
}

/// A directory of models.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
    models: Vec<Model>,
}

impl Store {
    /// The store in `directory`, with voxline's own [`catalogue()`]. Nothing is read or made yet.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>) -> Store {
        Store::with_models(directory, catalogue())
    }

    /// A store with other models. Names of models and files become names of directories and files, so they come from
    /// the program, not from its users.
    #[must_use]
    pub fn with_models(directory: impl Into<PathBuf>, models: Vec<Model>) -> Store {
        Store { directory: directory.into(), models }
    }

    /// Where a model is, or would be.
    #[must_use]
    pub fn path(&self, model: &str) -> PathBuf {
        self.directory.join(model)
    }

    /// The state of every model, by the sizes of its files: quick, but blind to a wrong byte. [`verify`](Store::verify)
    /// sees those.
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
                usual: model.usual,
            })
            .collect()
    }

    /// Reads every file of a model and compares its hash. Blocks: about a third of a second for whisper-base.
    ///
    /// # Errors
    /// The first file that is missing or wrong, with the expected and the actual value.
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
            landing::check(&path, file)?;
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
            fs::metadata(hub::part_of(&self.workshop(&model.name), file)).is_ok_and(|part| part.len() > 0)
        });
        match present {
            _ if present == model.files.len() => State::Present,
            0 if !begun => State::Missing,
            _ => State::Partial,
        }
    }

    /// Where files of a model are made before they get their place.
    fn workshop(&self, model: &str) -> PathBuf {
        self.directory.join(".partial").join(model)
    }
}

impl StoreError {
    /// An error of reading or writing `path`, which may end up `needed` bytes long.
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

    /// Whether the trouble is here, so that another source won't help.
    fn is_local(&self) -> bool {
        matches!(self, StoreError::DiskFull { .. })
    }
}

/// The size of a file, `None` where there is none.
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
