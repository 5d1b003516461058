//! Errors that end a session early.

use std::mem;

use crate::error::{Cause, chain};
use crate::protocol::Violation;
use crate::recovery::{Failure, FailureKind};

/// The reason why a session ended before everything was final. Events emitted until then stay valid. A
/// session with a [`Journal`](super::Journal) can be resumed by a later one, once what its variant names is
/// mended.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SessionError {
    /// The peer could not be reached for as long as the settings allow. Trying again later may help.
    #[error("{reason}")]
    Unreachable {
        /// The last failure.
        reason: String,
        /// Error behind the last failure, if there is one.
        source: Option<Cause>,
    },
    /// The token was refused, and so was a fresh one. The caller needs other credentials, or a token with
    /// more rights.
    #[error("{reason}")]
    Authentication {
        /// The last refusal.
        reason: String,
        /// Error behind the last refusal, if there is one: an [`AuthError`](crate::auth::AuthError) if no
        /// token was granted.
        source: Option<Cause>,
    },
    /// Tokens can't be stored or read on this machine. The message behind the error says what to do about
    /// their file or directory.
    #[error("{reason}")]
    Vault {
        /// Description of the failure.
        reason: String,
        /// Error behind the failure: an [`AuthError`](crate::auth::AuthError).
        source: Option<Cause>,
    },
    /// The limits of the peer don't allow this session now. Trying again later may help, or ending another
    /// session of the same token.
    #[error("{reason}")]
    Limit {
        /// The refusal.
        reason: String,
        /// Error behind the refusal, if there is one.
        source: Option<Cause>,
    },
    /// The service doesn't support the request in the settings, which the caller changes: language, sample
    /// rate, task or another part.
    #[error("{reason}")]
    Unsupported {
        /// The unsupported setting.
        reason: String,
        /// Error behind the refusal, if there is one.
        source: Option<Cause>,
    },
    /// The service may leave more audio unfinal than the replay buffer holds: client and service would
    /// wait for each other. The caller gives the buffer the capacity `needed`, in
    /// [`Settings::replay`](super::Settings::replay).
    #[error(
        "replay buffer of {buffer} frames is too small: the service may leave {needed} frames unfinal, which it must hold"
    )]
    Buffer {
        /// Capacity of the replay buffer, in frames.
        buffer: u64,
        /// Capacity that the service requires, in frames.
        needed: u64,
    },
    /// The journal can't be written, so a later process could not resume the session. It resumes at the last
    /// record that was written.
    #[error("journal of the session cannot be written")]
    Journal {
        /// The failure of the journal: an [`io::Error`](std::io::Error).
        source: Cause,
    },
    /// The peer broke the protocol, which is its defect, or that of its adapter. A retry does not help.
    #[error("speech protocol violated")]
    Violation(#[source] Violation),
    /// The peer reports that this client broke the protocol, or speaks another one: check the address of the
    /// service, and its version.
    #[error("speech protocol: {reason}")]
    Protocol {
        /// The report.
        reason: String,
        /// Error behind the report, if there is one.
        source: Option<Cause>,
    },
}

/// Errors are equal if they are of one variant, and they and the errors behind them have the same messages.
impl PartialEq for SessionError {
    fn eq(&self, other: &SessionError) -> bool {
        mem::discriminant(self) == mem::discriminant(other)
            && chain(self).to_string() == chain(other).to_string()
    }
}

impl Eq for SessionError {}

impl From<Failure> for SessionError {
    fn from(failure: Failure) -> SessionError {
        let Failure { kind, reason, source, .. } = failure;
        match kind {
            FailureKind::Unreachable => SessionError::Unreachable { reason, source },
            FailureKind::Authentication => SessionError::Authentication { reason, source },
            FailureKind::Vault => SessionError::Vault { reason, source },
            FailureKind::Limit => SessionError::Limit { reason, source },
            FailureKind::Unsupported => SessionError::Unsupported { reason, source },
            FailureKind::Protocol => SessionError::Protocol { reason, source },
        }
    }
}
