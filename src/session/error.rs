//! Errors that end a session early.

use crate::protocol::Violation;
use crate::recovery::{Failure, FailureKind};

/// The reason why a session ended before everything was final. Events emitted until then stay valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer could not be reached for as long as the settings allow. Trying again later may help.
    #[error("{reason}")]
    Unreachable {
        /// The last failure.
        reason: String,
    },
    /// The token was refused, and so was a fresh one.
    #[error("{reason}")]
    Authentication {
        /// The last refusal.
        reason: String,
    },
    /// Tokens can't be stored or read on this machine.
    #[error("{reason}")]
    Vault {
        /// Description of the failure.
        reason: String,
    },
    /// The limits of the peer don't allow this session now.
    #[error("{reason}")]
    Limit {
        /// The refusal.
        reason: String,
    },
    /// The service doesn't support the language or the sample rate in the settings.
    #[error("{reason}")]
    Unsupported {
        /// The unsupported setting.
        reason: String,
    },
    /// The service may leave more audio unfinal than the replay buffer holds: client and service would
    /// wait for each other.
    #[error(
        "replay buffer of {buffer} frames is too small: the service may leave {needed} frames unfinal, which it must hold"
    )]
    Buffer {
        /// Capacity of the replay buffer, in frames.
        buffer: u64,
        /// Capacity that the service requires, in frames.
        needed: u64,
    },
    /// The journal can't be written, so a later process could not resume the session.
    #[error("{reason}")]
    Journal {
        /// The failure of the journal.
        reason: String,
    },
    /// The peer broke the protocol.
    #[error("speech protocol: {0}")]
    Violation(Violation),
    /// The peer reports that this client broke the protocol, or speaks another one.
    #[error("speech protocol: {reason}")]
    Protocol {
        /// The report.
        reason: String,
    },
}

impl From<Failure> for SessionError {
    fn from(failure: Failure) -> SessionError {
        let reason = failure.reason;
        match failure.kind {
            FailureKind::Unreachable => SessionError::Unreachable { reason },
            FailureKind::Authentication => SessionError::Authentication { reason },
            FailureKind::Vault => SessionError::Vault { reason },
            FailureKind::Limit => SessionError::Limit { reason },
            FailureKind::Unsupported => SessionError::Unsupported { reason },
            FailureKind::Protocol => SessionError::Protocol { reason },
        }
    }
}
