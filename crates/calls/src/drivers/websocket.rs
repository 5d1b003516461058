//! Peers that connect by WebSocket.

use super::{Connection, Received};
use crate::peers::Message;
use voxline::transport::{Message as WireMessage, WireErrorKind};
use voxline_gateway::websocket::{Socket, close};

/// Close code of a call that has ended (RFC 6455, section 7.4.1).
const NORMAL: u16 = 1000;

/// The WebSocket of a peer.
pub(crate) struct WebSocketConnection(pub(crate) Socket);

impl Connection for WebSocketConnection {
    async fn next(&mut self) -> Result<Received, String> {
        match self.0.next().await {
            Some(Ok(WireMessage::Text(text))) => Ok(Received::Message(Message::Text(text))),
            Some(Ok(WireMessage::Binary(bytes))) => Ok(Received::Message(Message::Binary(bytes))),
            Some(Ok(WireMessage::Ping(_) | WireMessage::Pong(_))) => Ok(Received::Ping),
            Some(Ok(WireMessage::Close(_))) | None => Ok(Received::Closed),
            Some(Err(error)) if error.kind() == WireErrorKind::Lost => Ok(Received::Closed),
            Some(Err(error)) => Err(error.to_string()),
        }
    }

    fn send(&mut self, message: Message) {
        self.0.send(match message {
            Message::Text(text) => WireMessage::Text(text),
            Message::Binary(bytes) => WireMessage::Binary(bytes),
        });
    }

    async fn close(self) {
        close(self.0, NORMAL, "").await;
    }
}
