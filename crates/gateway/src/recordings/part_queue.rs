//! Bounded queue of decoded parts, between the thread that decodes a recording and the job that recognises
//! it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::decoding::Part;

/// Number of parts that are decoded ahead of recognition: 30 seconds, as many as Whisper takes at once.
pub(super) const AHEAD: usize = 30;
/// Number of parts left at which more are decoded.
const LOW: usize = 10;

/// Parts of one recording. One task pushes, and one job pops.
#[derive(Default)]
pub(super) struct PartQueue {
    state: Mutex<State>,
    /// Notified when the queue has become low.
    is_low: Notify,
}

#[derive(Default)]
struct State {
    parts: VecDeque<Part>,
    /// True once the last part was pushed.
    is_complete: bool,
}

/// Outcome of [`PartQueue::pop`].
pub(super) enum Popped {
    Part(Part),
    /// More parts will come.
    Empty,
    /// All parts were popped.
    Over,
}

impl PartQueue {
    /// Appends parts, of which the last may be that of the recording.
    pub(super) fn push(&self, parts: Vec<Part>) {
        let mut state = self.lock();
        state.is_complete |= parts.last().is_some_and(|part| part.is_last);
        state.parts.extend(parts);
    }

    pub(super) fn pop(&self) -> Popped {
        let mut state = self.lock();
        let popped = match state.parts.pop_front() {
            Some(part) => Popped::Part(part),
            None if state.is_complete => Popped::Over,
            None => Popped::Empty,
        };
        if state.parts.len() <= LOW {
            self.is_low.notify_one();
        }
        popped
    }

    /// Waits until so few parts are left that more should be decoded.
    pub(super) async fn low(&self) {
        while self.lock().parts.len() > LOW {
            self.is_low.notified().await;
        }
    }

    /// Locks the state. A panic elsewhere leaves it consistent: each change is one call of a collection.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
