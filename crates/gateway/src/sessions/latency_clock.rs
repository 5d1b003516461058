//! Arrival times of audio, from which the latency of results is measured.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use voxline::audio::FramePos;

/// Audio that arrives within this time counts as arriving at once, which bounds the number of stored times.
const GRAIN: Duration = Duration::from_millis(20);

/// Arrival times of the audio that isn't final yet.
#[derive(Debug, Default)]
pub(crate) struct LatencyClock {
    /// End position of each batch of audio, and arrival time of the batch's first frame.
    parts: VecDeque<(FramePos, Instant)>,
}

impl LatencyClock {
    /// Records the arrival at `now` of audio up to `end`.
    pub(crate) fn note(&mut self, end: FramePos, now: Instant) {
        match self.parts.back_mut() {
            Some((last, since)) if now.saturating_duration_since(*since) < GRAIN => *last = end,
            _ => self.parts.push_back((end, now)),
        }
    }

    /// Returns the arrival time of the frame at `position`, if that is still known.
    pub(crate) fn of(&self, position: FramePos) -> Option<Instant> {
        let part = self.parts.partition_point(|(end, _)| *end <= position);
        self.parts.get(part).map(|(_, since)| *since)
    }

    /// Forgets arrivals before `position`.
    pub(crate) fn forget(&mut self, position: FramePos) {
        let parts = self.parts.partition_point(|(end, _)| *end <= position);
        self.parts.drain(..parts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an Instant can't be made otherwise")]
    fn the_arrival_time_of_each_frame_is_known() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut clock = LatencyClock::default();
        for (end, milliseconds) in [(100, 0), (200, 10), (300, 20), (400, 500)] {
            clock.note(FramePos(end), at(milliseconds));
        }
        assert_eq!(clock.parts.len(), 3);
        let came = |clock: &LatencyClock, position| clock.of(FramePos(position));
        assert_eq!(
            [0, 199, 200, 399].map(|position| came(&clock, position)),
            [at(0), at(0), at(20), at(500)].map(Some)
        );
        assert_eq!(came(&clock, 400), None);
        clock.forget(FramePos(250));
        assert_eq!([0, 299, 300].map(|position| came(&clock, position)), [at(20), at(20), at(500)].map(Some));
        clock.forget(FramePos(400));
        assert!(clock.parts.is_empty());
    }
}
