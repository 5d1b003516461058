//! Sources of audio: a file, standard input, a URL, or bytes in memory.
//!
//! A source only knows its name and how to be read; [`decode`](crate::decode) interprets the bytes.

#[cfg(feature = "url-source")]
mod url;

use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;

#[cfg(feature = "url-source")]
pub use self::url::name as url_name;
use crate::audio::PcmFormat;

/// Error opening a source. Nothing was read; the same call may succeed once the file or the server is there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The path does not exist.
    #[error("{path}: no such file")]
    Missing {
        /// Path as given.
        path: String,
    },
    /// The path names a directory.
    #[error("{path}: is a directory, expected an audio file")]
    Directory {
        /// Path as given.
        path: String,
    },
    /// The file exists, but must not be read.
    #[error("{path}: permission to read it is denied")]
    Permission {
        /// Path as given.
        path: String,
    },
    /// The file is empty.
    #[error("{path}: is empty, expected an audio file")]
    Empty {
        /// Path as given.
        path: String,
    },
    /// The URL cannot be used, or yields no recording.
    #[cfg(feature = "url-source")]
    #[error("{url}: {why}")]
    Url {
        /// URL without parts that may be secret.
        url: String,
        /// Reason of the failure.
        why: String,
    },
    /// The system reported another error.
    #[error("{path}: cannot be opened")]
    Open {
        /// Path as given.
        path: String,
        /// Underlying I/O error.
        #[source]
        error: io::Error,
    },
}

/// Bytes that are expected to hold audio, not yet examined.
#[derive(Debug)]
pub struct Source {
    name: String,
    extension: Option<String>,
    format: Option<PcmFormat>,
    input: Input,
    /// `true` if opening the source again yields the same audio from its start.
    repeatable: bool,
}

/// Access to the bytes.
pub(crate) enum Input {
    /// A regular file, which can be read in any order, and whose length is known.
    File(File),
    /// Bytes in memory.
    Memory(Cursor<Vec<u8>>),
    /// A stream that is read once, front to back.
    Stream(Box<dyn Read + Send + Sync>),
}

impl Source {
    /// Opens the file at `path`; a pipe or a device is read as a stream.
    ///
    /// # Errors
    /// Returns [`SourceError`] if the path does not exist, names a directory or an empty file, or must
    /// not be read.
    pub fn open(path: impl AsRef<Path>) -> Result<Source, SourceError> {
        let path = path.as_ref();
        let name = path.display().to_string();
        let failed = |error: io::Error| open_error(name.clone(), error);
        // Check before opening: on some systems a directory can be opened, and only reading it fails.
        let metadata = std::fs::metadata(path).map_err(failed)?;
        if metadata.is_dir() {
            return Err(SourceError::Directory { path: name });
        }
        let file = File::open(path).map_err(failed)?;
        let repeatable = metadata.is_file();
        let input = if repeatable {
            if metadata.len() == 0 {
                return Err(SourceError::Empty { path: name });
            }
            Input::File(file)
        } else {
            Input::Stream(Box::new(file))
        };
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        Ok(Source { name, extension, format: None, input, repeatable })
    }

    /// Returns a source of an open file, which must be at its start. Messages call the source `name`. The
    /// file need not have a path: a temporary file may have been deleted already.
    pub fn file(name: impl Into<String>, file: File) -> Source {
        Source {
            name: name.into(),
            extension: None,
            format: None,
            input: Input::File(file),
            repeatable: false,
        }
    }

    /// Returns a source that reads standard input as a stream.
    #[must_use]
    pub fn stdin() -> Source {
        Source::stream("standard input", io::stdin())
    }

    /// Returns a source of the bytes that `reader` yields, read once from front to back. Messages call
    /// the source `name`.
    pub fn stream(name: impl Into<String>, reader: impl Read + Send + Sync + 'static) -> Source {
        let input = Input::Stream(Box::new(reader));
        Source { name: name.into(), extension: None, format: None, input, repeatable: false }
    }

    /// Returns a source of a whole file in memory. Messages call the source `name`.
    pub fn bytes(name: impl Into<String>, bytes: Vec<u8>) -> Source {
        let input = Input::Memory(Cursor::new(bytes));
        Source { name: name.into(), extension: None, format: None, input, repeatable: true }
    }

    /// Returns the name used in messages, such as the path as given, or `standard input`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the path's extension in lower case, a hint at the format.
    #[must_use]
    pub fn extension(&self) -> Option<&str> {
        self.extension.as_deref()
    }

    /// Returns whether the source can be read in any order. Some M4A files (index at the end) can only be
    /// decoded if so.
    #[must_use]
    pub fn is_seekable(&self) -> bool {
        !matches!(self.input, Input::Stream(_))
    }

    /// Returns the format of headerless audio; `None` if it is detected.
    #[must_use]
    pub fn format(&self) -> Option<PcmFormat> {
        self.format
    }

    /// Returns whether opening the source again yields its audio from the start: a file, bytes in memory, and
    /// a recording on the web, but no pipe or device.
    #[must_use]
    pub fn is_repeatable(&self) -> bool {
        self.repeatable
    }

    /// Returns the source of the same bytes, read as headerless audio of `format` without format
    /// detection.
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
