//! Tokens and connections whose end is known, left before it comes.

use std::time::Duration;

use super::Core;
use crate::auth::TokenGeneration;
use crate::recovery::Recovery;
use crate::session::error::Failure;
use crate::session::links::{Attempt, Link, Live, Motive, Swap, ends};
#[cfg(feature = "test-util")]
use crate::session::planted::Planted;
use crate::session::protocol::GoawayReason;

/// How long before its end a token is replaced at most, as the token provider has it.
const LONGEST_MARGIN: Duration = Duration::from_secs(300);
/// A token that lives for less is replaced at leisure, if the one before lived no longer.
const SHORT_LIFE: Duration = Duration::from_secs(1);
/// How many endpoints of a `goaway` are kept.
const MOST_ENDPOINTS: usize = 8;
/// The most that a move is put off so that not everybody moves at once.
const LONGEST_SPREAD: Duration = Duration::from_secs(1);

impl Core {
    /// A token is in force, for as long as the peer says.
    pub(super) fn token_in_force(
        &mut self,
        generation: TokenGeneration,
        expires_in_ms: Option<u64>,
        auth: bool,
        now: Duration,
    ) {
        if self.in_force.replace(generation).is_some_and(|before| before < generation) {
            self.ledger.token_swaps += 1;
        }
        let hasty = self.changed_lately(now);
        if !hasty {
            self.swap_backoff.reset();
        }
        self.changed = now;
        if self.restart {
            // What this server has asked for meanwhile comes first.
            let until = now.saturating_add(self.random.up_to(LONGEST_SPREAD));
            let motive = Motive { newer: false, in_band: false };
            self.swap = Some(Swap::Attempt(motive, Attempt::Waiting { until }));
            return;
        }
        self.swap = expires_in_ms.map(|life| {
            let life = Duration::from_millis(life);
            // In its last fifth, or last five minutes; spread out, for a thousand sessions may share the token.
            let margin = (life / 5).min(LONGEST_MARGIN);
            let early = margin / 2 + self.random.up_to(margin / 2);
            #[cfg(feature = "test-util")]
            let early = if self.planted(Planted::NoJitter) { margin / 2 } else { early };
            // A peer whose tokens live for a moment would have us do nothing else.
            let pause =
                if hasty && life < SHORT_LIFE { self.swap_backoff.next_delay() } else { Duration::ZERO };
            let until = now.saturating_add(life.saturating_sub(early).max(pause));
            let motive = Motive { newer: true, in_band: auth && self.settings.in_band_auth };
            Swap::Attempt(motive, Attempt::Waiting { until })
        });
    }

    pub(super) fn authenticated(&mut self, live: Live, expires_in_ms: Option<u64>, now: Duration) {
        let Some(Swap::Authenticating { generation, .. }) = self.swap else { return };
        self.link = Link::Live(Live { generation, token_ends: ends(expires_in_ms, now), ..live });
        self.token_in_force(generation, expires_in_ms, live.auth, now);
    }

    /// The peer will close this connection by the deadline.
    pub(super) fn warned(&mut self, live: Live, reason: GoawayReason, deadline: Duration, now: Duration) {
        let newer = reason == GoawayReason::Token;
        if self.finish_sent && !newer {
            // What is left is the peer's to do, and it means to do it: moving would only disturb it.
            return;
        }
        let (due, planned) = match self.swap {
            None => (None, false),
            Some(Swap::Attempt(motive, Attempt::Waiting { until })) => (Some(until), motive.newer),
            // Under way already.
            Some(_) => return,
        };
        // Not all at once: everybody here was told the same. Nor without end, if a peer says it again and again.
        let spread = self.random.up_to((deadline / 2).min(LONGEST_SPREAD));
        let pause = if self.changed_lately(now) { self.swap_backoff.next_delay() } else { Duration::ZERO };
        let soon = now.saturating_add(spread.max(pause));
        let until = due.filter(|_| newer).map_or(soon, |due| due.min(soon));
        let in_band = newer && live.auth && self.settings.in_band_auth;
        let motive = Motive { newer: newer || planned, in_band };
        self.swap = Some(Swap::Attempt(motive, Attempt::Waiting { until }));
    }

    /// The peer wants the session to start anew, at one of these endpoints.
    pub(super) fn sent_elsewhere(&mut self, mut endpoints: Vec<String>) {
        let under_way = self.swap.as_ref().and_then(Swap::call).is_some_and(|call| call.anew);
        if !self.finish_sent && !under_way {
            endpoints.truncate(MOST_ENDPOINTS);
            (self.restart, self.successors) = (true, endpoints);
        }
    }

    /// Stays where it is: no session starts in place of this one.
    pub(super) fn cancel_restart(&mut self) {
        let swap = self.swap.take();
        self.hang_up(swap);
        self.restart = false;
    }

    /// Returns whether a session was asked to start in place of this one, and has not answered.
    pub(super) fn is_starting_anew(&self) -> bool {
        matches!(self.swap, Some(Swap::Attempt(_, Attempt::Opening(call))) if call.anew)
    }

    /// Whether the last change of token or connection was only just made.
    fn changed_lately(&self, now: Duration) -> bool {
        self.ever_ready && now.saturating_sub(self.changed) < self.settings.healthy_after
    }

    /// What was to make the change failed; the present connection still runs.
    pub(super) fn swap_failed(&mut self, motive: Motive, failure: &Failure, now: Duration) {
        tracing::debug!(reason = %failure.reason, "session not moved yet");
        let delay = match failure.recovery {
            Recovery::RetryAfter(wait) => wait.max(self.swap_backoff.next_delay()),
            Recovery::Retry | Recovery::RefreshToken => self.swap_backoff.next_delay(),
            // The present connection may outlive the reason; if not, its end will tell.
            Recovery::Fatal => {
                (self.swap, self.restart) = (None, false);
                return;
            }
        };
        if self.restart && !self.successors.is_empty() {
            // The next may be better.
            self.successors.rotate_left(1);
        }
        let until = now.saturating_add(delay);
        let motive = Motive { newer: motive.newer || failure.recovery == Recovery::RefreshToken, ..motive };
        self.swap = Some(Swap::Attempt(motive, Attempt::Waiting { until }));
    }

    pub(super) fn swap_due(&mut self, live: Live, swap: Swap, now: Duration) {
        let fetching = Attempt::Fetching { since: now };
        match swap {
            Swap::Attempt(motive, Attempt::Waiting { .. }) => {
                self.swap = Some(Swap::Attempt(motive, fetching));
                self.need_token(motive.newer.then_some(live.generation));
            }
            Swap::Attempt(motive, attempt) => {
                if let Some(call) = attempt.call() {
                    self.give_up(call);
                }
                self.swap_failed(motive, &attempt.overdue(&self.settings), now);
            }
            Swap::Authenticating { .. } => {
                // A peer that doesn't answer in band may still take a second connection.
                self.swap = Some(Swap::Attempt(Motive { newer: true, in_band: false }, fetching));
                self.need_token(Some(live.generation));
            }
        }
    }
}
