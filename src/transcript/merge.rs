//! Merging of several channels into one transcript, in the order in which they speak.

use std::collections::VecDeque;

use super::TranscriptEvent;
use crate::audio::FramePos;

/// A merger of the events of several sessions over the same time, ordered by start, then by channel.
///
/// A final segment or gap is returned once no other channel can precede it any more, so a channel that
/// falls behind holds the others back. All other events are returned at once.
#[derive(Debug)]
pub struct Merge {
    channels: Vec<Channel>,
}

#[derive(Debug, Default)]
struct Channel {
    /// Finals and gaps that wait, each with its start.
    waiting: VecDeque<(FramePos, TranscriptEvent)>,
    /// Start of the next final or gap: they are contiguous.
    reached: FramePos,
    ended: bool,
}

impl Merge {
    /// Creates a merger of this many channels.
    #[must_use]
    pub fn new(channels: usize) -> Merge {
        Merge { channels: (0..channels).map(|_| Channel::default()).collect() }
    }

    /// Takes the next event of `channel`, or `None` when the channel has ended. Returns the events
    /// that are now in order, each with its channel.
    ///
    /// # Panics
    /// Panics if there is no such channel.
    pub fn push(&mut self, channel: usize, event: Option<TranscriptEvent>) -> Vec<(usize, TranscriptEvent)> {
        let range = match &event {
            Some(TranscriptEvent::Final(segment)) => Some(segment.range),
            Some(TranscriptEvent::Gap { range }) => Some(*range),
            Some(_) => None,
            None => {
                self.channels[channel].ended = true;
                None
            }
        };
        match (range, event) {
            (Some(range), Some(event)) => {
                self.channels[channel].reached = range.end;
                self.channels[channel].waiting.push_back((range.start, event));
            }
            (_, Some(event)) => return vec![(channel, event)],
            (_, None) => {}
        }
        std::iter::from_fn(|| self.next()).collect()
    }

    /// Returns the earliest event, if no earlier one can come.
    fn next(&mut self) -> Option<(usize, TranscriptEvent)> {
        let starts = self.channels.iter().enumerate();
        let first = starts.filter_map(|(index, channel)| Some((channel.waiting.front()?.0, index))).min()?;
        let may_come_before = |(index, channel): (usize, &Channel)| {
            !channel.ended && channel.waiting.is_empty() && (channel.reached, index) < first
        };
        if self.channels.iter().enumerate().any(may_come_before) {
            return None;
        }
        let (_, event) = self.channels[first.1].waiting.pop_front()?;
        Some((first.1, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::FrameRange;
    use crate::transcript::FinalSegment;

    fn segment(start: u64, end: u64) -> Option<TranscriptEvent> {
        let range = FrameRange::new(FramePos(start), FramePos(end));
        let text = format!("{start}-{end}");
        Some(TranscriptEvent::Final(FinalSegment {
            index: 0,
            range,
            text,
            language: None,
            confidence: None,
            words: Vec::new(),
            context: None,
        }))
    }

    fn push(merge: &mut Merge, channel: usize, event: Option<TranscriptEvent>) -> Vec<String> {
        let events = merge.push(channel, event).into_iter().map(|(channel, event)| match event {
            TranscriptEvent::Final(segment) => format!("{channel}:{}", segment.text),
            other => format!("{channel}:{other:?}"),
        });
        events.collect()
    }

    #[test]
    fn segments_come_by_start_once_no_other_can_precede_them() {
        let mut merge = Merge::new(2);
        // Channel 1 may still start at 0, but not before channel 0.
        assert_eq!(push(&mut merge, 0, segment(0, 50)), ["0:0-50"]);
        assert!(push(&mut merge, 0, segment(50, 90)).is_empty());
        assert!(push(&mut merge, 0, segment(90, 100)).is_empty());
        assert_eq!(push(&mut merge, 1, segment(0, 60)), ["1:0-60", "0:50-90"]);
        assert_eq!(push(&mut merge, 1, segment(60, 95)), ["1:60-95", "0:90-100"]);
        assert!(push(&mut merge, 0, segment(100, 120)).is_empty());
        assert_eq!(push(&mut merge, 1, None), ["0:100-120"]);
        assert_eq!(push(&mut merge, 0, segment(120, 130)), ["0:120-130"]);
    }

    #[test]
    fn partial_results_do_not_wait() {
        let mut merge = Merge::new(2);
        assert!(push(&mut merge, 1, segment(0, 50)).is_empty());
        let range = FrameRange::new(FramePos(50), FramePos(60));
        let partial = TranscriptEvent::Partial { segment: 1, revision: 0, range, text: String::new() };
        assert_eq!(push(&mut merge, 1, Some(partial)).len(), 1);
        assert_eq!(push(&mut merge, 0, None), ["1:0-50"]);
    }
}
