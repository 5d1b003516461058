//! Errors of decoding.

use std::fmt;
use std::io;

use super::Channels;

/// A position in the decoded audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// Number of frames before the position, at `sample_rate`.
    pub frame: u64,
    /// Frames per second.
    pub sample_rate: u32,
}

impl At {
    /// Position of an error before the rate is known.
    pub(super) const START: At = At { frame: 0, sample_rate: 0 };
}

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s (frame {})", self.frame as f64 / f64::from(self.sample_rate.max(1)), self.frame)
    }
}

/// Error of decoding audio. Each message begins with the name of the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are not audio, but text, an image or noise.
    #[error("{name}: not a known audio format")]
    UnknownFormat {
        /// Name of the source.
        name: String,
    },
    /// The container is known, but its content is not supported.
    #[error("{name}: not supported: {what}")]
    Unsupported {
        /// Name of the source.
        name: String,
        /// Description of the unsupported feature.
        what: String,
    },
    /// The container's header is broken.
    #[error("{name}: broken header: {what}")]
    Header {
        /// Name of the source.
        name: String,
        /// Description of the fault.
        what: String,
    },
    /// The file is well formed but holds no frame.
    #[error("{name}: holds no audio")]
    NoAudio {
        /// Name of the source.
        name: String,
    },
    /// The source ends before its audio does. All frames before the end were delivered.
    #[error("{name}: is cut short at {at}{}", expected.map(|n| format!(", expected {n} frames")).unwrap_or_default())]
    Truncated {
        /// Name of the source.
        name: String,
        /// Position of the end of the audio.
        at: At,
        /// Number of frames that the header states, at the rate of `at`; `None` if it states none.
        expected: Option<u64>,
    },
    /// The rest cannot be decoded. All frames before it were delivered.
    #[error("{name}: cannot be decoded after {at}: {what}")]
    Corrupt {
        /// Name of the source.
        name: String,
        /// Position at which decoding stopped.
        at: At,
        /// Description of the fault.
        what: String,
    },
    /// The stream changes its rate or channel count.
    #[error(
        "{name}: changes at {at} from {} Hz, {channels} channels to {new_rate} Hz, {new_channels} channels",
        rate
    )]
    Changed {
        /// Name of the source.
        name: String,
        /// Position of the change.
        at: At,
        /// Rate before the change, in Hz.
        rate: u32,
        /// Channel count before the change.
        channels: usize,
        /// Rate after the change, in Hz.
        new_rate: u32,
        /// Channel count after the change.
        new_channels: usize,
    },
    /// The source does not have the requested channel.
    #[error("{name}: has no channel {wanted}, only {channels}")]
    Channel {
        /// Name of the source.
        name: String,
        /// Requested channel.
        wanted: Channels,
        /// Number of channels of the source.
        channels: usize,
    },
    /// The source exceeds a limit of [`Limits`](super::Limits). All frames before it were delivered.
    #[error("{name}: given up at {at}: {what}")]
    Limit {
        /// Name of the source.
        name: String,
        /// Position at which decoding stopped.
        at: At,
        /// Description of the limit.
        what: String,
    },
    /// Decoding was cancelled: see [`Cancellation`](super::Cancellation).
    #[error("{name}: decoding was cancelled")]
    Cancelled {
        /// Name of the source.
        name: String,
    },
    /// The source could not be read any further.
    #[error("{name}: cannot be read after {at}")]
    Read {
        /// Name of the source.
        name: String,
        /// Position at which decoding stopped.
        at: At,
        /// Error of the operating system.
        #[source]
        error: io::Error,
    },
}
