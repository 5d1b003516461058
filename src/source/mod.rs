//! Where audio comes from: a file, standard input, a URL, or bytes at hand.
//!
//! A source only knows its name and how to be read; what the bytes mean is [`decode`](crate::decode)'s business.

mod url;

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

pub use self::url::name as url_name;
use crate::audio::PcmFormat;

/// Why a source cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Nothing has this path.
    #[error("{path}: no such file")]
    Missing {
        /// The path as given.
        path: String,
    },
    /// The path names a directory.
    #[error("{path}: is a directory, expected an audio file")]
    Directory {
        /// The path as given.
        path: String,
    },
    /// The file exists, but may not be read.
    #[error("{path}: permission to read it is denied")]
    Permission {
        /// The path as given.
        path: String,
    },
    /// The file has no bytes.
    #[error("{path}: is empty, expected an audio file")]
    Empty {
        /// The path as given.
        path: String,
    },
    /// The URL can't be used, or gives nothing.
    #[error("{url}: {why}")]
    Url {
        /// The URL, without what may be secret.
        url: String,
        /// Why not.
        why: String,
    },
    /// Anything else the system says.
    #[error("{path}: cannot be opened: {error}")]
    Open {
        /// The path as given.
        path: String,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

/// Bytes that should hold audio, not yet looked at.
#[derive(Debug)]
pub struct Source {
    name: String,
    extension: Option<String>,
    format: Option<PcmFormat>,
    input: Input,
}

/// How the bytes are reached.
pub(crate) enum Input {
    /// A regular file: it can be read in any order, and its length is known.
    File(File),
    /// Bytes in memory.
    Memory(Cursor<Vec<u8>>),
    /// Read once, front to back.
    Stream(Box<dyn Read + Send + Sync>),
}

impl Source {
    /// The file at `path`; a pipe or a device is read as a stream.
    ///
    /// # Errors
    /// If nothing is there, if it is a directory or an empty file, or if it may not be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Source, SourceError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let failed = |error: io::Error| open_error(name.clone(), error);
        // Asked before opening: a directory opens on some systems, and only reading it fails.
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if metadata.is_dir() {
            return Err(SourceError::Directory { path: name });
        }
        let file = File::open(path).map_err(failed)?;
        let input = if metadata.is_file() {
            if metadata.len() == 0 {
                return Err(SourceError::Empty { path: name });
            }
            Input::File(file)
        } else {
            Input::Stream(Box::new(file))
        };
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        Ok(Source { name, extension, format: None, input })
    }

    /// Standard input, read as a stream.
    #[must_use]
    pub fn stdin() -> Source {
        Source::stream("standard input", io::stdin())
    }

    /// Whatever `reader` yields, read once from front to back; `name` is what messages call it.
    pub fn stream(name: impl Into<String>, reader: impl Read + Send + Sync + 'static) -> Source {
        Source { name: name.into(), extension: None, format: None, input: Input::Stream(Box::new(reader)) }
    }

    /// A whole file that is already in memory; `name` is what messages call it.
    pub fn bytes(name: impl Into<String>, bytes: Vec<u8>) -> Source {
        Source { name: name.into(), extension: None, format: None, input: Input::Memory(Cursor::new(bytes)) }
    }

    /// What messages call it: the path as given, or `standard input`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The path's extension in lower case, a hint at the format.
    #[must_use]
    pub fn extension(&self) -> Option<&str> {
        self.extension.as_deref()
    }

    /// Whether it can be read in any order. Some M4A files (index at the end) can only be decoded if it can.
    #[must_use]
    pub fn is_seekable(&self) -> bool {
        !matches!(self.input, Input::Stream(_))
    }

    /// The same bytes, taken as headerless audio: what they hold is not looked at.
    #[must_use]
    pub fn headerless(self, format: PcmFormat) -> Source {
        Source { format: Some(format), ..self }
    }

    pub(crate) fn into_parts(self) -> (String, Option<String>, Option<PcmFormat>, Input) {
        (self.name, self.extension, self.format, self.input)
    }
}

impl std::fmt::Debug for Input {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Input::File(file) => file.fmt(f),
            Input::Memory(bytes) => write!(f, "{} bytes", bytes.get_ref().len()),
            Input::Stream(_) => f.write_str("stream"),
        }
    }
}

fn open_error(path: String, error: io::Error) -> SourceError {
    match error.kind() {
        io::ErrorKind::NotFound => SourceError::Missing { path },
        io::ErrorKind::PermissionDenied => SourceError::Permission { path },
        _ => SourceError::Open { path, error },
    }
}
