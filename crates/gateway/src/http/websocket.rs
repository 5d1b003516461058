//! The server's half of the opening handshake of a WebSocket (RFC 6455, section 4.2).

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::error::ApiError;
use voxline::transport::Wire;

/// Longest time for a closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest reason of a close, in bytes (RFC 6455, section 5.5).
const MAX_REASON: usize = 123;
/// Number of queued answers above which no more messages are read from the client.
const BACKLOG: usize = 1_000;

/// A WebSocket of a client.
pub type Socket = Wire<TokioIo<Upgraded>>;

/// A connection that becomes a WebSocket once its request is answered.
pub struct Upgrade {
    key: HeaderValue,
    upgrade: OnUpgrade,
}

impl Upgrade {
    /// Takes the connection out of a request.
    ///
    /// # Errors
    /// Returns [`ApiError`] with status 426 if the request is not for a WebSocket.
    pub fn take(request: &mut Request) -> Result<Upgrade, ApiError> {
        let key = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned();
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        let (Some(key), Some(upgrade)) = (key, upgrade) else { return Err(required("this is a WebSocket")) };
        Ok(Upgrade { key, upgrade })
    }

    /// Returns the answer that opens the socket under this subprotocol, if one is given.
    pub fn answer(&self, subprotocol: Option<&'static str>) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        let accept = derive_accept_key(self.key.as_bytes());
        let accept = HeaderValue::try_from(accept).expect("base64 fits a header");
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(subprotocol) = subprotocol {
            headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol));
        }
        response
    }

    /// Waits until the answer is sent. Returns the socket, or `None` if the client has left.
    pub async fn socket(self) -> Option<Socket> {
        let upgraded = self.upgraded().await?;
        Some(Wire::server(upgraded).await.with_backlog(BACKLOG))
    }

    /// Waits like [`socket`](Upgrade::socket) for a socket whose messages have at most this many bytes.
    pub async fn socket_for(self, max_message: usize) -> Option<Socket> {
        let upgraded = self.upgraded().await?;
        Some(Wire::server_for(upgraded, max_message).await.with_backlog(BACKLOG))
    }

    async fn upgraded(self) -> Option<TokioIo<Upgraded>> {
        let upgraded = self.upgrade.await;
        upgraded
            .inspect_err(|error| tracing::debug!(%error, "WebSocket upgrade failed"))
            .ok()
            .map(TokioIo::new)
    }
}

/// Checks the headers of a request for a WebSocket.
///
/// # Errors
/// Returns [`ApiError`] with status 426 if they ask for something else.
pub fn check(headers: &HeaderMap) -> Result<(), ApiError> {
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(required("Sec-WebSocket-Version should be 13"));
    }
    let is_websocket = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"websocket");
    if !headers.get(header::UPGRADE).is_some_and(is_websocket) {
        return Err(required("Upgrade should be websocket"));
    }
    Ok(())
}

/// Returns the subprotocols that the client offers, in order.
pub fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    offered.into_iter().flat_map(|offered| offered.split(',')).map(str::trim)
}

/// Closes the socket in bounded time, whatever the peer does. A reason that is too long is cut.
pub async fn close(socket: Socket, code: u16, reason: &str) {
    let mut end = reason.len().min(MAX_REASON);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let _ = timeout(CLOSE_TIMEOUT, socket.close(code, &reason[..end])).await;
}

fn required(message: &str) -> ApiError {
    ApiError::new(StatusCode::UPGRADE_REQUIRED, 426, message)
}
