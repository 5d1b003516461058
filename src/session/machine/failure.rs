//! Failures: lost connections, and recovery from them.

use std::time::Duration;

use super::Machine;
use super::connection::{Attempt, Connection, Handover, Live, Pending, closed, timed_out};
use super::io::{ConnectionId, Output};
use crate::auth::TokenGeneration;
use crate::error::chain;
use crate::protocol::close;
use crate::recovery::{Failure, FailureKind, Recovery};
use crate::session::error::SessionError;
use crate::session::settings::Timeouts;

/// Divisor of `give_up`: after that fraction of it, a session leaves an unreachable server to which it
/// was sent.
const REDIRECT_PATIENCE_DIVISOR: u32 = 4;

impl Machine {
    pub(super) fn closed(&mut self, id: ConnectionId, code: u16, reason: &str, now: Duration) {
        if self.connections.is_current(id) {
            if code == close::MOVED
                && let Some(Handover::Attempt(_, attempt @ Attempt::Opening(_))) = self.connections.handover
            {
                // The successor has the session, and its `ready` is on the way.
                self.connections.current = Connection::Attempting(attempt);
                self.connections.handover = None;
                return;
            }
            // The peer may blame this process for what an earlier process did. A new session avoids that.
            if code == close::SESSION_UNKNOWN || code == close::PROTOCOL && self.server.inherited {
                self.forget_server();
                return self.connection_failed(&closed(close::SESSION_UNKNOWN, reason, None), now);
            }
        } else if self.connections.is_successor(id) && code == close::SESSION_UNKNOWN {
            // The successor connection reached a server that doesn't know the session. The present server
            // still serves: stay with it as long as that lasts.
            self.connections.handover = None;
            return;
        }
        let error_code = self.connections.error.filter(|(error_id, _)| *error_id == id).map(|(_, code)| code);
        self.failed(id, &closed(code, reason, error_code), now);
    }

    /// Gives up a session of an earlier process: the server holds audio that was lost with that process,
    /// or knows of an end of the session that this process doesn't.
    pub(super) fn abandon_inherited(&mut self, now: Duration) {
        self.close_current(close::NORMAL);
        self.forget_server();
        // The peer accepted the token.
        self.tokens.refused = None;
        self.connections.current = Connection::Attempting(Attempt::Waiting { until: now });
    }

    /// Forgets the server's session: everything above `final` is sent again.
    pub(super) fn forget_server(&mut self) {
        // The second connection asked for the session that is given up.
        let handover = self.connections.handover.take();
        self.close_successor(handover);
        // From now on the session is one that has begun, with the patience for that (`give_up`).
        self.connections.ever_ready |= self.server.inherited;
        self.server.forget();
        self.positions.start_at(self.final_pos());
        // The next session starts after gaps that would never be sent.
        self.report_gaps(self.replay.end());
    }

    pub(super) fn failed(&mut self, id: ConnectionId, failure: &Failure, now: Duration) {
        if self.connections.is_current(id) {
            self.connection_failed(failure, now);
        } else if let Some(Handover::Attempt(motive, attempt)) = self.connections.handover
            && attempt.pending().is_some_and(|pending| pending.id == id)
        {
            self.handover_failed(motive, failure, now);
        }
    }

    /// Handles a failure to obtain a token, for the connection or for its successor.
    pub(super) fn token_failed(&mut self, failure: Failure, now: Duration) {
        self.connections.fetching = false;
        let failure = self.with_refusal(failure);
        match (&self.connections.current, self.connections.handover) {
            (Connection::Attempting(Attempt::Fetching { .. }), _) => self.connection_failed(&failure, now),
            (Connection::Live(_), Some(Handover::Attempt(motive, Attempt::Fetching { .. }))) => {
                self.handover_failed(motive, &failure, now);
            }
            _ => {}
        }
    }

    /// Adds the reason of the last refusal to a failure to replace the refused token: the service knows
    /// the reason, the issuer of tokens doesn't.
    fn with_refusal(&self, failure: Failure) -> Failure {
        let replaces = self.tokens.refused.is_some() && failure.kind == FailureKind::Authentication;
        if failure.recovery != Recovery::Fatal || !replaces {
            return failure;
        }
        let why = failure.source.as_deref().map_or(failure.reason, |source| chain(source).to_string());
        Failure { reason: format!("{}; {why}", self.tokens.refusal), source: None, ..failure }
    }

    /// Handles the end of the connection that carries the session, or of the attempt to make one. Decides
    /// what follows: the successor connection, another dial (now or later), or the end of the session.
    pub(super) fn connection_failed(&mut self, failure: &Failure, now: Duration) {
        let handover = self.connections.handover.take();
        let (was_live, was_healthy) = match &self.connections.current {
            Connection::Live(live) => {
                (true, now.saturating_sub(live.since) >= self.settings.timeouts.healthy_after)
            }
            _ => (false, false),
        };
        if was_healthy {
            self.connections.backoff.reset();
        }
        let ends_session = self.ends_session(failure, handover, now);
        // The connection is gone, whatever comes next.
        self.connections.current = Connection::Attempting(Attempt::Waiting { until: now });
        if ends_session {
            self.close_successor(handover);
            return self.end(Err(SessionError::from(failure.clone())), close::GOING_AWAY);
        }
        tracing::debug!(reason = %chain(failure), "connection failed");
        if let Some(attempt) = self.promoted_successor(handover) {
            self.connections.current = Connection::Attempting(attempt);
            return;
        }
        self.close_successor(handover);
        let delay = self.redial_delay(failure.recovery, was_live && !was_healthy);
        self.connections.current = Connection::Attempting(Attempt::Waiting { until: now + delay });
    }

    /// Returns whether a failure ends the session: nothing helps against it, or the session has been failing
    /// for too long.
    fn ends_session(&mut self, failure: &Failure, handover: Option<Handover>, now: Duration) -> bool {
        let since = *self.timers.failing_since.get_or_insert(now);
        let begun = self.connections.ever_ready || self.server.inherited;
        let Timeouts { give_up, first_contact, .. } = self.settings.timeouts;
        let too_long = now.saturating_sub(since) >= if begun { give_up } else { first_contact };
        match failure.recovery {
            Recovery::Fatal => true,
            Recovery::RefreshToken => self.token_refused_again(failure, handover, now) || too_long,
            Recovery::Retry => too_long,
            // A session that sleeps longer than `give_up` is of no use to its caller.
            Recovery::RetryAfter(wait) => too_long || wait > give_up,
        }
    }

    /// Records that the peer refused the token. Returns whether it also refused the token before, which this
    /// one replaced.
    fn token_refused_again(&mut self, failure: &Failure, handover: Option<Handover>, now: Duration) -> bool {
        self.ledger.token_refusals += 1;
        self.tokens.refusal = chain(failure).to_string();
        let presented = self.presented_generation(handover, now);
        // A token that expired on the way says nothing about the next one.
        let expired = self.token_ended(now);
        self.tokens.refused.replace(presented).is_some() && !expired
    }

    /// Returns the stage of the successor connection, which takes the place of one that has failed. Returns
    /// `None` if there is no successor, or if it uses a token that was refused.
    fn promoted_successor(&self, handover: Option<Handover>) -> Option<Attempt> {
        let pending = handover.as_ref().and_then(Handover::pending)?;
        if self.tokens.refused.is_some_and(|refused| pending.generation <= refused) {
            return None;
        }
        let pending = Pending { is_handover: false, ..pending };
        Some(match handover {
            Some(Handover::Attempt(_, Attempt::Opening(_))) => Attempt::Opening(pending),
            _ => Attempt::Dialling(pending),
        })
    }

    /// Returns the wait before the next dial. `was_short` is `true` if the connection carried the session for
    /// less than the time after which it counts as healthy.
    fn redial_delay(&mut self, recovery: Recovery, was_short: bool) -> Duration {
        match recovery {
            // The token was at fault, not the peer: there is no reason to wait. But without backoff, a peer
            // that accepts a token and rejects it soon after would cause a loop of refreshes.
            Recovery::RefreshToken if !was_short => Duration::ZERO,
            Recovery::RetryAfter(wait) => wait.max(self.connections.backoff.next_delay()),
            _ => self.connections.backoff.next_delay(),
        }
    }

    /// Returns whether the token of a connection being established has expired.
    fn token_ended(&self, now: Duration) -> bool {
        let Connection::Attempting(attempt) = &self.connections.current else { return false };
        attempt.pending().and_then(|pending| pending.token_expiry).is_some_and(|end| now >= end)
    }

    /// Returns the generation of the token that the peer saw last.
    fn presented_generation(&self, handover: Option<Handover>, now: Duration) -> TokenGeneration {
        match (&self.connections.current, handover) {
            // If the old token has expired meanwhile, the refusal is about that one.
            (Connection::Live(live), Some(Handover::Authenticating { generation, .. }))
                if live.token_expiry.is_none_or(|end| now < end) =>
            {
                generation
            }
            (Connection::Live(live), _) => live.generation,
            (Connection::Attempting(attempt), _) => attempt.pending().map_or_else(
                // The refusal came from the token endpoint.
                || self.tokens.refused.or(self.tokens.in_force).unwrap_or_default(),
                |pending| pending.generation,
            ),
            (Connection::Ended, _) => TokenGeneration::default(),
        }
    }

    /// Abandons the second connection, if there is one.
    pub(super) fn close_successor(&mut self, handover: Option<Handover>) {
        if let Some(pending) = handover.as_ref().and_then(Handover::pending) {
            self.close_pending(pending);
        }
    }

    /// Closes a second connection. A session started on it is no longer wanted; a session that was to be
    /// resumed on it still is.
    pub(super) fn close_pending(&mut self, pending: Pending) {
        let code = if pending.new_session { close::NORMAL } else { close::GOING_AWAY };
        self.outputs.push_back(Output::Close(pending.id, code));
    }

    /// Handles a failed dial to a server to which the session was sent. That server may be gone for good:
    /// after a while the session starts anew at the configured address.
    pub(super) fn return_to_configured(&mut self, id: ConnectionId, now: Duration) {
        let away = self
            .server
            .session
            .as_ref()
            .map_or(!self.server.successors.is_empty(), |server| !server.endpoints.is_empty());
        let since = self.timers.failing_since.unwrap_or(now);
        if self.connections.is_current(id)
            && away
            && now.saturating_sub(since) >= self.settings.timeouts.give_up / REDIRECT_PATIENCE_DIVISOR
        {
            self.forget_server();
            self.server.successors.clear();
        }
    }

    pub(super) fn tick(&mut self, now: Duration) {
        let (rate, rates) = (self.settings.sample_rate, &self.capabilities.sample_rates);
        if !rates.contains(&rate) {
            let (low, high) = (rates.start(), rates.end());
            let reason = format!("the service takes {low} to {high} frames per second, not {rate}");
            return self.end(Err(SessionError::Unsupported { reason, source: None }), close::GOING_AWAY);
        }
        match self.connections.current {
            Connection::Attempting(attempt) if now >= attempt.due(&self.settings) => match attempt {
                Attempt::Waiting { .. } => {
                    self.connections.current = Connection::Attempting(Attempt::Fetching { since: now });
                    self.need_token(self.tokens.refused);
                }
                attempt => {
                    if let Some(pending) = attempt.pending() {
                        self.outputs.push_back(Output::Close(pending.id, close::GOING_AWAY));
                    }
                    self.connection_failed(&attempt.overdue(&self.settings), now);
                }
            },
            Connection::Live(live) => self.tick_live(live, now),
            Connection::Attempting(_) | Connection::Ended => {}
        }
    }

    fn tick_live(&mut self, live: Live, now: Duration) {
        let Timeouts { ping_interval, progress, .. } = self.settings.timeouts;
        let ping_due = now >= live.ping_due(&self.settings);
        let dead = if self.awaits_progress() && now >= self.progress_due() {
            Some(timed_out("the peer made no progress", progress))
        } else if ping_due && live.pinged.is_some() {
            Some(timed_out("the peer gave no sign of life", 2 * ping_interval))
        } else {
            None
        };
        if let Some(failure) = dead {
            self.outputs.push_back(Output::Close(live.id, close::GOING_AWAY));
            return self.connection_failed(&failure, now);
        }
        if ping_due {
            self.connections.current = Connection::Live(Live { pinged: Some(now), ..live });
            self.outputs.push_back(Output::Ping(live.id));
        }
        if let Some(handover) =
            self.connections.handover.filter(|handover| now >= handover.due(&self.settings))
        {
            self.handover_due(live, handover, now);
        }
        self.pump(now);
    }
}
