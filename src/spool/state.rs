//! The state that the records of a spool add up to, and the order in which records may follow.

use super::record::Entry;
use crate::audio::{FramePos, FrameRange};

/// The cursors of a spool. Both writing and recovery move them only here, so recovery arrives at the
/// state that was written.
///
/// Invariant: `final_ <= accepted`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    /// Position at which audio continues.
    pub(super) accepted: FramePos,
    /// Position below which every frame is final or in a gap.
    pub(super) final_: FramePos,
    /// Index of the next final.
    pub(super) next_index: u64,
    /// Number of frames in gaps.
    pub(super) gaps: u64,
    /// Position of the last flush.
    pub(super) flushed: Option<FramePos>,
    /// True if all audio is there.
    pub(super) ended: bool,
    /// True if the end of the session was emitted.
    pub(super) done: bool,
}

impl State {
    /// Returns whether everything is final and nothing can follow.
    pub(super) fn is_complete(&self) -> bool {
        self.ended && self.final_ == self.accepted
    }

    /// Returns the state after `entry`, or the reason why `entry` can't follow.
    pub(super) fn after(mut self, entry: &Entry) -> Result<State, String> {
        match entry {
            Entry::Head(_) => return Err("a second head".to_owned()),
            Entry::Audio { range, .. } => {
                self.feed("audio", range.start)?;
                self.accepted = range.end;
            }
            Entry::Lost(range) if range.end < range.start => {
                return Err(format!("lost frames {}..{}", range.start, range.end));
            }
            Entry::Lost(range) => {
                self.feed("lost audio", range.start)?;
                self.accepted = range.end;
            }
            Entry::Flush(at) => {
                self.feed("a flush", *at)?;
                self.flushed = Some(*at);
            }
            Entry::End(at) => {
                self.feed("the end", *at)?;
                self.ended = true;
            }
            Entry::Opened(_) => {}
            Entry::Final(segment) if segment.index != self.next_index => {
                return Err(format!("final {}, expected {}", segment.index, self.next_index));
            }
            Entry::Final(segment) => {
                self.cover("a final", segment.range)?;
                self.next_index += 1;
            }
            Entry::Gap(range) => {
                self.cover("a gap", *range)?;
                self.gaps += range.len();
            }
            Entry::Done if !self.is_complete() => {
                return Err(format!("done at frame {} of {}", self.final_, self.accepted));
            }
            Entry::Done => self.done = true,
        }
        Ok(self)
    }

    /// Checks that an item of the source may come at `at`.
    fn feed(&self, what: &str, at: FramePos) -> Result<(), String> {
        if self.ended {
            return Err(format!("{what} at frame {at}, but audio ended at frame {}", self.accepted));
        }
        if at != self.accepted {
            return Err(format!("{what} at frame {at}, expected frame {}", self.accepted));
        }
        Ok(())
    }

    /// Moves `final_` over `range`, which comes from a file: its ends may be in the wrong order.
    fn cover(&mut self, what: &str, range: FrameRange) -> Result<(), String> {
        let FrameRange { start, end } = range;
        if start != self.final_ || end < start || end > self.accepted {
            let (from, to) = (self.final_, self.accepted);
            return Err(format!("{what} of frames {start}..{end}, expected from {from} and up to {to}"));
        }
        self.final_ = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audio(start: u64, end: u64) -> Entry {
        Entry::Audio { range: FramePos(start).to(FramePos(end)), voiced: None }
    }

    fn gap(start: u64, end: u64) -> Entry {
        Entry::Gap(FrameRange { start: FramePos(start), end: FramePos(end) })
    }

    #[test]
    fn only_what_follows_is_taken() {
        let state = State::default().after(&audio(0, 10)).unwrap().after(&gap(0, 4)).unwrap();
        assert_eq!((state.accepted, state.final_, state.gaps), (FramePos(10), FramePos(4), 4));
        for (entry, refusal) in [
            (audio(11, 12), "audio at frame 11, expected frame 10"),
            (audio(9, 12), "audio at frame 9, expected frame 10"),
            (Entry::Flush(FramePos(4)), "a flush at frame 4, expected frame 10"),
            (gap(3, 5), "a gap of frames 3..5, expected from 4 and up to 10"),
            (gap(4, 11), "a gap of frames 4..11, expected from 4 and up to 10"),
            (gap(4, 3), "a gap of frames 4..3, expected from 4 and up to 10"),
            (Entry::Done, "done at frame 4 of 10"),
        ] {
            assert_eq!(state.after(&entry).unwrap_err(), refusal);
        }
        let ended = state.after(&Entry::End(FramePos(10))).unwrap();
        assert_eq!(
            ended.after(&audio(10, 11)).unwrap_err(),
            "audio at frame 10, but audio ended at frame 10"
        );
        assert!(ended.after(&gap(4, 10)).unwrap().after(&Entry::Done).unwrap().done);
    }
}
