//! Session registry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::session::Session;
use crate::admission::reject::Full;

/// A registry of live sessions by name, of limited size.
pub(crate) struct SessionRegistry {
    limit: usize,
    live: Mutex<HashMap<String, Arc<Session>>>,
}

impl SessionRegistry {
    pub(crate) fn new(limit: usize) -> SessionRegistry {
        SessionRegistry { limit, live: Mutex::default() }
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    /// Adds `session`.
    ///
    /// # Errors
    /// Returns [`Full::Gateway`] if the registry is full, or [`Full::Token`] if the session's holder
    /// already has `limit` sessions.
    pub(crate) fn insert(&self, session: &Arc<Session>, limit: Option<u32>) -> Result<(), Full> {
        let mut live = self.lock();
        if live.len() >= self.limit {
            return Err(Full::Gateway);
        }
        let held = || live.values().filter(|other| other.holder() == session.holder()).count();
        if limit.is_some_and(|limit| held() >= limit as usize) {
            return Err(Full::Token);
        }
        live.insert(session.name().to_owned(), session.clone());
        Ok(())
    }

    /// Returns the length of all audio that was received and isn't final.
    pub(crate) fn waiting(&self) -> Duration {
        self.lock().values().map(|session| session.waiting()).sum()
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Session>> {
        self.lock().get(name).cloned()
    }

    /// Returns the sessions of a project.
    pub(crate) fn of(&self, project: &str) -> Vec<Arc<Session>> {
        self.lock().values().filter(|session| session.project() == project).cloned().collect()
    }

    /// Removes a session. Its recogniser stops with the last reference to it.
    pub(crate) fn remove(&self, name: &str) {
        self.lock().remove(name);
    }

    /// Locks the map. A panic elsewhere leaves the map consistent: each change is one insertion or removal.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
