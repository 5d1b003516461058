//! A speech in the course of a connection: a text, whole or in pieces, and the audio that it becomes.

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryFutureExt, TryStreamExt};

use super::API;
use super::messages::{Reply, VoiceName, audio_chunk, audio_start, audio_stop, synthesize_stopped};
use crate::authority::Identity;
use crate::dialects::texts::{MAX_CHARACTERS, take_sentences};
use crate::gateway::Gateway;
use crate::http::error::ApiError;
use crate::speech::encoder::Format;
use crate::speech::synthesis::Synthesis;
use voxline::engine::{Voice, language_of};
use voxline::error::chain;

/// Bytes of audio in an event: 1,024 samples, as the reference implementation sends by default.
const CHUNK: usize = 2_048;

/// Speech that is being synthesised.
type Speech = Pin<Box<dyn Stream<Item = Result<Bytes, ApiError>> + Send>>;

/// A frame of the answer: its event and its payload.
pub(super) type Frame = (Reply, Bytes);

/// Next frames of the answer.
pub(super) enum Spoken {
    Piece(Vec<Frame>),
    /// The last ones.
    End(Vec<Frame>),
}

/// A text that is being spoken, sentence by sentence, while more of it may come.
pub(super) struct Speaking {
    asked: VoiceName,
    /// Text that is not spoken yet.
    pending: String,
    /// True if no more text will come.
    is_complete: bool,
    /// True if the text came in pieces, which makes the end of the answer an event of its own.
    is_in_pieces: bool,
    /// The voice, once it is chosen: by the first sentence, if the client names neither voice nor language.
    voice: Option<Arc<dyn Voice>>,
    speech: Option<Speech>,
    /// Number of samples told.
    samples: u64,
    has_begun: bool,
}

impl Speaking {
    /// Begins a speech of a whole text.
    ///
    /// # Errors
    /// Returns [`ApiError`] if the text is too long.
    pub(super) fn whole(text: String, asked: VoiceName) -> Result<Speaking, ApiError> {
        if text.chars().count() > MAX_CHARACTERS {
            let message = format!("text is longer than {MAX_CHARACTERS} characters");
            return Err(ApiError::bad_request(400, message));
        }
        Ok(Speaking { pending: text, is_complete: true, is_in_pieces: false, ..Speaking::in_pieces(asked) })
    }

    /// Begins a speech whose text comes in pieces.
    pub(super) fn in_pieces(asked: VoiceName) -> Speaking {
        Speaking {
            asked,
            pending: String::new(),
            is_complete: false,
            is_in_pieces: true,
            voice: None,
            speech: None,
            samples: 0,
            has_begun: false,
        }
    }

    /// Returns whether the client may send more text. Text that comes faster than it is spoken has to wait.
    pub(super) fn takes_text(&self) -> bool {
        // A character has a byte at least.
        !self.is_complete && self.pending.len() < MAX_CHARACTERS
    }

    /// Returns whether the text comes in pieces, and is not complete.
    pub(super) fn is_open(&self) -> bool {
        !self.is_complete
    }

    /// Takes a piece of the text.
    pub(super) fn add(&mut self, text: &str) {
        self.pending += text;
    }

    /// Ends the text.
    pub(super) fn complete(&mut self) {
        self.is_complete = true;
    }

    /// Waits for the next piece of audio. Without text that can be spoken, waits for ever. Cancel safe.
    ///
    /// # Errors
    /// Returns [`ApiError`] if there is no such voice, no capacity, or the synthesis failed.
    pub(super) async fn next(
        &mut self,
        gateway: &Arc<Gateway>,
        identity: &Identity,
    ) -> Result<Spoken, ApiError> {
        loop {
            if let Some(speech) = &mut self.speech {
                match speech.next().await.transpose()? {
                    Some(pcm) => return Ok(Spoken::Piece(self.told(&pcm))),
                    None => self.speech = None,
                }
            }
            let text = self.take_speakable();
            if !text.trim().is_empty() {
                self.speech = Some(self.speak(gateway, identity, text)?);
            } else if self.is_complete {
                return self.end(gateway).map(Spoken::End);
            } else {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Takes the text that can be spoken.
    fn take_speakable(&mut self) -> String {
        if self.is_complete {
            return std::mem::take(&mut self.pending);
        }
        take_sentences(&mut self.pending)
    }

    /// Starts to speak a text.
    fn speak(
        &mut self,
        gateway: &Arc<Gateway>,
        identity: &Identity,
        text: String,
    ) -> Result<Speech, ApiError> {
        let voice = self.choose(gateway, language_of(&text))?;
        let format = Format::PcmLittleEndian(voice.info().sample_rate);
        let (characters, bytes) = (text.chars().count(), text.len());
        let synthesis = Synthesis { voice, text, tempo: 1.0, format, characters, bytes };
        let (gateway, identity) = (gateway.clone(), identity.clone());
        let speech = async move {
            let speech = gateway.speak(API, Some(&identity), synthesis).await?;
            Ok::<_, ApiError>(speech.map_err(|error| ApiError::internal(&chain(&error))))
        };
        Ok(speech.try_flatten_stream().boxed())
    }

    /// Returns the voice, which stays the same for the whole text.
    fn choose(&mut self, gateway: &Gateway, language: &str) -> Result<Arc<dyn Voice>, ApiError> {
        if let Some(voice) = &self.voice {
            return Ok(voice.clone());
        }
        let language = self.asked.language.as_deref().unwrap_or(language);
        let voice = gateway.voices.find(self.asked.name().as_deref(), Some(language));
        let voice = voice.map_err(|error| ApiError::bad_request(400, error.to_string()))?;
        self.voice = Some(voice.clone());
        Ok(voice)
    }

    /// Returns the frames of a piece of audio.
    fn told(&mut self, pcm: &[u8]) -> Vec<Frame> {
        let rate = self.rate();
        let mut frames = self.begin(rate);
        for chunk in pcm.chunks(CHUNK) {
            let at = self.milliseconds(rate);
            self.samples += chunk.len() as u64 / 2;
            frames.push((audio_chunk(rate, at), Bytes::copy_from_slice(chunk)));
        }
        frames
    }

    /// Returns the end of the answer. A text without a sentence has audio without a sample.
    fn end(&mut self, gateway: &Gateway) -> Result<Vec<Frame>, ApiError> {
        self.choose(gateway, "en")?;
        let rate = self.rate();
        let mut frames = self.begin(rate);
        frames.push((audio_stop(self.milliseconds(rate)), Bytes::new()));
        if self.is_in_pieces {
            frames.push((synthesize_stopped(), Bytes::new()));
        }
        Ok(frames)
    }

    /// Returns the start of the audio, once.
    fn begin(&mut self, rate: u32) -> Vec<Frame> {
        let is_first = !std::mem::replace(&mut self.has_begun, true);
        is_first.then(|| (audio_start(rate), Bytes::new())).into_iter().collect()
    }

    fn rate(&self) -> u32 {
        self.voice.as_ref().expect("the voice is chosen before there is audio").info().sample_rate
    }

    fn milliseconds(&self, rate: u32) -> u64 {
        self.samples * 1_000 / u64::from(rate)
    }
}
