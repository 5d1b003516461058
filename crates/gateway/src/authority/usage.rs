//! Usage of clients and service tokens, and their budgets.
//!
//! Counts are kept in memory and written by [`Authority::keep_usage`], all in one transaction: a chunk of
//! audio must not wait for the disk. A gateway that is killed loses the usage since the last write.

use std::collections::HashMap;
use std::ops::Add;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::store::{Look, USAGE};
use super::terms::{Budget, Terms};
use super::{Authority, AuthorityError, Identity};

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
        Usage { project, days: vec![(day, today)], total, last_used }
    }
}

/// A budget that doesn't cover the amount requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
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
    fn new(project: &str) -> Usage {
        Usage { project: project.to_owned(), days: Vec::new(), total: Amount::default(), last_used: 0 }
    }

    /// Returns the usage on the UTC day of `now`.
    pub(super) fn today(&self, now: u64) -> Amount {
        let today = self.days.iter().find(|(day, _)| *day == now / DAY);
        today.map_or(Amount::default(), |(_, used)| *used)
    }

    /// Checks that the budgets in `terms` cover `amount` at `now`. A budget always covers an amount of zero.
    fn afford(&self, amount: Amount, terms: &Terms, now: u64) -> Result<(), Exhausted> {
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

    fn add(&mut self, amount: Amount, now: u64) {
        // A zero amount adds no day, so that it can't evict another day.
        if amount != Amount::default() {
            let today = (now / DAY, self.today(now) + amount);
            self.days.retain(|(day, _)| *day != today.0);
            self.days.insert(0, today);
            self.days.truncate(DAYS);
        }
        self.total = self.total + amount;
        self.last_used = now;
    }
}

/// The usage of all clients and service tokens.
#[derive(Default)]
pub(super) struct Meter {
    entries: Mutex<HashMap<String, Entry>>,
    /// Held while usage is written, so that older counts never overwrite newer ones.
    writing: Mutex<()>,
}

struct Entry {
    usage: Usage,
    /// `true` if the usage has changed since it was last written.
    is_news: bool,
}

impl Meter {
    pub(super) fn new(kept: Vec<(String, Usage)>) -> Meter {
        let entries = kept.into_iter().map(|(id, usage)| (id, Entry { usage, is_news: false }));
        Meter { entries: Mutex::new(entries.collect()), writing: Mutex::default() }
    }

    /// A panic elsewhere leaves the map consistent, so poisoning is ignored.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all usage with the id of its client or service token, sorted by id.
    pub(super) fn all(&self) -> Vec<(String, Usage)> {
        let mut all: Vec<_> =
            self.lock().iter().map(|(id, entry)| (id.clone(), entry.usage.clone())).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// Returns the time of the last use.
    pub(super) fn last_used(&self, id: &str) -> Option<u64> {
        self.lock().get(id).map(|entry| entry.usage.last_used)
    }

    fn take_news(&self) -> Vec<(String, Usage)> {
        let mut entries = self.lock();
        let news = entries.iter_mut().filter_map(|(id, entry)| {
            std::mem::take(&mut entry.is_news).then(|| (id.clone(), entry.usage.clone()))
        });
        news.collect()
    }

    fn give_back(&self, news: &[(String, Usage)]) {
        let mut entries = self.lock();
        for (id, _) in news {
            if let Some(entry) = entries.get_mut(id) {
                entry.is_news = true;
            }
        }
    }
}

impl Authority {
    /// Charges `amount` to the token's holder. Nothing is charged if a budget doesn't cover all of it.
    ///
    /// # Errors
    /// Returns [`Exhausted`] if a budget doesn't cover `amount`.
    pub fn charge(&self, identity: &Identity, amount: Amount) -> Result<(), Exhausted> {
        let now = self.now();
        let mut entries = self.meter.lock();
        let entry = entries
            .entry(identity.holder.clone())
            .or_insert_with(|| Entry { usage: Usage::new(&identity.project), is_news: false });
        entry.usage.afford(amount, &identity.terms, now)?;
        entry.usage.add(amount, now);
        entry.is_news = true;
        Ok(())
    }

    /// Records that the token was used now.
    pub(super) fn note_use(&self, identity: &Identity) {
        // A zero amount is within every budget.
        let _ = self.charge(identity, Amount::default());
    }

    /// Checks that the token's budgets cover `amount`, without charging it.
    ///
    /// # Errors
    /// Returns [`Exhausted`] if a budget doesn't cover `amount`.
    pub fn afford(&self, identity: &Identity, amount: Amount) -> Result<(), Exhausted> {
        let entries = self.meter.lock();
        let fresh = Usage::new(&identity.project);
        let usage = entries.get(&identity.holder).map_or(&fresh, |entry| &entry.usage);
        usage.afford(amount, &identity.terms, self.now())
    }

    /// Writes the usage since the last write; the usage is on the disk when this returns. During an outage of
    /// the store the call is also the attempt to end the outage, once an attempt is due.
    ///
    /// # Errors
    /// Returns [`AuthorityError::Store`] or [`AuthorityError::Unavailable`] if the store fails. The usage
    /// stays counted, and the next call writes it.
    pub fn keep_usage(&self) -> Result<(), AuthorityError> {
        let _writing = self.meter.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let news = self.meter.take_news();
        if news.is_empty() {
            return match self.outage() {
                None => Ok(()),
                Some(_) => self.write(|change| Ok(change.touch()?)),
            };
        }
        let written = self.write(|change| {
            for (id, usage) in &news {
                change.put(&USAGE, id, usage)?;
            }
            Ok(())
        });
        written.inspect_err(|_| self.meter.give_back(&news))
    }

    /// Loads the stored usage.
    pub(super) fn kept_usage(&self) -> Result<Meter, AuthorityError> {
        self.read(|view| Ok(Meter::new(view.all(&USAGE)?)))
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
            usage.afford(amount, &terms, now).map(|()| usage.add(amount, now))
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
            usage.afford(amount, &terms, now).map(|()| usage.add(amount, now))
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
