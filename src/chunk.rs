//! Splitting of the session stream into chunks.

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::audio::{AudioChunk, FRAME_BYTES, FramePos, sample};

/// Number of chunks that share a buffer. The buffer can be reused once all of them are dropped.
const CHUNKS_PER_BUFFER: usize = 4;

/// Number of full buffers that are kept for reuse. More chunks than these hold are in flight only if they
/// wait for a slow session, and an allocation here then matters least.
const FULL_BUFFERS: usize = 2;

/// Splits a mono stream at the session rate into [`AudioChunk`]s of equal length; the last may be
/// shorter.
///
/// Samples are converted directly into the buffer that becomes the chunk's payload, without a copy.
/// Buffers are reused: if chunks are dropped about as fast as they are made, nothing is allocated.
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
    /// Start of the chunk that is being filled.
    start: FramePos,
    /// Bytes of that chunk so far, with capacity for the next ones.
    pcm: BytesMut,
    /// Buffers without capacity, oldest first.
    full: VecDeque<BytesMut>,
}

impl Chunker {
    /// Creates a chunker whose first chunk starts at [`FramePos::ZERO`].
    ///
    /// # Panics
    /// Panics if `frames_per_chunk` is zero.
    #[must_use]
    pub fn new(frames_per_chunk: usize) -> Chunker {
        assert!(frames_per_chunk > 0, "a chunk holds at least one frame");
        Chunker { frames_per_chunk, start: FramePos::ZERO, pcm: BytesMut::new(), full: VecDeque::new() }
    }

    /// Returns the position after the last frame taken.
    #[must_use]
    pub fn position(&self) -> FramePos {
        self.start + (self.pcm.len() / FRAME_BYTES) as u64
    }

    /// Takes samples from the front of `samples` until a chunk is full, and returns that chunk. Returns
    /// `None` once all samples are taken and no chunk is full; call this method until then.
    pub fn push(&mut self, samples: &mut &[f32]) -> Option<AudioChunk> {
        self.fill(samples, sample::to_s16le)
    }

    /// Takes samples that are already 16-bit; otherwise like [`push`](Chunker::push).
    pub fn push_s16(&mut self, samples: &mut &[i16]) -> Option<AudioChunk> {
        self.fill(samples, |samples, pcm| {
            for (bytes, sample) in pcm.as_chunks_mut().0.iter_mut().zip(samples) {
                *bytes = sample.to_le_bytes();
            }
        })
    }

    /// Ends the stream. Returns the short last chunk, if frames are left. The next stream would start at
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

    /// Provides capacity for a chunk: in the current buffer, in one whose chunks are all dropped, or in a
    /// new one.
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
