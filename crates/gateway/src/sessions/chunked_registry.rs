//! Registry of numbered-chunk tasks, live and done.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::chunked_session::ChunkedSession;
use crate::authority::Fingerprint;

/// Maximum number of results that are kept, and of task tokens that are remembered after their tasks were
/// forgotten.
const MAX_KEPT: usize = 4_096;

/// Maximum number of tasks that wait for their first chunk. Each costs a few kilobytes.
pub(crate) const MAX_PENDING: usize = 1_024;

/// Result of looking up a task token.
pub(crate) enum Lookup {
    Found(Arc<ChunkedSession>),
    /// The token belonged to a task that was forgotten.
    Forgotten,
    Unknown,
}

/// A registry of tasks by token. The number of live tasks is limited by
/// [`SessionRegistry`](super::registry::SessionRegistry).
pub(crate) struct ChunkedRegistry {
    kept_for: Duration,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// Sessions, in the order of their creation.
    sessions: Vec<Arc<ChunkedSession>>,
    /// Tokens of forgotten tasks, the newest last.
    forgotten: VecDeque<Fingerprint>,
}

impl ChunkedRegistry {
    pub(crate) fn new(kept_for: Duration) -> ChunkedRegistry {
        ChunkedRegistry { kept_for, table: Mutex::default() }
    }

    pub(crate) fn insert(&self, task: Arc<ChunkedSession>) {
        self.lock().sessions.push(task);
    }

    /// Looks up a task token. It is compared with one stored token after another, each in constant time.
    pub(crate) fn find(&self, token: &Fingerprint) -> Lookup {
        let now = now();
        let table = self.lock();
        match table.sessions.iter().find(|task| task.token.is(token)) {
            Some(task) if is_old(task, now) => Lookup::Forgotten,
            Some(task) => Lookup::Found(task.clone()),
            None if table.forgotten.iter().any(|forgotten| forgotten.is(token)) => Lookup::Forgotten,
            None => Lookup::Unknown,
        }
    }

    /// Keeps the result of a task that is done, for the time that the options say or until there are too
    /// many results.
    pub(crate) fn keep(&self, task: &ChunkedSession) {
        let end = now().checked_add(self.kept_for);
        let mut table = self.lock();
        task.kept_until.get_or_init(|| end);
        let is_kept = |task: &Arc<ChunkedSession>| task.kept_until.get().is_some();
        if table.sessions.iter().filter(|task| is_kept(task)).count() > MAX_KEPT
            && let Some(oldest) = table.sessions.iter().position(is_kept)
        {
            table.forget(oldest);
        }
    }

    /// Removes a task that no client may have. Its token is not remembered as that of a task.
    pub(crate) fn remove(&self, task: &ChunkedSession) {
        self.lock().sessions.retain(|other| !other.token.is(&task.token));
    }

    /// Forgets a task that ended without a result.
    pub(crate) fn forget(&self, task: &ChunkedSession) {
        let mut table = self.lock();
        if let Some(index) = table.sessions.iter().position(|other| other.token.is(&task.token)) {
            table.forget(index);
        }
    }

    /// Forgets results that were kept for long enough.
    pub(crate) fn forget_old(&self) {
        let now = now();
        let mut table = self.lock();
        while let Some(old) = table.sessions.iter().position(|task| is_old(task, now)) {
            table.forget(old);
        }
    }

    /// Locks the table. A panic elsewhere leaves it consistent.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn forget(&mut self, index: usize) {
        let task = self.sessions.remove(index);
        if self.forgotten.len() == MAX_KEPT {
            self.forgotten.pop_front();
        }
        self.forgotten.push_back(task.token);
    }
}

fn is_old(task: &ChunkedSession, now: Instant) -> bool {
    task.kept_until.get().is_some_and(|end| end.is_some_and(|end| end <= now))
}

#[expect(clippy::disallowed_methods, reason = "results are kept for a real time")]
fn now() -> Instant {
    Instant::now()
}
