//! A task of the numbered-chunk stream: a session whose audio comes in small files, one request each.
//!
//! The session, and with it a place among the sessions, begins with the first chunk. Chunks are heard
//! strictly one after another; one that comes while another is worked on waits for it. A task ends with its
//! last chunk, with a gap that is too long, or with the token that created it. Then its slot is free, and its
//! text is kept for a while.

use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use http::StatusCode;
use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::asr::plain;
use super::authority::{Amount, AuthorityError, Fingerprint, Identity};
use super::error::ApiError;
use super::link::at;
use super::pending::Place;
use super::recording::{Recording, bad};
use super::session::{Refusal, Session};
use super::sessions::Full;
use super::{BUSY_WAIT, Gateway};
use voxline::audio::{AudioChunk, FramePos};
use voxline::decode::Cancellation;
use voxline::engine::RECOGNIZER_RATE;
use voxline::session::protocol::Start;

/// The documented limit of a chunk.
const MAX_DURATION: Duration = Duration::from_secs(1);
/// Codes of ours: the documentation has none for these.
const OUT_OF_ORDER: u16 = 4101;
const OVER: u16 = 4102;

/// What was said so far.
#[derive(Clone)]
pub(super) struct Text {
    pub(super) punctuated: String,
    /// As `/asr` writes it.
    pub(super) plain: String,
}

/// A file of audio and its place in the task.
pub(super) struct Chunk {
    pub(super) number: u64,
    pub(super) last: bool,
    pub(super) file: Vec<u8>,
}

/// The chunk that was taken last.
struct Taken {
    number: u64,
    last: bool,
    digest: [u8; 32],
    /// Where its audio ends.
    end: FramePos,
    /// What it was answered, once it was.
    answer: Option<Text>,
}

/// A task's session.
enum Stage {
    /// No chunk came yet. The place among those that wait is given back with the first one.
    Pending(Place),
    /// The number is that of the task's hold on the session.
    Begun(Arc<Session>, u64),
    /// It ended without a chunk.
    Over,
}

/// How the wait for a task's first chunk ended.
enum Opening {
    Begun(Arc<Session>, u64),
    /// Nothing came in time: the task is done, and its text is empty.
    Done,
    /// Nobody may have the task any more.
    Revoked,
    /// The task gave up its place, to another or because the gateway stops.
    Displaced,
}

/// How a task goes on.
pub(super) struct Pace {
    /// Chunks that are here, but not answered: the gap has not begun.
    working: usize,
    /// When the gap is too long; no gap is, where that is too far to have a time.
    deadline: Option<Instant>,
    /// The client knows that the task is done.
    told: bool,
}

/// A task, live or done.
pub(super) struct Task {
    pub(super) id: String,
    /// Of the task token.
    pub(super) token: Fingerprint,
    /// Whose token created it: what is heard is charged to it.
    identity: Identity,
    /// When that token ends by itself, on the authority's clock.
    expires_at: Option<Duration>,
    /// What opens the session.
    start: Start,
    stage: std::sync::Mutex<Stage>,
    taken: Mutex<Option<Taken>>,
    pace: watch::Sender<Pace>,
    /// Ended before it was done.
    taken_away: CancellationToken,
    /// Until when its result is kept, where that has an end; set once it is done.
    pub(super) kept_until: OnceLock<Option<Instant>>,
}

impl Task {
    pub(super) fn new(
        (id, token): (String, Fingerprint),
        identity: Identity,
        expires_at: Option<Duration>,
        start: Start,
        place: Place,
        deadline: Option<Instant>,
    ) -> Task {
        let pace = watch::Sender::new(Pace { working: 0, deadline, told: false });
        Task {
            id,
            token,
            identity,
            expires_at,
            start,
            stage: std::sync::Mutex::new(Stage::Pending(place)),
            taken: Mutex::default(),
            pace,
            taken_away: CancellationToken::new(),
            kept_until: OnceLock::new(),
        }
    }

    /// Whether the token that created it was not revoked. One that has ended by itself closes the task, but leaves its
    /// result to be fetched.
    pub(super) fn check(&self, gateway: &Gateway) -> Result<(), AuthorityError> {
        let has_expired = || self.expires_at.is_some_and(|end| gateway.authority.clock().unix() >= end);
        match gateway.authority.check_again(&self.identity) {
            // Asked after the check: it may expire between the two.
            Err(_) if has_expired() => Ok(()),
            checked => checked.map(drop),
        }
    }

    /// Whether the task may be used from this address.
    pub(super) fn admits(&self, peer: Option<IpAddr>) -> bool {
        self.identity.terms.admit(peer)
    }

    pub(super) fn is_done(&self) -> bool {
        match &*self.stage() {
            Stage::Pending(_) => false,
            Stage::Begun(session, _) => session.board().lock().done,
            Stage::Over => true,
        }
    }

    /// A panic elsewhere leaves the stage whole: each change is one assignment.
    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self) -> Option<Arc<Session>> {
        match &*self.stage() {
            Stage::Begun(session, _) => Some(session.clone()),
            Stage::Pending(_) | Stage::Over => None,
        }
    }

    /// The client hears that the task is done.
    pub(super) fn tell_done(&self) {
        self.pace.send_modify(|pace| pace.told = true);
    }

    /// Everything final and the guess at what follows, where the recogniser has one.
    pub(super) fn text(&self) -> Result<Text, ApiError> {
        let Some(session) = self.session() else {
            return Ok(Text { punctuated: String::new(), plain: String::new() });
        };
        let state = session.board().lock();
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

    /// Hears `chunk` and tells what was said so far: after the last one, all of it. The last chunk taken may come
    /// again, since an answer can be lost.
    pub(super) async fn add(&self, gateway: &Gateway, chunk: Chunk) -> Result<Text, ApiError> {
        let mut work = Work::begin(&self.pace, gateway.options.task_gap);
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
            *taken = Some(Taken { number, last, digest, end, answer: None });
        }
        work.was_chunk = true;
        let taken = taken.as_mut().expect("a chunk was taken");
        let answer = match &taken.answer {
            Some(answer) => answer.clone(),
            None => {
                self.heard(gateway, taken.end, taken.last).await?;
                taken.answer.insert(self.text()?).clone()
            }
        };
        if taken.last {
            self.tell_done();
        }
        Ok(answer)
    }

    /// Puts a chunk before the recogniser. Where its audio ends.
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
            Refusal::Exhausted(exhausted) => exhausted.into(),
            // It was closed while this was decoded.
            Refusal::Moved | Refusal::Flood | Refusal::Violation(_) => over(),
        })?;
        if chunk.last {
            session.close();
        }
        Ok(end)
    }

    /// The task's session, which the first chunk, of so many `frames`, begins. It counts among the others
    /// from here on.
    fn begin(&self, gateway: &Gateway, frames: u64) -> Result<(Arc<Session>, u64), ApiError> {
        let mut stage = self.stage();
        match &*stage {
            Stage::Pending(_) => {}
            Stage::Begun(session, attachment) => return Ok((session.clone(), *attachment)),
            Stage::Over => return Err(over()),
        }
        // What can't be paid for begins nothing.
        let milliseconds = frames * 1_000 / u64::from(RECOGNIZER_RATE);
        gateway.authority.afford(&self.identity, Amount::audio(milliseconds))?;
        gateway.takes_sessions().map_err(|obstacle| gateway.turn_away(obstacle))?;
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
        self.pace.send_modify(|_| {});
        Ok((session, attachment))
    }

    /// Waits until the audio up to `end` is acknowledged, as to a socket's client: a minute of it may wait for the
    /// recogniser. The last chunk's answer waits for everything.
    async fn heard(&self, gateway: &Gateway, end: FramePos, last: bool) -> Result<(), ApiError> {
        let session = self.session().expect("a chunk was taken");
        let mut news = session.board().watch();
        loop {
            {
                let state = session.board().lock();
                if state.done || state.failed || !last && session.acknowledged(&state) >= end {
                    return Ok(());
                }
            }
            tokio::select! {
                changed = news.changed() => changed.expect("the session holds the board"),
                () = self.taken_away.cancelled() => {
                    self.check(gateway)?;
                    return Err(stopping());
                }
            }
        }
    }

    /// Watches over a task: until it is done, or nobody may have it any more. `token_ends` is when the token
    /// that created it does.
    pub(super) async fn live(self: Arc<Task>, gateway: &Gateway, token_ends: Option<Instant>) {
        let (session, attachment) = match self.opening(gateway, token_ends).await {
            Opening::Begun(session, attachment) => (session, attachment),
            Opening::Done => {
                gateway.tasks.keep(&self);
                return self.until_told(gateway).await;
            }
            Opening::Revoked => return gateway.tasks.remove(&self),
            // A gateway that stops says so to whoever asks.
            Opening::Displaced if gateway.is_draining() => return,
            Opening::Displaced => return gateway.tasks.forget(&self),
        };
        let is_done = self.until_done(gateway, &session, token_ends).await;
        if is_done {
            gateway.tasks.keep(&self);
        } else {
            gateway.tasks.remove(&self);
            session.end(attachment);
            self.taken_away.cancel();
        }
        gateway.sessions.remove(session.name());
        tracing::info!(session = session.name(), done = is_done, "task ended");
        if is_done {
            self.until_told(gateway).await;
        }
    }

    /// Waits for the client of a gateway that stops to hear that the task is done.
    async fn until_told(&self, gateway: &Gateway) {
        if gateway.is_draining() {
            let mut pace = self.pace.subscribe();
            tokio::select! {
                _ = pace.wait_for(|pace| pace.told) => {}
                () = gateway.closing.cancelled() => {}
            }
        }
    }

    /// Waits for the first chunk, as long as there may be one.
    async fn opening(&self, gateway: &Gateway, token_ends: Option<Instant>) -> Opening {
        let mut pace = self.pace.subscribe();
        let mut revocations = gateway.authority.revocations();
        // What was revoked since the token was checked is not told any more.
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
                let pace = pace.borrow_and_update();
                pace.deadline.filter(|_| pace.working == 0)
            };
            let ended = tokio::select! {
                changed = pace.changed() => {
                    changed.expect("the task holds its pace");
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
                    // The first chunk is told so, too; one that came before has begun the session.
                    if let Stage::Pending(_) = &*self.stage() {
                        return Opening::Displaced;
                    }
                    continue;
                }
            };
            let mut stage = self.stage();
            // A chunk may have come meanwhile.
            if let Stage::Pending(_) = &*stage {
                *stage = Stage::Over;
                return ended;
            }
        }
    }

    async fn until_done(&self, gateway: &Gateway, session: &Session, token_ends: Option<Instant>) -> bool {
        let mut news = session.board().watch();
        let mut pace = self.pace.subscribe();
        let mut revocations = gateway.authority.revocations();
        // What was revoked since the token was checked is not told any more.
        revocations.mark_changed();
        loop {
            let is_finished = {
                let state = session.board().lock();
                if state.done || state.failed {
                    return true;
                }
                state.finish.is_some()
            };
            let quiet = {
                let pace = pace.borrow_and_update();
                pace.deadline.filter(|_| pace.working == 0)
            };
            tokio::select! {
                changed = news.changed() => changed.expect("the session holds the board"),
                changed = pace.changed() => changed.expect("the task holds its pace"),
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

/// The position that the next chunk begins at, where the session takes one.
fn next_frame(session: &Session) -> Result<FramePos, ApiError> {
    let state = session.board().lock();
    if state.failed {
        return Err(failed());
    }
    if state.finish.is_some() || state.over {
        return Err(over());
    }
    Ok(state.received)
}

impl Taken {
    /// Whether `chunk` is this one again; an error where it is neither that nor the next.
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

/// A chunk that is worked on, until it is answered or its client has left.
struct Work<'a> {
    pace: &'a watch::Sender<Pace>,
    gap: Duration,
    /// Only what was a chunk begins the gap anew.
    was_chunk: bool,
}

impl Work<'_> {
    fn begin(pace: &watch::Sender<Pace>, gap: Duration) -> Work<'_> {
        pace.send_modify(|pace| pace.working += 1);
        Work { pace, gap, was_chunk: false }
    }
}

impl Drop for Work<'_> {
    #[expect(clippy::disallowed_methods, reason = "the gap between chunks is real time")]
    fn drop(&mut self) {
        self.pace.send_modify(|pace| {
            pace.working -= 1;
            if self.was_chunk {
                pace.deadline = Instant::now().checked_add(self.gap);
            }
        });
    }
}

/// The samples of a chunk at the recogniser's rate, 16-bit little-endian. Each chunk is a file of its own and so has a
/// resampler of its own, which makes as many frames as the chunk's time has.
fn decode(file: Vec<u8>, cancellation: Cancellation) -> Result<Bytes, ApiError> {
    let recording = Recording::decode(file, MAX_DURATION, cancellation)?;
    let pcm: Vec<u8> = recording.samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    Ok(pcm.into())
}

fn out_of_order(message: String) -> ApiError {
    bad(OUT_OF_ORDER, message)
}

fn over() -> ApiError {
    bad(OVER, "the task is over and takes no more chunks")
}

/// To whom comes when the gateway is about to go.
pub(super) fn stopping() -> ApiError {
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
    use crate::authority::{Authority, Scope, Terms};
    use crate::pending::Pending;
    use crate::tasks::Found;
    use crate::{Engines, Options};
    use voxline_support::clock::SystemClock;

    /// Who has a token of a new project.
    fn holder(gateway: &Gateway, project: &str) -> Identity {
        let authority = &gateway.authority;
        authority.create_project(project).unwrap();
        let token = authority.create_service_token(project, Terms::default()).unwrap().token;
        authority.authorise(token.expose_secret(), Scope::AsrStream, None).unwrap()
    }

    #[tokio::test]
    async fn a_task_whose_place_is_needed_is_forgotten() {
        let clock = Arc::new(SystemClock::new());
        let authority = Authority::in_memory(Duration::from_secs(3_600), clock).unwrap();
        let gateway = Gateway::new(authority, Engines::default(), Options::default());
        let (greedy, other) = (holder(&gateway, "greedy"), holder(&gateway, "other"));
        let pending = Pending::new(2);
        let (place, _more) = (pending.admit(&greedy).unwrap(), pending.admit(&greedy).unwrap());
        let start = serde_json::from_str(r#"{"sample_rate":16000}"#).unwrap();
        let named = ("task".to_owned(), Fingerprint::of("its token"));
        let task = Arc::new(Task::new(named, greedy, None, start, place, None));
        gateway.tasks.insert(task.clone());
        assert!(pending.admit(&other).is_ok(), "a project that has fewer gets the place");
        let living = task.clone().live(&gateway, None);
        timeout(Duration::from_secs(30), living).await.expect("a task without a place ends");
        assert!(matches!(gateway.tasks.find(&Fingerprint::of("its token")), Found::Forgotten));
        assert!(task.is_done(), "it takes no chunk any more");
    }
}
