//! Tokens and connections whose end is known, left before it comes.

use std::time::Duration;

use super::Core;
use crate::auth::TokenGeneration;
use crate::recovery::Recovery;
use crate::session::close;
use crate::session::error::Failure;
use crate::session::events::Output;
use crate::session::links::{Attempt, Link, Live, Motive, Swap};
use crate::session::protocol::GoawayReason;

/// How long before its end a token is replaced at most, as the token provider has it.
const LONGEST_MARGIN: Duration = Duration::from_secs(300);
/// The least time between two swaps: a peer whose tokens live for less would have us do nothing else.
const SHORTEST_LIFE: Duration = Duration::from_millis(100);
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
        self.swap_backoff.reset();
        self.swap = expires_in_ms.map(|life| {
            let life = Duration::from_millis(life);
            // In its last fifth, or last five minutes; spread out, for a thousand sessions may share the token.
            let margin = (life / 5).min(LONGEST_MARGIN);
            let early = margin / 2 + self.random.up_to(margin / 2);
            let until = now.saturating_add(life.saturating_sub(early).max(SHORTEST_LIFE));
            let motive = Motive { newer: true, in_band: auth && self.settings.in_band_auth };
            Swap::Attempt(motive, Attempt::Waiting { until })
        });
    }

    pub(super) fn authenticated(&mut self, live: Live, expires_in_ms: Option<u64>, now: Duration) {
        let Some(Swap::Authenticating { generation, .. }) = self.swap else { return };
        self.link = Link::Live(Live { generation, ..live });
        self.token_in_force(generation, expires_in_ms, live.auth, now);
    }

    /// The peer will close this connection by the deadline.
    pub(super) fn warned(&mut self, live: Live, reason: GoawayReason, deadline: Duration, now: Duration) {
        let newer = reason == GoawayReason::Token;
        if self.finish_sent && !newer {
            // What is left is the peer's to do, and it means to do it: moving would only disturb it.
            return;
        }
        if !matches!(self.swap, None | Some(Swap::Attempt(_, Attempt::Waiting { .. }))) {
            return;
        }
        // Not all at once: everybody here was told the same.
        let until = now.saturating_add(self.random.up_to((deadline / 2).min(LONGEST_SPREAD)));
        let motive = Motive { newer, in_band: newer && live.auth && self.settings.in_band_auth };
        self.swap = Some(Swap::Attempt(motive, Attempt::Waiting { until }));
    }

    /// What was to make the change failed; the present connection still runs.
    pub(super) fn swap_failed(&mut self, motive: Motive, failure: &Failure, now: Duration) {
        tracing::debug!(reason = %failure.reason, "session not moved yet");
        let delay = match failure.recovery {
            Recovery::RetryAfter(wait) => wait.max(self.swap_backoff.next_delay()),
            Recovery::Retry | Recovery::RefreshToken => self.swap_backoff.next_delay(),
            // The present connection may outlive the reason; if not, its end will tell.
            Recovery::Fatal => {
                self.swap = None;
                return;
            }
        };
        let until = now.saturating_add(delay);
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
                    self.outputs.push_back(Output::Close(call.id, close::GOING_AWAY));
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
