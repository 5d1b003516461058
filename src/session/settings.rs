//! Settings of a session.

use std::time::Duration;

use voxline_support::random;

use crate::peer::CatchUp;
use crate::protocol::{Accuracy, Latency, Task};

/// The policy for a source that continues while the replay buffer is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// Backpressure: the source is not read. Suits files, and sources with a buffer of their own. The
    /// session loses nothing.
    #[default]
    Block,
    /// Loss of the oldest audio not sent yet, which is reported as a gap. Suits a live source, whose
    /// newest audio matters most.
    DropOldest,
}

/// Settings of a session: the recognition requested, the audio that is kept, and time limits.
///
/// ```
/// use std::time::Duration;
/// use voxline::session::{Overflow, Settings};
///
/// let mut settings = Settings::new(16_000);
/// settings.request.language = Some("en".to_owned());
/// settings.replay.overflow = Overflow::DropOldest;
/// settings.timeouts.give_up = Duration::from_secs(600);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Frames per second of the session stream.
    pub sample_rate: u32,
    /// Recognition requested from the service.
    pub request: RequestSettings,
    /// Buffer of the audio that is not final, and its pace after a lost connection.
    pub replay: ReplaySettings,
    /// Time limits.
    pub timeouts: Timeouts,
    /// True to hand over a fresh token in band, if the peer accepts that. Otherwise the token is used on
    /// a second connection, which takes over the session while the first still runs.
    pub in_band_auth: bool,
    /// Seed of all jitter.
    pub seed: u64,
}

/// The recognition that a session requests from its service.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RequestSettings {
    /// Language spoken, as a BCP 47 code; `None`, the default, lets the recogniser detect it.
    pub language: Option<String>,
    /// True, the default, if partial results are wanted.
    pub partials: bool,
    /// Urgency of the results; live by default.
    pub latency: Latency,
    /// Kind of the text; a transcript by default. A session whose service does not perform the task fails
    /// with [`SessionError::Unsupported`](super::SessionError::Unsupported).
    pub task: Task,
    /// Text that is taken to precede the audio, in the language of the text that is asked for: it sets the
    /// style and the spelling of names. `None` by default. A service that knows no prompts ignores it.
    pub prompt: Option<String>,
    /// Words and phrases that are likely to be spoken, such as names. Empty by default. A service that knows
    /// no keywords ignores them.
    pub keywords: Vec<String>,
    /// Balance between accuracy and cost; [`Accuracy::Balanced`] by default.
    pub accuracy: Accuracy,
}

/// The replay buffer of a session, which holds the audio that is not final.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReplaySettings {
    /// Capacity of the replay buffer, in frames; a minute by default. It must exceed the longest utterance of
    /// the service (half a minute for most), or the buffer waits for a final, and the final for audio.
    pub frames: u64,
    /// Policy for a source that continues while the replay buffer is full; [`Overflow::Block`] by default.
    pub overflow: Overflow,
    /// Rate at which a backlog is sent; `None`, the default, for the pacing in the capabilities of the
    /// service, or as fast as its window allows.
    pub catch_up: Option<CatchUp>,
}

/// The time limits of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Longest time that getting a token or making a connection may take; 20 s by default.
    pub dial: Duration,
    /// Longest time that the peer may take to answer `start`, `resume` or `auth`; 10 s by default.
    pub opening: Duration,
    /// Longest silence of the peer before it is pinged, and longest wait for the answer; 10 s by default. A
    /// vanished peer is detected within two of these intervals.
    pub ping_interval: Duration,
    /// Longest time without progress before the connection counts as dead: audio not acknowledged, a full
    /// replay buffer without a final, or a finished session without a further final. Pings, pongs and
    /// partial results are signs of life, but not progress. The session is then resumed, so a service
    /// that is only slow loses nothing. 60 s by default.
    pub progress: Duration,
    /// Time spent trying to make the very first connection. It is short, 5 s by default, since a wrong
    /// address should be reported soon.
    pub first_contact: Duration,
    /// Time spent trying without any progress once there was a session; 120 s by default. Progress is audio
    /// that is acknowledged for the first time, or a final. A service that takes all audio and never answers
    /// is therefore given up within `give_up`, two times `progress`, and the last dial.
    pub give_up: Duration,
    /// Time for which a connection must live to reset the backoff; 30 s by default.
    pub healthy_after: Duration,
}

impl Settings {
    /// Returns the defaults for a stream of `sample_rate` frames per second, with a seed from the system's
    /// random number generator, so that clients that lose their service together don't return together.
    #[must_use]
    pub fn new(sample_rate: u32) -> Settings {
        Settings {
            sample_rate,
            request: RequestSettings::default(),
            replay: ReplaySettings::new(sample_rate),
            timeouts: Timeouts::default(),
            in_band_auth: true,
            seed: random::seed(),
        }
    }

    /// Sets the seed of all jitter, for a simulation that can be repeated.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Settings {
        Settings { seed, ..self }
    }
}

impl Default for RequestSettings {
    fn default() -> RequestSettings {
        RequestSettings {
            language: None,
            partials: true,
            latency: Latency::Live,
            task: Task::Transcribe,
            prompt: None,
            keywords: Vec::new(),
            accuracy: Accuracy::Balanced,
        }
    }
}

impl ReplaySettings {
    /// Returns the defaults for a stream of `sample_rate` frames per second.
    #[must_use]
    pub fn new(sample_rate: u32) -> ReplaySettings {
        ReplaySettings { frames: 60 * u64::from(sample_rate), overflow: Overflow::Block, catch_up: None }
    }
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        Timeouts {
            dial: Duration::from_secs(20),
            opening: Duration::from_secs(10),
            ping_interval: Duration::from_secs(10),
            progress: Duration::from_secs(60),
            first_contact: Duration::from_secs(5),
            give_up: Duration::from_secs(120),
            healthy_after: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_jitter_apart_unless_their_seed_is_fixed() {
        assert_ne!(Settings::new(16_000).seed, Settings::new(16_000).seed);
        let settings = Settings::new(16_000).with_seed(7);
        assert_eq!((settings.seed, settings.clone().seed), (7, 7));
    }
}
