//! Cutting the session stream into chunks.

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::audio::{AudioChunk, FRAME_BYTES, FramePos, sample};

/// How many chunks share a buffer. The buffer can be used again when all of them are dropped.
const CHUNKS_PER_BUFFER: usize = 4;

/// How many full buffers are kept in the hope of that. More chunks than these hold are on their way only where they
/// wait for a slow session, and then what is allocated here is the least of it.
const FULL_BUFFERS: usize = 2;

/// Cuts a mono stream at the session rate into [`AudioChunk`]s of equal length; the last may be shorter.
///
/// Samples are converted straight into the buffer that becomes the chunk's payload, without a copy. Buffers are used
/// again: where chunks are dropped about as fast as they are made, nothing is allocated.
///
/// ```
/// let mut chunker = voxline::chunk::Chunker::new(1600);
/// let mut samples: &[f32] = &[0.0; 4000];
/// while let Some(chunk) = chunker.push(&mut samples) {
///     assert_eq!(chunk.range().len(), 1600);
/// }
/// assert_eq!(chunker.finish().unwrap().range().to_string(), "3200..4000");
/// ```
#[derive(Debug)]
pub struct Chunker {
    frames_per_chunk: usize,
    /// Where the chunk that is being filled starts.
    start: FramePos,
    /// What it holds so far, and room for the next ones.
    pcm: BytesMut,
    /// Buffers without room, oldest first.
    full: VecDeque<BytesMut>,
}

impl Chunker {
    /// A chunker whose first chunk starts at [`FramePos::ZERO`].
    ///
    /// # Panics
    /// If `frames_per_chunk` is zero.
    #[must_use]
    pub fn new(frames_per_chunk: usize) -> Chunker {
        assert!(frames_per_chunk > 0, "a chunk holds at least one frame");
        Chunker { frames_per_chunk, start: FramePos::ZERO, pcm: BytesMut::new(), full: VecDeque::new() }
    }

    /// The position after the last frame taken.
    #[must_use]
    pub fn position(&self) -> FramePos {
        self.start + (self.pcm.len() / FRAME_BYTES) as u64
    }

    /// Takes samples from the front of `samples` until a chunk is full, and returns that chunk; `None` when all are
    /// taken and none is full. Call it until it returns `None`.
    pub fn push(&mut self, samples: &mut &[f32]) -> Option<AudioChunk> {
        self.fill(samples, sample::to_s16le)
    }

    /// [`push`](Chunker::push) for samples that are 16-bit already.
    pub fn push_s16(&mut self, samples: &mut &[i16]) -> Option<AudioChunk> {
        self.fill(samples, |samples, pcm| {
            for (bytes, sample) in pcm.as_chunks_mut().0.iter_mut().zip(samples) {
                *bytes = sample.to_le_bytes();
            }
        })
    }

    /// Ends the stream: the short last chunk, if frames are left. The next stream would follow at
    /// [`position`](Chunker::position).
    pub fn finish(&mut self) -> Option<AudioChunk> {
        if self.pcm.is_empty() {
            return None;
        }
        Some(self.cut())
    }

    fn fill<S>(&mut self, samples: &mut &[S], write: impl Fn(&[S], &mut [u8])) -> Option<AudioChunk> {
        if samples.is_empty() {
            return None;
        }
        if self.pcm.is_empty() {
            self.make_room();
        }
        let filled = self.pcm.len();
        let wanted = self.frames_per_chunk - filled / FRAME_BYTES;
        let (taken, rest) = samples.split_at(wanted.min(samples.len()));
        self.pcm.resize(filled + taken.len() * FRAME_BYTES, 0);
        write(taken, &mut self.pcm[filled..]);
        *samples = rest;
        (taken.len() == wanted).then(|| self.cut())
    }

    /// Makes room for a chunk: in the buffer at hand, in one whose chunks are all dropped, or in a new one.
    fn make_room(&mut self) {
        let chunk = self.frames_per_chunk * FRAME_BYTES;
        if self.pcm.capacity() >= chunk {
            return;
        }
        self.full.push_back(std::mem::take(&mut self.pcm));
        let free = self.full.iter_mut().position(|buffer| buffer.try_reclaim(chunk));
        self.pcm = match free.and_then(|index| self.full.remove(index)) {
            Some(buffer) => buffer,
            None => BytesMut::with_capacity(chunk * CHUNKS_PER_BUFFER),
        };
        if self.full.len() > FULL_BUFFERS {
            self.full.pop_front();
        }
    }

    fn cut(&mut self) -> AudioChunk {
        let range = self.start.to(self.position());
        self.start = range.end;
        AudioChunk::new(range, self.pcm.split().freeze())
    }
}
