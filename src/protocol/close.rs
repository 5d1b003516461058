//! Close codes of the protocol, and the recovery that each calls for.

use std::time::Duration;

use crate::recovery::Recovery;

/// Normal end of a finished session.
pub const NORMAL: u16 = 1000;
/// Going away: the server stops, or the page was left (RFC 6455, section 7.4.1).
pub const GOING_AWAY: u16 = 1001;
/// Policy violation (RFC 6455, section 7.4.1). Handled like [`TOKEN`]: other servers and proxies send it
/// for a refused token.
pub const POLICY: u16 = 1008;
/// A message too big for the peer.
pub const TOO_BIG: u16 = 1009;
/// An internal failure of the server.
pub const SERVER_FAULT: u16 = 1011;
/// A restart of the server.
pub const RESTART: u16 = 1012;
/// An overload of the server.
pub const TRY_LATER: u16 = 1013;
/// A violation of the protocol.
pub const PROTOCOL: u16 = 4400;
/// An expired or revoked token.
pub const TOKEN: u16 = 4401;
/// A token whose scope doesn't cover streaming, or whose budget is used up for good: see [`USED_UP`].
pub const SCOPE: u16 = 4403;
/// A session that doesn't exist on this server, or whose resume window is over: start again at `final`.
pub const SESSION_UNKNOWN: u16 = 4404;
/// A takeover of the session by another socket.
pub const MOVED: u16 = 4409;
/// A language or sample rate in `start` that is not available on this server.
pub const UNSUPPORTED: u16 = 4415;
/// A quota that is used up.
pub const QUOTA: u16 = 4429;

/// Code of the `error` message before a [`SCOPE`] close, if a budget is used up for good. The HTTP API
/// uses the same code.
pub const USED_UP: u32 = 403;

/// Wait before the next attempt at an overloaded peer that doesn't name a time.
const LONG_BACK_OFF: Duration = Duration::from_secs(5);

/// Returns the recovery that a close with this code calls for.
#[must_use]
pub fn recovery(code: u16) -> Recovery {
    match code {
        TOKEN | POLICY => Recovery::RefreshToken,
        PROTOCOL | TOO_BIG | SCOPE | UNSUPPORTED | 1002 | 1003 | 1007 | 1010 => Recovery::Fatal,
        TRY_LATER | QUOTA => Recovery::RetryAfter(LONG_BACK_OFF),
        _ => Recovery::Retry,
    }
}
