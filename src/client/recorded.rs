//! Options and start of the transcription of a recording.

use std::panic::resume_unwind;
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::opened::OpenedRecording;
use super::recording::{Recorded, Recording};
use super::spool_file::{SpoolFile, SpoolFiles};
use super::{ChannelTranscript, Service, StartError, Transcript, Transcription};
use crate::decode::Channels;
use crate::pace::Pace;
use crate::pipeline;
use crate::protocol::Latency;
use crate::session::Settings;

impl Transcription<Recorded> {
    pub(super) fn of_recording(service: Arc<Service>, recording: Recording) -> Transcription<Recorded> {
        let mut settings = Settings::new(pipeline::Options::default().sample_rate);
        settings.request.latency = Latency::Relaxed;
        let audio = Recorded { recording, channels: None, pace: Pace::MAX, spools: None };
        Transcription { service, settings, audio }
    }

    /// Sets the channels of the recording to transcribe. The default is their mix, or every channel with
    /// [`start_by_channel`](Transcription::start_by_channel). [`Channels::Split`] yields several transcripts,
    /// so [`start`](Transcription::start) refuses it.
    pub fn channels(mut self, channels: Channels) -> Transcription<Recorded> {
        self.audio.channels = Some(channels);
        self
    }

    /// Sets the pace at which the recording is sent: as fast as the service takes it, by default.
    pub fn pace(mut self, pace: Pace) -> Transcription<Recorded> {
        self.audio.pace = pace;
        self
    }

    /// Keeps the session in this file, so that a later process resumes it after a crash. If the channels are
    /// split, each has a file of its own, whose name ends in `.0`, `.1`, and so on.
    pub fn spool(mut self, file: SpoolFile) -> Transcription<Recorded> {
        self.audio.spools = Some(SpoolFiles::Suffixed(file));
        self
    }

    /// Keeps the session of each channel in the file that `file` returns for the number of the channel, from
    /// 0. Unless the channels are split, there is one session, number 0.
    pub fn spool_by_channel(
        mut self,
        file: impl Fn(usize) -> SpoolFile + Send + 'static,
    ) -> Transcription<Recorded> {
        self.audio.spools = Some(SpoolFiles::Named(Box::new(file)));
        self
    }

    /// Recognises the format of the source, on a thread for blocking work, and starts the session.
    ///
    /// A caller that no longer waits starts no session, but the thread goes on until the head of the source
    /// is read.
    ///
    /// # Errors
    /// Returns [`StartError`] if the source can't be opened or holds no audio that can be decoded, if the
    /// prompt or the keywords are too long, if the spool can't be opened, or if the
    /// [channels](Transcription::channels) are split.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime, and if the source panics.
    pub async fn start(self) -> Result<Transcript, StartError> {
        if self.audio.channels == Some(Channels::Split) {
            return Err(StartError::SplitChannels);
        }
        self.open_on_thread().await?.start()
    }

    /// Starts a session for each channel of the source, and merges their transcripts by time. If other
    /// [channels](Transcription::channels) than [`Channels::Split`] were set, these are one channel.
    ///
    /// # Errors
    /// Returns the errors of [`open`](Transcription::open).
    ///
    /// # Panics
    /// Panics outside of a tokio runtime, and if the source panics.
    pub async fn start_by_channel(mut self) -> Result<ChannelTranscript, StartError> {
        self.audio.channels.get_or_insert(Channels::Split);
        Ok(self.open_on_thread().await?.start_by_channel())
    }

    /// Opens the spools and, unless an earlier process left all audio in them, the source, whose format is
    /// recognised. No session is started yet. Blocks while the head of the source is read:
    /// [`start`](Transcription::start) does not block the task that calls it.
    ///
    /// # Errors
    /// Returns [`StartError`] if the source can't be opened or holds no audio that can be decoded, if the
    /// prompt or the keywords are too long, if a spool can't be opened, or if an earlier process left spools
    /// of more channels.
    pub fn open(self) -> Result<OpenedRecording, StartError> {
        OpenedRecording::open(self)
    }

    async fn open_on_thread(self) -> Result<OpenedRecording, StartError> {
        let opened = spawn_blocking(|| self.open()).await;
        opened.unwrap_or_else(|error| resume_unwind(error.into_panic()))
    }
}
