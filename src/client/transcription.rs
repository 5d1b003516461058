//! A recording to be transcribed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use voxline_support::random;

use super::Service;
use super::transcript::{ChannelTranscript, Transcript};
use crate::audio::Feed;
use crate::decode::Channels;
use crate::pace::{Pace, Pacer};
use crate::pipeline::{self, Pipeline, PipelineError};
use crate::protocol::Latency;
use crate::session::Settings;
use crate::source::Source;

/// A recording to be transcribed, with its options; made by [`Client::transcribe`](super::Client::transcribe).
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

    /// The language spoken, as a BCP 47 tag (`en`, `ru-RU`). By default the service detects it.
    pub fn language(mut self, language: impl Into<String>) -> Transcription {
        self.settings.language = Some(language.into());
        self
    }

    /// Whether partial results are wanted: yes, by default.
    pub fn partials(mut self, wanted: bool) -> Transcription {
        self.settings.partials = wanted;
        self
    }

    /// Which channels of the recording [`start`](Transcription::start) transcribes: all of them mixed, by default.
    pub fn channels(mut self, channels: Channels) -> Transcription {
        self.channels = channels;
        self
    }

    /// How fast the recording is read: as fast as the service takes it, by default.
    pub fn pace(mut self, pace: Pace) -> Transcription {
        self.pace = pace;
        self
    }

    /// How long to retry while the service is unreachable: 120 s, by default.
    pub fn patience(mut self, patience: Duration) -> Transcription {
        (self.settings.first_contact, self.settings.give_up) = (patience, patience);
        self
    }

    /// Changes any other setting of the session, such as the size of its replay buffer.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> Transcription {
        change(&mut self.settings);
        self
    }

    /// Recognises the format of the source, and starts the session. Reads the head of the source, and so may block.
    ///
    /// # Errors
    /// [`PipelineError`] where the source holds no audio that can be decoded.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start(mut self) -> Result<Transcript, PipelineError> {
        if self.channels == Channels::Split {
            self.channels = Channels::Mix;
        }
        let mut lines = self.start_lines()?;
        Ok(lines.remove(0))
    }

    /// Starts a session for each channel of the source, and merges their transcripts by time.
    ///
    /// # Errors
    /// As [`start`](Transcription::start).
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn start_by_channel(mut self) -> Result<ChannelTranscript, PipelineError> {
        self.channels = Channels::Split;
        Ok(ChannelTranscript::new(self.start_lines()?))
    }

    fn start_lines(self) -> Result<Vec<Transcript>, PipelineError> {
        let Transcription { service, source, settings, channels, pace } = self;
        let options = pipeline::Options { channels, sample_rate: settings.sample_rate, ..pipeline::Options::default() };
        let (lines, worker) = Pipeline::open(source, options)?.start();
        let mut worker = Some(worker);
        let transcripts = lines.into_iter().zip(0..).map(|(audio, number)| {
            let mut settings = settings.clone();
            settings.seed = settings.seed.wrapping_add(number);
            let audio = paced(audio, pace, settings.sample_rate);
            // The end of reading is reported once, by the first line.
            Transcript::start(service.clone(), settings, audio, worker.take())
        });
        Ok(transcripts.collect())
    }
}

/// The same audio, at this pace.
#[expect(clippy::disallowed_methods, reason = "ends with the channel, on either side")]
fn paced(mut audio: mpsc::Receiver<Feed>, pace: Pace, sample_rate: u32) -> mpsc::Receiver<Feed> {
    if pace == Pace::Max {
        return audio;
    }
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let pacer = Pacer::new(pace, sample_rate);
        while let Some(feed) = audio.recv().await {
            pacer.wait(&feed).await;
            if sender.send(feed).await.is_err() {
                return;
            }
        }
    });
    receiver
}
