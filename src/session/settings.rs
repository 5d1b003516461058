//! The settings of a session.

use std::time::Duration;

use super::catch_up::CatchUp;
#[cfg(feature = "test-util")]
use super::planted::Planted;
use super::protocol::Latency;

/// What happens to a source that goes on while the replay buffer is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overflow {
    /// It is not read: right for files, and for what has a buffer of its own. Nothing is lost here.
    #[default]
    Block,
    /// The oldest audio that was not sent yet is dropped, and told as a gap: right for a live source, of which the
    /// newest matters most.
    DropOldest,
}

/// What a session is asked to do, and how patient it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Frames per second of the session stream.
    pub sample_rate: u32,
    /// The language spoken, as a BCP 47 code; `None` lets the recogniser detect it.
    pub language: Option<String>,
    /// Whether partial results are wanted.
    pub partials: bool,
    /// How soon results are wanted.
    pub latency: Latency,
    /// How many frames the replay buffer holds before it is full. More than the service's longest utterance (half a
    /// minute for most), or the buffer waits for a final, and the final for audio.
    pub replay_frames: u64,
    /// What a full replay buffer means for the source.
    pub overflow: Overflow,
    /// How fast a backlog is sent; `None`: as the peer's window allows.
    pub catch_up: Option<CatchUp>,
    /// Whether a fresh token is handed over in band, where the peer takes that. Otherwise a second connection is made
    /// with it, which takes the session over while the first still runs.
    pub in_band_auth: bool,
    /// How long a token or a connection may take.
    pub dial_timeout: Duration,
    /// How long the peer may take to answer `start`, `resume` or `auth`.
    pub opening_timeout: Duration,
    /// How long the peer may be silent before it is asked for a sign of life, and how long the answer may take: one
    /// that vanished is noticed within two of these.
    pub ping_interval: Duration,
    /// How long audio may stay unacknowledged, a full replay buffer without a final, or a finished session
    /// without one more, before the connection counts as dead, whatever signs of life it gives: pings, pongs
    /// and partials are none of progress. The session is then resumed, which costs a service that is only
    /// slow nothing.
    pub progress_timeout: Duration,
    /// How long to try before the first connection ever: a wrong address should be told soon.
    pub first_contact: Duration,
    /// How long to try without any progress once there was a session. Progress is audio that is acknowledged
    /// for the first time, and a final. So a service that takes all audio and never answers is given up
    /// within `give_up`, two times `progress_timeout`, and the last dial.
    pub give_up: Duration,
    /// How long a connection must live to reset the back-off.
    pub healthy_after: Duration,
    /// Decides all jitter.
    pub seed: u64,
    /// A bug to commit, for tests of the tests.
    #[cfg(feature = "test-util")]
    pub planted: Option<Planted>,
}

impl Settings {
    /// The defaults for a stream of `sample_rate` frames per second: a minute of replay, patience of two minutes.
    #[must_use]
    pub fn new(sample_rate: u32) -> Settings {
        Settings {
            sample_rate,
            language: None,
            partials: true,
            latency: Latency::Live,
            replay_frames: 60 * u64::from(sample_rate),
            overflow: Overflow::Block,
            catch_up: None,
            in_band_auth: true,
            dial_timeout: Duration::from_secs(20),
            opening_timeout: Duration::from_secs(10),
            ping_interval: Duration::from_secs(10),
            progress_timeout: Duration::from_secs(60),
            first_contact: Duration::from_secs(5),
            give_up: Duration::from_secs(120),
            healthy_after: Duration::from_secs(30),
            seed: 0,
            #[cfg(feature = "test-util")]
            planted: None,
        }
    }
}
