//! A chunked session, the *task* of the numbered-chunk stream: a session whose audio comes in small files,
//! one request each.
//!
//! The session, and with it a place in the session registry, begins with the first chunk. Chunks are
//! recognised strictly one after another; a chunk that comes during the work on another waits for it. A
//! task ends with its last chunk, with a gap that is too long, or with the token that created it. Its place
//! is then free, and its text is kept for a while.

use std::net::IpAddr;
use std::sync::{Arc, MutexGuard, OnceLock, PoisonError};

use http::StatusCode;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::credential::OpeningToken;
use super::plain_text::plain;
use super::session::Session;
use crate::admission::pending::PendingPlace;
use crate::authority::{Authority, AuthorityError, Fingerprint};
use crate::http::error::ApiError;
use voxline::audio::FramePos;
use voxline::protocol::Start;

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
pub(super) struct LastChunk {
    pub(super) number: u64,
    pub(super) last: bool,
    pub(super) digest: [u8; 32],
    /// End position of the chunk's audio.
    pub(super) end: FramePos,
    /// Answer to the chunk, once there is one.
    pub(super) answer: Option<Text>,
}

/// State of a task's session.
pub(super) enum Stage {
    /// No chunk has come yet. The place among waiting clients is given back when the first one comes.
    Pending(PendingPlace),
    /// The session has begun. The number is that of the task's attachment to it.
    Begun(Arc<Session>, u64),
    /// The task ended without a chunk.
    Over,
}

/// Progress of a task's client.
pub(super) struct Progress {
    /// Number of chunks that have arrived and are not answered. While there are any, no gap has begun.
    pub(super) working: usize,
    /// Time at which the gap becomes too long; `None` if that is too far away for an `Instant`.
    pub(super) deadline: Option<Instant>,
    /// True once the client knows that the task is done.
    pub(super) informed: bool,
}

impl Progress {
    /// Returns the time at which the gap becomes too long, unless a chunk is being worked on.
    pub(super) fn quiet_at(&self) -> Option<Instant> {
        self.deadline.filter(|_| self.working == 0)
    }
}

/// A task, live or done.
pub(crate) struct ChunkedSession {
    pub(crate) id: String,
    /// Fingerprint of the task token.
    pub(crate) token: Fingerprint,
    /// The token that created the task. Audio is charged to it.
    pub(super) opener: OpeningToken,
    /// Parameters of the session.
    pub(super) start: Start,
    stage: std::sync::Mutex<Stage>,
    pub(super) last_chunk: Mutex<Option<LastChunk>>,
    pub(super) progress: watch::Sender<Progress>,
    /// Cancelled if the task ends before it is done.
    pub(super) aborted: CancellationToken,
    /// Time until which the result is kept, or `None` for no end. It is set once the task is done.
    pub(crate) kept_until: OnceLock<Option<Instant>>,
}

impl ChunkedSession {
    pub(crate) fn new(
        (id, token): (String, Fingerprint),
        opener: OpeningToken,
        start: Start,
        place: PendingPlace,
        deadline: Option<Instant>,
    ) -> ChunkedSession {
        let progress = watch::Sender::new(Progress { working: 0, deadline, informed: false });
        ChunkedSession {
            id,
            token,
            opener,
            start,
            stage: std::sync::Mutex::new(Stage::Pending(place)),
            last_chunk: Mutex::default(),
            progress,
            aborted: CancellationToken::new(),
            kept_until: OnceLock::new(),
        }
    }

    /// Checks that the token which created the task was not revoked. A token that has expired closes the
    /// task, but leaves its result to be fetched.
    pub(crate) fn check(&self, authority: &Authority) -> Result<(), AuthorityError> {
        self.opener.check(authority)
    }

    /// Returns the id of the token that created the task.
    pub(crate) fn token_id(&self) -> &str {
        &self.opener.identity.token
    }

    /// Returns whether the task may be used from this address.
    pub(crate) fn admits(&self, peer: Option<IpAddr>) -> bool {
        self.opener.identity.terms.admit(peer)
    }

    pub(crate) fn is_done(&self) -> bool {
        match &*self.stage() {
            Stage::Pending(_) => false,
            Stage::Begun(session, _) => session.state().lock().results.done,
            Stage::Over => true,
        }
    }

    /// Locks the stage. A panic elsewhere leaves it consistent: each change is one assignment.
    pub(super) fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn session(&self) -> Option<Arc<Session>> {
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
        if state.results.failed {
            return Err(failed());
        }
        let finals = state.results.finals.iter().map(|segment| segment.text.as_str());
        let partial = state.results.partial.as_ref().map(|partial| partial.text.as_str());
        let spoken = finals.chain(partial).map(str::trim).filter(|text| !text.is_empty());
        let punctuated = spoken.collect::<Vec<_>>().join(" ");
        drop(state);
        Ok(Text { plain: plain(&punctuated), punctuated })
    }
}

/// Returns the error for a client whose recogniser has failed.
pub(super) fn failed() -> ApiError {
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, 500, "the recogniser failed")
}
