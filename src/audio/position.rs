//! Positions and ranges on the session's timeline.

use std::fmt;
use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A position in the session stream: the number of frames before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FramePos(pub u64);

impl FramePos {
    /// The start of the session.
    pub const ZERO: FramePos = FramePos(0);

    /// Returns the time from the start of the session to this position, at `sample_rate` frames per
    /// second.
    ///
    /// # Panics
    /// Panics if `sample_rate` is zero.
    #[must_use]
    pub fn time(self, sample_rate: u32) -> Duration {
        let rate = u64::from(sample_rate);
        let nanos = u128::from(self.0 % rate) * 1_000_000_000 / u128::from(rate);
        Duration::new(self.0 / rate, u32::try_from(nanos).expect("a remainder is below one second"))
    }

    /// Returns the range from this position to `end`.
    ///
    /// # Panics
    /// Panics if `end` lies before `self`.
    #[must_use]
    pub fn to(self, end: FramePos) -> FrameRange {
        FrameRange::new(self, end)
    }
}

impl Add<u64> for FramePos {
    type Output = FramePos;

    fn add(self, frames: u64) -> FramePos {
        FramePos(self.0 + frames)
    }
}

/// Subtraction returns the number of frames between two positions.
impl Sub for FramePos {
    type Output = u64;

    fn sub(self, earlier: FramePos) -> u64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for FramePos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A half-open range of frames, `start..end`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FrameRange {
    /// The first frame of the range.
    pub start: FramePos,
    /// The frame after the last.
    pub end: FramePos,
}

impl FrameRange {
    /// Creates the range `start..end`.
    ///
    /// # Panics
    /// Panics if `end` lies before `start`.
    #[must_use]
    pub fn new(start: FramePos, end: FramePos) -> FrameRange {
        assert!(start <= end, "range {start}..{end} runs backwards");
        FrameRange { start, end }
    }

    /// Returns the number of frames in the range.
    #[must_use]
    pub fn len(self) -> u64 {
        self.end - self.start
    }

    /// Returns whether the range contains no frame.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

impl fmt::Display for FrameRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_exact_far_from_the_start() {
        let ten_years = FramePos(16_000 * 86_400 * 3_653 + 8_000);
        assert_eq!(ten_years.time(16_000), Duration::from_millis(86_400 * 3_653 * 1_000 + 500));
    }
}
