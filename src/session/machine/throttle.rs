//! The rate at which a backlog of audio is sent.

use std::time::Duration;

use crate::peer::CatchUp;

/// A token bucket of frames that may be sent now, filled as set by [`CatchUp`], or unlimited.
#[derive(Debug)]
pub(super) struct Throttle {
    limit: Option<Limit>,
}

#[derive(Debug)]
struct Limit {
    /// Fill rate in frames per second.
    rate: f64,
    burst: f64,
    credit: f64,
    counted: Duration,
}

impl Throttle {
    pub(super) fn new(limit: Option<CatchUp>, sample_rate: u32) -> Throttle {
        let limit = limit.map(|limit| {
            let burst = (limit.burst().as_secs_f64() * f64::from(sample_rate)).max(1.0);
            Limit {
                rate: f64::from(sample_rate) * limit.factor(),
                burst,
                credit: burst,
                counted: Duration::ZERO,
            }
        });
        Throttle { limit }
    }

    /// Fills the bucket for a new connection, which may send a whole burst.
    pub(super) fn refill(&mut self, now: Duration) {
        if let Some(limit) = &mut self.limit {
            (limit.credit, limit.counted) = (limit.burst, now);
        }
    }

    /// Returns how many of `frames` may be sent now: all that fit into the burst, or 0. Smaller amounts
    /// of credit are saved up, so that a chunk is not sent in crumbs.
    pub(super) fn allows(&mut self, frames: u64, now: Duration) -> u64 {
        let Some(limit) = &mut self.limit else { return frames };
        let earned = now.saturating_sub(limit.counted).as_secs_f64() * limit.rate;
        limit.credit = (limit.credit + earned).min(limit.burst);
        limit.counted = limit.counted.max(now);
        let frames = frames.min(limit.burst as u64);
        if limit.credit < frames as f64 { 0 } else { frames }
    }

    pub(super) fn spend(&mut self, frames: u64) {
        if let Some(limit) = &mut self.limit {
            limit.credit -= frames as f64;
        }
    }

    /// Returns the time at which `frames` may be sent; only meaningful after [`allows`](Throttle::allows)
    /// returned 0.
    pub(super) fn due(&self, frames: u64) -> Option<Duration> {
        let limit = self.limit.as_ref()?;
        let missing = (frames as f64).min(limit.burst.floor()) - limit.credit;
        // One nanosecond more than the exact time: rounding could otherwise wake the session too early
        // for ever.
        let wait =
            Duration::try_from_secs_f64(missing / limit.rate).unwrap_or_default() + Duration::from_nanos(1);
        Some(limit.counted.saturating_add(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_factor() {
        let limit = CatchUp::new(Duration::from_secs(2), 1.25).unwrap();
        let mut throttle = Throttle::new(Some(limit), 8_000);
        throttle.refill(Duration::from_secs(100));
        let (mut now, mut sent) = (Duration::from_secs(100), 0);
        while sent < 96_000 {
            match throttle.allows(800, now) {
                0 => now = now.max(throttle.due(800).unwrap()),
                frames => {
                    throttle.spend(frames);
                    sent += frames;
                }
            }
        }
        // Twelve seconds of audio: two at once, ten at 1.25 times real time.
        let took = (now - Duration::from_secs(100)).as_secs_f64();
        assert!((7.9..8.1).contains(&took), "{took} s");
    }

    #[test]
    fn a_pause_saves_up_no_more_than_the_burst() {
        let limit = CatchUp::new(Duration::from_secs(2), 1.25).unwrap();
        let mut throttle = Throttle::new(Some(limit), 8_000);
        throttle.refill(Duration::ZERO);
        let hour = Duration::from_secs(3_600);
        let mut sent = 0;
        while throttle.allows(800, hour) > 0 {
            throttle.spend(800);
            sent += 800;
        }
        assert_eq!(sent, 16_000);
    }

    #[test]
    fn a_new_connection_has_its_burst_at_once() {
        let limit = CatchUp::new(Duration::from_secs(2), 1.25).unwrap();
        let mut throttle = Throttle::new(Some(limit), 8_000);
        let now = Duration::from_secs(100);
        assert_eq!(throttle.allows(16_000, now), 16_000);
        throttle.spend(16_000);
        assert_eq!(throttle.allows(800, now), 0);
        throttle.refill(now);
        assert_eq!(throttle.allows(16_000, now), 16_000);
        // The time before the connection earns no credit.
        throttle.spend(16_000);
        throttle.refill(now + Duration::from_secs(50));
        throttle.spend(16_000);
        assert_eq!(throttle.allows(800, now + Duration::from_secs(50)), 0);
    }

    #[test]
    fn a_pace_that_is_none_is_refused() {
        for factor in [0.0, 0.009, -1.0, 1_001.0, f64::NAN, f64::INFINITY] {
            assert_eq!(CatchUp::new(Duration::ZERO, factor), None);
        }
        for factor in [0.01, 1_000.0] {
            assert_eq!(CatchUp::new(Duration::ZERO, factor).map(CatchUp::factor), Some(factor));
        }
    }

    #[test]
    fn a_chunk_over_the_burst_is_cut() {
        let limit = CatchUp::new(Duration::from_millis(50), 2.0).unwrap();
        let mut throttle = Throttle::new(Some(limit), 8_000);
        assert_eq!(throttle.allows(800, Duration::ZERO), 400);
    }
}
