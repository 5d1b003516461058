//! Messages of the protocol on a WebSocket.

use std::time::Duration;

use super::close_reason::CloseReason;
use voxline::protocol::{ClientMessage, ServerMessage, close};
use voxline::transport::{Message, WireError, WireErrorKind};

/// Parses a text message of the client.
pub(crate) fn parse(text: &str) -> Result<ClientMessage, CloseReason> {
    serde_json::from_str(text)
        .map_err(|error| CloseReason::new(close::PROTOCOL, format!("message can't be read: {error}")))
}

/// Returns the text message for `message`.
pub(crate) fn encode(message: &ServerMessage) -> Message {
    Message::text(serde_json::to_string(message).expect("a message is strings and numbers"))
}

/// Returns the close reason for a client that sends a malformed or oversized message; `None` for an error
/// of the connection itself.
pub(crate) fn unreadable(error: &WireError) -> Option<CloseReason> {
    match error.kind() {
        WireErrorKind::TooBig => Some(CloseReason::new(close::TOO_BIG, "message is too big")),
        WireErrorKind::Malformed => {
            // The message may have been damaged on the way, which should not end a session.
            Some(CloseReason::resumable(close::PROTOCOL, format!("message can't be read: {error}")))
        }
        _ => None,
    }
}

/// Returns whole milliseconds, as messages state times.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
