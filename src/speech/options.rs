//! Options of synthesis: voice, speed and retries.

use std::time::Duration;

/// Options of synthesis.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeechOptions {
    /// Name of the voice; the service's default if absent.
    pub voice: Option<String>,
    /// Speed, relative to that at which the voice was made (1.0). The service accepts 0.75 to 1.75.
    pub tempo: Option<f32>,
    /// Longest time that the service may send nothing before the part is requested again. The HTTP client
    /// has a timeout of its own: that of [`HttpClient`](crate::net::HttpClient) is 60 s.
    pub stall_timeout: Duration,
    /// Maximum number of requests for a part. A request whose token was refused and replaced does not
    /// count.
    pub attempts: u32,
}

/// Defaults: the service's voice and speed; a stall timeout of 30 s, in which a loaded machine synthesises a
/// sentence; and 8 attempts, between which the waits total 6 s on average and 13 s at most, enough for a
/// gateway that restarts.
impl Default for SpeechOptions {
    fn default() -> SpeechOptions {
        SpeechOptions { voice: None, tempo: None, stall_timeout: Duration::from_secs(30), attempts: 8 }
    }
}

/// Encodings of the service other than PCM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Codec {
    /// MP3 frames.
    Mp3,
    /// Opus in Ogg.
    Opus,
}

impl Codec {
    /// Returns the value of the service's parameter `encoder`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Codec::Mp3 => "mp3",
            Codec::Opus => "opus",
        }
    }
}
