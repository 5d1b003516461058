//! Recognition of the chunks of a chunked session.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use http::StatusCode;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio::time::Instant;

use super::chunked_session::{Chunk, ChunkedSession, LastChunk, Progress, Stage, Text, failed};
use super::manager::SessionManager;
use super::session::{Rejection, Session};
use crate::authority::Amount;
use crate::http::error::{ApiError, BUSY_WAIT};
use crate::recordings::decoding::decode_whole;
use voxline::audio::{AudioChunk, FramePos};
use voxline::decode::Cancellation;
use voxline::engine::RECOGNIZER_RATE;

/// API of numbered chunks in the metrics and in the usage.
const API: &str = "chunks";

/// Documented limit of a chunk's length.
const MAX_DURATION: Duration = Duration::from_secs(1);
/// Error code for a chunk out of order. This code and the next are our own, since the documentation has
/// none.
const OUT_OF_ORDER: u16 = 4101;
/// Error code for a chunk of a task that is over.
const OVER: u16 = 4102;

impl ChunkedSession {
    /// Recognises `chunk` and returns the text so far, or after the last chunk the complete text. The
    /// client may send the most recent chunk again, since an answer can be lost.
    pub(crate) async fn add(&self, manager: &SessionManager, chunk: Chunk) -> Result<Text, ApiError> {
        let mut work = ChunkInProgress::begin(&self.progress, manager.options.chunked.gap);
        let mut taken = self.last_chunk.lock().await;
        let digest = Sha256::digest(&chunk.file).into();
        let is_repeat = match &*taken {
            Some(before) => before.is_repeated(&chunk, digest)?,
            None if chunk.number > 1 => {
                return Err(out_of_order(format!("chunk_num {} is not 0 or 1", chunk.number)));
            }
            None => false,
        };
        if !is_repeat {
            let (number, last) = (chunk.number, chunk.last);
            let end = self.take(manager, chunk).await?;
            *taken = Some(LastChunk { number, last, digest, end, answer: None });
        }
        work.was_chunk = true;
        let taken = taken.as_mut().expect("a chunk was taken");
        let answer = match &taken.answer {
            Some(answer) => answer.clone(),
            None => {
                self.acknowledged(manager, taken.end, taken.last).await?;
                taken.answer.insert(self.text()?).clone()
            }
        };
        if taken.last {
            self.note_informed();
        }
        Ok(answer)
    }

    /// Decodes a chunk and queues it for the recogniser. Returns the end of its audio.
    async fn take(&self, manager: &SessionManager, chunk: Chunk) -> Result<FramePos, ApiError> {
        if let Some(session) = self.session() {
            next_frame(&session)?;
        }
        let bytes = chunk.file.len();
        let decoding = move |cancellation| decode(chunk.file, cancellation);
        let pcm = manager.chunk_decoders.run(decoding).await??;
        let frames = pcm.len() as u64 / 2;
        let (session, attachment) = self.begin(manager, frames)?;
        let start = next_frame(&session)?;
        let end = start + frames;
        let charge = |milliseconds| manager.charge(&self.opener.identity, API, milliseconds, bytes);
        let audio = AudioChunk::new(start.to(end), pcm);
        session.audio(attachment, &audio, charge).map_err(|refusal| match refusal {
            Rejection::Exhausted(exhausted) => exhausted.into(),
            // The task was closed while the chunk was decoded.
            Rejection::Moved | Rejection::Flood | Rejection::Violation(_) => over(),
        })?;
        if chunk.last {
            session.close();
        }
        Ok(end)
    }

    /// Returns the task's session. The first chunk, of `frames` frames, begins it, and the session counts
    /// in the registry from then on.
    fn begin(&self, manager: &SessionManager, frames: u64) -> Result<(Arc<Session>, u64), ApiError> {
        let mut stage = self.stage();
        match &*stage {
            Stage::Pending(_) => {}
            Stage::Begun(session, attachment) => return Ok((session.clone(), *attachment)),
            Stage::Over => return Err(over()),
        }
        // A chunk that can't be paid for begins no session.
        let milliseconds = frames * 1_000 / u64::from(RECOGNIZER_RATE);
        manager.authority.afford(&self.opener.identity, Amount::audio(milliseconds))?;
        let options = manager.recognition_request(Some(&self.opener.identity), self.start.language.clone());
        let session = manager.begin(&self.opener.identity, API, &self.start, options)?;
        let attachment = session.attach(0).expect("a session that begins is not over").attachment;
        *stage = Stage::Begun(session.clone(), attachment);
        drop(stage);
        self.progress.send_modify(|_| {});
        Ok((session, attachment))
    }

    /// Waits until the audio up to `end` is acknowledged, as to the client of a socket: a minute of audio
    /// may wait for the recogniser. If `last`, waits until everything is final.
    async fn acknowledged(
        &self,
        manager: &SessionManager,
        end: FramePos,
        last: bool,
    ) -> Result<(), ApiError> {
        let session = self.session().expect("a chunk was taken");
        let mut changes = session.state().watch();
        loop {
            {
                let state = session.state().lock();
                if state.results.done || state.results.failed || !last && session.acknowledged(&state) >= end
                {
                    return Ok(());
                }
            }
            tokio::select! {
                changed = changes.changed() => changed.expect("the session holds the state"),
                () = self.aborted.cancelled() => {
                    self.check(&manager.authority)?;
                    return Err(stopping());
                }
            }
        }
    }
}

/// Returns the position at which the next chunk begins, if the session takes one.
fn next_frame(session: &Session) -> Result<FramePos, ApiError> {
    let state = session.state().lock();
    if state.results.failed {
        return Err(failed());
    }
    if state.input.finish.is_some() || state.over {
        return Err(over());
    }
    Ok(state.input.received)
}

impl LastChunk {
    /// Returns whether `chunk` is a repetition of this one.
    ///
    /// # Errors
    /// Returns [`ApiError`] if `chunk` is neither a repetition nor the next chunk.
    fn is_repeated(&self, chunk: &Chunk, digest: [u8; 32]) -> Result<bool, ApiError> {
        let number = chunk.number;
        if number == self.number {
            return if digest == self.digest && chunk.last == self.last {
                Ok(true)
            } else {
                Err(out_of_order(format!("chunk_num {number} was another chunk")))
            };
        }
        match self.number.checked_add(1) {
            Some(next) if number == next => Ok(false),
            _ => Err(out_of_order(format!("chunk_num {number} follows {}", self.number))),
        }
    }
}

/// A chunk in work, until it is answered or its client has left.
struct ChunkInProgress<'a> {
    progress: &'a watch::Sender<Progress>,
    gap: Duration,
    /// True if the chunk was valid; only a valid chunk restarts the gap.
    was_chunk: bool,
}

impl ChunkInProgress<'_> {
    fn begin(progress: &watch::Sender<Progress>, gap: Duration) -> ChunkInProgress<'_> {
        progress.send_modify(|progress| progress.working += 1);
        ChunkInProgress { progress, gap, was_chunk: false }
    }
}

impl Drop for ChunkInProgress<'_> {
    #[expect(clippy::disallowed_methods, reason = "the gap between chunks is real time")]
    fn drop(&mut self) {
        self.progress.send_modify(|progress| {
            progress.working -= 1;
            if self.was_chunk {
                progress.deadline = Instant::now().checked_add(self.gap);
            }
        });
    }
}

/// Returns the samples of a chunk at the recogniser's rate, as 16-bit little-endian PCM. Each chunk is a
/// file of its own and therefore has its own resampler, whose output is as long as the chunk.
fn decode(file: Vec<u8>, cancellation: Cancellation) -> Result<Bytes, ApiError> {
    let samples = decode_whole(file, MAX_DURATION, cancellation)?;
    let pcm: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    Ok(pcm.into())
}

fn out_of_order(message: String) -> ApiError {
    ApiError::bad_request(OUT_OF_ORDER, message)
}

fn over() -> ApiError {
    ApiError::bad_request(OVER, "the task is over and takes no more chunks")
}

/// Returns the error for a client that comes while the gateway is stopping.
fn stopping() -> ApiError {
    ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping", BUSY_WAIT)
}
