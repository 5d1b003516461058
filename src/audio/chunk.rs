//! A piece of the session stream.

use bytes::Bytes;

use super::FrameRange;

/// Bytes per frame of the session stream: one 16-bit sample.
pub const FRAME_BYTES: usize = 2;

/// A run of consecutive frames: 16-bit little-endian PCM, mono, and where in the session it belongs.
///
/// The payload is reference-counted: clones share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioChunk {
    range: FrameRange,
    payload: Bytes,
    voiced: Option<bool>,
}

impl AudioChunk {
    /// The chunk that starts at `range.start` and holds `payload`.
    ///
    /// # Panics
    /// If the payload's length is not that of the range.
    #[must_use]
    pub fn new(range: FrameRange, payload: Bytes) -> AudioChunk {
        assert_eq!(
            payload.len() as u64,
            range.len() * FRAME_BYTES as u64,
            "the payload of {range} has another length"
        );
        AudioChunk { range, payload, voiced: None }
    }

    /// The frames it holds.
    #[must_use]
    pub fn range(&self) -> FrameRange {
        self.range
    }

    /// The samples: 16-bit little-endian.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Whether somebody speaks in it, or just did; `None` where nobody judged.
    #[must_use]
    pub fn voiced(&self) -> Option<bool> {
        self.voiced
    }

    /// The chunk with a judgement of whether somebody speaks in it.
    #[must_use]
    pub fn marked(self, voiced: bool) -> AudioChunk {
        AudioChunk { voiced: Some(voiced), ..self }
    }

    /// The part of the chunk from `start` on, without copying; `None` where nothing is left.
    #[must_use]
    pub fn from(&self, start: super::FramePos) -> Option<AudioChunk> {
        if start >= self.range.end {
            return None;
        }
        let start = start.max(self.range.start);
        let skipped =
            usize::try_from(start - self.range.start).expect("a chunk fits in memory") * FRAME_BYTES;
        let payload = self.payload.slice(skipped..);
        Some(AudioChunk { range: start.to(self.range.end), payload, voiced: self.voiced })
    }

    /// The first `frames` frames of the chunk, or all of a shorter one, without copying.
    #[must_use]
    pub fn first(&self, frames: u64) -> AudioChunk {
        let frames = frames.min(self.range.len());
        let bytes = usize::try_from(frames).expect("a chunk fits in memory") * FRAME_BYTES;
        AudioChunk {
            range: self.range.start.to(self.range.start + frames),
            payload: self.payload.slice(..bytes),
            voiced: self.voiced,
        }
    }
}

/// What a source hands the session, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feed {
    /// The next frames; each chunk starts where the one before ended.
    Audio(AudioChunk),
    /// End the utterance here: what was said so far is wanted now.
    Flush,
    /// The source has lost these frames, where its audio goes on: they are told as a gap.
    Gap(FrameRange),
    /// The source has ended. A channel that closes without it means that the sender died.
    End,
}
