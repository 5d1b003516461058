//! Settings of a session.

use std::time::Duration;

use crate::peer::CatchUp;
use crate::protocol::Latency;

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

/// Settings of a session: the recognition requested, and timeouts and limits.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Frames per second of the session stream.
    pub sample_rate: u32,
    /// Language spoken, as a BCP 47 code; `None` lets the recogniser detect it.
    pub language: Option<String>,
    /// True if partial results are wanted.
    pub partials: bool,
    /// Urgency of the results.
    pub latency: Latency,
    /// Capacity of the replay buffer, in frames. It must exceed the longest utterance of the service
    /// (half a minute for most), or the buffer waits for a final, and the final for audio.
    pub replay_frames: u64,
    /// Policy for a source that continues while the replay buffer is full.
    pub overflow: Overflow,
    /// Rate at which a backlog is sent; `None` for the pacing in the capabilities of the service, or as fast
    /// as its window allows.
    pub catch_up: Option<CatchUp>,
    /// True to hand over a fresh token in band, if the peer accepts that. Otherwise the token is used on
    /// a second connection, which takes over the session while the first still runs.
    pub in_band_auth: bool,
    /// Longest time that getting a token or making a connection may take.
    pub dial_timeout: Duration,
    /// Longest time that the peer may take to answer `start`, `resume` or `auth`.
    pub opening_timeout: Duration,
    /// Longest silence of the peer before it is pinged, and longest wait for the answer. A vanished peer
    /// is detected within two of these intervals.
    pub ping_interval: Duration,
    /// Longest time without progress before the connection counts as dead: audio not acknowledged, a full
    /// replay buffer without a final, or a finished session without a further final. Pings, pongs and
    /// partial results are signs of life, but not progress. The session is then resumed, so a service
    /// that is only slow loses nothing.
    pub progress_timeout: Duration,
    /// Time spent trying to make the very first connection. It is short, since a wrong address should be
    /// reported soon.
    pub first_contact: Duration,
    /// Time spent trying without any progress once there was a session. Progress is audio that is
    /// acknowledged for the first time, or a final. A service that takes all audio and never answers is
    /// therefore given up within `give_up`, two times `progress_timeout`, and the last dial.
    pub give_up: Duration,
    /// Time for which a connection must live to reset the backoff.
    pub healthy_after: Duration,
    /// Seed of all jitter.
    pub seed: u64,
}

impl Settings {
    /// Returns the defaults for a stream of `sample_rate` frames per second: a replay buffer of one
    /// minute, and two minutes before the session gives up.
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
        }
    }
}
