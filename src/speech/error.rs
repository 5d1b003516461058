//! Why there is no speech, or not all of it.

use crate::auth::{AuthError, AuthErrorKind};
use crate::net::refusal;
use crate::recovery::Recovery;

/// Why there is no speech, or not all of it. What was worth another try has had it by then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpeechError {
    /// No token.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The service could not be reached, or not kept.
    #[error("{endpoint}: {reason}")]
    Unreachable {
        /// Its address.
        endpoint: String,
        /// What happened.
        reason: String,
        /// What to do about it.
        recovery: Recovery,
    },
    /// The service said no.
    #[error("{endpoint} refused to speak (status {status}): {reason}")]
    Refused {
        /// Its address.
        endpoint: String,
        /// The HTTP status.
        status: u16,
        /// The service's own code for it, where it gave one.
        code: Option<u64>,
        /// What it said about it.
        reason: String,
        /// What to do about it.
        recovery: Recovery,
    },
    /// What came is no speech: a page of a proxy, or more than any speech has.
    #[error("{endpoint} answered with {what} instead of speech")]
    Answer {
        /// Its address.
        endpoint: String,
        /// What came.
        what: &'static str,
    },
}

/// The kinds of [`SpeechError`] that users tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpeechErrorKind {
    /// The service could not be reached, or failed.
    Unreachable,
    /// The service refused the credentials or the token, or the token is not for speech.
    Authentication,
    /// A limit of the service, or of the token.
    Limit,
    /// The request itself: a text, a voice or an option that the service does not take; or the set-up on this machine.
    Request,
}

impl SpeechError {
    /// Its kind, for exit codes and messages.
    #[must_use]
    pub fn kind(&self) -> SpeechErrorKind {
        match self {
            SpeechError::Auth(error) => match error.kind() {
                AuthErrorKind::Unreachable => SpeechErrorKind::Unreachable,
                AuthErrorKind::Limit => SpeechErrorKind::Limit,
                AuthErrorKind::Setup => SpeechErrorKind::Request,
                AuthErrorKind::Authentication => SpeechErrorKind::Authentication,
            },
            SpeechError::Refused { status, code, .. } => match refusal::kind(*status, *code) {
                refusal::Kind::Authentication => SpeechErrorKind::Authentication,
                refusal::Kind::Limit => SpeechErrorKind::Limit,
                refusal::Kind::Other if *status == 400 => SpeechErrorKind::Request,
                refusal::Kind::Other => SpeechErrorKind::Unreachable,
            },
            SpeechError::Unreachable { .. } | SpeechError::Answer { .. } => SpeechErrorKind::Unreachable,
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            SpeechError::Auth(error) => error.recovery(),
            SpeechError::Unreachable { recovery, .. } | SpeechError::Refused { recovery, .. } => *recovery,
            SpeechError::Answer { .. } => Recovery::Fatal,
        }
    }

    /// The error where a token that was refused so could not be replaced: the service knows why.
    pub(super) fn after(self, refusal: Option<SpeechError>) -> SpeechError {
        match (self, refusal) {
            (SpeechError::Auth(error), Some(SpeechError::Refused { endpoint, status, code, reason, .. }))
                if error.kind() == AuthErrorKind::Authentication =>
            {
                SpeechError::Refused {
                    endpoint,
                    status,
                    code,
                    reason: format!("{reason}; {error}"),
                    recovery: error.recovery(),
                }
            }
            (error, _) => error,
        }
    }
}
