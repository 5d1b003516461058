//! Handle to cancel speech, and to count the delivered audio.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Handle that stops speech, for example when the listener starts to speak. Handles are cheap to clone,
/// and usable in any task or thread, even after the speech is gone.
#[derive(Clone, Debug, Default)]
pub struct SpeechHandle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Amount delivered. Locked while a piece is handed out, so that the count returned by `cancel` stays
    /// true.
    handed_out: Mutex<u64>,
    cancelled: CancellationToken,
}

impl SpeechHandle {
    /// Ends the speech at once: no further audio is delivered, the stream ends, and pending requests are
    /// dropped, which closes their connections. Returns the amount delivered: frames of a
    /// [`PcmStream`](super::PcmStream), bytes of an [`EncodedStream`](super::EncodedStream). Further
    /// calls, or calls after the end, only return the amount.
    pub fn cancel(&self) -> u64 {
        let handed_out = self.lock();
        self.0.cancelled.cancel();
        *handed_out
    }

    /// Returns the amount delivered so far: frames of a [`PcmStream`](super::PcmStream), bytes of an
    /// [`EncodedStream`](super::EncodedStream).
    #[must_use]
    pub fn handed_out(&self) -> u64 {
        *self.lock()
    }

    /// Returns whether the speech was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.is_cancelled()
    }

    /// Counts a piece that is about to be delivered. Returns false if the speech was cancelled and the
    /// piece must be dropped.
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
