//! A task of the numbered-chunk stream: a session whose audio comes in small files, one request each.
//!
//! The session, and with it a place in the session registry, begins with the first chunk. Chunks are
//! recognised strictly one after another; a chunk that comes during the work on another waits for it. A
//! task ends with its last chunk, with a gap that is too long, or with the token that created it. Its place
//! is then free, and its text is kept for a while.

use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use http::StatusCode;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::registry::Full;
use super::session::{Rejection, Session};
use super::socket::at;
use crate::BUSY_WAIT;
use crate::Gateway;
use crate::admission::pending::PendingPlace;
use crate::authority::{Amount, AuthorityError, Fingerprint, Identity};
use crate::http::error::ApiError;
use crate::http::upload::{Upload, bad};
use crate::routes::asr::plain;
use voxline::audio::{AudioChunk, FramePos};
use voxline::decode::Cancellation;
use voxline::engine::RECOGNIZER_RATE;
use voxline::protocol::Start;

/// Documented limit of a chunk's length.
const MAX_DURATION: Duration = Duration::from_secs(1);
/// Error code for a chunk out of order. This code and the next are our own, since the documentation has
/// none.
const OUT_OF_ORDER: u16 = 4101;
/// Error code for a chunk of a task that is over.
const OVER: u16 = 4102;

/// Text recognised so far.
#[derive(Clone)]
pub(crate) struct Text {
    pub(crate) punctuated: String,
    /// Plain text, in the form that `/asr` uses.
    pub(crate) plain: String,
}

/// An audio file and its place in the task.
pub(crate) struct Chunk {
    pub(crate) number: u64,
    pub(crate) last: bool,
    pub(crate) file: Vec<u8>,
}

/// The chunk that was accepted last.
struct LastChunk {
    number: u64,
    last: bool,
    digest: [u8; 32],
    /// End position of the chunk's audio.
    end: FramePos,
    /// Answer to the chunk, once there is one.
    answer: Option<Text>,
}

/// State of a task's session.
enum Stage {
    /// No chunk has come yet. The place among waiting clients is given back when the first one comes.
    Pending(PendingPlace),
    /// The session has begun. The number is that of the task's attachment to it.
    Begun(Arc<Session>, u64),
    /// The task ended without a chunk.
    Over,
}

/// End of the wait for a task's first chunk.
enum Opening {
    Begun(Arc<Session>, u64),
    /// Nothing came in time: the task is done, and its text is empty.
    Done,
    /// The token was revoked, so the task is no longer available to any client.
    Revoked,
    /// The task lost its place to another client, or because the gateway is stopping.
    Displaced,
}

/// Progress of a task's client.
pub(crate) struct Progress {
    /// Number of chunks that have arrived and are not answered. While there are any, no gap has begun.
    working: usize,
    /// Time at which the gap becomes too long; `None` if that is too far away for an `Instant`.
    deadline: Option<Instant>,
    /// True once the client knows that the task is done.
    informed: bool,
}

/// A task, live or done.
pub(crate) struct ChunkedSession {
    pub(crate) id: String,
    /// Fingerprint of the task token.
    pub(crate) token: Fingerprint,
    /// Identity of the token that created the task. Audio is charged to it.
    identity: Identity,
    /// Expiry of that token, on the authority's clock.
    expires_at: Option<Duration>,
    /// Parameters of the session.
    start: Start,
    stage: std::sync::Mutex<Stage>,
    taken: Mutex<Option<LastChunk>>,
    progress: watch::Sender<Progress>,
    /// Cancelled if the task ends before it is done.
    aborted: CancellationToken,
    /// Time until which the result is kept, or `None` for no end. It is set once the task is done.
    pub(crate) kept_until: OnceLock<Option<Instant>>,
}

impl ChunkedSession {
    pub(crate) fn new(
        (id, token): (String, Fingerprint),
        identity: Identity,
        expires_at: Option<Duration>,
        start: Start,
        place: PendingPlace,
        deadline: Option<Instant>,
    ) -> ChunkedSession {
        let progress = watch::Sender::new(Progress { working: 0, deadline, informed: false });
        ChunkedSession {
            id,
            token,
            identity,
            expires_at,
            start,
            stage: std::sync::Mutex::new(Stage::Pending(place)),
            taken: Mutex::default(),
            progress,
            aborted: CancellationToken::new(),
            kept_until: OnceLock::new(),
        }
    }

    /// Checks that the token which created the task was not revoked. A token that has expired closes the
    /// task, but leaves its result to be fetched.
    pub(crate) fn check(&self, gateway: &Gateway) -> Result<(), AuthorityError> {
        let has_expired = || self.expires_at.is_some_and(|end| gateway.authority.clock().unix() >= end);
        match gateway.authority.check_again(&self.identity) {
            // Look at the expiry after the check: the token may expire between the two.
            Err(_) if has_expired() => Ok(()),
            checked => checked.map(drop),
        }
    }

    /// Returns whether the task may be used from this address.
    pub(crate) fn admits(&self, peer: Option<IpAddr>) -> bool {
        self.identity.terms.admit(peer)
    }

    pub(crate) fn is_done(&self) -> bool {
        match &*self.stage() {
            Stage::Pending(_) => false,
            Stage::Begun(session, _) => session.state().lock().done,
            Stage::Over => true,
        }
    }

    /// Locks the stage. A panic elsewhere leaves it consistent: each change is one assignment.
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self) -> Option<Arc<Session>> {
        match &*self.stage() {
            Stage::Begun(session, _) => Some(session.clone()),
            Stage::Pending(_) | Stage::Over => None,
        }
    }

    /// Notes that the client learns that the task is done.
    pub(crate) fn note_informed(&self) {
        self.progress.send_modify(|progress| progress.informed = true);
    }

    /// Returns all final text and the partial result after it, if the recogniser has one.
    pub(crate) fn text(&self) -> Result<Text, ApiError> {
        let Some(session) = self.session() else {
            return Ok(Text { punctuated: String::new(), plain: String::new() });
        };
        let state = session.state().lock();
        if state.failed {
            return Err(failed());
        }
        let finals = state.finals.iter().map(|segment| segment.text.as_str());
        let guess = state.partial.as_ref().map(|partial| partial.text.as_str());
        let spoken = finals.chain(guess).map(str::trim).filter(|text| !text.is_empty());
        let punctuated = spoken.collect::<Vec<_>>().join(" ");
        drop(state);
        Ok(Text { plain: plain(&punctuated), punctuated })
    }

    /// Recognises `chunk` and returns the text so far, or after the last chunk the complete text. The
    /// client may send the most recent chunk again, since an answer can be lost.
    pub(crate) async fn add(&self, gateway: &Gateway, chunk: Chunk) -> Result<Text, ApiError> {
        let mut work = ChunkInProgress::begin(&self.progress, gateway.options.task_gap);
        let mut taken = self.taken.lock().await;
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
            let end = self.take(gateway, chunk).await?;
            *taken = Some(LastChunk { number, last, digest, end, answer: None });
        }
        work.was_chunk = true;
        let taken = taken.as_mut().expect("a chunk was taken");
        let answer = match &taken.answer {
            Some(answer) => answer.clone(),
            None => {
                self.acknowledged(gateway, taken.end, taken.last).await?;
                taken.answer.insert(self.text()?).clone()
            }
        };
        if taken.last {
            self.note_informed();
        }
        Ok(answer)
    }

    /// Decodes a chunk and queues it for the recogniser. Returns the end of its audio.
    async fn take(&self, gateway: &Gateway, chunk: Chunk) -> Result<FramePos, ApiError> {
        if let Some(session) = self.session() {
            next_frame(&session)?;
        }
        let bytes = chunk.file.len();
        let decoding = move |cancellation| decode(chunk.file, cancellation);
        let pcm = gateway.chunk_decoders.run(decoding).await??;
        let frames = pcm.len() as u64 / 2;
        let (session, attachment) = self.begin(gateway, frames)?;
        let start = next_frame(&session)?;
        let end = start + frames;
        let charge = |milliseconds| {
            gateway.authority.charge(&self.identity, Amount::audio(milliseconds))?;
            gateway.metrics.receive("chunks", milliseconds, bytes);
            Ok(())
        };
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
    fn begin(&self, gateway: &Gateway, frames: u64) -> Result<(Arc<Session>, u64), ApiError> {
        let mut stage = self.stage();
        match &*stage {
            Stage::Pending(_) => {}
            Stage::Begun(session, attachment) => return Ok((session.clone(), *attachment)),
            Stage::Over => return Err(over()),
        }
        // A chunk that can't be paid for begins no session.
        let milliseconds = frames * 1_000 / u64::from(RECOGNIZER_RATE);
        gateway.authority.afford(&self.identity, Amount::audio(milliseconds))?;
        gateway.takes_sessions().map_err(|reason| gateway.reject(reason))?;
        let options = gateway.stream_options(Some(&self.identity), self.start.language.clone());
        let recognizer = gateway.recognizer()?;
        let session = Session::start(recognizer, &gateway.scheduler, &self.identity, &self.start, options);
        let session = Arc::new(session.map_err(|error| ApiError::internal(&error))?);
        let attachment = session.attach(0).map_err(|error| ApiError::internal(&error))?.attachment;
        let full = |full: Full| ApiError::busy(StatusCode::TOO_MANY_REQUESTS, full.tell(gateway), BUSY_WAIT);
        gateway.sessions.insert(&session, self.identity.terms.max_sessions).map_err(full)?;
        gateway.metrics.started.inc();
        tracing::info!(session = session.name(), token = self.identity.token, "task begun");
        *stage = Stage::Begun(session.clone(), attachment);
        drop(stage);
        self.progress.send_modify(|_| {});
        Ok((session, attachment))
    }

    /// Waits until the audio up to `end` is acknowledged, as to the client of a socket: a minute of audio
    /// may wait for the recogniser. If `last`, waits until everything is final.
    async fn acknowledged(&self, gateway: &Gateway, end: FramePos, last: bool) -> Result<(), ApiError> {
        let session = self.session().expect("a chunk was taken");
        let mut changes = session.state().watch();
        loop {
            {
                let state = session.state().lock();
                if state.done || state.failed || !last && session.acknowledged(&state) >= end {
                    return Ok(());
                }
            }
            tokio::select! {
                changed = changes.changed() => changed.expect("the session holds the state"),
                () = self.aborted.cancelled() => {
                    self.check(gateway)?;
                    return Err(stopping());
                }
            }
        }
    }

    /// Watches over a task until it is done or no longer available to any client. `token_ends` is the
    /// expiry of the token that created the task.
    pub(crate) async fn supervise(self: Arc<ChunkedSession>, gateway: &Gateway, token_ends: Option<Instant>) {
        let (session, attachment) = match self.opening(gateway, token_ends).await {
            Opening::Begun(session, attachment) => (session, attachment),
            Opening::Done => {
                gateway.chunked.keep(&self);
                return self.until_informed(gateway).await;
            }
            Opening::Revoked => return gateway.chunked.remove(&self),
            // The task stays in the registry, and requests are told that the gateway is stopping.
            Opening::Displaced if gateway.is_draining() => return,
            Opening::Displaced => return gateway.chunked.forget(&self),
        };
        let is_done = self.until_done(gateway, &session, token_ends).await;
        if is_done {
            gateway.chunked.keep(&self);
        } else {
            gateway.chunked.remove(&self);
            session.end(attachment);
            self.aborted.cancel();
        }
        gateway.sessions.remove(session.name());
        tracing::info!(session = session.name(), done = is_done, "task ended");
        if is_done {
            self.until_informed(gateway).await;
        }
    }

    /// While the gateway drains, waits until the client learns that the task is done.
    async fn until_informed(&self, gateway: &Gateway) {
        if gateway.is_draining() {
            let mut progress = self.progress.subscribe();
            tokio::select! {
                _ = progress.wait_for(|progress| progress.informed) => {}
                () = gateway.closing.cancelled() => {}
            }
        }
    }

    /// Waits for the first chunk, as long as there may be one.
    async fn opening(&self, gateway: &Gateway, token_ends: Option<Instant>) -> Opening {
        let mut progress = self.progress.subscribe();
        let mut revocations = gateway.authority.revocations();
        // Revocations between the check of the token and this subscription are not notified, so check once
        // more.
        revocations.mark_changed();
        let displaced = match &*self.stage() {
            Stage::Pending(place) => place.displacement(),
            Stage::Begun(..) | Stage::Over => CancellationToken::new(),
        };
        loop {
            if let Stage::Begun(session, attachment) = &*self.stage() {
                return Opening::Begun(session.clone(), *attachment);
            }
            let quiet = {
                let progress = progress.borrow_and_update();
                progress.deadline.filter(|_| progress.working == 0)
            };
            let ended = tokio::select! {
                changed = progress.changed() => {
                    changed.expect("the task holds its progress");
                    continue;
                }
                changed = revocations.changed() => {
                    changed.expect("the gateway holds the authority");
                    if self.check(gateway).is_ok() {
                        continue;
                    }
                    Opening::Revoked
                }
                () = at(quiet) => Opening::Done,
                () = at(token_ends) => Opening::Done,
                () = displaced.cancelled() => Opening::Displaced,
                () = gateway.draining.cancelled() => {
                    // A first chunk that comes now is refused because the gateway is stopping. An earlier
                    // one has begun the session.
                    if let Stage::Pending(_) = &*self.stage() {
                        return Opening::Displaced;
                    }
                    continue;
                }
            };
            let mut stage = self.stage();
            // A chunk may have begun the session meanwhile.
            if let Stage::Pending(_) = &*stage {
                *stage = Stage::Over;
                return ended;
            }
        }
    }

    async fn until_done(&self, gateway: &Gateway, session: &Session, token_ends: Option<Instant>) -> bool {
        let mut changes = session.state().watch();
        let mut progress = self.progress.subscribe();
        let mut revocations = gateway.authority.revocations();
        // Revocations between the check of the token and this subscription are not notified, so check once
        // more.
        revocations.mark_changed();
        loop {
            let is_finished = {
                let state = session.state().lock();
                if state.done || state.failed {
                    return true;
                }
                state.finish.is_some()
            };
            let quiet = {
                let progress = progress.borrow_and_update();
                progress.deadline.filter(|_| progress.working == 0)
            };
            tokio::select! {
                changed = changes.changed() => changed.expect("the session holds the state"),
                changed = progress.changed() => changed.expect("the task holds its progress"),
                changed = revocations.changed() => {
                    changed.expect("the gateway holds the authority");
                    if self.check(gateway).is_err() {
                        return false;
                    }
                }
                () = at(quiet), if !is_finished => session.close(),
                () = at(token_ends), if !is_finished => session.close(),
                () = gateway.closing.cancelled() => return false,
            }
        }
    }
}

/// Returns the position at which the next chunk begins, if the session takes one.
fn next_frame(session: &Session) -> Result<FramePos, ApiError> {
    let state = session.state().lock();
    if state.failed {
        return Err(failed());
    }
    if state.finish.is_some() || state.over {
        return Err(over());
    }
    Ok(state.received)
}

impl LastChunk {
    /// Returns whether `chunk` is a repetition of this one.
    ///
    /// # Errors
    /// Returns [`ApiError`] if `chunk` is neither a repetition nor the next chunk.
    fn is_repeated(&self, chunk: &Chunk, digest: [u8; 32]) -> Result<bool, ApiError> {
        let number = chunk.number;
        if number == self.number {
            return match digest == self.digest && chunk.last == self.last {
                true => Ok(true),
                false => Err(out_of_order(format!("chunk_num {number} was another chunk"))),
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
    let upload = Upload::decode(file, MAX_DURATION, cancellation)?;
    let pcm: Vec<u8> = upload.samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    Ok(pcm.into())
}

fn out_of_order(message: String) -> ApiError {
    bad(OUT_OF_ORDER, message)
}

fn over() -> ApiError {
    bad(OVER, "the task is over and takes no more chunks")
}

/// Returns the error for a client that comes while the gateway is stopping.
pub(crate) fn stopping() -> ApiError {
    ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping", BUSY_WAIT)
}

fn failed() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, 500, "the recogniser failed")
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;
    use tokio::time::timeout;

    use super::*;
    use crate::admission::pending::PendingClients;
    use crate::authority::{Authority, Scope, Terms};
    use crate::sessions::chunked_registry::Lookup;
    use crate::{Engines, Options};
    use voxline_support::clock::SystemClock;

    /// Returns the identity of a token of a new project.
    fn holder(gateway: &Gateway, project: &str) -> Identity {
        let authority = &gateway.authority;
        authority.create_project(project).unwrap();
        let token = authority.create_service_token(project, Terms::default()).unwrap().token;
        authority.authorise(token.expose_secret(), Scope::AsrStream, None).unwrap()
    }

    #[tokio::test]
    async fn a_displaced_task_is_forgotten() {
        let clock = Arc::new(SystemClock::new());
        let authority = Authority::in_memory(Duration::from_secs(3_600), clock).unwrap();
        let gateway = Gateway::new(authority, Engines::default(), Options::default());
        let (greedy, other) = (holder(&gateway, "greedy"), holder(&gateway, "other"));
        let pending = PendingClients::new(2);
        let (place, _more) = (pending.admit(&greedy).unwrap(), pending.admit(&greedy).unwrap());
        let start = serde_json::from_str(r#"{"sample_rate":16000}"#).unwrap();
        let named = ("task".to_owned(), Fingerprint::of("its token"));
        let task = Arc::new(ChunkedSession::new(named, greedy, None, start, place, None));
        gateway.chunked.insert(task.clone());
        assert!(pending.admit(&other).is_ok(), "a project that has fewer gets the place");
        let living = task.clone().supervise(&gateway, None);
        timeout(Duration::from_secs(30), living).await.expect("a task without a place ends");
        assert!(matches!(gateway.chunked.find(&Fingerprint::of("its token")), Lookup::Forgotten));
        assert!(task.is_done(), "it takes no chunk any more");
    }
}
