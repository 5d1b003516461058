//! What a vault knows of the project's slots: a project has 25 refresh tokens, and each `client_credentials` takes one.
//!
//! A request is written down before it is made. So whoever dies between the request and the answer, again and again,
//! finds on the disk how often it has asked, and waits longer each time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use voxline_support::clock::Moment;

/// The documented limit of refresh tokens a project.
pub const MAX_SLOTS: usize = 25;
/// How many requests are remembered, those whose slot is free again included.
const MEMORY: usize = 4 * MAX_SLOTS;
/// After a request that nothing came of, the next waits so long; each further one in a row doubles that, up to a day.
const FIRST_WAIT: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(86_400);

/// Why no new pair of tokens is asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SlotsError {
    /// Requests were made lately, and nothing could be kept of what they brought.
    #[error(
        "{requests} requests for a new refresh token lately, each of which may have used one of the project's \
         {MAX_SLOTS}; the next is due in {} s", wait.as_secs_f64().ceil()
    )]
    TooSoon {
        /// How many in a row.
        requests: usize,
        /// How long to wait.
        wait: Duration,
    },
    /// All slots of the project are taken, as far as is known here.
    #[error(
        "all {MAX_SLOTS} refresh tokens of the project are taken from here: {held}; once they are free at the service, \
         forget them here (voxline token logout --forget)"
    )]
    AllTaken {
        /// What holds them.
        held: String,
    },
    /// All slots of the project are taken, as the service says.
    #[error("all refresh tokens of the project are taken, says the service; from here: {held}")]
    Refused {
        /// What is known here.
        held: String,
    },
}

/// One request for a refresh token, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// When it was asked for.
    pub asked: Moment,
    /// What became of it.
    pub state: SlotState,
}

/// What became of a request for a refresh token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SlotState {
    /// Nobody knows: no answer was kept. The service may hold a token that nobody has.
    Unanswered,
    /// Its refresh token is in force.
    Held,
    /// Its refresh token was given up without the service being told.
    Abandoned,
    /// The service says that its refresh token is dead, or was told to forget it.
    Free,
}

/// All requests that this vault remembers, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots(Vec<Slot>);

impl Slots {
    /// The requests, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter()
    }

    /// How many of the project's slots are taken from here, as far as is known.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.0.iter().filter(|slot| slot.state != SlotState::Free).count()
    }

    /// Writes down a request that is about to be made.
    ///
    /// # Errors
    /// [`SlotsError`], where it must not be made now.
    pub(super) fn ask(&mut self, now: &Moment) -> Result<(), SlotsError> {
        if self.taken() >= MAX_SLOTS {
            return Err(SlotsError::AllTaken { held: self.to_string() });
        }
        let age = |slot: &Slot| slot.asked.age(now);
        let unanswered = self.0.iter().rev().take_while(|slot| slot.state == SlotState::Unanswered).count();
        let lately = self.0.iter().filter(|slot| age(slot).is_some_and(|age| age < DAY)).count();
        // Where the last answer was kept and its token died, that is no reason to wait; but twice in a day it is.
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

    /// What became of the last request: it was never made or surely not granted, where this is `None`.
    pub(super) fn answer(&mut self, state: Option<SlotState>) {
        match state {
            Some(state) => self.0.last_mut().expect("asked before").state = state,
            None => drop(self.0.pop()),
        }
    }

    /// The refresh token in force is in force no more.
    pub(super) fn leave(&mut self, state: SlotState) {
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
        write!(f, "{held} in force, {unanswered} asked for without an answer, {abandoned} given up")
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
        let asked: Vec<u64> = (0..86_400).filter(|second| slots.ask(&at(*second)).is_ok()).collect();
        assert_eq!(asked[..6], [0, 10, 30, 70, 150, 310]);
        // Half of the project's in a day.
        assert_eq!((asked.len(), slots.taken()), (14, 14));
        // In the end it is told what holds the slots.
        let all_taken = (0..200).find_map(|day| match slots.ask(&at(86_400 * (day + 1))) {
            Err(SlotsError::AllTaken { held }) => Some(held),
            _ => None,
        });
        assert_eq!(all_taken.unwrap(), "0 in force, 25 asked for without an answer, 0 given up");
    }

    #[test]
    fn a_token_that_dies_is_replaced_at_once_but_not_again_and_again() {
        let mut slots = Slots::default();
        for (second, granted) in
            [(0, true), (1, true), (2, false), (10, false), (11, true), (30, false), (31, true)]
        {
            assert_eq!(slots.ask(&at(second)).is_ok(), granted, "{second}");
            if granted {
                slots.answer(Some(SlotState::Held));
                slots.leave(SlotState::Free);
            }
        }
        assert_eq!(slots.taken(), 0);
    }

    #[test]
    fn a_request_that_was_not_granted_costs_nothing() {
        let mut slots = Slots::default();
        for second in 0..100 {
            slots.ask(&at(second)).unwrap();
            slots.answer(None);
        }
        assert_eq!(slots, Slots::default());
    }
}
