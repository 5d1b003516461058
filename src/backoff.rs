//! Exponential backoff with full jitter.

use std::time::Duration;

use voxline_support::random::Random;

/// An exponential backoff: each wait is a random time below a bound that doubles with each failure, from
/// `floor` to `ceiling`. With this "full jitter", many clients that failed together don't return
/// together.
///
/// Deterministic: the seed decides the whole sequence.
#[derive(Clone, Debug)]
pub struct Backoff {
    floor: Duration,
    ceiling: Duration,
    failures: u32,
    random: Random,
}

impl Backoff {
    /// Creates a backoff whose bound starts at 100 ms and doubles up to 10 s.
    #[must_use]
    pub fn new(seed: u64) -> Backoff {
        Backoff {
            floor: Duration::from_millis(100),
            ceiling: Duration::from_secs(10),
            failures: 0,
            random: Random::new(seed),
        }
    }

    /// Returns the wait after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let bound = self.floor.saturating_mul(1 << self.failures.min(16)).min(self.ceiling);
        self.failures = self.failures.saturating_add(1);
        self.random.up_to(bound)
    }

    /// Resets the bound to `floor`. Call this once a connection has stayed healthy, not when it is made:
    /// a peer that accepts and drops connections at once would otherwise be dialled as fast as it can
    /// drop them.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_stay_under_a_doubling_bound() {
        for seed in 0..1_000 {
            let mut backoff = Backoff::new(seed);
            for failure in 0..40u32 {
                let bound = Duration::from_millis(100 << failure.min(7)).min(Duration::from_secs(10));
                assert!(backoff.next_delay() <= bound, "seed {seed}, failure {failure}");
            }
        }
    }

    #[test]
    fn the_bound_doubles_with_each_failure_and_a_reset_starts_over() {
        // The longest of the first waits over a thousand seeds, then of the second waits, and so on.
        let mut backoffs: Vec<Backoff> = (0..1_000).map(Backoff::new).collect();
        let mut longest = || backoffs.iter_mut().map(Backoff::next_delay).max().unwrap();
        for failure in 0..10u32 {
            let bound = Duration::from_millis(100 << failure.min(7)).min(Duration::from_secs(10));
            let longest = longest();
            assert!(longest > bound * 9 / 10, "failure {failure}: {longest:?} of {bound:?}");
        }
        for backoff in &mut backoffs {
            backoff.reset();
            assert!(backoff.next_delay() <= Duration::from_millis(100));
        }
    }

    #[test]
    fn jitter_covers_the_whole_range() {
        let mut backoff = Backoff::new(1);
        let first: Vec<u128> = (0..1_000)
            .map(|_| {
                backoff.reset();
                backoff.next_delay().as_millis()
            })
            .collect();
        assert!(first.iter().min() < Some(&5) && first.iter().max() > Some(&95));
    }
}
