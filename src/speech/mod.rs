//! Text to audio: the client of `/tts`, and the PCM that comes of it.
//!
//! ```text
//! text -> parts -> requests (one is heard, the next is under way) -> PCM -> resample -> your player, file or session
//! ```
//!
//! A [`SpeechClient`] cuts text into parts that a service takes, also text that is still being written, and gives a
//! [`PcmStream`]. Each part is asked for by a task of its own, so that it arrives while another is heard; a part that
//! broke off is asked for again, and what was heard of it is passed over. A [`SpeechHandle`] stops it all at once.

mod client;
mod error;
mod handle;
mod options;
mod part;
mod request;
mod samples;
mod script;
mod source;
mod speaking;
mod stream;

pub use self::client::SpeechClient;
pub use self::error::{SpeechError, SpeechErrorKind};
pub use self::handle::SpeechHandle;
pub use self::options::{Codec, SpeechOptions};
pub use self::stream::{EncodedStream, PcmStream};

/// The path of synthesis.
pub const PATH: &str = "/tts";

/// The service's PCM, in frames per second: headerless, mono, 16-bit big-endian (text-to-speech.md of its documentation).
pub const PCM_RATE: u32 = 24_000;
