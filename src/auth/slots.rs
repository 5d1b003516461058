//! Accounting of a project's refresh-token slots: a project has 25 refresh tokens, and each
//! `client_credentials` request takes one.
//!
//! Each request is recorded on disk before it is sent. A process that crashes repeatedly between request
//! and response therefore finds the number of its requests on disk, and waits longer each time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use voxline_support::clock::Moment;

/// Documented limit of refresh tokens per project.
pub const MAX_SLOTS: usize = 25;
/// Maximum number of remembered requests, including those whose slot is free again.
const MEMORY: usize = 4 * MAX_SLOTS;
/// Wait after one recent request that yielded no lasting token. Each further one doubles the wait, up to
/// a day.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(86_400);

/// Reason not to request a new pair of tokens. The message says when the next request may be made, or where
/// slots are freed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SlotsError {
    /// Too many requests were made recently, and their tokens were lost or became invalid.
    #[error(
        "{requests} recent requests for a refresh token may each have taken one of the project's {MAX_SLOTS} \
         slots; next request in {} s", wait.as_secs_f64().ceil()
    )]
    TooSoon {
        /// Number of recent requests that count towards the wait.
        requests: usize,
        /// Remaining wait before the next request.
        wait: Duration,
    },
    /// All slots of the project are taken, according to this vault.
    #[error(
        "all {MAX_SLOTS} refresh token slots of the project are recorded as taken by this machine ({held}): free \
         them at the service, then run voxline token logout --forget"
    )]
    AllTaken {
        /// Summary of the requests that hold the slots.
        held: String,
    },
    /// All slots of the project are taken, according to the service.
    #[error(
        "the service reports that all refresh token slots of the project are taken (by this machine: {held}): \
         revoke unused refresh tokens at the service"
    )]
    Refused {
        /// Summary of the requests that this vault knows.
        held: String,
    },
}

/// One request for a refresh token, and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Time of the request.
    pub asked: Moment,
    /// Outcome of the request.
    pub state: SlotState,
}

/// Outcome of a request for a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// Unknown: no response was kept. The service may hold a refresh token that no client has.
    Unanswered,
    /// The refresh token is in force.
    Held,
    /// The refresh token was discarded without telling the service.
    Abandoned,
    /// The refresh token is invalid according to the service, or the service has revoked it.
    Free,
}

/// All requests that a vault remembers, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots(Vec<Slot>);

impl Slots {
    /// Returns the requests, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter()
    }

    /// Returns the number of the project's slots that this vault has taken, as far as it knows.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.iter().filter(|slot| slot.state != SlotState::Free).count()
    }

    /// Records a request that is about to be made.
    ///
    /// # Errors
    /// Returns [`SlotsError`] if the request must not be made now.
    pub(super) fn begin_request(&mut self, now: &Moment) -> Result<(), SlotsError> {
        if self.taken() >= MAX_SLOTS {
            return Err(SlotsError::AllTaken { held: self.to_string() });
        }
        let age = |slot: &Slot| slot.asked.age(now);
        let unanswered = self.0.iter().rev().take_while(|slot| slot.state == SlotState::Unanswered).count();
        let lately = self.0.iter().filter(|slot| age(slot).is_some_and(|age| age < DAY)).count();
        // One token whose response was kept may be replaced at once after it becomes invalid. A second
        // within a day must wait.
        let requests = if unanswered > 0 { unanswered } else { lately.saturating_sub(1) };
        if let Some(doublings) = requests.checked_sub(1) {
            let wait = FIRST_WAIT.saturating_mul(1 << doublings.min(16)).min(DAY);
            let since = self.0.last().and_then(age).unwrap_or(wait);
            if since < wait {
                return Err(SlotsError::TooSoon { requests, wait: wait - since });
            }
        }
        if self.0.len() >= MEMORY
            && let Some(oldest) = self.0.iter().position(|slot| slot.state == SlotState::Free)
        {
            self.0.remove(oldest);
        }
        self.0.push(Slot { asked: now.clone(), state: SlotState::Unanswered });
        Ok(())
    }

    /// Records the outcome of the last request. `None` removes the request: it was never made, or
    /// certainly not granted.
    pub(super) fn record_outcome(&mut self, state: Option<SlotState>) {
        match state {
            Some(state) => self.0.last_mut().expect("a request was begun").state = state,
            None => drop(self.0.pop()),
        }
    }

    /// Moves the refresh token in force, if any, to `state`.
    pub(super) fn release(&mut self, state: SlotState) {
        for slot in self.0.iter_mut().filter(|slot| slot.state == SlotState::Held) {
            slot.state = state;
        }
    }
}

impl std::fmt::Display for Slots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = |state| self.0.iter().filter(|slot| slot.state == state).count();
        let [held, unanswered, abandoned] =
            [SlotState::Held, SlotState::Unanswered, SlotState::Abandoned].map(count);
        write!(f, "{held} held, {unanswered} unanswered, {abandoned} abandoned")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        let time = Duration::from_secs(seconds);
        Moment { unix: time, since_boot: time, boot: "boot".into() }
    }

    #[test]
    fn a_crash_loop_asks_ever_more_rarely() {
        let mut slots = Slots::default();
        let asked: Vec<u64> =
            (0..86_400).filter(|second| slots.begin_request(&at(*second)).is_ok()).collect();
        assert_eq!(asked[..6], [0, 10, 30, 70, 150, 310]);
        // About half of the project's slots in the first day.
        assert_eq!((asked.len(), slots.taken()), (14, 14));
        // Once all slots are taken, the error reports what holds them.
        let all_taken = (0..200).find_map(|day| match slots.begin_request(&at(86_400 * (day + 1))) {
            Err(SlotsError::AllTaken { held }) => Some(held),
            _ => None,
        });
        assert_eq!(all_taken.unwrap(), "0 held, 25 unanswered, 0 abandoned");
    }

    #[test]
    fn a_token_that_dies_is_replaced_at_once_but_not_again_and_again() {
        let mut slots = Slots::default();
        for (second, granted) in
            [(0, true), (1, true), (2, false), (10, false), (11, true), (30, false), (31, true)]
        {
            assert_eq!(slots.begin_request(&at(second)).is_ok(), granted, "{second}");
            if granted {
                slots.record_outcome(Some(SlotState::Held));
                slots.release(SlotState::Free);
            }
        }
        assert_eq!(slots.taken(), 0);
    }

    #[test]
    fn a_request_that_was_not_granted_costs_nothing() {
        let mut slots = Slots::default();
        for second in 0..100 {
            slots.begin_request(&at(second)).unwrap();
            slots.record_outcome(None);
        }
        assert_eq!(slots, Slots::default());
    }
}
