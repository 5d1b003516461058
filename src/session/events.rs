//! What goes into the session's core, and what comes out.

use super::error::{Failure, SessionError};
use super::ledger::Ledger;
use super::protocol::{ClientMessage, ServerMessage};
use crate::audio::AudioChunk;
use crate::transcript::TranscriptEvent;

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// The source gave the next frames.
    Audio(AudioChunk),
    /// The user wants what was said so far, now.
    Flush,
    /// The source has ended.
    Finish,
    /// The dial that was asked for succeeded: messages can be sent.
    Connected,
    /// It did not.
    DialFailed(Failure),
    /// The peer said something.
    Peer(ServerMessage),
    /// The peer broke the rules of the wire: a frame that is no message.
    Garbage(String),
    /// The peer closed the socket with this code and reason.
    Closed(u16, String),
    /// The socket died.
    Lost(String),
    /// The peer gave a sign of life that says nothing of the session: a ping or a pong.
    Alive,
    /// The time of [`Core::wake_at`](super::core::Core::wake_at) has come.
    Tick,
}

/// Something to do, in this order.
#[derive(Debug)]
pub enum Output {
    /// Connect; the answer is [`Input::Connected`] or [`Input::DialFailed`].
    Dial {
        /// Whether the token used last was refused, so that a newer one is needed.
        fresh_token: bool,
    },
    /// Send a message.
    Send(ClientMessage),
    /// Send audio.
    SendAudio(AudioChunk),
    /// Close the socket with this code and forget it: nothing more from it is of interest.
    Close(u16),
    /// Tell the user.
    Emit(TranscriptEvent),
    /// The session is over; no output follows.
    End(Result<Ledger, SessionError>),
}
