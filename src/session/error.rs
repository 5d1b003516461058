//! Why a session ends early.

use crate::recovery::Recovery;

/// A failure on the way to the peer: what it was, and what it calls for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What to do about it.
    pub recovery: Recovery,
    /// What kind it is, should it end the session.
    pub kind: FailureKind,
    /// What happened, naming the peer; never a token or a body.
    pub reason: String,
}

/// The kinds of failure that users tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// The peer could not be reached, or not kept.
    Unreachable,
    /// The peer did not accept the token.
    Authentication,
    /// Tokens can't be kept or read on this machine.
    Vault,
    /// The peer has no room for this session.
    Limit,
    /// The peer doesn't have what was asked for.
    Unsupported,
    /// The peer doesn't speak the protocol.
    Protocol,
}

/// Why a session ended before everything was final. What was emitted until then stays true.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer could not be reached for as long as the settings allow. Trying later may help.
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
    /// Tokens can't be kept or read on this machine.
    #[error("{reason}")]
    Vault {
        /// Why.
        reason: String,
    },
    /// The peer's limits don't allow this session now.
    #[error("{reason}")]
    Limit {
        /// The refusal.
        reason: String,
    },
    /// The service doesn't have the language or sample rate that the settings ask for.
    #[error("{reason}")]
    Unsupported {
        /// What is missing.
        reason: String,
    },
    /// The service may leave more audio unfinal than the replay buffer holds: each would wait for the other.
    #[error(
        "replay buffer of {buffer} frames is too small: the service may leave {needed} frames unfinal, which it must hold"
    )]
    Buffer {
        /// What the buffer holds.
        buffer: u64,
        /// What it should hold.
        needed: u64,
    },
    /// What a later process needs can't be taken down.
    #[error("{reason}")]
    Journal {
        /// The failure of the journal.
        reason: String,
    },
    /// The peer broke the protocol, or says that we did: one of the two has a bug.
    #[error("speech protocol: {reason}")]
    Protocol {
        /// The breach.
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
