//! A task of the numbered-chunk stream: a session whose audio comes in small files, one request each.
//!
//! Chunks are heard strictly one after another; one that comes while another is worked on waits for it. A task ends
//! with its last chunk, with a gap that is too long, or with the token that created it. Then its slot is free, and its
//! text is kept for a while.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
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
use super::recording::{Recording, bad};
use super::session::{Refusal, Session};
use super::{BUSY_WAIT, Gateway, access};
use crate::audio::{AudioChunk, FramePos};

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
    session: Arc<Session>,
    attachment: u64,
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
        (session, attachment): (Arc<Session>, u64),
        deadline: Option<Instant>,
    ) -> Task {
        let pace = watch::Sender::new(Pace { working: 0, deadline, told: false });
        Task {
            id,
            token,
            identity,
            expires_at,
            session,
            attachment,
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
        self.session.board().lock().done
    }

    /// The client hears that the task is done.
    pub(super) fn tell_done(&self) {
        self.pace.send_modify(|pace| pace.told = true);
    }

    /// Everything final and the guess at what follows, where the recogniser has one.
    pub(super) fn text(&self) -> Result<Text, ApiError> {
        let state = self.session.board().lock();
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
        let start = {
            let state = self.session.board().lock();
            match () {
                () if state.failed => return Err(failed()),
                () if state.finish.is_some() || state.over => return Err(over()),
                () => state.received,
            }
        };
        let bytes = chunk.file.len();
        let decoding = access::spawn_blocking(move || decode(chunk.file));
        let pcm = decoding.await.map_err(|panic| ApiError::internal(&panic))??;
        let end = start + pcm.len() as u64 / 2;
        let charge = |milliseconds| {
            gateway.authority.charge(&self.identity, Amount::audio(milliseconds))?;
            gateway.metrics.receive("chunks", milliseconds, bytes);
            Ok(())
        };
        let audio = AudioChunk::new(start.to(end), pcm);
        self.session.audio(self.attachment, &audio, charge).map_err(|refusal| match refusal {
            Refusal::Exhausted(exhausted) => exhausted.into(),
            // It was closed while this was decoded.
            Refusal::Moved | Refusal::Violation(_) => over(),
        })?;
        if chunk.last {
            self.session.close();
        }
        Ok(end)
    }

    /// Waits until the audio up to `end` is acknowledged, as to a socket's client: a minute of it may wait for the
    /// recogniser. The last chunk's answer waits for everything.
    async fn heard(&self, gateway: &Gateway, end: FramePos, last: bool) -> Result<(), ApiError> {
        let mut news = self.session.board().watch();
        loop {
            {
                let state = self.session.board().lock();
                if state.done || state.failed || !last && self.session.acknowledged(&state) >= end {
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

    /// Watches over a live task: until it is done, or nobody may have it any more. `token_ends` is when the token that
    /// created it does.
    pub(super) async fn live(self: Arc<Task>, gateway: &Gateway, token_ends: Option<Instant>) {
        let is_done = self.until_done(gateway, token_ends).await;
        if is_done {
            gateway.tasks.keep(&self);
        } else {
            gateway.tasks.remove(&self);
            self.session.end(self.attachment);
            self.taken_away.cancel();
        }
        gateway.sessions.remove(self.session.name());
        tracing::info!(session = self.session.name(), done = is_done, "task ended");
        if self.is_done() && gateway.is_draining() {
            let mut pace = self.pace.subscribe();
            tokio::select! {
                _ = pace.wait_for(|pace| pace.told) => {}
                () = gateway.closing.cancelled() => {}
            }
        }
    }

    async fn until_done(&self, gateway: &Gateway, token_ends: Option<Instant>) -> bool {
        let mut news = self.session.board().watch();
        let mut pace = self.pace.subscribe();
        let mut revocations = gateway.authority.revocations();
        // What was revoked since the token was checked is not told any more.
        revocations.mark_changed();
        loop {
            let is_finished = {
                let state = self.session.board().lock();
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
                () = at(quiet), if !is_finished => self.session.close(),
                () = at(token_ends), if !is_finished => self.session.close(),
                () = gateway.closing.cancelled() => return false,
            }
        }
    }
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
fn decode(file: Vec<u8>) -> Result<Bytes, ApiError> {
    let mut pcm = Vec::new();
    let mut recording = Recording::open(file, MAX_DURATION)?;
    while let Some(part) = recording.next_part()? {
        pcm.extend(part.samples.iter().flat_map(|sample| sample.to_le_bytes()));
    }
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
