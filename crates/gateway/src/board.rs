//! Where a session's sockets and its recogniser meet.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::arrivals::Arrivals;
use super::limit::ControlLimit;
use super::queue::Queue;
use voxline::audio::{FramePos, FrameRange};
use voxline::session::protocol::Final;

/// What is known of a session.
pub(super) struct State {
    /// The timeline up to here is held, recognised, or a gap.
    pub(super) received: FramePos,
    /// The timeline up to here is covered by finals and gaps.
    pub(super) final_: FramePos,
    /// How many frames of audio were taken, gaps not counted.
    pub(super) heard: u64,
    /// All finals, since a client may ask for any again.
    pub(super) finals: Vec<Final>,
    /// The guess at the segment that follows them.
    pub(super) partial: Option<Partial>,
    /// The gaps above `final_`, in order: those that the recogniser has not come to.
    pub(super) gaps: VecDeque<FrameRange>,
    pub(super) queue: Queue,
    /// When the audio came that isn't final.
    pub(super) arrivals: Arrivals,
    /// Audio up to here was flushed.
    pub(super) flushed: FramePos,
    /// Messages of the client other than audio, on whichever socket they come.
    pub(super) control: ControlLimit,
    /// Utterances that the client ended by flushes and gaps, by the time of the audio: each makes a final.
    pub(super) cuts: ControlLimit,
    /// Where the audio ends, once the client has said so.
    pub(super) finish: Option<FramePos>,
    /// Everything is final.
    pub(super) done: bool,
    /// The recogniser failed; nothing more will come.
    pub(super) failed: bool,
    /// Nobody wants the session any more.
    pub(super) over: bool,
    /// The number of the socket that has the session now.
    pub(super) attachment: u64,
}

/// A guess at the segment after the last final.
#[derive(Clone)]
pub(super) struct Partial {
    pub(super) revision: u64,
    pub(super) range: FrameRange,
    pub(super) text: String,
}

/// Where the sockets leave work and the recogniser posts what came of it.
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

    /// The state, which must not be held across an await.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // The worker's panics happen in the recogniser, outside the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change from now on.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Changes the state and tells all who watch.
    pub(super) fn post<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }
}
