//! Transcription of a recording.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use voxline_support::random;

use super::Service;
use super::transcript::{ChannelTranscript, SharedWorker, Transcript};
use crate::audio::Feed;
use crate::decode::Channels;
use crate::pace::{Pace, Pacer};
use crate::pipeline::{self, Pipeline, PipelineError};
use crate::protocol::Latency;
use crate::session::Settings;
use crate::source::Source;

/// Slowest pace, in multiples of real time, as in the text form of [`Pace`].
const SLOWEST: f64 = 0.01;

/// A recording to be transcribed, with its options; created by
/// [`Client::transcribe`](super::Client::transcribe).
#[derive(Debug)]
#[must_use = "nothing is transcribed before it is started"]
pub struct Transcription {
    service: Arc<Service>,
    source: Source,
    settings: Settings,
    channels: Channels,
    pace: Pace,
}

impl Transcription {
    pub(super) fn new(service: Arc<Service>, source: Source) -> Transcription {
        let mut settings = Settings::new(pipeline::Options::default().sample_rate);
        settings.latency = Latency::Relaxed;
        settings.seed = random::seed();
        Transcription { service, source, settings, channels: Channels::Mix, pace: Pace::Max }
    }

    /// Sets the language spoken, as a BCP 47 tag (`en`, `ru-RU`). By default the service detects it.
    pub fn language(mut self, language: impl Into<String>) -> Transcription {
        self.settings.language = Some(language.into());
        self
    }

    /// Sets whether partial results are wanted: yes, by default.
    pub fn partials(mut self, wanted: bool) -> Transcription {
        self.settings.partials = wanted;
        self
    }

    /// Sets the channels of the recording that [`start`](Transcription::start) transcribes: all channels
    /// mixed, by default and for [`Channels::Split`].
    /// [`start_by_channel`](Transcription::start_by_channel) ignores this setting.
    pub fn channels(mut self, channels: Channels) -> Transcription {
        self.channels = channels;
        self
    }

    /// Sets the pace at which the recording is sent: as fast as the service takes it, by default.
    ///
    /// # Panics
    /// Panics if the pace is below 0.01 times real time.
    pub fn pace(mut self, pace: Pace) -> Transcription {
        let in_range = match pace {
            Pace::Max => true,
            Pace::Times(times) => times >= SLOWEST,
        };
        assert!(in_range, "a pace of {pace}, expected at least {SLOWEST}");
        self.pace = pace;
        self
    }

    /// Sets how long to retry while the service is unreachable. The default is 5 s for the first connection,
    /// and 120 s once there was one.
    pub fn patience(mut self, patience: Duration) -> Transcription {
        (self.settings.first_contact, self.settings.give_up) = (patience, patience);
        self
    }

    /// Changes any other setting of the session, such as the size of its replay buffer.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Transcription {
        change(&mut self.settings);
        self
    }

    /// Recognises the format of the source, and starts the session.
    ///
    /// Blocks while the head of the source is read. For a source that may be slow, and for a
    /// [`Source::url`](crate::source::Source::url), call this method in `tokio::task::spawn_blocking`.
    ///
    /// # Errors
    /// Returns [`PipelineError`] if the source holds no audio that can be decoded.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn start(mut self) -> Result<Transcript, PipelineError> {
        if self.channels == Channels::Split {
            self.channels = Channels::Mix;
        }
        let mut transcripts = self.start_sessions()?;
        Ok(transcripts.remove(0))
    }

    /// Starts a session for each channel of the source, and merges their transcripts by time. Blocks like
    /// [`start`](Transcription::start).
    ///
    /// # Errors
    /// Returns the errors of [`start`](Transcription::start).
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn start_by_channel(mut self) -> Result<ChannelTranscript, PipelineError> {
        self.channels = Channels::Split;
        Ok(ChannelTranscript::new(self.start_sessions()?))
    }

    /// Starts a session for each channel stream.
    fn start_sessions(self) -> Result<Vec<Transcript>, PipelineError> {
        let Transcription { service, source, settings, channels, pace } = self;
        let sample_rate = settings.sample_rate;
        let options = pipeline::Options { channels, sample_rate, ..pipeline::Options::default() };
        let (lines, worker) = Pipeline::open(source, options)?.start();
        let worker = SharedWorker::new(Mutex::new(Some(worker)));
        let transcripts = lines.into_iter().zip(0..).map(|(audio, number)| {
            let mut settings = settings.clone();
            settings.seed = settings.seed.wrapping_add(number);
            Transcript::start(service.clone(), settings, paced(audio, pace, sample_rate), worker.clone())
        });
        Ok(transcripts.collect())
    }
}

/// Returns the receiver of the same audio at `pace`.
#[expect(clippy::disallowed_methods, reason = "ends with the channel, on either side")]
fn paced(mut audio: mpsc::Receiver<Feed>, pace: Pace, sample_rate: u32) -> mpsc::Receiver<Feed> {
    if pace == Pace::Max {
        return audio;
    }
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let pacer = Pacer::new(pace, sample_rate);
        let carrying = async {
            while let Some(feed) = audio.recv().await {
                pacer.wait(&feed).await;
                if sender.send(feed).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = carrying => {}
            // The session has ended: stop, since a silent source could block for ever.
            () = sender.closed() => {}
        }
    });
    receiver
}
