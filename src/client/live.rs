//! Transcription of live audio.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::input::Input;
use super::spool_file::{SpoolContext, SpoolFile};
use super::{Service, StartError, Transcript, Transcription};
use crate::audio::{Feed, FramePos};
use crate::chunk::Chunker;
use crate::pace::{Pace, Pacer};
use crate::protocol::check_hints;
use crate::session::{Overflow, Settings};
use crate::spool::Repeatability;

/// Duration of a chunk, as in the front end for recordings.
const CHUNK: Duration = Duration::from_millis(100);
/// Sample rates that a session may have, in frames per second: those of speech recognition services.
const SAMPLE_RATES: RangeInclusive<u32> = 8_000..=48_000;
/// Number of chunks that may wait for the session, in addition to its replay buffer.
const WAITING_CHUNKS: usize = 16;

/// Live audio to be transcribed, with the options that only live audio has.
#[derive(Debug)]
pub struct Live {
    spool: Option<SpoolFile>,
}

impl Transcription<Live> {
    pub(super) fn of_live_audio(service: Arc<Service>, sample_rate: u32) -> Transcription<Live> {
        Transcription { service, settings: Settings::new(sample_rate), audio: Live { spool: None } }
    }

    /// Sets the policy for new audio while the replay buffer is full because the service is away or slow. By
    /// default [`LiveAudio::push`] waits, and nothing is lost. For a source that can't wait,
    /// [`Overflow::DropOldest`] drops the oldest audio not sent yet, which the transcript reports as a gap.
    pub fn overflow(mut self, overflow: Overflow) -> Transcription<Live> {
        self.settings.replay.overflow = overflow;
        self
    }

    /// Keeps the session in this file, so that a later process resumes it after a crash. With a spool,
    /// [`LiveAudio::push`] waits for the disk only, however long the service is away, and the
    /// [overflow](Transcription::overflow) policy has no effect. Audio that a later process pushes
    /// continues where the spooled audio ends.
    pub fn spool(self, file: SpoolFile) -> Transcription<Live> {
        Transcription { audio: Live { spool: Some(file) }, ..self }
    }

    /// Starts the session. Audio may be pushed at once, before there is a connection.
    ///
    /// Read the transcript while audio is pushed: a session whose events are not taken stops taking audio in
    /// the end.
    ///
    /// # Errors
    /// Returns [`StartError::SampleRate`] if the sample rate is not 8,000 to 48,000, [`StartError::Hints`] if
    /// the prompt or the keywords are too long, and [`StartError::Spool`] if there is a spool that can't be
    /// opened, for which the call blocks on the disk.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime.
    pub fn start(self) -> Result<(LiveAudio, Transcript), StartError> {
        let Transcription { service, settings, audio: Live { spool } } = self;
        if !SAMPLE_RATES.contains(&settings.sample_rate) {
            return Err(StartError::SampleRate { actual: settings.sample_rate });
        }
        check_hints(settings.request.prompt.as_deref(), &settings.request.keywords)?;
        let opened = match spool {
            Some(file) => {
                let session =
                    SpoolContext { settings: &settings, service: &service.endpoint, source: "live audio" };
                Some((file.open(&session)?, Repeatability::Live))
            }
            None => None,
        };
        let (feed, audio) = mpsc::channel(WAITING_CHUNKS);
        let frames = u128::from(settings.sample_rate) * CHUNK.as_millis() / 1_000;
        let chunker = Chunker::new(usize::try_from(frames).expect("a tenth of a rate"));
        let input = Input {
            audio,
            pacer: Pacer::new(Pace::MAX, settings.sample_rate),
            is_live: true,
            #[cfg(feature = "decode")]
            reading: None,
            #[cfg(feature = "decode")]
            may_be_complete_later: false,
        };
        let transcript = Transcript::start(service, settings, opened, input);
        Ok((LiveAudio { chunker, feed }, transcript))
    }
}

/// The audio input of a live transcription. Audio is sent in chunks of 100 ms.
///
/// Dropping the input ends the audio like [`finish`](LiveAudio::finish), except that the incomplete last
/// chunk is lost if the session takes no audio at that moment. A transcript with a spool is then [not
/// complete](Transcript::is_resumable): the caller may have died, and a later process may have more audio.
#[derive(Debug)]
pub struct LiveAudio {
    chunker: Chunker,
    feed: mpsc::Sender<Feed>,
}

/// Error of pushing audio to a session that has ended. The [`Transcript`] has the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the session has ended and takes no more audio")]
pub struct SessionEnded;

impl LiveAudio {
    /// Takes the next samples, mono, in pieces of any length. Waits while the session takes no audio; see
    /// [`overflow`](Transcription::overflow). If the future is dropped early,
    /// [`position`](LiveAudio::position) says how many samples were taken, and none of those is lost.
    ///
    /// # Errors
    /// Returns [`SessionEnded`] if the session takes no more audio.
    pub async fn push(&mut self, mut samples: &[i16]) -> Result<(), SessionEnded> {
        while !samples.is_empty() {
            // Reserve room first: a complete chunk must not be lost if this future is dropped.
            let room = self.feed.reserve().await.map_err(|_| SessionEnded)?;
            if let Some(chunk) = self.chunker.push_s16(&mut samples) {
                room.send(Feed::Audio(chunk));
            }
        }
        Ok(())
    }

    /// Takes the next samples as [`push`](LiveAudio::push) does, but without waiting: for the callback of an
    /// audio device. Returns how many samples were taken; fewer than given if the session takes no audio now.
    ///
    /// # Errors
    /// Returns [`SessionEnded`] if the session takes no more audio.
    pub fn try_push(&mut self, mut samples: &[i16]) -> Result<usize, SessionEnded> {
        let given = samples.len();
        while !samples.is_empty() {
            let room = match self.feed.try_reserve() {
                Ok(room) => room,
                Err(TrySendError::Full(())) => break,
                Err(TrySendError::Closed(())) => return Err(SessionEnded),
            };
            if let Some(chunk) = self.chunker.push_s16(&mut samples) {
                room.send(Feed::Audio(chunk));
            }
        }
        Ok(given - samples.len())
    }

    /// Returns the number of frames taken so far by this input, those of earlier processes not included.
    #[must_use]
    pub fn position(&self) -> FramePos {
        self.chunker.position()
    }

    /// Requests final results for all audio pushed so far, without waiting for a pause.
    ///
    /// # Errors
    /// Returns [`SessionEnded`] if the session takes no more audio.
    pub async fn flush(&mut self) -> Result<(), SessionEnded> {
        self.send_rest().await?;
        self.send(Feed::Flush).await
    }

    /// Requests final results as [`flush`](LiveAudio::flush) does, but without waiting. Returns `false`, and
    /// requests nothing, if the session takes no audio now.
    ///
    /// # Errors
    /// Returns [`SessionEnded`] if the session takes no more audio.
    pub fn try_flush(&mut self) -> Result<bool, SessionEnded> {
        // For the rest of the audio, and for the request.
        let mut room = match self.feed.try_reserve_many(2) {
            Ok(room) => room,
            Err(TrySendError::Full(())) => return Ok(false),
            Err(TrySendError::Closed(())) => return Err(SessionEnded),
        };
        if let Some(chunk) = self.chunker.finish()
            && let Some(room) = room.next()
        {
            room.send(Feed::Audio(chunk));
        }
        if let Some(room) = room.next() {
            room.send(Feed::Flush);
        }
        Ok(true)
    }

    /// Ends the audio. The transcript continues until all audio is final.
    ///
    /// # Errors
    /// Returns [`SessionEnded`] if the session takes no more audio.
    pub async fn finish(mut self) -> Result<(), SessionEnded> {
        self.send_rest().await?;
        self.send(Feed::End).await
    }

    /// Sends the incomplete chunk, if there is one.
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

impl Drop for LiveAudio {
    fn drop(&mut self) {
        if let Some(chunk) = self.chunker.finish() {
            let _ = self.feed.try_send(Feed::Audio(chunk));
        }
    }
}
