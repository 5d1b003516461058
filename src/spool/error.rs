//! Errors of a spool.

use std::io;
use std::path::PathBuf;

use crate::audio::FramePos;

/// The reason why a spool can't be opened, written or read. The message names the file, but shows none of
/// its contents except the head's identity. It says what the user may do with the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpoolError {
    /// The file or its directory can't be read or written.
    #[error("spool {path}: cannot be read or written")]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// Another process, or another part of this one, has the file open.
    #[error("spool {path} is in use: the session in it is still running")]
    InUse {
        /// Path of the file.
        path: PathBuf,
    },
    /// Other users could have read the session's key.
    #[error("spool {path} can be read by others: run chmod 600 on it, or delete it to start anew")]
    Exposed {
        /// Path of the file.
        path: PathBuf,
    },
    /// Other users could replace the file.
    #[error(
        "spool directory {path} belongs to another user or can be changed by others: run chmod 700 on it as its owner, or name another"
    )]
    ExposedDirectory {
        /// Path of the directory.
        path: PathBuf,
    },
    /// The file belongs to another user.
    #[error("spool {path} belongs to another user: remove it, or name another directory")]
    NotOurs {
        /// Path of the file.
        path: PathBuf,
    },
    /// The path doesn't lead to a regular file.
    #[error("spool {path} is not a regular file: remove it")]
    NotAFile {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file doesn't begin with a head.
    #[error("{path} is not a spool, or its head is damaged: move it away to start anew")]
    NotASpool {
        /// Path of the file.
        path: PathBuf,
    },
    /// The file was written by another version of the program.
    #[error("spool {path} has version {actual}, expected {expected}: delete it to start anew")]
    Version {
        /// Path of the file.
        path: PathBuf,
        /// Version that this program reads.
        expected: u32,
        /// Version of the file.
        actual: u32,
    },
    /// The file belongs to another session.
    #[error("spool {path} has the {what} {actual}, expected {expected}: delete it to start anew")]
    Mismatch {
        /// Path of the file.
        path: PathBuf,
        /// Name of the property that differs.
        what: &'static str,
        /// Value given by the caller.
        expected: String,
        /// Value in the file.
        actual: String,
    },
    /// The record to append doesn't follow the records in the file.
    #[error("spool {path}: {reason}")]
    OutOfOrder {
        /// Path of the file.
        path: PathBuf,
        /// Description of the conflict.
        reason: String,
    },
    /// A record that was written is read back differently.
    #[error("spool {path} is damaged at byte {offset}, where audio goes on from frame {position}")]
    Damaged {
        /// Path of the file.
        path: PathBuf,
        /// Offset of the record.
        offset: u64,
        /// First frame that can't be read.
        position: FramePos,
    },
}

/// Conversion for [`Log`](super::Log), which reports the errors of its file as a journal's.
impl From<SpoolError> for io::Error {
    fn from(error: SpoolError) -> io::Error {
        let kind = match &error {
            SpoolError::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
