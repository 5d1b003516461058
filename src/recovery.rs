//! Suggested recovery from a failure, as data.

use std::time::Duration;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Recovery that the failure calls for.
    pub recovery: Recovery,
    /// Kind of the error, should the failure end the session.
    pub kind: FailureKind,
    /// Description of the failure, naming the peer; never contains a token or a body.
    pub reason: String,
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
