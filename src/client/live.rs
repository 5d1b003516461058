//! Live audio to be transcribed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use voxline_support::random;

use super::Service;
use super::transcript::Transcript;
use crate::audio::{Feed, FramePos};
use crate::chunk::Chunker;
use crate::session::{Overflow, Settings};

/// Audio in a chunk: what one WebSocket frame carries.
const CHUNK: Duration = Duration::from_millis(100);
/// Chunks that may wait for the session, beside its replay buffer.
const WAITING_CHUNKS: usize = 16;

/// Live audio to be transcribed, with its options; made by [`Client::live`](super::Client::live).
#[derive(Debug)]
#[must_use = "nothing is transcribed before it is started"]
pub struct LiveTranscription {
    service: Arc<Service>,
    settings: Settings,
}

impl LiveTranscription {
    pub(super) fn new(service: Arc<Service>, sample_rate: u32) -> LiveTranscription {
        let mut settings = Settings::new(sample_rate);
        settings.seed = random::seed();
        LiveTranscription { service, settings }
    }

    /// The language spoken, as a BCP 47 tag (`en`, `ru-RU`). By default the service detects it.
    pub fn language(mut self, language: impl Into<String>) -> LiveTranscription {
        self.settings.language = Some(language.into());
        self
    }

    /// Whether partial results are wanted: yes, by default.
    pub fn partials(mut self, wanted: bool) -> LiveTranscription {
        self.settings.partials = wanted;
        self
    }

    /// What happens to new audio while the replay buffer is full, because the service is away or slow. By default
    /// [`LiveAudio::push`] waits and nothing is lost; a source that can't wait drops the oldest audio that was not sent,
    /// which the transcript reports as a gap.
    pub fn overflow(mut self, overflow: Overflow) -> LiveTranscription {
        self.settings.overflow = overflow;
        self
    }

    /// Changes any other setting of the session, such as the size of its replay buffer.
    pub fn settings(mut self, change: impl FnOnce(&mut Settings)) -> LiveTranscription {
        change(&mut self.settings);
        self
    }

    /// Starts the session. Audio may be pushed at once, before there is a connection.
    ///
    /// # Panics
    /// Outside of a tokio runtime, and for a sample rate below 10.
    #[must_use]
    pub fn start(self) -> (LiveAudio, Transcript) {
        let (feed, audio) = mpsc::channel(WAITING_CHUNKS);
        let frames = u128::from(self.settings.sample_rate) * CHUNK.as_millis() / 1_000;
        let chunker = Chunker::new(usize::try_from(frames).expect("a tenth of a rate"));
        (LiveAudio { chunker, feed }, Transcript::start(self.service, self.settings, audio, None))
    }
}

/// The audio end of a live transcription. Dropping it ends the audio where it stands, as [`finish`](LiveAudio::finish)
/// does, but for up to 100 ms that were not sent yet.
#[derive(Debug)]
pub struct LiveAudio {
    chunker: Chunker,
    feed: mpsc::Sender<Feed>,
}

/// The session has ended, so it takes no more audio: its [`Transcript`] says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended and takes no more audio")]
pub struct SessionEnded;

impl LiveAudio {
    /// Takes the next samples, mono, in pieces of any length. Waits while the session takes none: see
    /// [`overflow`](LiveTranscription::overflow). Where it is dropped before it is done, [`position`](LiveAudio::position)
    /// says how many samples were taken.
    ///
    /// # Errors
    /// [`SessionEnded`].
    pub async fn push(&mut self, mut samples: &[i16]) -> Result<(), SessionEnded> {
        while !samples.is_empty() {
            // Room first: a chunk that was cut must not be lost with this future.
            let room = self.feed.reserve().await.map_err(|_| SessionEnded)?;
            if let Some(chunk) = self.chunker.push_s16(&mut samples) {
                room.send(Feed::Audio(chunk));
            }
        }
        Ok(())
    }

    /// The number of frames taken so far.
    #[must_use]
    pub fn position(&self) -> FramePos {
        self.chunker.position()
    }

    /// Asks for everything pushed so far to be recognised now, without waiting for a pause.
    ///
    /// # Errors
    /// [`SessionEnded`].
    pub async fn flush(&mut self) -> Result<(), SessionEnded> {
        self.send_rest().await?;
        self.send(Feed::Flush).await
    }

    /// Ends the audio. The transcript goes on until all of it is final.
    ///
    /// # Errors
    /// [`SessionEnded`].
    pub async fn finish(mut self) -> Result<(), SessionEnded> {
        self.send_rest().await?;
        self.send(Feed::End).await
    }

    async fn send_rest(&mut self) -> Result<(), SessionEnded> {
        let room = self.feed.reserve().await.map_err(|_| SessionEnded)?;
        if let Some(chunk) = self.chunker.finish() {
            room.send(Feed::Audio(chunk));
        }
        Ok(())
    }

    async fn send(&self, feed: Feed) -> Result<(), SessionEnded> {
        self.feed.send(feed).await.map_err(|_| SessionEnded)
    }
}
