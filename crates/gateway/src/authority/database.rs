//! The database of the authority's state: transactions, and recovery from disk failures.
//!
//! After any I/O error redb refuses everything until the database is closed and opened again. So a failed
//! database is dropped, which releases the lock of its file, and reopened: at once, so that tokens can be
//! read on a full disk too, and after that with every attempt to write. The outage is over once a change is
//! on the disk.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redb::{Database, DatabaseError, ReadableDatabase};
use tokio::sync::Notify;

use super::AuthorityError;
use super::store::{Change, Failure, View};
use voxline_support::clock::Clock;

/// Wait after the first failed attempt to write; each further failure doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait: a gateway resumes at most that long after the disk has room again.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Function that reopens the database.
pub(super) type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// A database that is reopened after a disk failure.
pub(super) struct Store {
    /// `None` in memory, where there is nothing to reopen.
    opener: Option<Opener>,
    /// Path of the file, for messages.
    path: String,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Held by a change, and while the database is reopened: a live write transaction would keep the database
    /// open.
    changing: Mutex<()>,
    outage_began: Notify,
}

struct State {
    /// `None` while the database can't be opened.
    database: Option<Database>,
    /// Number of times the database was opened: a reader's error concerns only the instance that it has read
    /// from.
    generation: u64,
    outage: Option<Outage>,
}

/// The period from a failed read or write to the next change that is on the disk.
#[derive(Debug)]
struct Outage {
    reason: String,
    failures: u32,
    /// Monotonic time of the next attempt.
    next_attempt: Duration,
}

impl Store {
    pub(super) fn new(
        database: Database,
        opener: Option<Opener>,
        path: String,
        clock: Arc<dyn Clock>,
    ) -> Store {
        let state = State { database: Some(database), generation: 0, outage: None };
        let state = Mutex::new(state);
        Store { opener, path, clock, state, changing: Mutex::default(), outage_began: Notify::new() }
    }

    /// A panic elsewhere leaves the state consistent, so poisoning is ignored.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `look` in a read transaction on the current state. Waits neither for a change nor for the
    /// database to be reopened.
    pub(super) fn read<T>(
        &self,
        look: impl FnOnce(&View) -> Result<T, Failure>,
    ) -> Result<T, AuthorityError> {
        let (view, generation) = {
            let state = self.lock();
            let Some(database) = &state.database else { return Err(self.unavailable(&state)) };
            (database.begin_read().map_err(redb::Error::from), state.generation)
        };
        let run = || look(&View(view?));
        run().map_err(|failure| match failure {
            Failure::Store(error) if self.is_outage(&error) => self.fail_reading(&error, generation),
            failure => self.explain(failure),
        })
    }

    /// Runs `change` in a transaction. The transaction is on the disk when this returns, or rolled back if
    /// `change` fails.
    pub(super) fn write<T>(
        &self,
        change: impl FnOnce(&Change) -> Result<T, Failure>,
    ) -> Result<T, AuthorityError> {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.require_database()?;
        match self.transact(change) {
            Ok(answer) => {
                if self.lock().outage.take().is_some() {
                    tracing::info!(
                        target: "voxline::operation",
                        path = self.path,
                        "gateway state is available again"
                    );
                }
                Ok(answer)
            }
            Err(Failure::Store(error)) if self.is_outage(&error) => {
                let unavailable = self.fail_writing(&error);
                // Reopen for readers; the next attempt to write reports a failure to reopen.
                let _ = self.reopen();
                Err(unavailable)
            }
            Err(failure) => Err(self.explain(failure)),
        }
    }

    fn transact<T>(&self, change: impl FnOnce(&Change) -> Result<T, Failure>) -> Result<T, Failure> {
        let transaction = {
            let state = self.lock();
            let database = state.database.as_ref().ok_or(redb::Error::DatabaseClosed)?;
            // Changes are serialised by `changing`, so this doesn't block.
            database.begin_write().map_err(redb::Error::from)?
        };
        let tx = Change(transaction);
        // A transaction that is dropped is rolled back.
        let answer = change(&tx)?;
        tx.0.commit().map_err(redb::Error::from)?;
        Ok(answer)
    }

    /// Ensures that the database is open for writing. Returns the outage if the next attempt isn't due yet.
    fn require_database(&self) -> Result<(), AuthorityError> {
        {
            let state = self.lock();
            match &state.outage {
                Some(outage) if outage.next_attempt > self.clock.monotonic() => {
                    return Err(self.unavailable(&state));
                }
                _ if state.database.is_some() => return Ok(()),
                _ => {}
            }
        }
        self.reopen().map_err(|error| self.fail_writing(&error))
    }

    /// Reopens the database. invariant: the caller holds `changing`.
    fn reopen(&self) -> Result<(), redb::Error> {
        let opener = self.opener.as_ref().ok_or(redb::Error::DatabaseClosed)?;
        let database = opener()?;
        let mut state = self.lock();
        state.database = Some(database);
        state.generation += 1;
        Ok(())
    }

    /// Returns whether the database is unusable after `error` until it has been reopened.
    fn is_outage(&self, error: &redb::Error) -> bool {
        use redb::Error::{Backend, DatabaseClosed, Io, LockPoisoned, PreviousIo};
        self.opener.is_some()
            && matches!(error, Io(_) | Backend(_) | PreviousIo | DatabaseClosed | LockPoisoned(_))
    }

    /// Drops the database of this generation. The next attempt to write, which reopens it, is due at once.
    fn fail_reading(&self, error: &redb::Error, generation: u64) -> AuthorityError {
        let mut state = self.lock();
        // Otherwise another reader or writer has handled the failure already.
        if state.generation == generation && state.database.is_some() {
            self.note(&mut state, error, Duration::ZERO);
        }
        self.unavailable(&state)
    }

    fn fail_writing(&self, error: &redb::Error) -> AuthorityError {
        let mut state = self.lock();
        let failures = state.outage.as_ref().map_or(0, |outage| outage.failures);
        let wait = FIRST_WAIT.saturating_mul(1 << failures.min(10)).min(LONGEST_WAIT);
        self.note(&mut state, error, wait);
        self.unavailable(&state)
    }

    fn note(&self, state: &mut State, error: &redb::Error, wait: Duration) {
        // Dropping the database releases the lock of its file. After an error redb writes nothing while it
        // closes.
        state.database = None;
        let next_attempt = self.clock.monotonic().saturating_add(wait);
        let reason = error.to_string();
        tracing::error!(path = self.path, %reason, ?wait, "gateway state is unavailable");
        let outage = state.outage.get_or_insert(Outage { reason: reason.clone(), failures: 0, next_attempt });
        outage.next_attempt = next_attempt;
        if !matches!(error, redb::Error::PreviousIo | redb::Error::DatabaseClosed) {
            outage.reason = reason;
        }
        if !wait.is_zero() {
            outage.failures += 1;
        }
        self.outage_began.notify_one();
    }

    fn unavailable(&self, state: &State) -> AuthorityError {
        let (reason, wait) = state.outage.as_ref().map_or_else(
            || ("it is being opened".to_owned(), FIRST_WAIT),
            |outage| {
                let wait = outage.next_attempt.saturating_sub(self.clock.monotonic());
                (outage.reason.clone(), wait.max(FIRST_WAIT))
            },
        );
        AuthorityError::Unavailable { path: self.path.clone(), reason, wait }
    }

    fn explain(&self, failure: Failure) -> AuthorityError {
        match failure {
            Failure::No(error) => error,
            Failure::Store(error) => {
                AuthorityError::Store { path: self.path.clone(), reason: error.to_string() }
            }
        }
    }

    /// Returns the error that changes are refused with during an outage.
    pub(super) fn outage(&self) -> Option<AuthorityError> {
        let state = self.lock();
        state.outage.is_some().then(|| self.unavailable(&state))
    }

    /// Returns the wait until the next attempt to end an outage; `None` without an outage.
    pub(super) fn recovery_wait(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        self.lock().outage.as_ref().map(|outage| outage.next_attempt.saturating_sub(now))
    }

    /// Makes the next attempt due now.
    pub(super) fn retry_now(&self) {
        if let Some(outage) = &mut self.lock().outage {
            outage.next_attempt = Duration::ZERO;
        }
    }

    /// Waits until an outage begins, or continues after a failed attempt.
    pub(super) async fn outage_began(&self) {
        self.outage_began.notified().await;
    }
}

#[cfg(all(test, feature = "test-util"))]
mod tests {
    use super::*;
    use voxline_testing::{FailingDisk, ManualClock};

    #[test]
    fn a_reader_that_meets_a_fault_has_the_database_opened_again() {
        let (clock, disk) = (ManualClock::new(Duration::ZERO), FailingDisk::new());
        let opener: Opener = Box::new(move || Database::builder().create_with_backend(disk.clone()));
        let store = Store::new(opener().unwrap(), Some(opener), "a disk".to_owned(), Arc::new(clock));
        let fault = || Failure::Store(std::io::Error::other("bad sector").into());
        let read = || store.read(|_| Ok(()));
        let nothing = || store.write(|_| Ok(()));

        let failed = store.read::<()>(|_| Err(fault())).unwrap_err();
        assert!(matches!(failed, AuthorityError::Unavailable { .. }), "{failed}");
        assert!(failed.to_string().contains("bad sector"), "{failed}");
        assert!(matches!(read(), Err(AuthorityError::Unavailable { .. })));
        assert_eq!(store.recovery_wait(), Some(Duration::ZERO));
        nothing().unwrap();
        read().unwrap();
        assert!(store.outage().is_none());

        // The error of a reader that began before the database was reopened says nothing about the new
        // instance.
        let late = store.read::<()>(|_| {
            store.read::<()>(|_| Err(fault())).unwrap_err();
            nothing().unwrap();
            Err(redb::Error::DatabaseClosed.into())
        });
        assert!(matches!(late, Err(AuthorityError::Unavailable { .. })), "{late:?}");
        assert!(store.outage().is_none());
        read().unwrap();
    }

    #[test]
    fn what_is_wrong_with_a_record_is_no_outage() {
        let database = Database::builder().create_with_backend(FailingDisk::new()).unwrap();
        let opener: Opener = Box::new(|| unreachable!("nothing is to be opened"));
        let clock = Arc::new(ManualClock::new(Duration::ZERO));
        let store = Store::new(database, Some(opener), "a disk".to_owned(), clock);
        let bad = || redb::Error::Corrupted("record".to_owned()).into();
        assert!(matches!(store.read::<()>(|_| Err(bad())), Err(AuthorityError::Store { .. })));
        assert!(matches!(store.write::<()>(|_| Err(bad())), Err(AuthorityError::Store { .. })));
        store.read(|_| Ok(())).unwrap();
        assert!(store.outage().is_none());
    }
}
