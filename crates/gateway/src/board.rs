//! Shared state of a session, between its sockets and its recogniser.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::arrivals::Arrivals;
use super::limit::ControlLimit;
use super::queue::Queue;
use voxline::audio::{FramePos, FrameRange};
use voxline::protocol::Final;

/// State of a session.
pub(super) struct State {
    /// Position up to which the timeline is held, recognised, or a gap.
    pub(super) received: FramePos,
    /// Position up to which the timeline is covered by finals and gaps.
    pub(super) final_: FramePos,
    /// Number of frames of audio that were received, without gaps.
    pub(super) heard: u64,
    /// All final results, since a client may ask for any of them again.
    pub(super) finals: Vec<Final>,
    /// Partial result for the segment after the last final.
    pub(super) partial: Option<Partial>,
    /// Gaps above `final_`, in order: those that the recogniser has not yet reached.
    pub(super) gaps: VecDeque<FrameRange>,
    pub(super) queue: Queue,
    /// Arrival times of the audio that isn't final.
    pub(super) arrivals: Arrivals,
    /// Position up to which audio was flushed.
    pub(super) flushed: FramePos,
    /// Rate limiter of the client's messages other than audio, on all its sockets.
    pub(super) control: ControlLimit,
    /// Rate limiter of the utterances that the client ends by flushes and gaps, on the clock of the audio.
    /// Each of them makes a final.
    pub(super) cuts: ControlLimit,
    /// End of the audio, once the client has announced it.
    pub(super) finish: Option<FramePos>,
    /// True once everything is final.
    pub(super) done: bool,
    /// True once the recogniser has failed; no more results will follow.
    pub(super) failed: bool,
    /// True once the session is no longer wanted.
    pub(super) over: bool,
    /// Number of the socket that has the session now.
    pub(super) attachment: u64,
}

/// A partial result for the segment after the last final.
#[derive(Clone)]
pub(super) struct Partial {
    pub(super) revision: u64,
    pub(super) range: FrameRange,
    pub(super) text: String,
}

/// State of a session with change notification: the sockets leave work here, and the recogniser posts its
/// results.
pub(super) struct Board {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Board {
    pub(super) fn new(origin: FramePos) -> Board {
        let state = State {
            received: origin,
            final_: origin,
            heard: 0,
            finals: Vec::new(),
            partial: None,
            gaps: VecDeque::new(),
            queue: Queue::default(),
            arrivals: Arrivals::default(),
            flushed: origin,
            control: ControlLimit::default(),
            cuts: ControlLimit::default(),
            finish: None,
            done: false,
            failed: false,
            over: false,
            attachment: 0,
        };
        Board { state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    /// Locks the state. The guard must not be held across an await.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Panics of the worker happen in the recogniser, outside the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a receiver that is notified of every change from now on.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Changes the state and notifies all receivers.
    pub(super) fn post<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }
}
