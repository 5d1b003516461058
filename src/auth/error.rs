//! Errors obtaining a token.

use std::fmt;
use std::time::Duration;

#[cfg(feature = "oauth")]
use super::slots::SlotsError;
#[cfg(feature = "oauth")]
use super::vault::VaultError;
use crate::error::{Cause, chain};
use crate::recovery::Recovery;

/// Error obtaining a token. [`recovery`](AuthError::recovery) says whether a later attempt may succeed, and
/// [`kind`](AuthError::kind) who can help otherwise: the messages of the kinds `Setup` and `Authentication`
/// name what to change. A [`TokenProvider`](super::TokenProvider) retries by itself while a token is valid.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The request to the token endpoint failed, or its response was lost.
    #[error("request to token endpoint {endpoint} failed")]
    Unreachable {
        /// Address of the token endpoint.
        endpoint: String,
        /// Reason of the failure: a `net::RequestError`.
        source: Cause,
        /// True if the request may have arrived, and only the response was lost.
        may_have_arrived: bool,
    },
    /// The token endpoint refused the request.
    #[error(
        "token endpoint {endpoint} refused the {grant} request (status {status}): {}",
        message.clone().unwrap_or_else(|| reason.to_string())
    )]
    Refused {
        /// Address of the token endpoint.
        endpoint: String,
        /// Refused request: the grant `client_credentials` or `refresh_token`, or `revocation`.
        grant: &'static str,
        /// HTTP status.
        status: u16,
        /// Reason of the endpoint, by its error code.
        reason: Refusal,
        /// Reason in the endpoint's own words, if it gave one that is fit to be shown.
        message: Option<String>,
        /// Suggested recovery.
        recovery: Recovery,
    },
    /// A token had expired on arrival: the response was slow, the machine slept, or its clock was set.
    #[error("access token of token endpoint {endpoint} expired before the response arrived: try again")]
    Late {
        /// Address of the token endpoint.
        endpoint: String,
    },
    /// The response of the token endpoint cannot be understood.
    #[error("response of token endpoint {endpoint} lacks {missing}: check the address of the service")]
    InvalidResponse {
        /// Address of the token endpoint.
        endpoint: String,
        /// Missing part of the response.
        missing: &'static str,
    },
    /// The token cannot be sent in a header.
    #[error("{0} is not valid: expected printable ASCII characters without spaces")]
    Token(&'static str),
    /// The service refused the service token, for a reason that the caller has; a service token cannot be
    /// refreshed.
    #[error("a service token can't be refreshed: create a new one")]
    ServiceToken,
    /// The service refused an access token that its token endpoint had just issued.
    #[error(
        "service refused an access token that token endpoint {endpoint} had just issued: check that both belong \
         to the same service"
    )]
    Rejected {
        /// Address of the token endpoint.
        endpoint: String,
    },
    /// The project's refresh-token slots allow no further request now.
    #[cfg(feature = "oauth")]
    #[error(transparent)]
    Slots(#[from] SlotsError),
    /// The last attempt failed, and the next is not due yet. The message has that of the last attempt, with
    /// those of the errors behind it.
    #[error("{}; next attempt in {} s", chain(error), wait.as_secs_f64().ceil())]
    Waiting {
        /// Error of the last attempt.
        error: Box<AuthError>,
        /// Time until the next attempt.
        wait: Duration,
    },
    /// The renewal task ended before the response, with its runtime.
    #[error("request to token endpoint {endpoint} was interrupted: try again")]
    Interrupted {
        /// Address of the token endpoint.
        endpoint: String,
    },
    /// Tokens cannot be stored.
    #[cfg(feature = "oauth")]
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Reason of a refusal by the token endpoint, from its error code alone: the rest of the response is for
/// people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The client id or secret is wrong.
    Client,
    /// The refresh token is no longer valid.
    Grant,
    /// The project's limit of tokens is reached.
    Limit,
    /// The endpoint does not accept such requests, or did not understand this one.
    Request,
    /// The endpoint gave no reason.
    Unknown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Client => "client id or secret is wrong",
            Refusal::Grant => "refresh token is no longer valid",
            Refusal::Limit => "token limit of the project is reached",
            Refusal::Request => "the endpoint does not accept such requests: check its address",
            Refusal::Unknown => "the endpoint gave no reason",
        })
    }
}

/// Categories of token errors that users distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthErrorKind {
    /// The token endpoint cannot be reached, or gives no usable response. A later attempt may succeed.
    Unreachable,
    /// A limit of the service was reached, or a limit of requests to it.
    Limit,
    /// Tokens cannot be stored or read on this machine.
    Setup,
    /// The service does not accept the credentials.
    Authentication,
}

impl AuthError {
    /// Returns the suggested recovery.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            AuthError::Unreachable { .. } | AuthError::Late { .. } | AuthError::Interrupted { .. } => {
                Recovery::Retry
            }
            #[cfg(feature = "oauth")]
            AuthError::Vault(VaultError::Locked { .. }) => Recovery::Retry,
            AuthError::Refused { recovery, .. } => *recovery,
            #[cfg(feature = "oauth")]
            AuthError::Slots(SlotsError::TooSoon { wait, .. }) => Recovery::RetryAfter(*wait),
            AuthError::Waiting { error, wait } => match error.recovery() {
                Recovery::Fatal => Recovery::Fatal,
                _ => Recovery::RetryAfter(*wait),
            },
            AuthError::InvalidResponse { .. }
            | AuthError::Token(_)
            | AuthError::ServiceToken
            | AuthError::Rejected { .. } => Recovery::Fatal,
            #[cfg(feature = "oauth")]
            AuthError::Slots(_) | AuthError::Vault(_) => Recovery::Fatal,
        }
    }

    /// Returns the error of the last attempt for [`AuthError::Waiting`], and the error itself otherwise.
    #[must_use]
    pub fn cause(&self) -> &AuthError {
        match self {
            AuthError::Waiting { error, .. } => error.cause(),
            error => error,
        }
    }

    /// Returns the category of the error, for callers that act on no more than that.
    #[must_use]
    pub fn kind(&self) -> AuthErrorKind {
        match self.cause() {
            AuthError::Unreachable { .. }
            | AuthError::Late { .. }
            | AuthError::InvalidResponse { .. }
            | AuthError::Interrupted { .. }
            | AuthError::Refused { recovery: Recovery::Retry, .. } => AuthErrorKind::Unreachable,
            #[cfg(feature = "oauth")]
            AuthError::Vault(VaultError::Locked { .. }) => AuthErrorKind::Unreachable,
            AuthError::Refused { reason: Refusal::Limit, .. }
            | AuthError::Refused { recovery: Recovery::RetryAfter(_), .. } => AuthErrorKind::Limit,
            #[cfg(feature = "oauth")]
            AuthError::Slots(_) => AuthErrorKind::Limit,
            #[cfg(feature = "oauth")]
            AuthError::Vault(_) => AuthErrorKind::Setup,
            _ => AuthErrorKind::Authentication,
        }
    }

    /// Returns whether the service says that a refresh token is no longer valid, explicitly or by a
    /// refusal without a reason. The reasons that the original service gives are unknown, and its clients
    /// take status 400 for an invalid refresh token.
    #[cfg(feature = "oauth")]
    pub(super) fn is_dead_grant(&self) -> bool {
        matches!(
            self,
            AuthError::Refused { reason: Refusal::Grant, .. }
                | AuthError::Refused { reason: Refusal::Unknown, status: 400 | 401, .. }
        )
    }

    /// Returns whether the failed request may have been granted all the same: no response came, or one
    /// from an intermediary.
    #[cfg(feature = "oauth")]
    pub(super) fn may_be_granted(&self) -> bool {
        match self {
            AuthError::Unreachable { may_have_arrived, .. } => *may_have_arrived,
            AuthError::Refused { status, .. } => *status == 408 || (*status >= 500 && *status != 503),
            AuthError::InvalidResponse { .. } => true,
            _ => false,
        }
    }
}
