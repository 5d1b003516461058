//! Rate limiting of a client's control messages.

use std::time::Duration;

/// Sustained number of control messages per second of a session, and of its flushes and gaps that may end
/// an utterance per second of its audio. The busiest known use, a flush and a gap for each chunk of 100 ms,
/// takes 20. Each of them may cost a final, which is kept as long as the session.
pub(crate) const CONTROL_RATE: u32 = 50;
/// Size of a burst: a client that was held up has some messages to catch up on.
pub(crate) const CONTROL_BURST: u32 = 1_000;

/// Time until one more message is allowed.
const REFILL: Duration = Duration::from_nanos(1_000_000_000 / CONTROL_RATE as u64);

/// A token bucket of [`CONTROL_RATE`] and [`CONTROL_BURST`], which starts full. It stores the time at which
/// it would be full again instead of a count, so that rounding loses nothing.
#[derive(Debug, Default)]
pub(crate) struct MessageRateLimiter {
    full_at: Duration,
}

impl MessageRateLimiter {
    /// Takes a token from the bucket at `now`, a monotonic time since any fixed moment. Returns whether
    /// there was one.
    pub(crate) fn allows(&mut self, now: Duration) -> bool {
        let allowed = self.leaves(1, now);
        if allowed {
            self.full_at = self.full_at.max(now) + REFILL;
        }
        allowed
    }

    /// Returns whether `count` more messages would be allowed at `now`.
    pub(crate) fn leaves(&self, count: u32, now: Duration) -> bool {
        self.full_at.max(now) + REFILL * count - now <= REFILL * CONTROL_BURST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(limit: &mut MessageRateLimiter, now: Duration) -> u32 {
        let mut count = 0;
        while limit.allows(now) {
            count += 1;
        }
        count
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut limit = MessageRateLimiter::default();
        let hour = Duration::from_secs(3600);
        assert_eq!(taken(&mut limit, hour), CONTROL_BURST);
        assert_eq!(taken(&mut limit, hour + Duration::from_millis(19)), 0);
        assert_eq!(taken(&mut limit, hour + Duration::from_secs(1)), CONTROL_RATE);
        assert!(limit.leaves(CONTROL_BURST, 2 * hour) && !limit.leaves(CONTROL_BURST + 1, 2 * hour));
        assert_eq!(taken(&mut limit, 2 * hour), CONTROL_BURST);
        assert!(!limit.leaves(1, 2 * hour));
    }
}
