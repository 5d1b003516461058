//! Constants that client and server of the synthesis service share.

/// Path of the synthesis endpoint.
pub const PATH: &str = "/tts";

/// Sample rate of the service's PCM, in frames per second. The PCM is headerless, mono, 16-bit big-endian
/// (text-to-speech.md of the service's documentation).
pub const PCM_RATE: u32 = 24_000;
