//! Connections of a session: the one that carries it, and the one that is to take it over.

use std::time::Duration;

use super::close;
use super::error::{Failure, FailureKind};
use super::events::ConnectionId;
use super::settings::Settings;
use crate::auth::TokenGeneration;
use crate::recovery::Recovery;

/// A connection under way, and the token it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) id: ConnectionId,
    pub(super) generation: TokenGeneration,
    /// When that token ends, where that is known.
    pub(super) token_ends: Option<Duration>,
    /// When its present stage began.
    pub(super) since: Duration,
    /// Whether it takes over from a connection that still ran.
    pub(super) moving: bool,
    /// Whether a session starts on it, while another server still has the one that it replaces.
    pub(super) anew: bool,
}

/// The way to a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attempt {
    /// Between two tries.
    Waiting { until: Duration },
    /// A token is on its way.
    Fetching { since: Duration },
    /// A dial is under way.
    Dialing(Call),
    /// `start` or `resume` is sent, `ready` has not come.
    Opening(Call),
}

impl Attempt {
    pub(super) fn call(&self) -> Option<Call> {
        match self {
            Attempt::Dialing(call) | Attempt::Opening(call) => Some(*call),
            Attempt::Waiting { .. } | Attempt::Fetching { .. } => None,
        }
    }

    /// When its stage has lasted long enough.
    pub(super) fn due(&self, settings: &Settings) -> Duration {
        match self {
            Attempt::Waiting { until } => *until,
            Attempt::Fetching { since } => since.saturating_add(settings.dial_timeout),
            Attempt::Dialing(call) => call.since.saturating_add(settings.dial_timeout),
            Attempt::Opening(call) => call.since.saturating_add(settings.opening_timeout),
        }
    }

    /// What it means that the stage has lasted that long.
    pub(super) fn overdue(&self, settings: &Settings) -> Failure {
        let (what, limit) = match self {
            Attempt::Waiting { .. } | Attempt::Fetching { .. } => ("no token came", settings.dial_timeout),
            Attempt::Dialing(_) => ("no connection was made", settings.dial_timeout),
            Attempt::Opening(_) => ("the peer did not open the session", settings.opening_timeout),
        };
        silence(what, limit)
    }
}

/// A connection that carries the session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub(super) id: ConnectionId,
    /// The token in force on it.
    pub(super) generation: TokenGeneration,
    /// Since when the session has been carried without a break.
    pub(super) since: Duration,
    /// When the peer last gave a sign of life.
    pub(super) heard: Duration,
    /// When it was asked for one that has not come yet.
    pub(super) pinged: Option<Duration>,
    /// When that token ends, as the peer says.
    pub(super) token_ends: Option<Duration>,
    /// Whether it takes a token in band.
    pub(super) auth: bool,
}

impl Live {
    pub(super) fn ping_due(&self, settings: &Settings) -> Duration {
        self.pinged.unwrap_or(self.heard).saturating_add(settings.ping_interval)
    }
}

/// The connection that carries the session, or will.
#[derive(Debug)]
pub(super) enum Link {
    Attempting(Attempt),
    /// Audio flows.
    Live(Live),
    /// The session is over.
    Ended,
}

/// Why the session should leave the token or the connection it has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Motive {
    /// The token in force ends: a newer one is needed.
    pub(super) newer: bool,
    /// The newer one may be handed over in band.
    pub(super) in_band: bool,
}

/// The change to another token or connection, made before the present one breaks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Swap {
    /// To another connection, or as far as the two ways are one: up to the token.
    Attempt(Motive, Attempt),
    /// `auth` is sent, `auth_ok` has not come.
    Authenticating { generation: TokenGeneration, since: Duration },
}

impl Swap {
    pub(super) fn due(&self, settings: &Settings) -> Duration {
        match self {
            Swap::Attempt(_, attempt) => attempt.due(settings),
            Swap::Authenticating { since, .. } => since.saturating_add(settings.opening_timeout),
        }
    }

    /// The second connection, where there is one already.
    pub(super) fn call(&self) -> Option<Call> {
        match self {
            Swap::Attempt(_, attempt) => attempt.call(),
            Swap::Authenticating { .. } => None,
        }
    }
}

/// When a token ends that the peer gives so long.
pub(super) fn ends(expires_in_ms: Option<u64>, now: Duration) -> Option<Duration> {
    Some(now.saturating_add(Duration::from_millis(expires_in_ms?)))
}

/// A connection that can't be kept, for a reason that may pass.
pub(super) fn lost(reason: String) -> Failure {
    Failure { recovery: Recovery::Retry, kind: FailureKind::Unreachable, reason }
}

pub(super) fn silence(what: &str, limit: Duration) -> Failure {
    lost(format!("{what} for {} s", limit.as_secs_f64()))
}

/// What a close by the peer means, after an `error` with the code `told`.
pub(super) fn closed(code: u16, reason: &str, told: Option<u32>) -> Failure {
    let recovery = close::recovery(code);
    let kind = match (recovery, code) {
        (_, close::SCOPE) if told == Some(close::USED_UP) => FailureKind::Limit,
        (_, close::SCOPE) | (Recovery::RefreshToken, _) => FailureKind::Authentication,
        (_, close::QUOTA | close::TRY_LATER | close::TOO_BIG) => FailureKind::Limit,
        (_, close::UNSUPPORTED) => FailureKind::Unsupported,
        (Recovery::Fatal, _) => FailureKind::Protocol,
        _ => FailureKind::Unreachable,
    };
    let reason = match reason {
        "" => format!("the peer closed the connection with code {code}"),
        reason => format!("the peer closed the connection with code {code}: {reason}"),
    };
    Failure { recovery, kind, reason }
}
