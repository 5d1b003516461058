//! Records of usage, and the budgets that bound it.

use std::collections::BTreeMap;
use std::ops::Add;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::terms::{Budget, Terms};

/// Length of a UTC day in milliseconds; Unix time has no leap seconds.
const DAY: u64 = 24 * 3600 * 1000;
/// Number of days with known usage. To renew the budgets of a day, a wrong clock would have to show that many
/// other days before it shows the same day again.
const DAYS: usize = 8;

/// An amount of usage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Milliseconds of audio submitted for recognition.
    pub audio_ms: u64,
    /// Characters of text submitted for synthesis.
    pub characters: u64,
}

impl Amount {
    /// Returns an amount of audio.
    #[must_use]
    pub fn audio(milliseconds: u64) -> Amount {
        Amount { audio_ms: milliseconds, characters: 0 }
    }

    /// Returns an amount of text.
    #[must_use]
    pub fn text(characters: u64) -> Amount {
        Amount { audio_ms: 0, characters }
    }
}

impl Add for Amount {
    type Output = Amount;

    fn add(self, other: Amount) -> Amount {
        Amount {
            audio_ms: self.audio_ms.saturating_add(other.audio_ms),
            characters: self.characters.saturating_add(other.characters),
        }
    }
}

/// Usage of a client or service token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Usage {
    pub(super) project: String,
    /// Usage by day since the Unix epoch, most recently used day first. A wrong clock uses up the budgets of
    /// the days that it shows, and no others.
    days: Vec<(u64, Amount)>,
    pub(super) total: Amount,
    /// Total usage by API, since it is recorded.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) apis: BTreeMap<String, Amount>,
    pub(super) last_used: u64,
}

/// The usage record of format 2, which holds a single day.
#[derive(Deserialize)]
pub(super) struct UsageOfOneDay {
    project: String,
    day: u64,
    today: Amount,
    total: Amount,
    last_used: u64,
}

impl From<UsageOfOneDay> for Usage {
    fn from(usage: UsageOfOneDay) -> Usage {
        let UsageOfOneDay { project, day, today, total, last_used } = usage;
        Usage { project, days: vec![(day, today)], total, apis: BTreeMap::new(), last_used }
    }
}

/// A budget that doesn't cover the amount requested. The client waits for the next day, or the operator
/// raises the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Exhausted {
    /// The budget for today is used up.
    #[error("the token's budget of {what} for today is used up")]
    Daily {
        /// `audio` or `characters`.
        what: &'static str,
        /// Time until the next midnight UTC.
        wait: Duration,
    },
    /// The total budget is used up.
    #[error("the token's budget of {what} is used up")]
    Total {
        /// `audio` or `characters`.
        what: &'static str,
    },
}

impl Usage {
    pub(super) fn new(project: &str) -> Usage {
        Usage {
            project: project.to_owned(),
            days: Vec::new(),
            total: Amount::default(),
            apis: BTreeMap::new(),
            last_used: 0,
        }
    }

    /// Returns the usage on the UTC day of `now`.
    pub(super) fn today(&self, now: u64) -> Amount {
        let today = self.days.iter().find(|(day, _)| *day == now / DAY);
        today.map_or(Amount::default(), |(_, used)| *used)
    }

    /// Checks that the budgets in `terms` cover `amount` at `now`. A budget always covers an amount of zero.
    pub(super) fn afford(&self, amount: Amount, terms: &Terms, now: u64) -> Result<(), Exhausted> {
        let (today, total) = (self.today(now) + amount, self.total + amount);
        let wait = Duration::from_millis(DAY - now % DAY);
        let check = |what, count: fn(Amount) -> u64, budget: Budget, unit: u64| {
            let over = |used: Amount, limit: Option<u64>| {
                count(amount) > 0 && limit.is_some_and(|limit| count(used) > limit.saturating_mul(unit))
            };
            if over(total, budget.total) {
                return Err(Exhausted::Total { what });
            }
            if over(today, budget.per_day) {
                return Err(Exhausted::Daily { what, wait });
            }
            Ok(())
        };
        // Audio budgets are in seconds.
        check("audio", |amount| amount.audio_ms, terms.audio, 1000)?;
        check("characters", |amount| amount.characters, terms.characters, 1)
    }

    /// Adds an amount that was used by `api`.
    pub(super) fn add(&mut self, api: &str, amount: Amount, now: u64) {
        // A zero amount adds no day, so that it can't evict another day.
        if amount != Amount::default() {
            let today = (now / DAY, self.today(now) + amount);
            self.days.retain(|(day, _)| *day != today.0);
            self.days.insert(0, today);
            self.days.truncate(DAYS);
            let used = self.apis.entry(api.to_owned()).or_default();
            *used = *used + amount;
        }
        self.total = self.total + amount;
        self.last_used = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noon of an arbitrary day.
    const NOON: u64 = 19_000 * DAY + DAY / 2;

    fn terms(per_day: Option<u64>, total: Option<u64>) -> Terms {
        Terms { audio: Budget { per_day, total }, ..Terms::default() }
    }

    #[test]
    fn a_day_ends_at_midnight_and_the_total_never() {
        let terms = terms(Some(10), Some(15));
        let mut usage = Usage::new("project");
        let mut take = |milliseconds, now| {
            let amount = Amount::audio(milliseconds);
            usage.afford(amount, &terms, now).map(|()| usage.add("test", amount, now))
        };
        assert_eq!(take(10_000, NOON), Ok(()));
        let wait = Duration::from_millis(DAY / 2);
        assert_eq!(take(1, NOON), Err(Exhausted::Daily { what: "audio", wait }));
        assert_eq!(take(5_000, NOON + DAY / 2), Ok(()));
        assert_eq!(take(1, NOON + 3 * DAY), Err(Exhausted::Total { what: "audio" }));
    }

    #[test]
    fn a_clock_that_is_set_costs_the_days_it_shows_and_renews_none() {
        let terms = terms(Some(10), None);
        let mut usage = Usage::new("project");
        let mut take = |milliseconds, now| {
            let amount = Amount::audio(milliseconds);
            usage.afford(amount, &terms, now).map(|()| usage.add("test", amount, now))
        };
        take(9_000, NOON).unwrap();
        // Set the clock a year ahead for one request, and back.
        take(10_000, NOON + 365 * DAY).unwrap();
        take(1_000, NOON).unwrap();
        assert!(take(1, NOON).is_err());
        // Move the clock back and forth over as many days as are kept, seven times.
        for round in 0..7 {
            for day in (1..DAYS as u64).rev() {
                assert_eq!(
                    take(10_000, NOON - day * DAY).is_ok(),
                    round == 0,
                    "{day} days back, round {round}"
                );
                assert!(take(0, NOON + day * 1_000 * DAY).is_ok());
                assert!(take(1, NOON).is_err(), "{day} days back and forth, round {round}");
            }
            // The day was shown again, and so is not the least recently used day.
            assert!(take(1, NOON).is_err());
        }
        take(10_000, NOON + DAY).unwrap();
    }

    #[test]
    fn one_budget_leaves_the_other_alone() {
        let terms = terms(Some(0), None);
        let usage = Usage::new("project");
        assert!(usage.afford(Amount::audio(1), &terms, NOON).is_err());
        assert_eq!(usage.afford(Amount::text(1_000_000), &terms, NOON), Ok(()));
        assert_eq!(usage.afford(Amount::default(), &terms, NOON), Ok(()));
    }
}
