//! Pacing of audio: as fast as the session takes it, or relative to real time.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::audio::{Feed, FramePos};
use voxline_support::clock::{Clock, SystemClock};

/// Multiples of real time that a pace may be. Beyond them, a session would end by its timeouts, or the pace
/// would make no difference.
const MULTIPLES: RangeInclusive<f64> = 0.01..=1_000.0;

/// Speed at which audio is fed to the session. The default is [`Pace::MAX`].
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace(Option<f64>);

impl Pace {
    /// As fast as the session takes it.
    pub const MAX: Pace = Pace(None);
    /// As fast as it is heard.
    pub const REAL_TIME: Pace = Pace(Some(1.0));

    /// Returns a pace of `multiple` times real time; `None` unless that is 0.01 to 1,000.
    #[must_use]
    pub fn times(multiple: f64) -> Option<Pace> {
        MULTIPLES.contains(&multiple).then_some(Pace(Some(multiple)))
    }

    /// Returns the time at which all frames before `end` are complete, counted from the start of the
    /// stream. A chunk is complete once its last frame would have been heard.
    #[must_use]
    pub fn due(self, end: FramePos, sample_rate: u32) -> Duration {
        self.0.map_or(Duration::ZERO, |multiple| end.time(sample_rate).div_f64(multiple))
    }
}

/// Error parsing a text that is not a pace.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{given}` is no pace, expected realtime, max, or how many times as fast as it is heard, 0.01 to 1000"
)]
pub struct PaceError {
    given: String,
}

impl FromStr for Pace {
    type Err = PaceError;

    fn from_str(text: &str) -> Result<Pace, PaceError> {
        match text {
            "max" => Ok(Pace::MAX),
            "realtime" => Ok(Pace::REAL_TIME),
            number => {
                let multiple = number.parse().ok().and_then(Pace::times);
                multiple.ok_or_else(|| PaceError { given: text.to_owned() })
            }
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => f.write_str("max"),
            Some(multiple) => multiple.fmt(f),
        }
    }
}

/// Delays feeds until they are due. A stream that has fallen behind catches up: delays do not add up.
#[derive(Debug)]
pub struct Pacer {
    pace: Pace,
    sample_rate: u32,
    clock: SystemClock,
    start: Duration,
    origin: FramePos,
}

impl Pacer {
    /// Creates a pacer of a stream that starts now, with `sample_rate` frames per second.
    #[must_use]
    pub fn new(pace: Pace, sample_rate: u32) -> Pacer {
        let clock = SystemClock::new();
        Pacer { pace, sample_rate, start: clock.monotonic(), clock, origin: FramePos::ZERO }
    }

    /// Sets the position at which the stream resumes now.
    #[must_use]
    pub fn starting_at(self, origin: FramePos) -> Pacer {
        Pacer { origin, ..self }
    }

    /// Waits until `feed` is due.
    pub async fn wait(&self, feed: &Feed) {
        let Feed::Audio(chunk) = feed else { return };
        let fed = FramePos(chunk.range().end.0.saturating_sub(self.origin.0));
        let due = self.start + self.pace.due(fed, self.sample_rate);
        let left = due.saturating_sub(self.clock.monotonic());
        if left > Duration::ZERO {
            tokio::time::sleep(left).await;
        }
    }

    /// Carries audio from one channel to the other, each chunk when it is due, counted from the first chunk.
    /// Chunks before the position at which the stream [resumes](Pacer::starting_at) pass at once.
    ///
    /// Returns `true` at [`Feed::End`], which the caller sends on if the source was read to its end. Returns
    /// `false` if either channel is closed, even while the source is silent.
    pub async fn carry(mut self, audio: &mut mpsc::Receiver<Feed>, to: &mpsc::Sender<Feed>) -> bool {
        let mut started = false;
        let carrying = async {
            while let Some(feed) = audio.recv().await {
                match &feed {
                    Feed::End => return true,
                    Feed::Audio(chunk) if chunk.range().end <= self.origin => {}
                    _ => {
                        if !started {
                            self.start = self.clock.monotonic();
                            started = true;
                        }
                        self.wait(&feed).await;
                    }
                }
                if to.send(feed).await.is_err() {
                    return false;
                }
            }
            false
        };
        tokio::select! {
            ended = carrying => ended,
            () = to.closed() => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_read_as_it_is_written() {
        for (text, pace) in [("max", Pace::MAX), ("1", Pace::REAL_TIME), ("2.5", Pace(Some(2.5)))] {
            assert_eq!((text.parse::<Pace>().unwrap(), pace.to_string().as_str()), (pace, text));
        }
        assert_eq!("realtime".parse::<Pace>().unwrap(), Pace::REAL_TIME);
        assert_eq!(Pace::times(0.01), Some(Pace(Some(0.01))));
        for text in ["", "0", "0.009", "-1", "inf", "NaN", "1001", "fast"] {
            assert!(text.parse::<Pace>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_chunk_is_due_when_its_last_frame_was_heard() {
        let end = FramePos(24_000);
        assert_eq!(Pace::REAL_TIME.due(end, 16_000), Duration::from_millis(1_500));
        assert_eq!(Pace(Some(3.0)).due(end, 16_000), Duration::from_millis(500));
        assert_eq!(Pace::MAX.due(end, 16_000), Duration::ZERO);
    }
}
