//! Close codes of the protocol, and what each asks of the client.

use std::time::Duration;

use crate::recovery::Recovery;

/// Done: the normal end of a finished session.
pub const NORMAL: u16 = 1000;
/// Going away: the server stops, or the page was left (RFC 6455, section 7.4.1).
pub const GOING_AWAY: u16 = 1001;
/// A message of a kind the peer can't take.
pub const POLICY: u16 = 1008;
/// A message too big for the peer.
pub const TOO_BIG: u16 = 1009;
/// The server failed.
pub const SERVER_FAULT: u16 = 1011;
/// The server restarts.
pub const RESTART: u16 = 1012;
/// The server has too much to do.
pub const TRY_LATER: u16 = 1013;
/// The protocol was broken.
pub const PROTOCOL: u16 = 4400;
/// The token expired or was revoked.
pub const TOKEN: u16 = 4401;
/// The token's scope doesn't cover streaming, or its budget is used up for good: see [`USED_UP`].
pub const SCOPE: u16 = 4403;
/// No such session here, or its window is over: start again at `final`.
pub const SESSION_UNKNOWN: u16 = 4404;
/// Another socket took the session over.
pub const MOVED: u16 = 4409;
/// What `start` asks for (language, sample rate) is not available here.
pub const UNSUPPORTED: u16 = 4415;
/// The quota is used up.
pub const QUOTA: u16 = 4429;

/// The code of the `error` before a [`SCOPE`], where a budget is used up for good: that of the HTTP API.
pub const USED_UP: u32 = 403;

/// How long to stay away from a peer that says it has too much to do and doesn't say how long.
const LONG_BACK_OFF: Duration = Duration::from_secs(5);

/// What a close with this code calls for.
#[must_use]
pub fn recovery(code: u16) -> Recovery {
    match code {
        TOKEN | POLICY => Recovery::RefreshToken,
        PROTOCOL | TOO_BIG | SCOPE | UNSUPPORTED | 1002 | 1003 | 1007 | 1010 => Recovery::Fatal,
        TRY_LATER | QUOTA => Recovery::RetryAfter(LONG_BACK_OFF),
        _ => Recovery::Retry,
    }
}
