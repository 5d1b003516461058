//! Why there is no token.

use std::fmt;
use std::time::Duration;

use super::slots::SlotsError;
use super::vault::VaultError;
use crate::recovery::Recovery;

/// Why there is no token.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The token endpoint could not be asked.
    #[error("token endpoint {endpoint}: {reason}")]
    Unreachable {
        /// Its address.
        endpoint: String,
        /// What happened.
        reason: String,
        /// Whether the question may have arrived, and only the answer not.
        asked: bool,
    },
    /// The token endpoint said no.
    #[error(
        "token endpoint {endpoint} refused the grant {grant} (status {status}): {}",
        told.clone().unwrap_or_else(|| reason.to_string())
    )]
    Refused {
        /// Its address.
        endpoint: String,
        /// The grant: `client_credentials` or `refresh_token`.
        grant: &'static str,
        /// The HTTP status.
        status: u16,
        /// Its reason, by its error code.
        reason: Refusal,
        /// Its reason in its own words, where it gave one that is fit to be shown.
        told: Option<String>,
        /// What to do about it.
        recovery: Recovery,
    },
    /// A token had expired when it came: the answer was slow, the machine slept, or its clock was set.
    #[error("token from the token endpoint {endpoint} had expired when it came")]
    Late {
        /// Its address.
        endpoint: String,
    },
    /// The token endpoint's answer can't be understood.
    #[error("token endpoint {endpoint} answered without {missing}")]
    Answer {
        /// Its address.
        endpoint: String,
        /// What is missing from the answer.
        missing: &'static str,
    },
    /// The token can't be sent.
    #[error("{0} is not a token: it is empty or holds characters that can't be sent")]
    Token(&'static str),
    /// The service token was refused, for a reason that the service told; nothing can replace it.
    #[error("a service token can't be refreshed: create a new one")]
    ServiceToken,
    /// The service refuses what its own token endpoint has granted a moment ago.
    #[error("access token refused as fresh as it came from the token endpoint {endpoint}")]
    Rejected {
        /// The token endpoint's address.
        endpoint: String,
    },
    /// Asking for tokens too often would use up what the project has of them.
    #[error(transparent)]
    Slots(#[from] SlotsError),
    /// The last try failed, and it is too early for the next.
    #[error("{error}; next try in {} s", wait.as_secs_f64().ceil())]
    Waiting {
        /// How the last try failed.
        error: Box<AuthError>,
        /// How long until the next.
        wait: Duration,
    },
    /// Whoever was asking the token endpoint ended first, with its runtime.
    #[error("asking the token endpoint {endpoint} was interrupted")]
    Interrupted {
        /// Its address.
        endpoint: String,
    },
    /// Tokens can't be kept.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// The reason for which the token endpoint refused, by its error code alone: the rest of its answer is for
/// people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The client id or secret is wrong.
    Client,
    /// The refresh token is dead.
    Grant,
    /// The project has no token left to give.
    Limit,
    /// It doesn't take such requests, or didn't understand this one.
    Request,
    /// It didn't say.
    Unknown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Client => "client id or secret is wrong",
            Refusal::Grant => "token is dead",
            Refusal::Limit => "the project's limit of tokens is reached",
            Refusal::Request => "the request is not taken",
            Refusal::Unknown => "no reason known",
        })
    }
}

/// The kinds of trouble with tokens that users tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthErrorKind {
    /// The token endpoint can't be asked, or gives no answer that helps. Trying later may.
    Unreachable,
    /// A limit of the service, or of asking it.
    Limit,
    /// Tokens can't be kept or read on this machine.
    Setup,
    /// The service doesn't accept the credentials.
    Authentication,
}

impl AuthError {
    /// What to do about it.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            AuthError::Unreachable { .. }
            | AuthError::Late { .. }
            | AuthError::Interrupted { .. }
            | AuthError::Vault(VaultError::Locked { .. }) => Recovery::Retry,
            AuthError::Refused { recovery, .. } => *recovery,
            AuthError::Slots(SlotsError::TooSoon { wait, .. }) => Recovery::RetryAfter(*wait),
            AuthError::Waiting { error, wait } => match error.recovery() {
                Recovery::Fatal => Recovery::Fatal,
                _ => Recovery::RetryAfter(*wait),
            },
            AuthError::Answer { .. }
            | AuthError::Token(_)
            | AuthError::ServiceToken
            | AuthError::Rejected { .. }
            | AuthError::Slots(_)
            | AuthError::Vault(_) => Recovery::Fatal,
        }
    }

    /// What went wrong, where this only says that it did before.
    #[must_use]
    pub fn cause(&self) -> &AuthError {
        match self {
            AuthError::Waiting { error, .. } => error.cause(),
            error => error,
        }
    }

    /// What kind it is, for those who act on no more than that.
    #[must_use]
    pub fn kind(&self) -> AuthErrorKind {
        match self.cause() {
            AuthError::Unreachable { .. }
            | AuthError::Late { .. }
            | AuthError::Answer { .. }
            | AuthError::Interrupted { .. }
            | AuthError::Vault(VaultError::Locked { .. })
            | AuthError::Refused { recovery: Recovery::Retry, .. } => AuthErrorKind::Unreachable,
            AuthError::Refused { reason: Refusal::Limit, .. }
            | AuthError::Refused { recovery: Recovery::RetryAfter(_), .. }
            | AuthError::Slots(_) => AuthErrorKind::Limit,
            AuthError::Vault(_) => AuthErrorKind::Setup,
            _ => AuthErrorKind::Authentication,
        }
    }

    /// Whether the service says that a refresh token is dead, in so many words or by refusing it without a reason: of the
    /// original's reasons nothing is known, and its clients take 400 for that.
    pub(super) fn is_dead_grant(&self) -> bool {
        matches!(
            self,
            AuthError::Refused { reason: Refusal::Grant, .. }
                | AuthError::Refused { reason: Refusal::Unknown, status: 400 | 401, .. }
        )
    }

    /// Whether a request that failed so may have been granted all the same: no answer came, or one by somebody in between.
    pub(super) fn may_be_granted(&self) -> bool {
        match self {
            AuthError::Unreachable { asked, .. } => *asked,
            AuthError::Refused { status, .. } => *status == 408 || (*status >= 500 && *status != 503),
            AuthError::Answer { .. } => true,
            _ => false,
        }
    }
}
