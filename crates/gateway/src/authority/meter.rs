//! Counts of usage.
//!
//! Counts are kept in memory and written by [`Authority::keep_usage`], all in one transaction: a chunk of
//! audio must not wait for the disk. A gateway that is killed loses the usage since the last write.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::check::Identity;
use super::store::{Look, USAGE};
use super::usage::{Amount, Exhausted, Usage};
use super::{Authority, AuthorityError};

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
    /// Charges `amount` to the token's holder, and records it for `api`, one of the gateway's APIs. Nothing
    /// is charged if a budget doesn't cover all of it.
    ///
    /// # Errors
    /// Returns [`Exhausted`] if a budget doesn't cover `amount`.
    pub fn charge(&self, identity: &Identity, api: &'static str, amount: Amount) -> Result<(), Exhausted> {
        let now = self.now();
        let mut entries = self.meter.lock();
        let entry = entries
            .entry(identity.holder.clone())
            .or_insert_with(|| Entry { usage: Usage::new(&identity.project), is_news: false });
        entry.usage.afford(amount, &identity.terms, now)?;
        entry.usage.add(api, amount, now);
        entry.is_news = true;
        Ok(())
    }

    /// Records that the token was used now.
    pub(super) fn note_use(&self, identity: &Identity) {
        // A zero amount is within every budget, and recorded for no API.
        let _ = self.charge(identity, "", Amount::default());
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
