//! Suggested recovery from a failure, as data.

use std::time::Duration;

use crate::error::Cause;

/// Next step after a failure. Errors of communication carry it, so that callers need not parse messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Retry after the caller's own backoff.
    Retry,
    /// Retry, but not before this time has passed: the peer asked for it.
    RetryAfter(Duration),
    /// The access token was refused: get a newer one, then retry. A second refusal in a row is fatal.
    RefreshToken,
    /// A retry cannot help.
    Fatal,
}

impl Recovery {
    /// Returns the recovery from an HTTP response with this status. `retry_after` is the value of its
    /// `Retry-After` header, if present.
    ///
    /// 408, 429 and the 5xx that stand for a transient condition can be retried. 401 requires a new token
    /// (RFC 9110, section 15.5.2). Every other status except success is final.
    ///
    /// The types of the crate `http` are part of the API on purpose, here and in [`retry_after`]: an adapter
    /// that makes requests has them at hand, whatever its client is.
    #[must_use]
    pub fn from_status(status: http::StatusCode, retry_after: Option<Duration>) -> Recovery {
        match status.as_u16() {
            401 => Recovery::RefreshToken,
            408 | 429 | 500 | 502 | 503 | 504 => retry_after.map_or(Recovery::Retry, Recovery::RetryAfter),
            _ => Recovery::Fatal,
        }
    }
}

/// A failure on the way to the peer, and the recovery that it calls for.
///
/// ```
/// use std::io;
/// use voxline::error::chain;
/// use voxline::recovery::{Failure, FailureKind, Recovery};
///
/// let error = io::Error::from(io::ErrorKind::ConnectionRefused);
/// let reason = "cannot reach 127.0.0.1:2700";
/// let failure = Failure::new(Recovery::Retry, FailureKind::Unreachable, reason).caused_by(error);
/// assert_eq!(failure.to_string(), "cannot reach 127.0.0.1:2700");
/// assert_eq!(chain(&failure).to_string(), "cannot reach 127.0.0.1:2700: connection refused");
/// ```
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reason}")]
#[non_exhaustive]
pub struct Failure {
    /// Recovery that the failure calls for.
    pub recovery: Recovery,
    /// Kind of the error, should the failure end the session.
    pub kind: FailureKind,
    /// Description of the failure, naming the peer; never contains a token, a body, or the message of
    /// `source`.
    pub reason: String,
    /// Error behind the failure, if there is one.
    pub source: Option<Cause>,
}

impl Failure {
    /// Creates a failure with no error behind it.
    #[must_use]
    pub fn new(recovery: Recovery, kind: FailureKind, reason: impl Into<String>) -> Failure {
        Failure { recovery, kind, reason: reason.into(), source: None }
    }

    /// Sets the error behind the failure.
    #[must_use]
    pub fn caused_by(self, error: impl Into<Cause>) -> Failure {
        Failure { source: Some(error.into()), ..self }
    }
}

/// The kinds of failure that users distinguish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailureKind {
    /// The peer could not be reached, or the connection could not be kept.
    Unreachable,
    /// The peer did not accept the token.
    Authentication,
    /// Tokens can't be stored or read on this machine.
    Vault,
    /// The peer has no capacity for this session.
    Limit,
    /// The peer doesn't support what was requested.
    Unsupported,
    /// The peer doesn't speak the protocol.
    Protocol,
}

/// Parses a `Retry-After` header in seconds. The other form, a date, is ignored: a client whose clock is
/// wrong would wait for years.
#[must_use]
pub fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse::<u32>().ok()?;
    Some(Duration::from_secs(u64::from(seconds)))
}
