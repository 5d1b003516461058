//! Why a spool can't be kept or read.

use std::io;
use std::path::PathBuf;

use crate::audio::FramePos;

/// Why a spool can't be opened, written or read. Names the file, never what is in it but the head's identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// The file or its directory can't be read or written.
    #[error("spool {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process, or another part of this one, has it open.
    #[error("spool {path} is in use: the session in it is still running")]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// Others could have read the session's key.
    #[error("spool {path} can be read by others: run chmod 600 on it, or delete it to start anew")]
    Exposed {
        /// The file.
        path: PathBuf,
    },
    /// Others could replace the file.
    #[error(
        "spool directory {path} belongs to another user or can be changed by others: run chmod 700 on it as its owner, or name another"
    )]
    ExposedDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// The file is another user's.
    #[error("spool {path} belongs to another user: remove it, or name another directory")]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// The name leads elsewhere.
    #[error("spool {path} is not a regular file: remove it")]
    NotAFile {
        /// The file.
        path: PathBuf,
    },
    /// It doesn't begin with a head.
    #[error("{path} is not a spool, or its head is damaged: move it away to start anew")]
    NotASpool {
        /// The file.
        path: PathBuf,
    },
    /// It was written by another version of the program.
    #[error("spool {path} has version {actual}, expected {expected}: delete it to start anew")]
    Version {
        /// The file.
        path: PathBuf,
        /// The version that is read here.
        expected: u32,
        /// The file's.
        actual: u32,
    },
    /// It belongs to another session.
    #[error("spool {path} has the {what} {actual}, expected {expected}: delete it to start anew")]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
        /// The caller's.
        expected: String,
        /// The file's.
        actual: String,
    },
    /// What is to be appended doesn't follow what is there.
    #[error("spool {path}: {reason}")]
    OutOfOrder {
        /// The file.
        path: PathBuf,
        /// What stands against what.
        reason: String,
    },
    /// Audio was written, but something else comes back.
    #[error("spool {path} is damaged at byte {offset}, where audio goes on from frame {position}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// The frame that can't be had.
        position: FramePos,
    },
}

/// For a journal, whose errors are those of its file.
impl From<SpoolError> for io::Error {
    fn from(error: SpoolError) -> io::Error {
        let kind = match &error {
            SpoolError::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
