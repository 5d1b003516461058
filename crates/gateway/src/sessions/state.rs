//! State of a session, shared between its sockets and its recogniser.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::latency_clock::LatencyClock;
use super::message_rate_limiter::MessageRateLimiter;
use super::queue::InputQueue;
use voxline::audio::{FramePos, FrameRange};
use voxline::protocol::Final;

/// State of a session.
pub(crate) struct SessionState {
    pub(crate) input: SessionInput,
    pub(crate) results: SessionResults,
    /// Arrival times of the audio that isn't final.
    pub(crate) latency_clock: LatencyClock,
    /// Rate limiter of the client's messages other than audio, on all its sockets.
    pub(crate) message_limiter: MessageRateLimiter,
    /// Rate limiter of the utterances that the client ends by flushes and gaps, on the clock of the audio.
    /// Each of them makes a final.
    pub(crate) utterance_limiter: MessageRateLimiter,
    /// True once the session is no longer wanted.
    pub(crate) over: bool,
    /// Number of the socket that has the session now.
    pub(crate) attachment: u64,
}

/// Input of a session, which its sockets leave for the recogniser.
pub(crate) struct SessionInput {
    /// Position up to which the timeline is held, recognised, or a gap.
    pub(crate) received: FramePos,
    /// Number of frames of audio that were received, without gaps.
    pub(crate) audio_frames: u64,
    pub(crate) queue: InputQueue,
    /// Gaps above `final_`, in order: those that the recogniser has not yet reached.
    pub(crate) gaps: VecDeque<FrameRange>,
    /// Position up to which audio was flushed.
    pub(crate) flushed: FramePos,
    /// Number of flushes in the queue since the start of the session.
    pub(crate) flushes: u64,
    /// End of the audio, once the client has announced it.
    pub(crate) finish: Option<FramePos>,
}

/// Results of a session, which the recogniser posts for the sockets.
pub(crate) struct SessionResults {
    /// Position up to which the timeline is covered by finals and gaps.
    pub(crate) final_: FramePos,
    /// Position up to which the recogniser has heard the audio.
    pub(crate) heard: FramePos,
    /// Final results. A client of a socket may ask for any of them again, so they stay; a live session takes
    /// each one once.
    pub(crate) finals: Vec<Final>,
    /// Number of finals that were taken.
    pub(crate) taken: u64,
    /// Number of flushes that are complete.
    pub(crate) flushes: u64,
    /// Number of finals of the session at the end of each flush that no live session has reported. Each flush
    /// makes a final, so there are no more of these than of finals.
    pub(crate) flush_ends: VecDeque<u64>,
    /// Partial result for the segment after the last final.
    pub(crate) partial: Option<Partial>,
    /// True once everything is final.
    pub(crate) done: bool,
    /// True once the recogniser has failed; no more results will follow.
    pub(crate) failed: bool,
}

impl SessionResults {
    /// Returns the number of finals of the session.
    pub(crate) fn count(&self) -> u64 {
        self.taken + self.finals.len() as u64
    }

    /// Returns the number of finals at the end of the flush with this number, which is complete; 0 if it was
    /// reported before.
    pub(crate) fn flush_end(&self, flush: u64) -> u64 {
        let reported = self.flushes - self.flush_ends.len() as u64;
        let after = flush.checked_sub(reported + 1).and_then(|after| usize::try_from(after).ok());
        after.and_then(|after| self.flush_ends.get(after)).copied().unwrap_or(0)
    }

    /// Forgets the ends of the flushes up to this one.
    pub(crate) fn forget_flushes(&mut self, flush: u64) {
        while self.flushes - (self.flush_ends.len() as u64) < flush && self.flush_ends.pop_front().is_some() {
        }
    }
}

/// A partial result for the segment after the last final.
#[derive(Clone, Debug)]
pub(crate) struct Partial {
    pub(crate) revision: u64,
    pub(crate) range: FrameRange,
    pub(crate) text: String,
    pub(crate) confidence: Option<f32>,
}

/// State of a session with change notification: the sockets leave input here, and the recogniser posts its
/// results.
pub(crate) struct SharedState {
    state: Mutex<SessionState>,
    changed: watch::Sender<()>,
}

impl SharedState {
    pub(crate) fn new(origin: FramePos) -> SharedState {
        let state = SessionState {
            input: SessionInput {
                received: origin,
                audio_frames: 0,
                queue: InputQueue::default(),
                gaps: VecDeque::new(),
                flushed: origin,
                flushes: 0,
                finish: None,
            },
            results: SessionResults {
                final_: origin,
                heard: origin,
                finals: Vec::new(),
                taken: 0,
                flushes: 0,
                flush_ends: VecDeque::new(),
                partial: None,
                done: false,
                failed: false,
            },
            latency_clock: LatencyClock::default(),
            message_limiter: MessageRateLimiter::default(),
            utterance_limiter: MessageRateLimiter::default(),
            over: false,
            attachment: 0,
        };
        SharedState { state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    /// Locks the state. The guard must not be held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, SessionState> {
        // Panics of the worker happen in the recogniser, outside the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a receiver that is notified of every change from now on.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Changes the state and notifies all receivers.
    pub(crate) fn post<T>(&self, change: impl FnOnce(&mut SessionState) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }
}
