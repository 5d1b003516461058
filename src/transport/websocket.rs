//! The native transport: the resumable protocol on a WebSocket, over TCP or TLS.

use std::fmt;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::handshake::{self, HandshakeError};
use super::{Message, Wire};
use crate::audio::AudioChunk;
use crate::auth::AccessToken;
use crate::error::{Cause, chain};
use crate::net::refusal::{self, Refusal};
use crate::net::{
    CONNECT_TIMEOUT, ConnectError, Endpoint, HostName, Stream, TlsError, Trust, Way, connect, query,
};
use crate::peer::{Connect, ConnectionLost, Peer, PeerEvent};
use crate::protocol::{self, ClientMessage, ServerMessage, Violation};
use crate::recovery::{Failure, FailureKind, Recovery, retry_after};

/// A connector to a gateway's streaming endpoint.
#[derive(Clone)]
pub struct WebSocketConnector {
    endpoint: Endpoint,
    /// Other hosts that may be shown the service's tokens.
    hosts: Vec<HostName>,
    way: Way,
}

impl WebSocketConnector {
    /// Creates a connector to the service at `endpoint`, which trusts the system's certificates.
    ///
    /// # Errors
    /// Returns [`TlsError`] if TLS can't be set up.
    pub fn new(endpoint: Endpoint) -> Result<WebSocketConnector, TlsError> {
        Ok(WebSocketConnector::trusting(endpoint, &Trust::system()?))
    }

    /// Creates a connector to the service at `endpoint`, which trusts `trust` alone.
    #[must_use]
    pub fn trusting(endpoint: Endpoint, trust: &Trust) -> WebSocketConnector {
        WebSocketConnector::by(Way::Network(trust.clone()), endpoint)
    }

    /// Creates a connector to the service at `endpoint`, which is reached this way.
    pub(crate) fn by(way: Way, endpoint: Endpoint) -> WebSocketConnector {
        WebSocketConnector { endpoint, hosts: Vec::new(), way }
    }

    /// Allows the service to send its sessions to `hosts` too, which then see its tokens. Without this, a
    /// server that the service names is accepted only on the service's own host, at any port: the right
    /// to name a server doesn't imply the right to receive a token.
    #[must_use]
    pub fn with_hosts(mut self, hosts: impl IntoIterator<Item = HostName>) -> WebSocketConnector {
        self.hosts.extend(hosts);
        self
    }

    /// Returns the connector to the first of `endpoints` that may see the token: its host must be the
    /// service's own or an allowed one, and it must use TLS if the service itself does.
    fn redirected(&self, endpoints: &[String]) -> WebSocketConnector {
        let may_be = |endpoint: &Endpoint| {
            let known =
                endpoint.host() == self.endpoint.host() || self.hosts.iter().any(|host| endpoint.is_on(host));
            known && (endpoint.is_tls() || !self.endpoint.is_tls())
        };
        let named = endpoints.iter().filter_map(|named| named.parse().ok()).find(may_be);
        if named.is_none() && !endpoints.is_empty() {
            tracing::warn!(service = %self.endpoint, "no server it names may be shown its token; staying with it");
        }
        WebSocketConnector { endpoint: named.unwrap_or_else(|| self.endpoint.clone()), ..self.clone() }
    }

    async fn handshake(
        &self,
        token: &AccessToken,
        session: Option<&str>,
    ) -> Result<WebSocketPeer<Box<dyn Stream>>, Failure> {
        let stream = open_stream(&self.endpoint, &self.way).await?;
        upgrade(&self.endpoint, stream, token, session).await
    }
}

impl fmt::Debug for WebSocketConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebSocketConnector({})", self.endpoint)
    }
}

impl Connect for WebSocketConnector {
    type Peer = WebSocketPeer<Box<dyn Stream>>;

    async fn connect(&self, token: &AccessToken, session: Option<&str>) -> Result<Self::Peer, Failure> {
        connect_within(&self.endpoint, self.handshake(token, session)).await
    }

    async fn connect_to(
        &self,
        endpoints: &[String],
        token: &AccessToken,
        session: Option<&str>,
    ) -> Result<Self::Peer, Failure> {
        self.redirected(endpoints).connect(token, session).await
    }
}

/// Opens a stream to the service.
pub(super) async fn open_stream(endpoint: &Endpoint, way: &Way) -> Result<Box<dyn Stream>, Failure> {
    connect(endpoint, way).await.map_err(|error| unreachable(endpoint, error))
}

/// Limits the time of a dial and its handshakes to [`CONNECT_TIMEOUT`].
pub(super) async fn connect_within<P>(
    endpoint: &Endpoint,
    connecting: impl Future<Output = Result<P, Failure>>,
) -> Result<P, Failure> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, connecting).await;
    connected.unwrap_or_else(|_| Err(unreachable(endpoint, ConnectError::TimedOut)))
}

/// A connection that carries `voxline.asr.v1` on a WebSocket.
#[derive(Debug)]
pub struct WebSocketPeer<Io> {
    wire: Wire<Io>,
}

impl<Io: Stream> WebSocketPeer<Io> {
    /// Takes over an open WebSocket.
    pub fn new(wire: Wire<Io>) -> WebSocketPeer<Io> {
        WebSocketPeer { wire }
    }

    /// Returns the WebSocket, for a caller that speaks the protocol by itself.
    pub fn into_wire(self) -> Wire<Io> {
        self.wire
    }
}

impl<Io: Stream> Peer for WebSocketPeer<Io> {
    fn send(&mut self, message: ClientMessage) {
        self.wire.send(Message::text(encode(&message)));
    }

    fn send_audio(&mut self, chunk: AudioChunk) {
        self.wire.send(Message::binary(protocol::encode_audio(&chunk)));
    }

    fn ping(&mut self) {
        self.wire.send(Message::Ping(Bytes::new()));
    }

    fn queued(&self) -> usize {
        self.wire.queued()
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<PeerEvent> {
        Poll::Ready(match ready!(poll_frame(&mut self.wire, cx)) {
            SocketEvent::Text(text) => match serde_json::from_str::<ServerMessage>(&text) {
                Ok(message) => PeerEvent::Message(message),
                Err(error) => PeerEvent::Violation(Violation::Unreadable { source: error.into() }),
            },
            SocketEvent::Event(event) => event,
        })
    }

    async fn close(self, code: u16) {
        close(self.wire, code).await;
    }
}

/// A frame of the socket: text, whose meaning depends on the protocol, or an event of any protocol.
pub(super) enum SocketEvent {
    Text(String),
    Event(PeerEvent),
}

/// Polls a socket for its next frame.
pub(super) fn poll_frame<Io: Stream>(wire: &mut Wire<Io>, cx: &mut Context<'_>) -> Poll<SocketEvent> {
    let event = match ready!(wire.poll_next(cx)) {
        Some(Ok(Message::Text(text))) => return Poll::Ready(SocketEvent::Text(text)),
        Some(Ok(Message::Binary(_))) => PeerEvent::Violation(Violation::BinaryFrame),
        Some(Ok(Message::Close(Some(frame)))) => PeerEvent::Closed(frame.code, frame.reason),
        Some(Ok(Message::Close(None))) => PeerEvent::Lost(ConnectionLost::NoCode),
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => PeerEvent::Alive,
        Some(Err(error)) => PeerEvent::Lost(ConnectionLost::Failed(error.into())),
        None => PeerEvent::Lost(ConnectionLost::Ended),
    };
    Poll::Ready(SocketEvent::Event(event))
}

/// Closes a socket of which nothing more is expected.
pub(super) async fn close<Io: Stream>(wire: Wire<Io>, code: u16) {
    if let Err(error) = wire.close(code, "").await {
        tracing::debug!(error = %chain(&error), "the connection failed before it was closed");
    }
}

fn encode(message: &ClientMessage) -> String {
    serde_json::to_string(message).expect("a message is strings and numbers")
}

/// Performs the opening handshake with the service at `endpoint`, on an established connection.
pub async fn upgrade<S: Stream>(
    endpoint: &Endpoint,
    stream: S,
    token: &AccessToken,
    session: Option<&str>,
) -> Result<WebSocketPeer<S>, Failure> {
    let parameters = query(session.map(|session| (protocol::SESSION_PARAMETER, session)));
    let uri = endpoint.uri(&format!("{}{parameters}", protocol::PATH)).map_err(|error| Failure {
        recovery: Recovery::Fatal,
        kind: FailureKind::Protocol,
        ..unreachable(endpoint, error)
    })?;
    let request = handshake::Request { uri, token: Some(token), subprotocol: Some(protocol::SUBPROTOCOL) };
    let socket =
        handshake::open(stream, &request).await.map_err(|reason| not_opened(endpoint, token, reason))?;
    Ok(WebSocketPeer::new(Wire::new(socket)))
}

/// Returns the failure of a connection that didn't become a WebSocket.
pub(super) fn not_opened(endpoint: &Endpoint, token: &AccessToken, reason: HandshakeError) -> Failure {
    match reason {
        HandshakeError::Refused(status, headers, body) => {
            refused(endpoint, status, &headers, &Refusal::parse(&body, &[token.expose()]))
        }
        // A proxy whose server is restarting accepts connections and drops them.
        HandshakeError::Lost(error) => unreachable(endpoint, error),
        HandshakeError::Protocol(reason) => {
            Failure::new(Recovery::Fatal, FailureKind::Protocol, format!("{endpoint}: {reason}"))
        }
    }
}

/// Returns the failure of a service that can't be reached or kept, for a reason that may pass.
pub fn unreachable(endpoint: &Endpoint, cause: impl Into<Cause>) -> Failure {
    Failure::new(Recovery::Retry, FailureKind::Unreachable, format!("cannot reach {endpoint}"))
        .caused_by(cause)
}

/// Classifies a plain HTTP response to the upgrade.
fn refused(endpoint: &Endpoint, status: StatusCode, headers: &HeaderMap, refusal: &Refusal) -> Failure {
    let recovery = match Recovery::from_status(status, retry_after(headers)) {
        // The service's documentation gives a bad token the status 400.
        Recovery::Fatal if status == StatusCode::BAD_REQUEST && refusal.is_of_token() => {
            Recovery::RefreshToken
        }
        recovery => recovery,
    };
    let kind = match refusal::kind(status.as_u16(), refusal.code) {
        refusal::Kind::Authentication => FailureKind::Authentication,
        refusal::Kind::Limit => FailureKind::Limit,
        refusal::Kind::Other => FailureKind::Unreachable,
    };
    let default_reason = match status.as_u16() {
        401 => "access token refused",
        403 => "no reason given",
        429 => "no more sessions allowed",
        503 => "no sessions taken now",
        _ => "no speech stream there",
    };
    let reason = refusal.message.as_deref().unwrap_or(default_reason);
    let reason = format!("{endpoint} refused the stream (status {}): {reason}", status.as_u16());
    Failure::new(recovery, kind, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_no_host_that_only_the_service_names() {
        let target = |own: &str, hosts: &[&str], named: &[&str]| {
            let connector = WebSocketConnector::trusting(own.parse().unwrap(), &Trust::system().unwrap())
                .with_hosts(hosts.iter().map(|host| host.parse().unwrap()));
            let named: Vec<String> = named.iter().map(|named| (*named).to_owned()).collect();
            connector.redirected(&named).endpoint.to_string()
        };
        let own = "https://speech.example";
        let other_port = "https://speech.example:8443/b";
        assert_eq!(target(own, &[], &[other_port]), other_port);
        // Rejected are another owner's host, a subdomain, plain text, and anything that is no base
        // address: the next endpoint is tried, and at last the service itself.
        let wrong = [
            "https://evil.example",
            "https://b.speech.example",
            "https://speech.example.evil.example",
            "http://speech.example",
            "http://127.0.0.1:1",
            "https://user@speech.example",
            "speech.example:8443",
            "",
        ];
        assert_eq!(target(own, &[], &wrong), own);
        let named: Vec<&str> = wrong.into_iter().chain([other_port]).collect();
        assert_eq!(target(own, &[], &named), other_port);
        assert_eq!(target(own, &["b.speech.example"], &wrong), "https://b.speech.example");
        assert_eq!(target(own, &["127.0.0.1"], &wrong), own, "in clear");
        assert_eq!(target("http://127.0.0.1:1", &[], &["http://127.0.0.1:2"]), "http://127.0.0.1:2");
    }
}
