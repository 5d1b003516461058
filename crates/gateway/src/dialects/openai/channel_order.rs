//! Segments of several channels in one order.

use std::collections::HashMap;

use voxline::engine::Segment;
use voxline::transcript::{FinalSegment, Merge, TranscriptEvent};

/// A merger of the segments of all channels, ordered by start, then by channel.
pub(super) struct ChannelOrder {
    merge: Merge,
    /// Number of segments of each channel so far.
    counts: Vec<u64>,
    /// Segments that wait for others, by channel and number.
    waiting: HashMap<(usize, u64), Segment>,
}

impl ChannelOrder {
    pub(super) fn new(channels: usize) -> ChannelOrder {
        ChannelOrder { merge: Merge::new(channels), counts: vec![0; channels], waiting: HashMap::new() }
    }

    /// Takes the next segment of `channel`. Returns the segments that are now in order.
    pub(super) fn push(&mut self, channel: usize, segment: Segment) -> Vec<(usize, Segment)> {
        let index = self.counts[channel];
        self.counts[channel] += 1;
        let place = FinalSegment {
            index,
            range: segment.range,
            text: String::new(),
            language: None,
            confidence: None,
            words: Vec::new(),
            context: None,
        };
        self.waiting.insert((channel, index), segment);
        let ordered = self.merge.push(channel, Some(TranscriptEvent::Final(place)));
        self.take(ordered)
    }

    /// Ends all channels. Returns the rest.
    pub(super) fn finish(&mut self) -> Vec<(usize, Segment)> {
        let mut rest = Vec::new();
        for channel in 0..self.counts.len() {
            let ordered = self.merge.push(channel, None);
            rest.extend(self.take(ordered));
        }
        rest
    }

    fn take(&mut self, ordered: Vec<(usize, TranscriptEvent)>) -> Vec<(usize, Segment)> {
        let segments = ordered.into_iter().filter_map(|(channel, event)| match event {
            TranscriptEvent::Final(place) => Some((channel, self.waiting.remove(&(channel, place.index))?)),
            _ => None,
        });
        segments.collect()
    }
}
