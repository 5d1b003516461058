//! What clients and service tokens have used, and what their budgets leave.
//!
//! Counts are kept in memory and written by [`Authority::keep_usage`], all in one transaction: a chunk of audio must
//! not wait for the disk. A gateway that is killed loses what was used since the last time.

use std::collections::HashMap;
use std::ops::Add;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::store::{Look, USAGE};
use super::terms::{Budget, Terms};
use super::{Authority, AuthorityError, Identity};

/// A day of UTC in milliseconds; Unix time has no leap seconds.
const DAY: u64 = 24 * 3600 * 1000;
/// The number of days of which the use is known. A clock has to show as many others before it shows a day
/// again for the first time, to renew that day's budgets.
const DAYS: usize = 8;

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Amount {
    /// Milliseconds of audio, recognised or to be.
    pub audio_ms: u64,
    /// Characters of text to be spoken.
    pub characters: u64,
}

impl Amount {
    /// Audio.
    #[must_use]
    pub fn audio(milliseconds: u64) -> Amount {
        Amount { audio_ms: milliseconds, characters: 0 }
    }

    /// Text.
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

/// What a client or a service token has used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Usage {
    pub(super) project: String,
    /// Use by day, counted from the Unix epoch, that of the last use first. A clock that is wrong uses up the
    /// budgets of the days that it shows, and no others.
    days: Vec<(u64, Amount)>,
    pub(super) total: Amount,
    pub(super) last_used: u64,
}

/// The record of format 2, which knew one day.
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

/// A budget that doesn't cover what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exhausted {
    /// There is more tomorrow.
    #[error("the token's budget of {what} for today is used up")]
    Daily {
        /// Audio or characters.
        what: &'static str,
        /// How long it is to the next midnight of UTC.
        wait: Duration,
    },
    /// There will never be more.
    #[error("the token's budget of {what} is used up")]
    Total {
        /// Audio or characters.
        what: &'static str,
    },
}

impl Usage {
    fn new(project: &str) -> Usage {
        Usage { project: project.to_owned(), days: Vec::new(), total: Amount::default(), last_used: 0 }
    }

    /// Returns what was used on the day of `now`.
    pub(super) fn today(&self, now: u64) -> Amount {
        let today = self.days.iter().find(|(day, _)| *day == now / DAY);
        today.map_or(Amount::default(), |(_, used)| *used)
    }

    /// Whether `terms` leave `amount` at `now`. Of what is not asked for every budget leaves enough.
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
        // Budgets of audio are in seconds.
        check("audio", |amount| amount.audio_ms, terms.audio, 1000)?;
        check("characters", |amount| amount.characters, terms.characters, 1)
    }

    fn add(&mut self, amount: Amount, now: u64) {
        // A day on which nothing was used makes no other be forgotten.
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

/// The usage of all who have used anything.
#[derive(Default)]
pub(super) struct Meter {
    entries: Mutex<HashMap<String, Entry>>,
    /// Held while usage is written, so that older counts never follow newer ones.
    writing: Mutex<()>,
}

struct Entry {
    usage: Usage,
    /// Whether there is more than was written.
    is_news: bool,
}

impl Meter {
    pub(super) fn new(kept: Vec<(String, Usage)>) -> Meter {
        let entries = kept.into_iter().map(|(id, usage)| (id, Entry { usage, is_news: false }));
        Meter { entries: Mutex::new(entries.collect()), writing: Mutex::default() }
    }

    /// A panic elsewhere leaves the map whole.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All usage, by client id and id of a service token.
    pub(super) fn all(&self) -> Vec<(String, Usage)> {
        let mut all: Vec<_> =
            self.lock().iter().map(|(id, entry)| (id.clone(), entry.usage.clone())).collect();
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        all
    }

    /// When it was last used.
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
    /// Charges `amount` to whom the token belongs. Nothing is charged where a budget doesn't cover all of it.
    ///
    /// # Errors
    /// [`Exhausted`].
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

    /// Remembers that the token was used now.
    pub(super) fn note_use(&self, identity: &Identity) {
        // Nothing is within every budget.
        let _ = self.charge(identity, Amount::default());
    }

    /// Whether the token's budgets leave `amount`, of which nothing is charged yet.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub fn afford(&self, identity: &Identity, amount: Amount) -> Result<(), Exhausted> {
        let entries = self.meter.lock();
        let fresh = Usage::new(&identity.project);
        let usage = entries.get(&identity.holder).map_or(&fresh, |entry| &entry.usage);
        usage.afford(amount, &identity.terms, self.now())
    }

    /// Writes what was used since it was last written; it is on the disk when this returns. During an outage
    /// of the store this is the attempt to end it, once one is due.
    ///
    /// # Errors
    /// [`AuthorityError::Store`] or [`AuthorityError::Unavailable`]; what was used stays counted, and the
    /// next call writes it.
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

    /// The usage that was kept.
    pub(super) fn kept_usage(&self) -> Result<Meter, AuthorityError> {
        self.read(|view| Ok(Meter::new(view.all(&USAGE)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half past noon of some day.
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
        // A year ahead for one request, and back.
        take(10_000, NOON + 365 * DAY).unwrap();
        take(1_000, NOON).unwrap();
        assert!(take(1, NOON).is_err());
        // Back and forth over as many days as are known, seven times.
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
            // Shown again, and so not the day that was shown the longest time ago.
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
