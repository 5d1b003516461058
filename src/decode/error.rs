//! Why audio cannot be decoded.

use std::fmt;
use std::io;

use super::Channels;

/// A place in the decoded audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Frames before it, at the stream's own rate.
    pub frame: u64,
    /// Frames per second.
    pub sample_rate: u32,
}

impl At {
    /// The start, where no rate is known yet.
    pub(super) const START: At = At { frame: 0, sample_rate: 0 };
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s (frame {})", self.frame as f64 / f64::from(self.sample_rate.max(1)), self.frame)
    }
}

/// Why audio cannot be decoded, or not to its end. Each names its source first.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are no audio: text, an image, noise.
    #[error("{name}: not a known audio format")]
    UnknownFormat {
        /// The source.
        name: String,
    },
    /// The container is known, but what is in it is not.
    #[error("{name}: not supported: {what}")]
    Unsupported {
        /// The source.
        name: String,
        /// What is missing.
        what: String,
    },
    /// The container's header is broken.
    #[error("{name}: broken header: {what}")]
    Header {
        /// The source.
        name: String,
        /// What is wrong.
        what: String,
    },
    /// A well-formed file without a single frame.
    #[error("{name}: holds no audio")]
    NoAudio {
        /// The source.
        name: String,
    },
    /// The source ends before its audio does. Everything before was delivered.
    #[error("{name}: is cut short at {at}{}", expected.map(|n| format!(", expected {n} frames")).unwrap_or_default())]
    Truncated {
        /// The source.
        name: String,
        /// Where the audio ends.
        at: At,
        /// How many frames the header promises.
        expected: Option<u64>,
    },
    /// The rest cannot be decoded. Everything before was delivered.
    #[error("{name}: cannot be decoded after {at}: {what}")]
    Corrupt {
        /// The source.
        name: String,
        /// Where decoding stopped.
        at: At,
        /// What is wrong.
        what: String,
    },
    /// The stream changes its rate or channel count.
    #[error(
        "{name}: changes at {at} from {} Hz, {channels} channels to {new_rate} Hz, {new_channels} channels",
        rate
    )]
    Changed {
        /// The source.
        name: String,
        /// Where.
        at: At,
        /// The old rate.
        rate: u32,
        /// The old channel count.
        channels: usize,
        /// The new rate.
        new_rate: u32,
        /// The new channel count.
        new_channels: usize,
    },
    /// The source has no such channel.
    #[error("{name}: has no channel {wanted}, only {channels}")]
    Channel {
        /// The source.
        name: String,
        /// The channel asked for.
        wanted: Channels,
        /// How many it has.
        channels: usize,
    },
    /// The source is beyond a limit of [`Limits`](super::Limits). Everything before was delivered.
    #[error("{name}: given up at {at}: {what}")]
    Limit {
        /// The source.
        name: String,
        /// Where decoding stopped.
        at: At,
        /// Which limit.
        what: String,
    },
    /// Decoding was cancelled: see [`Cancellation`](super::Cancellation).
    #[error("{name}: decoding was cancelled")]
    Cancelled {
        /// The source.
        name: String,
    },
    /// The source could not be read on.
    #[error("{name}: cannot be read after {at}: {error}")]
    Read {
        /// The source.
        name: String,
        /// Where decoding stopped.
        at: At,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}
