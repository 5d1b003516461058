//! Reasons to close a socket, and how they are told to the client.

use super::session::{Rejection, Violation};
use crate::authority::{AuthorityError, Exhausted};
use voxline::protocol::close;

/// Error code of the HTTP API for a bad token.
const BAD_TOKEN: u32 = 4048;

/// Reason why the gateway closes a socket.
#[derive(Debug)]
pub(crate) struct CloseReason {
    pub(crate) code: u16,
    /// Code in the `error` message that precedes the close.
    pub(crate) error: u32,
    pub(crate) reason: String,
    /// True if the session waits for another socket of its client.
    pub(crate) resumable: bool,
}

impl CloseReason {
    /// Creates a reason for a close that also ends the session.
    pub(crate) fn new(code: u16, reason: impl Into<String>) -> CloseReason {
        let error = if code == close::TOKEN { BAD_TOKEN } else { code.into() };
        CloseReason { code, error, reason: reason.into(), resumable: false }
    }

    /// Creates a reason for a close that concerns only the socket.
    pub(crate) fn resumable(code: u16, reason: impl Into<String>) -> CloseReason {
        CloseReason { resumable: true, ..CloseReason::new(code, reason) }
    }

    pub(crate) fn moved() -> CloseReason {
        CloseReason::resumable(close::MOVED, Rejection::Moved.to_string())
    }
}

impl From<Violation> for CloseReason {
    fn from(violation: Violation) -> CloseReason {
        CloseReason::new(close::PROTOCOL, violation.0)
    }
}

impl From<Rejection> for CloseReason {
    fn from(refusal: Rejection) -> CloseReason {
        match refusal {
            Rejection::Moved => CloseReason::moved(),
            Rejection::Flood => CloseReason::resumable(close::QUOTA, refusal.to_string()),
            Rejection::Violation(violation) => violation.into(),
            // The session is kept, since it may continue under another token of its project.
            Rejection::Exhausted(exhausted) => {
                let reason = exhausted.to_string();
                match exhausted {
                    Exhausted::Daily { .. } => CloseReason::resumable(close::QUOTA, reason),
                    Exhausted::Total { .. } => {
                        CloseReason { error: close::USED_UP, ..CloseReason::resumable(close::SCOPE, reason) }
                    }
                }
            }
        }
    }
}

/// A refused token concerns only the socket: the session may continue under another token.
impl From<AuthorityError> for CloseReason {
    fn from(error: AuthorityError) -> CloseReason {
        let code = match &error {
            AuthorityError::Token | AuthorityError::Inactive => close::TOKEN,
            AuthorityError::Scope(_)
            | AuthorityError::ShortLived
            | AuthorityError::Address
            | AuthorityError::NotOpen => close::SCOPE,
            error => {
                tracing::error!(%error, "token could not be checked");
                return CloseReason::resumable(close::SERVER_FAULT, "the gateway failed");
            }
        };
        CloseReason::resumable(code, error.to_string())
    }
}
