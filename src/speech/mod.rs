//! Text to speech: the client of `/tts`, and the PCM that it yields.
//!
//! ```text
//! text -> parts -> requests (one playing, one ahead) -> PCM -> resample -> player, file or session
//! ```
//!
//! A `SpeechClient` cuts text into parts that the service accepts, including text that is still being
//! written, and returns a `PcmStream`. Each part is requested by a task of its own, so that it arrives
//! while the part before it is played. A part that broke off is requested again, and the audio that was
//! already delivered is skipped. A `SpeechHandle` stops all of it at once.

#[cfg(feature = "speech")]
mod client;
#[cfg(feature = "speech")]
mod error;
#[cfg(feature = "speech")]
mod handle;
#[cfg(feature = "speech")]
mod options;
#[cfg(feature = "speech")]
mod part;
#[cfg(feature = "speech")]
mod request;
#[cfg(feature = "speech")]
mod samples;
#[cfg(feature = "speech")]
mod script;
#[cfg(all(feature = "decode", feature = "speech"))]
mod source;
#[cfg(feature = "speech")]
mod speaking;
#[cfg(feature = "speech")]
mod stream;

#[cfg(feature = "speech")]
pub use self::client::SpeechClient;
#[cfg(feature = "speech")]
pub use self::error::{SpeechError, SpeechErrorKind};
#[cfg(feature = "speech")]
pub use self::handle::SpeechHandle;
#[cfg(feature = "speech")]
pub use self::options::{Codec, SpeechOptions};
#[cfg(feature = "speech")]
pub use self::stream::{EncodedStream, PcmStream};

/// Path of the synthesis endpoint.
pub const PATH: &str = "/tts";

/// Sample rate of the service's PCM, in frames per second. The PCM is headerless, mono, 16-bit big-endian
/// (text-to-speech.md of the service's documentation).
pub const PCM_RATE: u32 = 24_000;
