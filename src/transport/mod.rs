//! Connections that carry a session: how to make them, and how messages travel on them.
//!
//! A session sees none of this: it speaks to a [`Peer`](crate::peer::Peer). A [`Wire`] by itself is for the
//! other end, a server, and for connections that a program opens by other means.
//!
//! tungstenite, which handles the frames, logs each of them in full to the crate `log` at the level
//! TRACE: tokens, session keys and speech included. The voxline program has no receiver for those
//! records. A host program that records what is sent to `log` should exclude the target
//! `tungstenite::protocol`.

mod handshake;
mod vosk;
#[cfg_attr(
    not(feature = "test-util"),
    expect(unreachable_pub, reason = "the simulated network dials as it does")
)]
pub(crate) mod websocket;
mod wire;

pub use vosk::{VoskConnector, VoskPeer, vosk_capabilities};
pub use websocket::{WebSocketConnector, WebSocketPeer};
pub use wire::{CloseFrame, Event, Message, Wire, WireError, WireErrorKind};

pub use crate::net::Stream;
pub use crate::peer::Connect;
