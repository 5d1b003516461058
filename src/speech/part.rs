//! Synthesis of one part of a text, with retries until all of it was delivered.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::request::{Service, SpeechResponse};
use super::samples::Samples;
use super::{Codec, Interruption, SpeechError, SpeechOptions};
use crate::auth::{AccessToken, TokenGeneration};
use crate::backoff::Backoff;
use crate::error::chain;
use crate::protocol::tts::PCM_RATE;
use crate::recovery::Recovery;
use voxline_support::random;

/// Maximum size of a piece of PCM, in bytes: 100 ms, so that a listener who stops between pieces stops
/// soon.
const PIECE_BYTES: usize = PCM_RATE as usize / 10 * 2;
/// Number of pieces of a part that may be buffered: a minute, more than a part usually has. The service
/// is thus done with most parts at once, and the buffer takes 3 MB at most.
pub(super) const PIECES: usize = 600;
/// Longest `Retry-After` that is waited for. A longer one is reported as an error, rather than leaving
/// the listener in silence.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Maximum size of an encoded part, in bytes: half an hour of MP3 at 320 kbit/s, far more than any part
/// has.
const MAX_ENCODED: usize = 64 << 20;

/// Sender of a part's pieces. A channel that closes without [`Piece::End`] or an error means that the
/// task panicked or was aborted.
pub(super) type Pieces = mpsc::Sender<Result<Piece, SpeechError>>;

/// A piece of a part.
#[derive(Debug)]
pub(super) enum Piece {
    /// 16-bit little-endian samples, or the whole of an encoded part.
    Audio(Bytes),
    /// End of the part.
    End,
}

/// A part to be requested.
pub(super) struct Part {
    pub(super) service: Arc<Service>,
    pub(super) text: String,
    /// Encoding; `None` for PCM.
    pub(super) codec: Option<Codec>,
    pub(super) options: Arc<SpeechOptions>,
    pub(super) pieces: Pieces,
}

/// Progress of a part over all its requests.
#[derive(Default)]
struct Progress {
    /// Bytes of whole samples that were delivered.
    delivered: u64,
    /// Generation of the token that the last request was refused for.
    refused: Option<TokenGeneration>,
}

impl Part {
    /// Delivers the part, up to its end or to the error that ends it.
    pub(super) async fn run(self) {
        let last = match self.speak().await {
            Ok(()) => Ok(Piece::End),
            Err(error) => Err(error),
        };
        // The receiver was dropped; nothing is left to report.
        let _ = self.pieces.send(last).await;
    }

    async fn speak(&self) -> Result<(), SpeechError> {
        let mut progress = Progress::default();
        let mut backoff = Backoff::new(random::seed());
        let mut attempts = 0;
        let mut refusal = None;
        loop {
            let refused = progress.refused;
            let error = match self.attempt(&mut progress).await {
                Ok(()) => return Ok(()),
                Err(error) => error.after(refusal.take()),
            };
            let wait = match error.recovery() {
                Recovery::RefreshToken if refused.is_none() && progress.refused.is_some() => {
                    refusal = Some(error);
                    continue;
                }
                Recovery::RefreshToken | Recovery::Fatal => return Err(error),
                Recovery::RetryAfter(wait) if wait > LONGEST_WAIT => return Err(error),
                Recovery::RetryAfter(wait) => wait,
                Recovery::Retry => backoff.next_delay(),
            };
            attempts += 1;
            if attempts >= self.options.attempts {
                return Err(error);
            }
            tracing::debug!(error = %chain(&error), attempts, ?wait, "part is requested again");
            sleep(wait).await;
        }
    }

    /// Sends one request, and delivers the audio that was not delivered before.
    async fn attempt(&self, progress: &mut Progress) -> Result<(), SpeechError> {
        let token = self.token(progress.refused).await?;
        let response = self.service.request(&self.text, self.codec, &self.options, &token).await;
        progress.refused = match &response {
            Err(SpeechError::Refused { recovery: Recovery::RefreshToken, .. }) => Some(token.generation()),
            _ => None,
        };
        match self.codec {
            None => self.deliver_pcm(response?, progress).await,
            Some(_) => self.deliver_encoded(response?).await,
        }
    }

    async fn token(&self, refused: Option<TokenGeneration>) -> Result<AccessToken, SpeechError> {
        let tokens = &self.service.tokens;
        Ok(match refused {
            Some(generation) => tokens.newer_than(generation).await?,
            None => tokens.token().await?,
        })
    }

    /// Delivers the samples as they arrive. A response that is shorter than the audio delivered before
    /// ends the part.
    async fn deliver_pcm(
        &self,
        mut response: SpeechResponse<'_>,
        progress: &mut Progress,
    ) -> Result<(), SpeechError> {
        let mut samples = Samples::after(progress.delivered);
        while let Some(bytes) = response.next().await? {
            let mut whole = samples.push(bytes);
            while !whole.is_empty() {
                let piece = whole.split_to(whole.len().min(PIECE_BYTES));
                let length = piece.len() as u64;
                if self.pieces.send(Ok(Piece::Audio(piece))).await.is_err() {
                    // The receiver was dropped.
                    return Ok(());
                }
                progress.delivered += length;
            }
        }
        if samples.is_cut() { Err(self.service.interrupted(Interruption::BrokenOff(None))) } else { Ok(()) }
    }

    /// Delivers an encoded part once it is complete: half of a part cannot be joined to the rest of
    /// another response, whose bytes may differ.
    async fn deliver_encoded(&self, mut response: SpeechResponse<'_>) -> Result<(), SpeechError> {
        let mut part = BytesMut::new();
        while let Some(bytes) = response.next().await? {
            part.extend_from_slice(&bytes);
            if part.len() > MAX_ENCODED {
                let endpoint = self.service.endpoint.to_string();
                return Err(SpeechError::InvalidResponse { endpoint, what: "more than 64 MiB" });
            }
        }
        // The receiver may have been dropped.
        let _ = self.pieces.send(Ok(Piece::Audio(part.freeze()))).await;
        Ok(())
    }
}
