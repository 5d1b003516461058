//! What a caller may do about a failure, as data.

use std::time::Duration;

/// What to do next about a failure. Errors on the way to the peer say it, so that nobody reads their text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Try again after the caller's own back-off.
    Retry,
    /// Try again, but not before this long: the peer asked for it.
    RetryAfter(Duration),
    /// The access token was refused: get a newer one, then try again. The second refusal in a row is fatal.
    RefreshToken,
    /// Trying again cannot help.
    Fatal,
}

impl Recovery {
    /// What an HTTP answer with this status calls for; `retry_after` is its `Retry-After`, where it had one.
    ///
    /// 408, 429 and the 5xx that stand for a passing condition can be tried again; 401 asks for a fresh token (RFC 9110,
    /// section 15.5.2); everything else that is not a success is final.
    #[must_use]
    pub fn from_status(status: http::StatusCode, retry_after: Option<Duration>) -> Recovery {
        match status.as_u16() {
            401 => Recovery::RefreshToken,
            408 | 429 | 500 | 502 | 503 | 504 => retry_after.map_or(Recovery::Retry, Recovery::RetryAfter),
            _ => Recovery::Fatal,
        }
    }
}

/// The delay that a `Retry-After` header in seconds asks for. Its other form, a date, is not understood: a client
/// whose clock is wrong would wait for years.
#[must_use]
pub fn retry_after(headers: &http::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(http::header::RETRY_AFTER)?.to_str().ok()?.trim().parse::<u32>().ok()?;
    Some(Duration::from_secs(u64::from(seconds)))
}
