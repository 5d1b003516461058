//! Chunks of the session stream.

use bytes::Bytes;

use super::FrameRange;

/// Bytes per frame of the session stream: one 16-bit sample.
pub const FRAME_BYTES: usize = 2;

/// A run of consecutive frames of mono 16-bit little-endian PCM, with its position in the session.
///
/// The payload is reference-counted: clones share it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioChunk {
    range: FrameRange,
    payload: Bytes,
    voiced: Option<bool>,
}

impl AudioChunk {
    /// Creates the chunk that covers `range` and holds `payload`.
    ///
    /// # Panics
    /// Panics if the length of the payload doesn't match the range.
    #[must_use]
    pub fn new(range: FrameRange, payload: Bytes) -> AudioChunk {
        assert_eq!(
            payload.len() as u64,
            range.len() * FRAME_BYTES as u64,
            "the payload of {range} has another length"
        );
        AudioChunk { range, payload, voiced: None }
    }

    /// Returns the frames that the chunk covers.
    #[must_use]
    pub fn range(&self) -> FrameRange {
        self.range
    }

    /// Returns the samples, 16-bit little-endian.
    #[must_use]
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Returns whether the chunk contains speech, or follows speech closely; `None` if no voice activity
    /// detection was done.
    #[must_use]
    pub fn voiced(&self) -> Option<bool> {
        self.voiced
    }

    /// Returns the chunk with this result of voice activity detection.
    #[must_use]
    pub fn marked(self, voiced: bool) -> AudioChunk {
        AudioChunk { voiced: Some(voiced), ..self }
    }

    /// Returns the part of the chunk from `start` on, without copying; `None` if nothing is left.
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

    /// Returns the first `frames` frames of the chunk, or the whole chunk if it is shorter, without
    /// copying.
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

/// An item that a source feeds into a session. Items are in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Feed {
    /// Next frames; each chunk starts where the one before ended.
    Audio(AudioChunk),
    /// Request to end the utterance here and to finalise what was said so far.
    Flush,
    /// Frames that the source has lost, directly after the last ones it delivered; reported as a gap.
    Gap(FrameRange),
    /// End of the source. A sender that is dropped without this item ends the stream as well; the item lets a
    /// sender wait until the end was taken.
    End,
}
