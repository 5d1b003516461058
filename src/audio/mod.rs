//! What audio is on the line: positions counted in frames, and chunks of 16-bit PCM that know where they belong.
//!
//! The session stream is mono, so a *frame* is one sample. Everything that names a place in it (cursors, ranges,
//! timestamps) is a count of frames from the start of the session; seconds are only for printing.

mod chunk;
mod format;
mod position;
pub mod sample;
mod wav;

pub use chunk::{AudioChunk, FRAME_BYTES, Feed};
pub use format::{Encoding, PcmFormat, PcmFormatError};
pub use position::{FramePos, FrameRange};
pub use wav::{WavError, WavWriter};
