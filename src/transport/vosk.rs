//! The transport to a Vosk server: its protocol on a WebSocket, over TCP or TLS.

use std::collections::VecDeque;
use std::fmt;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;

use super::websocket::{
    SocketEvent, close, connect_within, not_opened, open_stream, poll_frame, unreachable,
};
use super::{Message, Wire, handshake};
use crate::audio::AudioChunk;
use crate::auth::AccessToken;
use crate::net::{Endpoint, Stream, TlsError, Trust, Way};
use crate::peer::{Acknowledgements, Capabilities, Connect, Peer, PeerEvent};
use crate::protocol::ClientMessage;
use crate::protocol::vosk::{Frame, Options, PATH, Translator};
use crate::recovery::Failure;

/// Returns the capabilities of a Vosk server, as [`protocol::vosk`](crate::protocol::vosk) derives them from
/// its protocol.
#[must_use]
pub fn vosk_capabilities() -> Capabilities {
    let mut capabilities = Capabilities::minimal();
    capabilities.acknowledgements = Acknowledgements::Replies;
    capabilities
}

/// A connector to a Vosk server (alphacep/vosk-server). A lost connection is followed by another one at the
/// end of the last result: nothing is lost, and what had no result yet is recognised again.
///
/// Vosk servers know no tokens, so none is sent, unless a proxy in front of one asks for it
/// ([`authorized`](VoskConnector::authorized)). A session needs a
/// [`TokenProvider`](crate::auth::TokenProvider) all the same; any service token will do.
#[derive(Clone)]
pub struct VoskConnector {
    endpoint: Endpoint,
    way: Way,
    options: Options,
    authorized: bool,
    longest_session: Option<Duration>,
}

impl VoskConnector {
    /// Creates a connector to the server at `endpoint` (`http://127.0.0.1:2700` for `ws://127.0.0.1:2700`),
    /// which trusts the system's certificates.
    ///
    /// # Errors
    /// Returns [`TlsError`] if TLS can't be set up.
    pub fn new(endpoint: Endpoint) -> Result<VoskConnector, TlsError> {
        Ok(VoskConnector::trusting(endpoint, &Trust::system()?))
    }

    /// Creates a connector to the server at `endpoint`, which trusts `trust` alone.
    #[must_use]
    pub fn trusting(endpoint: Endpoint, trust: &Trust) -> VoskConnector {
        VoskConnector {
            endpoint,
            way: Way::Network(trust.clone()),
            options: Options::default(),
            authorized: false,
            longest_session: None,
        }
    }

    /// Sets the options of the translation, such as phrases.
    #[must_use]
    pub fn with_options(self, options: Options) -> VoskConnector {
        VoskConnector { options, ..self }
    }

    /// Sends the session's token in the handshake, as `Authorization: Bearer`.
    #[must_use]
    pub fn authorized(self) -> VoskConnector {
        VoskConnector { authorized: true, ..self }
    }

    /// Replaces each connection before it is that old, for a proxy that ends connections by the clock.
    #[must_use]
    pub fn with_longest_session(self, longest: Duration) -> VoskConnector {
        VoskConnector { longest_session: Some(longest), ..self }
    }

    async fn handshake(&self, token: &AccessToken) -> Result<VoskPeer<Box<dyn Stream>>, Failure> {
        let stream = open_stream(&self.endpoint, &self.way).await?;
        let uri = self.endpoint.uri(PATH).map_err(|error| unreachable(&self.endpoint, error))?;
        let request = handshake::Request { uri, token: self.authorized.then_some(token), subprotocol: None };
        let socket = handshake::open(stream, &request)
            .await
            .map_err(|reason| not_opened(&self.endpoint, token, reason))?;
        Ok(VoskPeer::new(Wire::new(socket), self.options.clone()))
    }
}

impl fmt::Debug for VoskConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VoskConnector({})", self.endpoint)
    }
}

impl Connect for VoskConnector {
    type Peer = VoskPeer<Box<dyn Stream>>;

    fn capabilities(&self) -> Capabilities {
        Capabilities { longest_session: self.longest_session, ..vosk_capabilities() }
    }

    async fn connect(&self, token: &AccessToken, _: Option<&str>) -> Result<Self::Peer, Failure> {
        connect_within(&self.endpoint, self.handshake(token)).await
    }
}

/// A connection to a Vosk server.
#[derive(Debug)]
pub struct VoskPeer<Io> {
    wire: Wire<Io>,
    translator: Translator,
    /// Events that the session has not taken yet: one reply may be several messages.
    events: VecDeque<PeerEvent>,
}

impl<Io: Stream> VoskPeer<Io> {
    /// Takes over an open WebSocket, on which nothing was sent yet.
    pub fn new(wire: Wire<Io>, options: Options) -> VoskPeer<Io> {
        VoskPeer { wire, translator: Translator::new(options), events: VecDeque::new() }
    }

    fn write(&mut self, frame: Frame) {
        self.wire.send(match frame {
            Frame::Text(text) => Message::text(text),
            Frame::Binary(pcm) => Message::Binary(pcm),
        });
    }
}

impl<Io: Stream> Peer for VoskPeer<Io> {
    fn send(&mut self, message: ClientMessage) {
        let (frame, answer) = self.translator.message(&message);
        if let Some(frame) = frame {
            self.write(frame);
        }
        self.events.extend(answer.map(PeerEvent::Message));
    }

    fn send_audio(&mut self, chunk: AudioChunk) {
        let frame = self.translator.audio(&chunk);
        self.write(frame);
    }

    fn ping(&mut self) {
        self.wire.send(Message::Ping(Bytes::new()));
    }

    fn queued(&self) -> usize {
        self.wire.queued()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(event);
            }
            match ready!(poll_frame(&mut self.wire, cx)) {
                SocketEvent::Event(event) => return Poll::Ready(event),
                SocketEvent::Text(text) => match self.translator.reply(&text) {
                    Ok(messages) => self.events.extend(messages.into_iter().map(PeerEvent::Message)),
                    Err(violation) => return Poll::Ready(PeerEvent::Violation(violation)),
                },
            }
        }
    }

    async fn close(self, code: u16) {
        close(self.wire, code).await;
    }
}
