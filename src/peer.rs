//! The interface between a session and a recognition service: messages, and capabilities of the service.
//!
//! A session speaks in the messages of [`protocol`](crate::protocol). A service with a protocol of its own
//! has an adapter that translates, such as [`protocol::vosk`](crate::protocol::vosk). The service declares
//! its [`Capabilities`], by which the session decides how to keep its promises.
//!
//! Nothing here says how messages travel: a [`Peer`] may be a WebSocket, or a series of HTTP requests whose
//! responses are its events.

use std::future::Future;
use std::ops::RangeInclusive;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::audio::AudioChunk;
use crate::auth::AccessToken;
use crate::error::Cause;
use crate::protocol::{ClientMessage, ServerMessage, Violation};
use crate::recovery::Failure;

/// A connector to a recognition service.
pub trait Connect: Send + Sync {
    /// A connection to the service.
    type Peer: Peer;

    /// Returns what the service can do: by default, all of the protocol `voxline.asr.v1`.
    fn capabilities(&self) -> Capabilities {
        Capabilities::native()
    }

    /// Dials the service, authenticates with the token, and returns the open connection. Dropping the
    /// future cancels the dial.
    ///
    /// `session` is the name of the service's session to resume; `None` to start a new one. A service at
    /// its limit of sessions still takes back those it has, and a load balancer may use the name to find
    /// the right server.
    ///
    /// # Errors
    /// Returns a [`Failure`], which says how to recover.
    fn connect(
        &self,
        token: &AccessToken,
        session: Option<&str>,
    ) -> impl Future<Output = Result<Self::Peer, Failure>> + Send;

    /// Dials a server that the service has named: the first of `endpoints` that may be shown the token.
    /// If no endpoint may, dials the service as [`connect`](Connect::connect) does. The default
    /// implementation ignores `endpoints`.
    ///
    /// # Errors
    /// Returns the errors of [`connect`](Connect::connect).
    fn connect_to(
        &self,
        endpoints: &[String],
        token: &AccessToken,
        session: Option<&str>,
    ) -> impl Future<Output = Result<Self::Peer, Failure>> + Send {
        let _ = endpoints;
        self.connect(token, session)
    }
}

/// An open connection to a recognition service.
///
/// Messages are queued, and travel while [`poll_next`](Peer::poll_next) waits for the service, so neither
/// direction can block the other. The session bounds the queue by the window in `ready`.
pub trait Peer: Send {
    /// Queues a message. The first message is `start`, or `resume` if the service can resume sessions.
    fn send(&mut self, message: ClientMessage);

    /// Queues audio, which starts where the audio or the gap before it ended.
    fn send_audio(&mut self, chunk: AudioChunk);

    /// Asks the service for a sign of life, which arrives as [`PeerEvent::Alive`].
    fn ping(&mut self);

    /// Returns the number of messages waiting to be written.
    fn queued(&self) -> usize;

    /// Polls for the next event. Cancel safe: nothing is lost between two polls. After
    /// [`Closed`](PeerEvent::Closed) and [`Lost`](PeerEvent::Lost) the peer is not polled again.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent>;

    /// Writes the queued messages and closes the connection with this [close code](crate::protocol::close).
    /// The caller limits the time that this may take.
    fn close(self, code: u16) -> impl Future<Output = ()> + Send;
}

/// An event on a connection.
#[derive(Debug)]
pub enum PeerEvent {
    /// A message from the service.
    Message(ServerMessage),
    /// A sign of life that says nothing about the session.
    Alive,
    /// A violation of the service's protocol.
    Violation(Violation),
    /// A close by the service, with its code and reason.
    Closed(u16, String),
    /// Loss of the connection, and its reason.
    Lost(ConnectionLost),
}

/// Reason a connection was lost. The session connects anew, so a caller sees it only as the
/// [source](std::error::Error::source) of a session that gave up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectionLost {
    /// The service closed the connection, and gave no close code.
    #[error("the peer closed the connection without a code")]
    NoCode,
    /// The stream ended without a close.
    #[error("the connection ended")]
    Ended,
    /// The connection failed.
    #[error("the connection failed")]
    Failed(
        /// Error of the connection.
        #[source]
        Cause,
    ),
}

/// The means by which a service reports how much audio it has received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledgements {
    /// Messages with a position (`ack`).
    Explicit,
    /// One reply to each message of audio, counted by the adapter (lock-step).
    Replies,
    /// None: only a final proves that audio arrived. `ack` messages are ignored, and no window applies. A
    /// source that pauses within an utterance for longer than the progress timeout of the session needs a
    /// service that ends the utterance by itself.
    None,
}

/// Capabilities of a recognition service, by which alone a session decides how to recover.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Capabilities {
    /// True if the service reports positions of the session's own timeline, which hold on any of its
    /// connections. False if the adapter derives positions from the audio sent on one connection.
    pub positions: bool,
    /// Means by which received audio is acknowledged.
    pub acknowledgements: Acknowledgements,
    /// True if a session outlives its connection. Otherwise a lost connection is followed by a new session
    /// at `final`, and so is a handover.
    pub resume: bool,
    /// True if a fresh token may be handed over on a running connection, should `ready.auth` allow it.
    /// Otherwise a token with a known end is replaced by a second connection.
    pub in_band_auth: bool,
    /// True if the service ends an utterance on request (`flush`). Otherwise flushes have no effect.
    pub flush: bool,
    /// True if the timeline may skip frames (`gap`). Otherwise the service's session ends at a gap, and
    /// another one starts behind it.
    pub gaps: bool,
    /// Rate at which audio may be sent, unless the settings of the session say otherwise; `None` for as
    /// fast as the window allows.
    pub pacing: Option<CatchUp>,
    /// Time after which the service ends a session. The connection is replaced before that.
    pub longest_session: Option<Duration>,
    /// Sample rates that the service takes, in frames per second. The audio is mono 16-bit PCM.
    pub sample_rates: RangeInclusive<u32>,
}

impl Capabilities {
    /// Returns the capabilities of the protocol `voxline.asr.v1`. Its servers refuse a sample rate that
    /// they don't support by themselves.
    #[must_use]
    pub fn native() -> Capabilities {
        Capabilities {
            positions: true,
            acknowledgements: Acknowledgements::Explicit,
            resume: true,
            in_band_auth: true,
            flush: true,
            gaps: true,
            pacing: None,
            longest_session: None,
            sample_rates: 0..=u32::MAX,
        }
    }

    /// Returns the capabilities of a service that takes audio and returns finals, and can do nothing else. A
    /// capability of a later version is absent here too.
    #[must_use]
    pub fn minimal() -> Capabilities {
        Capabilities {
            positions: false,
            acknowledgements: Acknowledgements::None,
            resume: false,
            in_band_auth: false,
            flush: false,
            gaps: false,
            pacing: None,
            longest_session: None,
            sample_rates: 0..=u32::MAX,
        }
    }
}

/// Multiples of real time that a [`CatchUp`] may have. A slower session would end by its timeouts, and a
/// faster one is limited by its network.
const FACTORS: RangeInclusive<f64> = 0.01..=1_000.0;

/// A rate limit for services that can't take audio as fast as it can be sent: first a burst, then a
/// multiple of real time. The peer's window applies in any case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CatchUp {
    burst: Duration,
    factor: f64,
}

impl CatchUp {
    /// Creates a limit of `burst` at once on a new connection, and of `factor` times real time after
    /// that. `factor` should be above 1, or a live source falls behind for good. Returns `None` unless
    /// `factor` is between 0.01 and 1,000.
    #[must_use]
    pub fn new(burst: Duration, factor: f64) -> Option<CatchUp> {
        FACTORS.contains(&factor).then_some(CatchUp { burst, factor })
    }

    /// Returns the duration of audio that may be sent at once on a new connection.
    #[must_use]
    pub fn burst(self) -> Duration {
        self.burst
    }

    /// Returns the rate after the burst, as a multiple of real time.
    #[must_use]
    pub fn factor(self) -> f64 {
        self.factor
    }
}
