//! Every frame that is not final yet.

use std::collections::VecDeque;

use crate::audio::{AudioChunk, FramePos};

/// Keeps the audio from `start` (everything below is final) to `end` (the next frame to accept), so that any of it
/// can be sent again. Chunks are shared, not copied.
#[derive(Debug)]
pub struct ReplayBuffer {
    chunks: VecDeque<AudioChunk>,
    start: FramePos,
    end: FramePos,
    capacity: u64,
}

impl ReplayBuffer {
    /// An empty buffer at `origin` that asks for no more audio once it holds `capacity` frames.
    #[must_use]
    pub fn new(origin: FramePos, capacity: u64) -> ReplayBuffer {
        ReplayBuffer { chunks: VecDeque::new(), start: origin, end: origin, capacity }
    }

    /// The first frame kept.
    #[must_use]
    pub fn start(&self) -> FramePos {
        self.start
    }

    /// The position after the last frame kept: the next one to push.
    #[must_use]
    pub fn end(&self) -> FramePos {
        self.end
    }

    /// Whether it holds its capacity.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.end - self.start >= self.capacity
    }

    /// Appends a chunk. A full buffer takes it too: the caller stops reading its source, and what was already read
    /// must not be lost.
    ///
    /// # Panics
    /// If the chunk doesn't start at [`end`](ReplayBuffer::end).
    pub fn push(&mut self, chunk: AudioChunk) {
        assert_eq!(chunk.range().start, self.end, "audio must be contiguous");
        self.end = chunk.range().end;
        self.chunks.push_back(chunk);
    }

    /// The rest of the chunk that holds the frame at `position`, from that frame on; `None` at the end.
    #[must_use]
    pub fn chunk_from(&self, position: FramePos) -> Option<AudioChunk> {
        debug_assert!(position >= self.start, "{position} was released");
        let index = self.chunks.partition_point(|chunk| chunk.range().end <= position);
        self.chunks.get(index)?.from(position)
    }

    /// Forgets everything below `position`.
    pub fn release(&mut self, position: FramePos) {
        debug_assert!(position <= self.end, "{position} was never accepted");
        self.start = self.start.max(position);
        while self.chunks.front().is_some_and(|chunk| chunk.range().end <= self.start) {
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn chunk(start: u64, end: u64) -> AudioChunk {
        let payload: Vec<u8> = (start..end).flat_map(|frame| (frame as u16).to_le_bytes()).collect();
        AudioChunk::new(FramePos(start).to(FramePos(end)), Bytes::from(payload))
    }

    #[test]
    fn keeps_what_is_not_final() {
        let mut buffer = ReplayBuffer::new(FramePos(10), 8);
        buffer.push(chunk(10, 14));
        buffer.push(chunk(14, 18));
        assert!(buffer.is_full());
        buffer.release(FramePos(15));
        assert!(!buffer.is_full());
        assert_eq!(buffer.chunk_from(FramePos(15)), chunk(14, 18).from(FramePos(15)));
        assert_eq!(buffer.chunk_from(FramePos(18)), None);
        assert_eq!((buffer.start(), buffer.end()), (FramePos(15), FramePos(18)));
    }
}
