//! Bugs that real clients have shipped, planted between a session's state machine and its connections. They
//! show that the fault schedules catch such bugs. The session itself has no code for them: messages are
//! withheld on their way out, as if the session had never sent them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use voxline::audio::{AudioChunk, FramePos};
use voxline::auth::AccessToken;
use voxline::peer::{Capabilities, Connect, Peer, PeerEvent};
use voxline::protocol::{ClientMessage, ServerMessage};
use voxline::recovery::Failure;
use voxline::session::Settings;

/// A planted bug, which loses audio or overloads a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// Audio that waits when a lost connection is found again counts as sent.
    DeliveredBeforeSent,
    /// The chunk in flight when a connection dies is not sent again.
    ChunkInFlightForgotten,
    /// A resumed session continues at `sent`, not at `received`.
    ReplayFromSent,
    /// A connection resets the backoff when it is made, not when it has stayed healthy.
    BackoffResetOnConnect,
    /// A flush sent on a connection that died is not sent again.
    FlushForgotten,
}

impl Planted {
    /// Changes the settings of a session that has the bug.
    pub fn change(self, settings: &mut Settings) {
        if self == Planted::BackoffResetOnConnect {
            // Every connection counts as healthy from the moment it is ready.
            settings.timeouts.healthy_after = Duration::ZERO;
        }
    }
}

/// A session with a planted bug, as its peer sees it: decides which of its messages are withheld.
#[derive(Debug)]
pub struct Saboteur {
    bug: Option<Planted>,
    /// Position up to which the session has sent audio, and that position when the connection in use became
    /// ready.
    sent: FramePos,
    sent_before: FramePos,
    /// `true` if a connection was ready before the one in use.
    found_again: bool,
    ever_ready: bool,
    /// `true` until the session has reacted to `ready`.
    opening: bool,
    /// `true` until the first audio after `ready`.
    first: bool,
    /// Positions of the flushes that were sent on any connection.
    flushes: Vec<FramePos>,
}

impl Saboteur {
    /// Creates the saboteur of a session that has just begun. Without a bug it withholds nothing.
    #[must_use]
    pub fn new(bug: Option<Planted>) -> Saboteur {
        Saboteur {
            bug,
            sent: FramePos::ZERO,
            sent_before: FramePos::ZERO,
            found_again: false,
            ever_ready: false,
            opening: false,
            first: false,
            flushes: Vec::new(),
        }
    }

    /// Notes what the session is about to be told; `None` for anything but a message of the peer.
    pub fn tells(&mut self, message: Option<&ServerMessage>) {
        self.opening = matches!(message, Some(ServerMessage::Ready(_)));
        if self.opening {
            self.found_again = self.ever_ready;
            (self.ever_ready, self.first, self.sent_before) = (true, true, self.sent);
        }
    }

    /// Returns whether a message of the session reaches its connection.
    pub fn passes(&mut self, message: &ClientMessage) -> bool {
        match message {
            // A new session of the server has received nothing, and the bugs are in resuming.
            ClientMessage::Start(start) => self.sent = start.origin,
            ClientMessage::Gap { to, .. } => self.sent = *to,
            ClientMessage::Flush { at: Some(at) } => {
                let again = self.flushes.contains(at);
                self.flushes.push(*at);
                return !(again && self.bug == Some(Planted::FlushForgotten));
            }
            _ => {}
        }
        true
    }

    /// Returns the part of the audio that reaches its connection.
    pub fn audio(&mut self, chunk: AudioChunk) -> Option<AudioChunk> {
        self.sent = self.sent.max(chunk.range().end);
        let first = std::mem::take(&mut self.first);
        match self.bug {
            Some(Planted::DeliveredBeforeSent) if self.opening && self.found_again => None,
            Some(Planted::ChunkInFlightForgotten) if first && chunk.range().start < self.sent_before => {
                chunk.from(self.sent_before)
            }
            Some(Planted::ReplayFromSent) => chunk.from(self.sent_before),
            _ => Some(chunk),
        }
    }
}

/// A connector whose sessions have a planted bug. Clones share one session's state, so each session needs a
/// connector of its own.
#[derive(Clone, Debug)]
pub struct PlantedConnector<C> {
    connector: C,
    saboteur: Arc<Mutex<Saboteur>>,
}

impl<C: Connect> PlantedConnector<C> {
    /// Plants `bug` between `connector` and the session that uses it.
    #[must_use]
    pub fn new(connector: C, bug: Option<Planted>) -> PlantedConnector<C> {
        PlantedConnector { connector, saboteur: Arc::new(Mutex::new(Saboteur::new(bug))) }
    }

    fn plant(&self, peer: C::Peer) -> PlantedPeer<C::Peer> {
        PlantedPeer { peer, saboteur: self.saboteur.clone() }
    }
}

impl<C: Connect> Connect for PlantedConnector<C> {
    type Peer = PlantedPeer<C::Peer>;

    fn capabilities(&self) -> Capabilities {
        self.connector.capabilities()
    }

    async fn connect(&self, token: &AccessToken, session: Option<&str>) -> Result<Self::Peer, Failure> {
        Ok(self.plant(self.connector.connect(token, session).await?))
    }

    async fn connect_to(
        &self,
        endpoints: &[String],
        token: &AccessToken,
        session: Option<&str>,
    ) -> Result<Self::Peer, Failure> {
        Ok(self.plant(self.connector.connect_to(endpoints, token, session).await?))
    }
}

/// A connection of a session with a planted bug.
#[derive(Debug)]
pub struct PlantedPeer<P> {
    peer: P,
    saboteur: Arc<Mutex<Saboteur>>,
}

impl<P> PlantedPeer<P> {
    fn saboteur(&self) -> MutexGuard<'_, Saboteur> {
        self.saboteur.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Peer> Peer for PlantedPeer<P> {
    fn send(&mut self, message: ClientMessage) {
        let passes = self.saboteur().passes(&message);
        if passes {
            self.peer.send(message);
        }
    }

    fn send_audio(&mut self, chunk: AudioChunk) {
        let chunk = self.saboteur().audio(chunk);
        if let Some(chunk) = chunk {
            self.peer.send_audio(chunk);
        }
    }

    fn ping(&mut self) {
        self.peer.ping();
    }

    fn queued(&self) -> usize {
        self.peer.queued()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        // The session has reacted to the event before.
        self.saboteur().tells(None);
        let event = ready!(self.peer.poll_next(cx));
        if let PeerEvent::Message(message) = &event {
            self.saboteur().tells(Some(message));
        }
        Poll::Ready(event)
    }

    async fn close(self, code: u16) {
        self.peer.close(code).await;
    }
}
