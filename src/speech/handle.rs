//! What stops speech from elsewhere, and knows how much of it was handed out.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Stops speech, such as where the listener begins to speak. Cheap to clone, and good in any task or thread; what it
/// belongs to may be gone.
#[derive(Clone, Debug, Default)]
pub struct SpeechHandle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Held while a piece is handed out, so that the count a canceller is told stays true.
    handed_out: Mutex<u64>,
    cancelled: CancellationToken,
}

impl SpeechHandle {
    /// Ends the speech at once: nothing more is handed out, the stream ends, and requests under way are dropped, which
    /// closes their connections. Tells how much was handed out: frames of a [`PcmStream`](super::PcmStream), bytes of an
    /// [`EncodedStream`](super::EncodedStream). Again, or after the end, it only tells.
    pub fn cancel(&self) -> u64 {
        let handed_out = self.lock();
        self.0.cancelled.cancel();
        *handed_out
    }

    /// How much was handed out so far: frames of a [`PcmStream`](super::PcmStream), bytes of an
    /// [`EncodedStream`](super::EncodedStream).
    #[must_use]
    pub fn handed_out(&self) -> u64 {
        *self.lock()
    }

    /// Whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.is_cancelled()
    }

    /// Counts what is about to be handed out. False where nothing may be any more.
    pub(super) fn hand_out(&self, count: u64) -> bool {
        let mut handed_out = self.lock();
        let may = !self.is_cancelled();
        *handed_out += if may { count } else { 0 };
        may
    }

    pub(super) fn cancelled(&self) -> &CancellationToken {
        &self.0.cancelled
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.0.handed_out.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
