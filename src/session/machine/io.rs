//! Inputs and outputs of the session's state machine.

use crate::audio::{AudioChunk, FrameRange};
use crate::auth::{AccessToken, TokenGeneration};
use crate::error::Cause;
use crate::peer::ConnectionLost;
use crate::protocol::{ClientMessage, ServerMessage, Violation};
use crate::recovery::Failure;
use crate::session::journal::ServerSession;
use crate::session::ledger::Ended;
use crate::transcript::TranscriptEvent;

/// The number of a connection, in the order of dialling. During a handover a session has two connections:
/// the one that carries the session, and its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

/// An input of the state machine.
#[derive(Debug)]
#[non_exhaustive]
pub enum Input {
    /// Next frames from the source.
    Audio(AudioChunk),
    /// Frames that the source has lost, directly after the last ones it delivered.
    Gap(FrameRange),
    /// The user's request to finalise what was said so far.
    Flush,
    /// End of the source.
    Finish,
    /// The requested token.
    Token(AccessToken),
    /// Failure to get the requested token.
    TokenFailed(Failure),
    /// Success of the requested dial: messages can be sent on this connection.
    Connected(ConnectionId),
    /// Failure of the requested dial.
    DialFailed(ConnectionId, Failure),
    /// A message from the peer.
    Peer(ConnectionId, ServerMessage),
    /// A violation of the protocol that shows before the message is understood.
    Violation(ConnectionId, Violation),
    /// A close of the socket by the peer, with this code and reason.
    Closed(ConnectionId, u16, String),
    /// Loss of the socket.
    Lost(ConnectionId, ConnectionLost),
    /// A sign of life that says nothing about the session: a ping or a pong.
    Alive(ConnectionId),
    /// Failure to journal what a later process needs.
    JournalFailed(Cause),
    /// Expiry of the time returned by [`Machine::wake_at`](super::Machine::wake_at).
    Tick,
}

/// An output of the state machine. Outputs are performed in order. A driver performs each kind of output, so
/// another kind is a change that its author must see: the enumeration is exhaustive.
#[derive(Debug)]
pub enum Output {
    /// Request for a token, answered by [`Input::Token`] or [`Input::TokenFailed`].
    NeedToken {
        /// Generation that the new token must exceed.
        newer_than: Option<TokenGeneration>,
    },
    /// Request to connect, answered by [`Input::Connected`] or [`Input::DialFailed`].
    Dial {
        /// Number of the new connection.
        id: ConnectionId,
        /// Token to authenticate with.
        token: AccessToken,
        /// Name of the server's session to resume; `None` to start a new one.
        session: Option<String>,
        /// Base addresses that the service named, in order of preference; empty for the configured
        /// address.
        endpoints: Vec<String>,
    },
    /// A message to send.
    Send(ConnectionId, ClientMessage),
    /// Audio to send.
    SendAudio(ConnectionId, AudioChunk),
    /// A ping to send, which asks the peer for a sign of life.
    Ping(ConnectionId),
    /// Request to close the connection with this code, or to abandon its dial. No more inputs from the
    /// connection are of interest.
    Close(ConnectionId, u16),
    /// Record for the journal: the server's session that carries this one.
    Opened(ServerSession),
    /// An event for the user.
    Emit(TranscriptEvent),
    /// End of the session; no output follows.
    End(Box<Ended>),
}
