//! The replay buffer: every frame that is not final yet.

use std::collections::VecDeque;

use crate::audio::{AudioChunk, FramePos, FrameRange};

/// A stretch of the session stream in the replay buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Audio that is kept.
    Audio(AudioChunk),
    /// Frames that were dropped on purpose or lost by the source, of which nothing is kept.
    Gap(FrameRange),
}

impl Entry {
    /// Returns the frames of the entry.
    #[must_use]
    pub fn range(&self) -> FrameRange {
        match self {
            Entry::Audio(chunk) => chunk.range(),
            Entry::Gap(range) => *range,
        }
    }
}

/// A replay buffer: keeps the audio from `start` (everything below is final) to `end` (the next frame to
/// accept), so that any of it can be sent again. Chunks are shared, not copied. Dropped audio becomes a
/// gap, which holds no memory.
#[derive(Debug)]
pub struct ReplayBuffer {
    entries: VecDeque<Entry>,
    start: FramePos,
    end: FramePos,
    /// Number of frames of audio above `start`.
    held: u64,
    gaps: usize,
    capacity: u64,
}

impl ReplayBuffer {
    /// Creates an empty buffer at `origin`, which is full once it holds `capacity` frames.
    #[must_use]
    pub fn new(origin: FramePos, capacity: u64) -> ReplayBuffer {
        ReplayBuffer { entries: VecDeque::new(), start: origin, end: origin, held: 0, gaps: 0, capacity }
    }

    /// Returns the position of the first frame kept.
    #[must_use]
    pub fn start(&self) -> FramePos {
        self.start
    }

    /// Returns the position after the last frame kept, where the next push must start.
    #[must_use]
    pub fn end(&self) -> FramePos {
        self.end
    }

    /// Returns the number of frames of audio in the buffer.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held
    }

    /// Returns whether the buffer has reached its capacity.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.held >= self.capacity
    }

    /// Appends a chunk. A full buffer accepts the chunk too: audio already read must not be lost, so the
    /// caller is the one to stop reading the source or to make room.
    ///
    /// # Panics
    /// Panics if the chunk doesn't start at [`end`](ReplayBuffer::end).
    pub fn push(&mut self, chunk: AudioChunk) {
        assert_eq!(chunk.range().start, self.end, "audio must be contiguous");
        self.end = chunk.range().end;
        self.held += chunk.range().len();
        self.entries.push_back(Entry::Audio(chunk));
    }

    /// Appends frames that the source has lost, which hold no memory.
    ///
    /// # Panics
    /// Panics if the frames don't start at [`end`](ReplayBuffer::end).
    pub fn push_gap(&mut self, range: FrameRange) {
        assert_eq!(range.start, self.end, "a gap must be contiguous");
        if range.start < range.end {
            self.end = range.end;
            self.gaps += 1;
            self.entries.push_back(Entry::Gap(range));
        }
    }

    /// Returns the rest of the entry at `position`, starting at that position; `None` at the end.
    #[must_use]
    pub fn at(&self, position: FramePos) -> Option<Entry> {
        debug_assert!(position >= self.start, "{position} was released");
        Some(match self.entries.get(self.index(position))? {
            Entry::Audio(chunk) => Entry::Audio(chunk.from(position)?),
            Entry::Gap(range) => Entry::Gap(range.start.max(position).to(range.end)),
        })
    }

    /// Returns the gap at the start of the buffer, directly after the final frames, if there is one.
    #[must_use]
    pub fn first_gap(&self) -> Option<FrameRange> {
        match self.entries.front() {
            Some(Entry::Gap(range)) => Some(self.start.to(range.end)),
            _ => None,
        }
    }

    /// Returns whether all frames of `range` are kept as audio.
    #[must_use]
    pub fn is_gapless(&self, range: FrameRange) -> bool {
        self.gaps == 0
            || !self.entries.iter().any(|entry| {
                let gap = entry.range();
                matches!(entry, Entry::Gap(_)) && gap.start < range.end && range.start < gap.end
            })
    }

    /// Releases everything below `position`.
    pub fn release(&mut self, position: FramePos) {
        debug_assert!(position <= self.end, "{position} was never accepted");
        while let Some(first) = self.entries.front() {
            let (range, audio) = (first.range(), matches!(first, Entry::Audio(_)));
            if audio {
                self.held -= range.end.min(position).0.saturating_sub(range.start.max(self.start).0);
            }
            if range.end > position {
                break;
            }
            self.gaps -= usize::from(!audio);
            self.entries.pop_front();
        }
        self.start = self.start.max(position);
    }

    /// Drops the oldest audio from `position` on until the buffer holds no more than its capacity, and
    /// records the dropped frames as a gap.
    pub fn make_room(&mut self, position: FramePos) {
        let mut index = self.index(position);
        if self.held <= self.capacity || index == self.entries.len() {
            return;
        }
        if let Entry::Audio(chunk) = &self.entries[index]
            && let Some(rest) = chunk.from(position)
            && rest.range().start > chunk.range().start
        {
            let below = chunk.first(position - chunk.range().start);
            self.entries[index] = Entry::Audio(rest);
            if position > self.start {
                self.entries.insert(index, Entry::Audio(below));
                index += 1;
            }
        }
        let mut gap = FrameRange::new(self.entries[index].range().start, self.entries[index].range().start);
        while let Some(entry) = self.entries.get(index) {
            match entry {
                Entry::Audio(chunk) if self.held > self.capacity => self.held -= chunk.range().len(),
                Entry::Audio(_) => break,
                Entry::Gap(_) => self.gaps -= 1,
            }
            gap.end = entry.range().end;
            self.entries.remove(index);
        }
        self.gaps += 1;
        self.entries.insert(index, Entry::Gap(gap));
    }

    /// Returns the index of the entry that contains the frame at `position`.
    fn index(&self, position: FramePos) -> usize {
        self.entries.partition_point(|entry| entry.range().end <= position)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn range(start: u64, end: u64) -> FrameRange {
        FramePos(start).to(FramePos(end))
    }

    fn chunk(start: u64, end: u64) -> AudioChunk {
        let payload: Vec<u8> = (start..end).flat_map(|frame| (frame as u16).to_le_bytes()).collect();
        AudioChunk::new(range(start, end), Bytes::from(payload))
    }

    fn buffer(capacity: u64, chunks: &[(u64, u64)]) -> ReplayBuffer {
        let mut buffer = ReplayBuffer::new(FramePos(chunks[0].0), capacity);
        for &(start, end) in chunks {
            buffer.push(chunk(start, end));
        }
        buffer
    }

    #[test]
    fn keeps_what_is_not_final() {
        let mut buffer = buffer(8, &[(10, 14), (14, 18)]);
        assert!(buffer.is_full());
        buffer.release(FramePos(15));
        assert!(!buffer.is_full());
        assert_eq!(buffer.at(FramePos(15)), chunk(14, 18).from(FramePos(15)).map(Entry::Audio));
        assert_eq!(buffer.at(FramePos(18)), None);
        assert_eq!((buffer.start(), buffer.end(), buffer.held()), (FramePos(15), FramePos(18), 3));
    }

    #[test]
    fn room_is_made_where_nothing_was_sent_yet_oldest_first() {
        let mut buffer = buffer(10, &[(0, 6), (6, 10), (10, 14)]);
        // The first two frames were sent: they stay, since their text may be on its way.
        buffer.make_room(FramePos(2));
        assert_eq!((buffer.held(), buffer.at(FramePos(2))), (10, Some(Entry::Gap(range(2, 6)))));
        // The gap grows until it is reported to the peer.
        buffer.push(chunk(14, 15));
        buffer.make_room(FramePos(2));
        assert_eq!((buffer.held(), buffer.at(FramePos(3))), (7, Some(Entry::Gap(range(3, 10)))));
        assert!(
            buffer.is_gapless(range(0, 2))
                && !buffer.is_gapless(range(1, 3))
                && buffer.is_gapless(range(10, 15))
        );
        buffer.release(FramePos(2));
        assert_eq!(buffer.first_gap(), Some(range(2, 10)));
        buffer.release(FramePos(10));
        assert_eq!((buffer.held(), buffer.first_gap()), (5, None));
        assert!(buffer.is_gapless(range(10, 15)));
    }

    #[test]
    fn what_is_final_leaves_nothing_in_front_of_a_gap() {
        let mut buffer = buffer(4, &[(0, 6), (6, 10)]);
        buffer.release(FramePos(2));
        buffer.make_room(FramePos(2));
        assert_eq!((buffer.held(), buffer.first_gap()), (4, Some(range(2, 6))));
    }

    #[test]
    fn what_was_sent_is_not_dropped() {
        let mut buffer = buffer(4, &[(0, 4), (4, 8)]);
        buffer.make_room(FramePos(8));
        assert_eq!(buffer.held(), 8);
        buffer.push(chunk(8, 10));
        buffer.make_room(FramePos(8));
        assert_eq!((buffer.held(), buffer.at(FramePos(8))), (8, Some(Entry::Gap(range(8, 10)))));
    }
}
