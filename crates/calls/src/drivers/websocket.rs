//! Peers that connect by WebSocket.

use super::Connection;
use crate::peers::Message;
use voxline::transport::Message as WireMessage;
use voxline_gateway::websocket::{Socket, close};

/// Close code of a call that has ended (RFC 6455, section 7.4.1).
const NORMAL: u16 = 1000;

/// The WebSocket of a peer.
pub(crate) struct WebSocketConnection(pub(crate) Socket);

impl Connection for WebSocketConnection {
    async fn next(&mut self) -> Result<Option<Message>, String> {
        loop {
            return match self.0.next().await {
                Some(Ok(WireMessage::Text(text))) => Ok(Some(Message::Text(text))),
                Some(Ok(WireMessage::Binary(bytes))) => Ok(Some(Message::Binary(bytes))),
                Some(Ok(WireMessage::Ping(_) | WireMessage::Pong(_))) => continue,
                Some(Ok(WireMessage::Close(_))) | None => Ok(None),
                Some(Err(error)) if error.kind() == voxline::transport::WireErrorKind::Lost => Ok(None),
                Some(Err(error)) => Err(error.to_string()),
            };
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
