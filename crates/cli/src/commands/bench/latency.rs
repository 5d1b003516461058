//! Latencies and their quantiles.

use std::time::Duration;

/// Measured latencies, in any order.
#[derive(Clone, Debug, Default)]
pub(super) struct Latencies(Vec<Duration>);

impl Latencies {
    pub(super) fn push(&mut self, latency: Duration) {
        self.0.push(latency);
    }

    pub(super) fn merge(&mut self, other: Latencies) {
        self.0.extend(other.0);
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns the smallest latency that this share of them does not exceed; `None` if nothing was measured.
    pub(super) fn quantile(&self, share: f64) -> Option<Duration> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let place = (share * sorted.len() as f64).ceil() as usize;
        sorted.get(place.saturating_sub(1)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_time_that_was_measured() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), None);
        (1..=20).rev().for_each(|seconds| latencies.push(Duration::from_secs(seconds)));
        let seconds = |share| latencies.quantile(share).unwrap().as_secs();
        assert_eq!([0.0, 0.5, 0.95, 0.96, 1.0].map(seconds), [1, 10, 19, 20, 20]);
    }
}
