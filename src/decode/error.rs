//! Errors of decoding.

use std::fmt;
use std::io;
use std::time::Duration;

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

/// Error of decoding audio. Each message begins with the name of the source. Frames that were delivered
/// before the error are good. Decoding again has the same result, except after [`Read`](DecodeError::Read),
/// [`Cancelled`](DecodeError::Cancelled) and, with other [`Limits`](super::Limits),
/// [`Limit`](DecodeError::Limit).
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
    #[error("{name}: broken header")]
    Header {
        /// Name of the source.
        name: String,
        /// Fault of the header.
        #[source]
        fault: DecodeFault,
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
    #[error("{name}: cannot be decoded after {at}")]
    Corrupt {
        /// Name of the source.
        name: String,
        /// Position at which decoding stopped.
        at: At,
        /// Fault of the recording.
        #[source]
        fault: DecodeFault,
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
    #[error("{name}: given up at {at}")]
    Limit {
        /// Name of the source.
        name: String,
        /// Position at which decoding stopped.
        at: At,
        /// Limit that was exceeded.
        #[source]
        limit: ExceededLimit,
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

/// Fault of a recording, for which its header or the rest of it cannot be decoded. What was decoded before it
/// is good; the rest takes another copy of the recording.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeFault {
    /// The bytes break the rules of their format, in the words of its reader.
    #[error("{0}")]
    Malformed(String),
    /// The header is longer than the file.
    #[error("the file ends inside its header")]
    CutShort,
    /// An M4A file has no index that can be reached. In a file that can be read in any order, it may stand
    /// anywhere.
    #[error("no index (moov): it stands at the end, which a stream cannot go to, or is missing")]
    NoIndex,
    /// Packets have no sample rate or no channels.
    #[error("{sample_rate} Hz, {channels} channels")]
    Format {
        /// Sample rate of the packets, in Hz.
        sample_rate: u32,
        /// Number of their channels.
        channels: usize,
    },
    /// Too many packets in a row are without audio.
    #[error("{packets} packets in a row hold no audio")]
    Silent {
        /// Number of packets.
        packets: u32,
    },
    /// Too many packets in a row are broken.
    #[error("{packets} packets in a row are broken")]
    BrokenPackets {
        /// Number of packets.
        packets: u32,
        /// Fault of the last one.
        #[source]
        last: Box<DecodeFault>,
    },
    /// Broken packets in a row announce too many frames.
    #[error("{frames} frames in a row are broken")]
    BrokenFrames {
        /// Number of frames.
        frames: u64,
    },
    /// The decoder panicked, which is its defect. The recording may be good.
    #[error("the decoder panicked: {message}")]
    Panicked {
        /// Message of the panic.
        message: String,
    },
}

/// A limit of [`Limits`](super::Limits) that a source exceeds. A caller who trusts the source may decode it
/// again with a higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExceededLimit {
    /// The source yields more frames than this.
    #[error("more than {0} frames")]
    Frames(u64),
    /// Decoding takes longer than this.
    #[error("more than {0:?} of decoding")]
    Time(Duration),
    /// Decoding takes more CPU time than this.
    #[error("more than {0:.2?} of CPU time")]
    CpuTime(Duration),
}
