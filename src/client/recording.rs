//! A recording before it is opened.

use std::fmt;

use super::spool_file::SpoolFiles;
use crate::decode::Channels;
use crate::pace::Pace;
use crate::source::{Source, SourceError};

/// A recording to be opened.
pub(super) enum Recording {
    Source(Source),
    Deferred { name: String, open: Box<dyn FnOnce() -> Result<Source, SourceError> + Send> },
}

impl Recording {
    pub(super) fn name(&self) -> &str {
        match self {
            Recording::Source(source) => source.name(),
            Recording::Deferred { name, .. } => name,
        }
    }

    /// Returns the default identity of its spools: all that is known before it is opened.
    pub(super) fn described(&self, channels: Channels) -> String {
        let format = match self {
            Recording::Source(source) => source.format(),
            Recording::Deferred { .. } => None,
        };
        let raw = format.map_or_else(String::new, |format| format!(", raw {format}"));
        format!("{}, channels {channels}{raw}", self.name())
    }

    pub(super) fn open(self) -> Result<Source, SourceError> {
        match self {
            Recording::Source(source) => Ok(source),
            Recording::Deferred { open, .. } => open(),
        }
    }
}

impl fmt::Debug for Recording {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recording::Source(source) => source.fmt(f),
            Recording::Deferred { name, .. } => {
                f.debug_struct("Deferred").field("name", name).finish_non_exhaustive()
            }
        }
    }
}

/// A recording to be transcribed, with the options that only a recording has.
#[derive(Debug)]
pub struct Recorded {
    pub(super) recording: Recording,
    /// Channels that the caller has set.
    pub(super) channels: Option<Channels>,
    pub(super) pace: Pace,
    pub(super) spools: Option<SpoolFiles>,
}
