//! The settings of a session.

use std::time::Duration;

/// What a session is asked to do, and how patient it is.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Frames per second of the session stream.
    pub sample_rate: u32,
    /// The language spoken, as a BCP 47 code; `None` lets the recogniser detect it.
    pub language: Option<String>,
    /// Whether partial results are wanted.
    pub partials: bool,
    /// How many frames the replay buffer holds before the source is no longer read. More than the service's longest
    /// utterance (half a minute for most), or the buffer waits for a final, and the final for audio.
    pub replay_frames: u64,
    /// How long the peer may take to answer `start` or `resume`.
    pub opening_timeout: Duration,
    /// How long audio may stay unacknowledged, or a finished session undone, before the connection counts as dead.
    pub progress_timeout: Duration,
    /// How long to try before the first connection ever: a wrong address should be told soon.
    pub first_contact: Duration,
    /// How long to try without any progress once there was a session.
    pub give_up: Duration,
    /// How long a connection must live to reset the back-off.
    pub healthy_after: Duration,
    /// Decides the jitter of the back-off.
    pub seed: u64,
}

impl Settings {
    /// The defaults for a stream of `sample_rate` frames per second: a minute of replay, patience of two minutes.
    #[must_use]
    pub fn new(sample_rate: u32) -> Settings {
        Settings {
            sample_rate,
            language: None,
            partials: true,
            replay_frames: 60 * u64::from(sample_rate),
            opening_timeout: Duration::from_secs(10),
            progress_timeout: Duration::from_secs(60),
            first_contact: Duration::from_secs(5),
            give_up: Duration::from_secs(120),
            healthy_after: Duration::from_secs(30),
            seed: 0,
        }
    }
}
