//! Reasons why a session is not started, or refuses a message or a socket.

use std::io;

use crate::authority::Exhausted;
use crate::sessions::message_rate_limiter::CONTROL_RATE;
use voxline::engine::EngineError;

/// A breach of the protocol by the client, described for the client.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Violation(pub(crate) String);

/// Reason why a session could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The client asked for something that this gateway doesn't support.
    #[error("{0}")]
    Unsupported(String),
    #[error(transparent)]
    Engine(EngineError),
    #[error("no thread to recognise on")]
    Thread(#[from] io::Error),
}

/// Reason why a session refuses a message of a socket.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Rejection {
    /// The socket no longer has the session.
    #[error("another socket has the session")]
    Moved,
    #[error("more than {CONTROL_RATE} control messages a second")]
    Flood,
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The token has no audio left.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

/// Reason why a session can't be attached to a socket.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AttachError {
    #[error("the session is over")]
    Over,
    #[error(transparent)]
    Violation(#[from] Violation),
}
