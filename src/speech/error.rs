//! Errors of synthesis.

use crate::auth::{AuthError, AuthErrorKind};
use crate::error::chain;
use crate::net::{RequestError, refusal};
use crate::recovery::Recovery;

/// Error of synthesis, after all retries that were worthwhile. Speech that was delivered before it is good.
/// [`kind`](SpeechError::kind) says what is at fault, and [`recovery`](SpeechError::recovery) whether the
/// caller may request the rest of the text later.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpeechError {
    /// No token could be obtained.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The service could not be reached, or the connection broke off.
    #[error("no speech from {endpoint}")]
    Unreachable {
        /// Address of the service.
        endpoint: String,
        /// Suggested recovery.
        recovery: Recovery,
        /// Reason of the failure.
        source: Interruption,
    },
    /// The service refused the request.
    #[error("{endpoint} refused to speak (status {status}): {reason}")]
    Refused {
        /// Address of the service.
        endpoint: String,
        /// HTTP status.
        status: u16,
        /// The service's own error code, if it sent one.
        code: Option<u64>,
        /// Reason given by the service.
        reason: String,
        /// Suggested recovery.
        recovery: Recovery,
    },
    /// The response is not speech: a page of a proxy, or more data than any speech has.
    #[error("{endpoint} answered with {what} instead of speech")]
    InvalidResponse {
        /// Address of the service.
        endpoint: String,
        /// Description of the response.
        what: &'static str,
    },
}

/// Reason why speech did not arrive, or not all of it. The request may be repeated, unless the service's
/// certificate was refused.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Interruption {
    /// The request has no response.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The response ended before the speech did, or within a sample.
    #[error("speech broke off")]
    BrokenOff(
        /// Error of the connection, if it failed.
        #[source]
        Option<RequestError>,
    ),
    /// Nothing arrived for [`stall_timeout`](super::SpeechOptions::stall_timeout).
    #[error("speech stopped")]
    Stalled,
    /// The task of the request panicked, which is a defect of voxline, or its runtime was shut down.
    #[error("the request ended without a result")]
    Abandoned,
}

/// Categories of [`SpeechError`] that users distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SpeechErrorKind {
    /// The service could not be reached, or failed.
    Unreachable,
    /// The service refused the credentials or the token, or the token is not for speech.
    Authentication,
    /// A limit of the service or of the token was reached.
    Limit,
    /// The request is at fault (a text, a voice or an option that the service does not accept), or the
    /// set-up of this machine.
    Request,
}

impl SpeechError {
    /// Returns the category of the error, for exit codes and messages.
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
            SpeechError::Unreachable { .. } | SpeechError::InvalidResponse { .. } => {
                SpeechErrorKind::Unreachable
            }
        }
    }

    /// Returns the suggested recovery.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            SpeechError::Auth(error) => error.recovery(),
            SpeechError::Unreachable { recovery, .. } | SpeechError::Refused { recovery, .. } => *recovery,
            SpeechError::InvalidResponse { .. } => Recovery::Fatal,
        }
    }

    /// Combines an authentication error with the `refusal` of the token that could not be replaced: the
    /// service's reason comes first.
    pub(super) fn after(self, refusal: Option<SpeechError>) -> SpeechError {
        match (self, refusal) {
            (SpeechError::Auth(error), Some(SpeechError::Refused { endpoint, status, code, reason, .. }))
                if error.kind() == AuthErrorKind::Authentication =>
            {
                SpeechError::Refused {
                    endpoint,
                    status,
                    code,
                    reason: format!("{reason}; {}", chain(&error)),
                    recovery: error.recovery(),
                }
            }
            (error, _) => error,
        }
    }
}
