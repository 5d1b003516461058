//! Handovers (make-before-break): replacement of tokens and connections before their known end.

use std::time::Duration;

use super::Machine;
use super::connection::{Attempt, Connection, Handover, Live, Motive, expiry, timed_out};
use crate::auth::{TokenGeneration, renewal_margin};
use crate::error::chain;
use crate::protocol::{GoawayReason, close};
use crate::recovery::{Failure, Recovery};
use crate::session::error::SessionError;

/// Lifetime below which a token is replaced with backoff, if the last change of token or connection was
/// recent.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// Most endpoints of a `goaway` that are kept.
const ENDPOINTS_MAX: usize = 8;
/// Longest random delay of a handover, so that not all sessions move at once.
const LONGEST_SPREAD: Duration = Duration::from_secs(1);

impl Machine {
    /// Records that a token is in force, for as long as the peer says, and plans its replacement.
    pub(super) fn token_in_force(
        &mut self,
        generation: TokenGeneration,
        expires_in_ms: Option<u64>,
        auth: bool,
        now: Duration,
    ) {
        if self.tokens.in_force.replace(generation).is_some_and(|before| before < generation) {
            self.ledger.token_renewals += 1;
        }
        let hasty = self.changed_recently(now);
        if !hasty {
            self.connections.handover_backoff.reset();
        }
        self.timers.changed = now;
        if self.server.restart {
            // The restart that the server has asked for takes precedence.
            let until = now.saturating_add(self.random.up_to(LONGEST_SPREAD));
            let motive = Motive { newer: false, in_band: false };
            self.connections.handover = Some(Handover::Attempt(motive, Attempt::Waiting { until }));
            return;
        }
        self.connections.handover = expires_in_ms.map(|life| {
            let life = Duration::from_millis(life);
            let early = self.lead_time(life);
            // A peer whose tokens live for a moment would otherwise keep the session busy with handovers.
            let pause = if hasty && life < SHORT_LIFE {
                self.connections.handover_backoff.next_delay()
            } else {
                Duration::ZERO
            };
            let until = now.saturating_add(life.saturating_sub(early).max(pause));
            let motive = Motive { newer: true, in_band: auth && self.settings.in_band_auth };
            Handover::Attempt(motive, Attempt::Waiting { until })
        });
        self.plan_for_limit();
    }

    pub(super) fn authenticated(&mut self, live: Live, expires_in_ms: Option<u64>, now: Duration) {
        let Some(Handover::Authenticating { generation, .. }) = self.connections.handover else { return };
        self.connections.current =
            Connection::Live(Live { generation, token_expiry: expiry(expires_in_ms, now), ..live });
        self.token_in_force(generation, expires_in_ms, live.auth, now);
    }

    /// Plans the replacement of a connection whose session the peer ends after a known time, unless a
    /// handover is planned before that.
    fn plan_for_limit(&mut self) {
        let (Some(longest), Connection::Live(live)) =
            (self.capabilities.longest_session, &self.connections.current)
        else {
            return;
        };
        let opened = live.opened;
        let until = opened.saturating_add(longest.saturating_sub(self.lead_time(longest)));
        let sooner = match self.connections.handover {
            Some(Handover::Attempt(_, Attempt::Waiting { until: planned })) => until < planned,
            Some(_) => false,
            None => true,
        };
        if sooner {
            let motive = Motive { newer: false, in_band: false };
            self.connections.handover = Some(Handover::Attempt(motive, Attempt::Waiting { until }));
        }
    }

    /// Returns how long before its end something of this life is replaced: at a random time in the second
    /// half of its margin, since a thousand sessions may share it.
    fn lead_time(&mut self, life: Duration) -> Duration {
        let margin = renewal_margin(life);
        margin / 2 + self.random.up_to(margin / 2)
    }

    /// Returns the wait before a change of connection: none, unless the last change was recent.
    pub(super) fn handover_pause(&mut self, now: Duration) -> Duration {
        if self.changed_recently(now) {
            self.connections.handover_backoff.next_delay()
        } else {
            Duration::ZERO
        }
    }

    /// Processes a `goaway`: the peer will close this connection by the deadline.
    pub(super) fn receive_goaway(
        &mut self,
        live: Live,
        reason: GoawayReason,
        deadline: Duration,
        now: Duration,
    ) {
        let newer = reason == GoawayReason::Token;
        if self.source.finish_sent.is_some() && !newer {
            // Only the peer's work is left, and the peer intends to finish it: a handover would only
            // disturb that.
            return;
        }
        let (due, planned) = match self.connections.handover {
            None => (None, false),
            Some(Handover::Attempt(motive, Attempt::Waiting { until })) => (Some(until), motive.newer),
            // A handover is already in progress.
            Some(_) => return,
        };
        // The delay is random, since all sessions here get the same notice. It has a backoff, since a
        // peer may repeat the notice endlessly.
        let spread = self.random.up_to((deadline / 2).min(LONGEST_SPREAD));
        let pause = self.handover_pause(now);
        let soon = now.saturating_add(spread.max(pause));
        let until = due.filter(|_| newer).map_or(soon, |due| due.min(soon));
        let in_band = newer && live.auth && self.settings.in_band_auth;
        let motive = Motive { newer: newer || planned, in_band };
        self.connections.handover = Some(Handover::Attempt(motive, Attempt::Waiting { until }));
    }

    /// Records that the peer wants the session to start anew, at one of `endpoints`.
    pub(super) fn redirect(&mut self, mut endpoints: Vec<String>) {
        let under_way = self
            .connections
            .handover
            .as_ref()
            .and_then(Handover::pending)
            .is_some_and(|pending| pending.new_session);
        if self.source.finish_sent.is_none() && !under_way {
            endpoints.truncate(ENDPOINTS_MAX);
            (self.server.restart, self.server.successors) = (true, endpoints);
        }
    }

    /// Cancels the replacement session, so that the present session stays with its server.
    pub(super) fn cancel_restart(&mut self) {
        let handover = self.connections.handover.take();
        self.close_successor(handover);
        self.server.restart = false;
    }

    /// Returns whether the last change of token or connection happened less than `healthy_after` ago.
    fn changed_recently(&self, now: Duration) -> bool {
        self.connections.ever_ready
            && now.saturating_sub(self.timers.changed) < self.settings.timeouts.healthy_after
    }

    /// Handles the failure of a handover while the present connection still runs.
    pub(super) fn handover_failed(&mut self, motive: Motive, failure: &Failure, now: Duration) {
        tracing::debug!(reason = %chain(failure), "no handover yet");
        let delay = match failure.recovery {
            Recovery::RetryAfter(wait) => wait.max(self.connections.handover_backoff.next_delay()),
            Recovery::Retry | Recovery::RefreshToken => self.connections.handover_backoff.next_delay(),
            // The present connection may outlive the reason of the failure; if not, its own end decides.
            Recovery::Fatal => {
                (self.connections.handover, self.server.restart) = (None, false);
                return;
            }
        };
        if self.server.restart && !self.server.successors.is_empty() {
            // The next endpoint may work.
            self.server.successors.rotate_left(1);
        }
        let until = now.saturating_add(delay);
        let motive = Motive { newer: motive.newer || failure.recovery == Recovery::RefreshToken, ..motive };
        self.connections.handover = Some(Handover::Attempt(motive, Attempt::Waiting { until }));
    }

    /// Returns whether the session has been replaced repeatedly for `give_up`, although the peer has made no
    /// progress. Each new session begins with the same audio, so no connection would ever be old enough to
    /// count as dead.
    fn is_stuck(&mut self, live: Live, handover: &Handover, now: Duration) -> bool {
        let replaces = !self.capabilities.resume
            && matches!(handover, Handover::Attempt(motive, Attempt::Waiting { .. }) if !motive.newer);
        if !replaces || !self.awaits_progress() || self.timers.last_served > live.opened {
            return false;
        }
        let since = *self.timers.failing_since.get_or_insert(live.opened);
        now.saturating_sub(since) >= self.settings.timeouts.give_up
    }

    pub(super) fn handover_due(&mut self, live: Live, handover: Handover, now: Duration) {
        let fetching = Attempt::Fetching { since: now };
        match handover {
            // Only the peer's work is left, and a new session would begin it again.
            Handover::Attempt(motive, Attempt::Waiting { .. })
                if self.source.finish_sent.is_some() && !motive.newer && !self.capabilities.resume =>
            {
                self.connections.handover = None;
            }
            Handover::Attempt(..) if self.is_stuck(live, &handover, now) => {
                let failure = timed_out("the peer made no progress", self.settings.timeouts.give_up);
                self.end(Err(SessionError::from(failure)), close::GOING_AWAY);
            }
            Handover::Attempt(motive, Attempt::Waiting { .. }) => {
                self.connections.handover = Some(Handover::Attempt(motive, fetching));
                self.need_token(motive.newer.then_some(live.generation));
            }
            Handover::Attempt(motive, attempt) => {
                if let Some(pending) = attempt.pending() {
                    self.close_pending(pending);
                }
                self.handover_failed(motive, &attempt.overdue(&self.settings), now);
            }
            Handover::Authenticating { .. } => {
                // A peer that doesn't answer in band may still accept a second connection.
                self.connections.handover =
                    Some(Handover::Attempt(Motive { newer: true, in_band: false }, fetching));
                self.need_token(Some(live.generation));
            }
        }
    }
}
