//! The sessions that are alive.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::session::Session;

/// Finds sessions by name, and holds no more than a limit.
pub(super) struct Sessions {
    limit: usize,
    live: Mutex<HashMap<String, Arc<Session>>>,
}

impl Sessions {
    pub(super) fn new(limit: usize) -> Sessions {
        Sessions { limit, live: Mutex::default() }
    }

    pub(super) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Takes in `session`, unless that would be one too many.
    pub(super) fn insert(&self, session: &Arc<Session>) -> bool {
        let mut live = self.lock();
        let fits = live.len() < self.limit;
        if fits {
            live.insert(session.name().to_owned(), session.clone());
        }
        fits
    }

    pub(super) fn find(&self, name: &str) -> Option<Arc<Session>> {
        self.lock().get(name).cloned()
    }

    /// Forgets a session; its recogniser stops with the last reference to it.
    pub(super) fn remove(&self, name: &str) {
        self.lock().remove(name);
    }

    /// A panic elsewhere leaves the map whole: each change is one insertion or removal.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
