//! How to say it, and how long to try.

use std::time::Duration;

/// How to say it.
#[derive(Clone, Debug, PartialEq)]
pub struct SpeechOptions {
    /// The voice's name; the service's default where absent.
    pub voice: Option<String>,
    /// The speed, 1.0 as the voice was made; the service takes 0.75 to 1.75.
    pub tempo: Option<f32>,
    /// How long the service may say nothing before the part is asked for again. The HTTP client has a patience of its own:
    /// that of [`http_client`](crate::net::http_client) is 60 s.
    pub patience: Duration,
    /// How many times a part is asked for, at most. A token that was refused and replaced is not counted.
    pub attempts: u32,
}

/// The service's voice and speed; 30 s, in which a loaded machine makes a sentence; 8 times, between which the waits come
/// to 6 s on average and 13 at most: enough for a gateway that is started anew.
impl Default for SpeechOptions {
    fn default() -> SpeechOptions {
        SpeechOptions { voice: None, tempo: None, patience: Duration::from_secs(30), attempts: 8 }
    }
}

/// What the service encodes by, other than PCM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// MP3 frames.
    Mp3,
    /// Opus, in Ogg.
    Opus,
}

impl Codec {
    /// Its name in the service's parameter `encoder`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Codec::Mp3 => "mp3",
            Codec::Opus => "opus",
        }
    }
}
