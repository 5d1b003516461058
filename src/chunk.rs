//! Cutting the session stream into chunks.

use bytes::Bytes;

use crate::audio::{AudioChunk, FRAME_BYTES, FramePos, sample};

/// Cuts a mono stream at the session rate into [`AudioChunk`]s of equal length; the last may be shorter.
///
/// Samples are converted straight into the buffer that becomes the chunk's payload: one allocation a chunk, no copy.
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
    /// What it holds so far.
    pcm: Vec<u8>,
}

impl Chunker {
    /// A chunker whose first chunk starts at [`FramePos::ZERO`].
    ///
    /// # Panics
    /// If `frames_per_chunk` is zero.
    #[must_use]
    pub fn new(frames_per_chunk: usize) -> Chunker {
        assert!(frames_per_chunk > 0, "a chunk holds at least one frame");
        Chunker { frames_per_chunk, start: FramePos::ZERO, pcm: Vec::new() }
    }

    /// The position after the last frame taken.
    #[must_use]
    pub fn position(&self) -> FramePos {
        self.start + (self.pcm.len() / FRAME_BYTES) as u64
    }

    /// Takes samples from the front of `samples` until a chunk is full, and returns that chunk; `None` when all are
    /// taken and none is full. Call it until it returns `None`.
    pub fn push(&mut self, samples: &mut &[f32]) -> Option<AudioChunk> {
        self.fill(samples, sample::write_s16le)
    }

    /// [`push`](Chunker::push) for samples that are 16-bit already.
    pub fn push_s16(&mut self, samples: &mut &[i16]) -> Option<AudioChunk> {
        self.fill(samples, |samples, pcm| pcm.extend(samples.iter().flat_map(|sample| sample.to_le_bytes())))
    }

    /// Ends the stream: the short last chunk, if frames are left. The next stream would follow at
    /// [`position`](Chunker::position).
    pub fn finish(&mut self) -> Option<AudioChunk> {
        if self.pcm.is_empty() {
            return None;
        }
        Some(self.cut())
    }

    fn fill<S>(&mut self, samples: &mut &[S], append: impl Fn(&[S], &mut Vec<u8>)) -> Option<AudioChunk> {
        if samples.is_empty() {
            return None;
        }
        if self.pcm.capacity() == 0 {
            // Exactly one chunk, so that the buffer becomes the payload as it is.
            self.pcm.reserve_exact(self.frames_per_chunk * FRAME_BYTES);
        }
        let wanted = self.frames_per_chunk - self.pcm.len() / FRAME_BYTES;
        let (taken, rest) = samples.split_at(wanted.min(samples.len()));
        append(taken, &mut self.pcm);
        *samples = rest;
        (taken.len() == wanted).then(|| self.cut())
    }

    fn cut(&mut self) -> AudioChunk {
        let range = self.start.to(self.position());
        self.start = range.end;
        AudioChunk::new(range, Bytes::from(std::mem::take(&mut self.pcm)))
    }
}
