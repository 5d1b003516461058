//! Reasons to refuse a session, or a client that wants one.

use http::StatusCode;

use crate::http::error::{ApiError, BUSY_WAIT};

/// Reason why no session can start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RejectReason {
    Draining,
    Full,
    Late,
}

impl RejectReason {
    /// Returns the label of the reason in the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            RejectReason::Draining => "draining",
            RejectReason::Full => "full",
            RejectReason::Late => "late",
        }
    }

    /// Returns the HTTP status of the refusal, and its message.
    pub(crate) fn message(self) -> (StatusCode, &'static str) {
        match self {
            RejectReason::Draining => (StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping"),
            RejectReason::Full => (StatusCode::TOO_MANY_REQUESTS, "no room for a session"),
            RejectReason::Late => (StatusCode::SERVICE_UNAVAILABLE, "the recogniser is behind"),
        }
    }

    pub(crate) fn error(self) -> ApiError {
        let (status, message) = self.message();
        ApiError::busy(status, message, BUSY_WAIT)
    }
}

/// Limit of sessions that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    Gateway,
    Token,
}

impl Full {
    /// Returns the label of the reason in the metrics, and the message for a client that was admitted before
    /// the last place was taken.
    pub(crate) fn describe(self) -> (&'static str, &'static str) {
        match self {
            Full::Gateway => (RejectReason::Full.name(), "no room for a session"),
            Full::Token => ("token", "the token has as many sessions as it may"),
        }
    }
}
