//! Transcriptions that are kept on disk, and resumed by a later process.

#[cfg(feature = "decode")]
use std::fmt;
use std::path::PathBuf;

use crate::net::Endpoint;
use crate::protocol::Task;
use crate::session::Settings;
#[cfg(feature = "decode")]
use crate::spool::Repeatability;
use crate::spool::{Fsync, Head, Opened, Spool, SpoolError};

/// The file that keeps a transcription on disk until it is complete, so that a later process resumes it after
/// a crash: it repeats the events so far, and continues without losing or repeating audio. See
/// [`spool`](crate::spool).
///
/// The file stays until [`Transcript::remove_spool`](super::Transcript::remove_spool) is called. If the
/// channels of a recording are split, each channel has a file of its own.
#[derive(Clone, Debug)]
#[must_use]
pub struct SpoolFile {
    path: PathBuf,
    identity: Option<String>,
    fsync: Fsync,
    #[cfg(feature = "decode")]
    repeatability: Option<Repeatability>,
}

impl SpoolFile {
    /// Names the file. It is created, with its directory, unless an earlier process left it; only its owner
    /// can read it.
    pub fn new(path: impl Into<PathBuf>) -> SpoolFile {
        SpoolFile {
            path: path.into(),
            identity: None,
            fsync: Fsync::default(),
            #[cfg(feature = "decode")]
            repeatability: None,
        }
    }

    /// Sets what identifies the audio, in any form: a file of other audio is refused. The default is the name
    /// of the source, its channels and format (unless the source is opened later), and the language. A better
    /// identity has what tells two recordings of one name apart, such as the number of a call.
    pub fn identity(self, identity: impl Into<String>) -> SpoolFile {
        SpoolFile { identity: Some(identity.into()), ..self }
    }

    /// Sets when written data is forced to the disk: before each final result, by default.
    pub fn fsync(self, fsync: Fsync) -> SpoolFile {
        SpoolFile { fsync, ..self }
    }

    /// Sets whether a later process gets the audio again from its start. The default is what the source
    /// [says](crate::source::Source::is_repeatable). Live audio that a program pushes is always live.
    #[cfg(feature = "decode")]
    pub fn repeatability(self, repeatability: Repeatability) -> SpoolFile {
        SpoolFile { repeatability: Some(repeatability), ..self }
    }

    /// Returns what [`repeatability`](SpoolFile::repeatability) has set.
    #[cfg(feature = "decode")]
    pub(super) fn given_repeatability(&self) -> Option<Repeatability> {
        self.repeatability
    }

    /// Returns whether an earlier process left the file.
    #[cfg(feature = "decode")]
    pub(super) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Opens the file for a session, or creates it. Blocks on the disk.
    pub(super) fn open(&self, session: &SpoolContext<'_>) -> Result<Opened, SpoolError> {
        let SpoolContext { settings, service, source } = session;
        let language = settings.request.language.as_deref().unwrap_or("detected");
        // Part of the name only where it is not the default: files of earlier versions know no task.
        let task = match settings.request.task {
            Task::Transcribe => String::new(),
            task => format!(", task {task}"),
        };
        let usual = || format!("{source}, language {language}{task}");
        let identity = self.identity.clone().unwrap_or_else(usual);
        let head = Head { sample_rate: settings.sample_rate, identity, service: service.to_string() };
        Spool::open(&self.path, &head, settings.replay.frames, self.fsync)
    }
}

/// The files of the sessions of a recording.
#[cfg(feature = "decode")]
pub(super) enum SpoolFiles {
    /// One file or, if the channels are split, files whose names end in the number of the channel.
    Suffixed(SpoolFile),
    /// The files that this function returns for the numbers of the channels.
    Named(Box<dyn Fn(usize) -> SpoolFile + Send>),
}

#[cfg(feature = "decode")]
impl SpoolFiles {
    /// Returns the file of the session of a channel, from 0.
    pub(super) fn file(&self, channel: usize, split: bool) -> SpoolFile {
        match self {
            SpoolFiles::Named(file) => file(channel),
            SpoolFiles::Suffixed(file) => {
                let mut file = file.clone();
                if split {
                    file.path.as_mut_os_string().push(format!(".{channel}"));
                }
                file
            }
        }
    }
}

#[cfg(feature = "decode")]
impl fmt::Debug for SpoolFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SpoolFiles::Suffixed(file) => file.fmt(f),
            SpoolFiles::Named(_) => f.write_str("Named"),
        }
    }
}

/// The session that a spool belongs to.
pub(super) struct SpoolContext<'a> {
    pub(super) settings: &'a Settings,
    pub(super) service: &'a Endpoint,
    /// Name of the source, and how it is read.
    pub(super) source: &'a str,
}
