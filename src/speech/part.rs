//! One part of a text, asked for until all of it was passed on.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::request::{Answer, Service};
use super::samples::Samples;
use super::{Codec, PCM_RATE, SpeechError, SpeechOptions};
use crate::auth::{AccessToken, TokenGeneration};
use crate::recovery::Recovery;
use crate::session::backoff::Backoff;
use voxline_support::random;

/// The most bytes in a piece of PCM: 100 ms, so that who stops at one stops soon.
const PIECE_BYTES: usize = PCM_RATE as usize / 10 * 2;
/// How many pieces of a part may wait to be heard: a minute, more than a part usually has. So the service is done with
/// most parts at once, and what is ahead takes 3 MB at most.
pub(super) const PIECES: usize = 600;
/// Who is asked to wait for longer is told so instead: nobody listens to silence.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// No encoded part is larger: hours of MP3 at the highest rate are.
const MAX_ENCODED: usize = 64 << 20;

/// What a part comes as. A channel that closes without the end, or an error, means that the task died.
pub(super) type Pieces = mpsc::Sender<Result<Piece, SpeechError>>;

/// What of a part is passed on.
#[derive(Debug)]
pub(super) enum Piece {
    /// 16-bit little-endian samples; of an encoded part all of it.
    Audio(Bytes),
    /// That was all.
    End,
}

/// A part to be asked for.
pub(super) struct Part {
    pub(super) service: Arc<Service>,
    pub(super) text: String,
    /// `None` for PCM.
    pub(super) codec: Option<Codec>,
    pub(super) options: Arc<SpeechOptions>,
    pub(super) pieces: Pieces,
}

/// How far a part has come, over all its requests.
#[derive(Default)]
struct Progress {
    /// Bytes of whole samples that were passed on.
    passed_on: u64,
    /// The token that the last request was refused for.
    refused: Option<TokenGeneration>,
}

impl Part {
    /// Passes the part on, to its end or to the error that ends it.
    pub(super) async fn run(self) {
        let last = match self.speak().await {
            Ok(()) => Ok(Piece::End),
            Err(error) => Err(error),
        };
        // Without a receiver nobody wants to know.
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
            tracing::debug!(%error, attempts, ?wait, "part is asked for again");
            sleep(wait).await;
        }
    }

    /// Asks once, and passes on what was not passed on before.
    async fn attempt(&self, progress: &mut Progress) -> Result<(), SpeechError> {
        let token = self.token(progress.refused).await?;
        let asked = self.service.ask(&self.text, self.codec, &self.options, &token).await;
        progress.refused = match &asked {
            Err(SpeechError::Refused { recovery: Recovery::RefreshToken, .. }) => Some(token.generation()),
            _ => None,
        };
        match self.codec {
            None => self.pass_on(asked?, progress).await,
            Some(_) => self.pass_on_whole(asked?).await,
        }
    }

    async fn token(&self, refused: Option<TokenGeneration>) -> Result<AccessToken, SpeechError> {
        let tokens = &self.service.tokens;
        Ok(match refused {
            Some(generation) => tokens.newer_than(generation).await?,
            None => tokens.token().await?,
        })
    }

    /// Passes on the samples as they come. Where the answer is shorter than what was passed on before, that was all.
    async fn pass_on(&self, mut answer: Answer<'_>, progress: &mut Progress) -> Result<(), SpeechError> {
        let mut samples = Samples::after(progress.passed_on);
        while let Some(bytes) = answer.next().await? {
            let mut whole = samples.push(bytes);
            while !whole.is_empty() {
                let piece = whole.split_to(whole.len().min(PIECE_BYTES));
                let length = piece.len() as u64;
                if self.pieces.send(Ok(Piece::Audio(piece))).await.is_err() {
                    // Nobody listens any more.
                    return Ok(());
                }
                progress.passed_on += length;
            }
        }
        match samples.is_cut() {
            true => Err(self.service.lost("speech broke off")),
            false => Ok(()),
        }
    }

    /// Passes on an encoded part once it is whole: half of a part can't be joined to the rest of another answer, whose
    /// bytes may be others.
    async fn pass_on_whole(&self, mut answer: Answer<'_>) -> Result<(), SpeechError> {
        let mut part = BytesMut::new();
        while let Some(bytes) = answer.next().await? {
            part.extend_from_slice(&bytes);
            if part.len() > MAX_ENCODED {
                let endpoint = self.service.endpoint.to_string();
                return Err(SpeechError::Answer { endpoint, what: "more than 64 MiB" });
            }
        }
        // Without a receiver nobody listens any more.
        let _ = self.pieces.send(Ok(Piece::Audio(part.freeze()))).await;
        Ok(())
    }
}
