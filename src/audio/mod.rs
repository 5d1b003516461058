//! Audio of a session: positions counted in frames, and chunks of 16-bit PCM with their positions.
//!
//! The session stream is mono, so a *frame* is one sample. All positions (cursors, ranges, timestamps)
//! are counts of frames from the start of the session; seconds are only for printing.

mod chunk;
mod format;
pub mod g711;
mod position;
pub mod sample;
mod wav;

pub use chunk::{AudioChunk, FRAME_BYTES, Feed};
pub use format::{Encoding, PcmFormat, PcmFormatError};
pub use position::{FramePos, FrameRange};
pub use wav::{WavError, WavWriter};
