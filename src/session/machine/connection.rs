//! Connections of a session: the one that carries the session, and the successor of a handover.

use std::time::Duration;

use super::io::ConnectionId;
use crate::auth::TokenGeneration;
use crate::peer::ConnectionLost;
use crate::protocol::close;
use crate::recovery::{Failure, FailureKind, Recovery};
use crate::session::settings::Settings;

/// A connection being established, and the token that it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    pub(super) id: ConnectionId,
    pub(super) generation: TokenGeneration,
    /// Time at which the token expires, if known.
    pub(super) token_expiry: Option<Duration>,
    /// Time at which the present stage began.
    pub(super) since: Duration,
    /// True if the connection takes over from one that was still running (handover).
    pub(super) is_handover: bool,
    /// True if a new session starts on the connection, while another server still has the session that it
    /// replaces.
    pub(super) new_session: bool,
}

/// A stage in establishing a connection.
#[derive(Clone, Copy, Debug)]
pub(super) enum Attempt {
    /// Waiting between two attempts.
    Waiting { until: Duration },
    /// Waiting for a token.
    Fetching { since: Duration },
    /// Waiting for a dial.
    Dialling(Pending),
    /// Waiting for `ready` after `start` or `resume` was sent.
    Opening(Pending),
}

impl Attempt {
    pub(super) fn pending(&self) -> Option<Pending> {
        match self {
            Attempt::Dialling(pending) | Attempt::Opening(pending) => Some(*pending),
            Attempt::Waiting { .. } | Attempt::Fetching { .. } => None,
        }
    }

    /// Returns the time at which the stage ends or times out.
    pub(super) fn due(&self, settings: &Settings) -> Duration {
        match self {
            Attempt::Waiting { until } => *until,
            Attempt::Fetching { since } => since.saturating_add(settings.timeouts.dial),
            Attempt::Dialling(pending) => pending.since.saturating_add(settings.timeouts.dial),
            Attempt::Opening(pending) => pending.since.saturating_add(settings.timeouts.opening),
        }
    }

    /// Returns the failure that a timeout of the stage means.
    pub(super) fn overdue(&self, settings: &Settings) -> Failure {
        let (what, limit) = match self {
            Attempt::Waiting { .. } | Attempt::Fetching { .. } => ("no token came", settings.timeouts.dial),
            Attempt::Dialling(_) => ("no connection was made", settings.timeouts.dial),
            Attempt::Opening(_) => ("the peer did not open the session", settings.timeouts.opening),
        };
        timed_out(what, limit)
    }
}

/// A connection that carries the session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Live {
    pub(super) id: ConnectionId,
    /// Generation of the token in force on the connection.
    pub(super) generation: TokenGeneration,
    /// Time at which the connection was ready.
    pub(super) opened: Duration,
    /// Time since which the session has been carried without interruption.
    pub(super) since: Duration,
    /// Time of the peer's last sign of life.
    pub(super) last_alive: Duration,
    /// Time of a ping that is not answered yet.
    pub(super) pinged: Option<Duration>,
    /// Time at which the token expires, as the peer reported.
    pub(super) token_expiry: Option<Duration>,
    /// True if the connection accepts a token in band.
    pub(super) auth: bool,
}

impl Live {
    pub(super) fn ping_due(&self, settings: &Settings) -> Duration {
        self.pinged.unwrap_or(self.last_alive).saturating_add(settings.timeouts.ping_interval)
    }
}

/// The connection that carries the session, or is meant to.
#[derive(Debug)]
pub(super) enum Connection {
    Attempting(Attempt),
    /// Established: audio flows.
    Live(Live),
    /// The session has ended.
    Ended,
}

/// The reason for a handover to another token or connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Motive {
    /// True if the token in force expires, so that a newer one is needed.
    pub(super) newer: bool,
    /// True if the newer token may be handed over in band.
    pub(super) in_band: bool,
}

/// A handover to another token or connection, made before the present one breaks (make-before-break).
#[derive(Clone, Copy, Debug)]
pub(super) enum Handover {
    /// Handover to another connection; also covers the stages up to the token of a handover in band.
    Attempt(Motive, Attempt),
    /// In-band handover: `auth` was sent, `auth_ok` has not arrived.
    Authenticating { generation: TokenGeneration, since: Duration },
}

impl Handover {
    pub(super) fn due(&self, settings: &Settings) -> Duration {
        match self {
            Handover::Attempt(_, attempt) => attempt.due(settings),
            Handover::Authenticating { since, .. } => since.saturating_add(settings.timeouts.opening),
        }
    }

    /// Returns the second connection, if one is being established.
    pub(super) fn pending(&self) -> Option<Pending> {
        match self {
            Handover::Attempt(_, attempt) => attempt.pending(),
            Handover::Authenticating { .. } => None,
        }
    }
}

/// Returns the time at which a token expires, given the lifetime that the peer reported.
pub(super) fn expiry(expires_in_ms: Option<u64>, now: Duration) -> Option<Duration> {
    Some(now.saturating_add(Duration::from_millis(expires_in_ms?)))
}

/// Returns the failure of a connection that was lost, which may pass.
pub(super) fn connection_lost(lost: ConnectionLost) -> Failure {
    Failure::new(Recovery::Retry, FailureKind::Unreachable, "the session was interrupted").caused_by(lost)
}

pub(super) fn timed_out(what: &str, limit: Duration) -> Failure {
    let reason = format!("{what} for {} s", limit.as_secs_f64());
    Failure::new(Recovery::Retry, FailureKind::Unreachable, reason)
}

/// Classifies a close by the peer. `error_code` is the code of an `error` message before it.
pub(super) fn closed(code: u16, reason: &str, error_code: Option<u32>) -> Failure {
    let recovery = close::recovery(code);
    let kind = match (recovery, code) {
        (_, close::SCOPE) if error_code == Some(close::USED_UP) => FailureKind::Limit,
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
    Failure::new(recovery, kind, reason)
}
