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

mod client;
mod error;
mod handle;
mod options;
mod part;
mod request;
mod samples;
mod script;
#[cfg(feature = "decode")]
mod source;
mod speaking;
mod stream;

pub use self::client::SpeechClient;
pub use self::error::{Interruption, SpeechError, SpeechErrorKind};
pub use self::handle::SpeechHandle;
pub use self::options::{Codec, SpeechOptions};
pub use self::stream::{EncodedStream, PcmStream};
