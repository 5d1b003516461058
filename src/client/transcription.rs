//! Transcription of a recording.

use std::sync::Arc;
use std::time::Duration;

use super::opened::{OpenedRecording, Plan};
use super::recording::Recording;
use super::spool_file::{SpoolFile, SpoolFiles};
use super::{ChannelTranscript, Service, StartError, Transcript, set_patience};
use crate::decode::Channels;
use crate::pace::Pace;
use crate::pipeline;
use crate::protocol::Latency;
use crate::session::Settings;

/// A recording to be transcribed, with its options; created by
/// [`Client::transcribe`](super::Client::transcribe).
#[derive(Debug)]
#[must_use = "nothing is transcribed before it is started"]
pub struct Transcription {
    plan: Plan,
    /// Channels that the caller has set.
    channels: Option<Channels>,
}

impl Transcription {
    pub(super) fn new(service: Arc<Service>, recording: Recording) -> Transcription {
        let mut settings = Settings::new(pipeline::Options::default().sample_rate);
        settings.request.latency = Latency::Relaxed;
        let plan = Plan { service, recording, settings, pace: Pace::MAX, spools: None };
        Transcription { plan, channels: None }
    }

    /// Sets the language spoken, as a BCP 47 tag (`en`, `ru-RU`). By default the service detects it.
    pub fn language(mut self, language: impl Into<String>) -> Transcription {
        self.plan.settings.request.language = Some(language.into());
        self
    }

    /// Sets whether partial results are wanted: yes, by default.
    pub fn partials(mut self, wanted: bool) -> Transcription {
        self.plan.settings.request.partials = wanted;
        self
    }

    /// Sets the channels of the recording to transcribe. The default is their mix, or every channel with
    /// [`start_by_channel`](Transcription::start_by_channel). [`Channels::Split`] yields several transcripts,
    /// so [`start`](Transcription::start) refuses it.
    pub fn channels(mut self, channels: Channels) -> Transcription {
        self.channels = Some(channels);
        self
    }

    /// Sets the pace at which the recording is sent: as fast as the service takes it, by default.
    pub fn pace(mut self, pace: Pace) -> Transcription {
        self.plan.pace = pace;
        self
    }

    /// Sets how long the session keeps trying while the service is unavailable, as `--patience` of the
    /// program does: 120 s, by default. It is [`Timeouts::give_up`](crate::session::Timeouts::give_up). The very
    /// first connection is tried for 5 s, or for the patience if that is shorter.
    pub fn patience(mut self, patience: Duration) -> Transcription {
        set_patience(&mut self.plan.settings, patience);
        self
    }

    /// Keeps the session in this file, so that a later process resumes it after a crash. If the channels are
    /// split, each has a file of its own, whose name ends in `.0`, `.1`, and so on.
    pub fn spool(mut self, file: SpoolFile) -> Transcription {
        self.plan.spools = Some(SpoolFiles::Suffixed(file));
        self
    }

    /// Keeps the session of each channel in the file that `file` returns for the number of the channel, from
    /// 0. Unless the channels are split, there is one session, number 0.
    pub fn spool_by_channel(mut self, file: impl Fn(usize) -> SpoolFile + Send + 'static) -> Transcription {
        self.plan.spools = Some(SpoolFiles::Named(Box::new(file)));
        self
    }

    /// Changes any other setting of the session, such as the size of its replay buffer.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Transcription {
        change(&mut self.plan.settings);
        self
    }

    /// Recognises the format of the source, and starts the session.
    ///
    /// Blocks while the head of the source is read. For a source that may be slow, and for
    /// `Source::url`, call [`open`](Transcription::open) in `tokio::task::spawn_blocking`, and start what it
    /// returns.
    ///
    /// # Errors
    /// Returns [`StartError`] if the source can't be opened or holds no audio that can be decoded, if the
    /// spool can't be opened, or if the [channels](Transcription::channels) are split.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn start(self) -> Result<Transcript, StartError> {
        if self.channels == Some(Channels::Split) {
            return Err(StartError::SplitChannels);
        }
        self.open()?.start()
    }

    /// Starts a session for each channel of the source, and merges their transcripts by time. If other
    /// [channels](Transcription::channels) than [`Channels::Split`] were set, these are one channel. Blocks
    /// like [`start`](Transcription::start).
    ///
    /// # Errors
    /// Returns the errors of [`open`](Transcription::open).
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn start_by_channel(mut self) -> Result<ChannelTranscript, StartError> {
        self.channels.get_or_insert(Channels::Split);
        Ok(self.open()?.start_by_channel())
    }

    /// Opens the spools and, unless an earlier process left all audio in them, the source, whose format is
    /// recognised. No session is started yet. Blocks while the head of the source is read.
    ///
    /// # Errors
    /// Returns [`StartError`] if the source can't be opened or holds no audio that can be decoded, if a spool
    /// can't be opened, or if an earlier process left spools of more channels.
    pub fn open(self) -> Result<OpenedRecording, StartError> {
        self.plan.open(self.channels.unwrap_or(Channels::Mix))
    }
}
