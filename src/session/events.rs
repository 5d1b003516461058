//! What goes into the session's core, and what comes out.

use super::error::Failure;
use super::journal::ServerSession;
use super::ledger::Ended;
use super::protocol::{ClientMessage, ServerMessage};
use crate::audio::{AudioChunk, FrameRange};
use crate::auth::{AccessToken, TokenGeneration};
use crate::transcript::TranscriptEvent;

/// A connection, numbered in the order of dialling. A session may have two for a while: the one that carries it, and the
/// one that is to take it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConnectionId(pub u32);

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// The source gave the next frames.
    Audio(AudioChunk),
    /// The source has lost these frames, which follow what it gave.
    Gap(FrameRange),
    /// The user wants what was said so far, now.
    Flush,
    /// The source has ended.
    Finish,
    /// The token that was asked for.
    Token(AccessToken),
    /// There is none.
    TokenFailed(Failure),
    /// The dial that was asked for succeeded: messages can be sent.
    Connected(ConnectionId),
    /// It did not.
    DialFailed(ConnectionId, Failure),
    /// The peer said something.
    Peer(ConnectionId, ServerMessage),
    /// The peer broke the rules of the wire: a frame that is no message.
    Garbage(ConnectionId, String),
    /// The peer closed the socket with this code and reason.
    Closed(ConnectionId, u16, String),
    /// The socket died.
    Lost(ConnectionId, String),
    /// The peer gave a sign of life that says nothing of the session: a ping or a pong.
    Alive(ConnectionId),
    /// What was to be kept for a later process can't be.
    JournalFailed(String),
    /// The time of [`Core::wake_at`](super::core::Core::wake_at) has come.
    Tick,
}

/// Something to do, in this order.
#[derive(Debug)]
pub enum Output {
    /// Get a token; the answer is [`Input::Token`] or [`Input::TokenFailed`].
    NeedToken {
        /// A token of this generation won't do.
        newer_than: Option<TokenGeneration>,
    },
    /// Connect; the answer is [`Input::Connected`] or [`Input::DialFailed`].
    Dial {
        /// The connection's.
        id: ConnectionId,
        /// To be shown.
        token: AccessToken,
        /// The name of the server's session that is to be resumed; none where one is to start.
        session: Option<String>,
        /// The base addresses that the service named, by preference; none: where the service is configured to
        /// be.
        endpoints: Vec<String>,
    },
    /// Send a message.
    Send(ConnectionId, ClientMessage),
    /// Send audio.
    SendAudio(ConnectionId, AudioChunk),
    /// Ask for a sign of life.
    Ping(ConnectionId),
    /// Close the connection with this code and forget it, or give up its dial: nothing more from it is of interest.
    Close(ConnectionId, u16),
    /// Take down which session of the server carries ours.
    Opened(ServerSession),
    /// Tell the user.
    Emit(TranscriptEvent),
    /// The session is over; no output follows.
    End(Box<Ended>),
}
