//! Transcriptions that are kept on disk, and resumed by a later process.

use std::path::PathBuf;

use crate::net::Endpoint;
use crate::session::Settings;
#[cfg(feature = "decode")]
use crate::spool::Repeatability;
use crate::spool::{Fsync, Head, Opened, Spool, SpoolError};

/// The file that keeps a transcription on disk until it is complete, so that a later process resumes it after
/// a crash: it repeats the events so far, and continues without losing or repeating audio. See
/// [`spool`](crate::spool).
///
/// The file stays until [`Transcript::remove_spool`](super::Transcript::remove_spool) is called. With
/// [`start_by_channel`](super::Transcription::start_by_channel) each channel has a file of its own, whose
/// name ends in `.0`, `.1`, and so on.
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
    /// of the source, its channels and format, and the language. A better identity has what tells two
    /// recordings of one name apart, such as the number of a call.
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

    #[cfg(feature = "decode")]
    pub(super) fn repeats(&self, is_repeatable: bool) -> Repeatability {
        let usual = if is_repeatable { Repeatability::Repeatable } else { Repeatability::Live };
        self.repeatability.unwrap_or(usual)
    }

    /// Opens the files that an earlier process left for these channels, up to the first that is missing.
    #[cfg(feature = "decode")]
    pub(super) fn open_existing(
        &self,
        channels: impl Iterator<Item = Channel>,
        session: &Session<'_>,
    ) -> Result<Vec<Opened>, SpoolError> {
        let there = channels.take_while(|channel| self.path_of(*channel).exists());
        there.map(|channel| self.open(channel, session)).collect()
    }

    /// Opens the file of a channel's session, or creates it. Blocks on the disk.
    pub(super) fn open(&self, channel: Channel, session: &Session<'_>) -> Result<Opened, SpoolError> {
        let Session { settings, service, source } = session;
        let language = settings.request.language.as_deref().unwrap_or("detected");
        let usual = || format!("{source}, language {language}");
        let identity = self.identity.clone().unwrap_or_else(usual);
        let head = Head { sample_rate: settings.sample_rate, identity, service: service.to_string() };
        Spool::open(self.path_of(channel), &head, settings.replay.frames, self.fsync)
    }

    fn path_of(&self, channel: Channel) -> PathBuf {
        match channel {
            Channel::All => self.path.clone(),
            #[cfg(feature = "decode")]
            Channel::Number(number) => {
                let mut path = self.path.as_os_str().to_owned();
                path.push(format!(".{number}"));
                path.into()
            }
        }
    }
}

/// The channels that a session carries.
#[derive(Clone, Copy)]
pub(super) enum Channel {
    /// All channels, mixed.
    All,
    /// One of several, from 0.
    #[cfg(feature = "decode")]
    Number(usize),
}

/// The session that a spool belongs to.
pub(super) struct Session<'a> {
    pub(super) settings: &'a Settings,
    pub(super) service: &'a Endpoint,
    /// Name of the source, and how it is read.
    pub(super) source: &'a str,
}
