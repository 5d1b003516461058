//! Whose turn it is to recognise: a fixed pool of threads, shared by all sessions and recordings.
//!
//! What is said live comes first, then recordings, then guesses, which are left out while anything else waits. Among
//! equals it is the turn of whoever was served least, so that one who brings an hour at once doesn't hold up the others.

mod order;

use std::num::NonZero;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use self::order::Order;
use super::metrics::Metrics;
pub(super) use voxline_support::clock::now;

/// Work for the recogniser that comes in pieces.
pub(super) trait Job: Send {
    /// Does one piece: a block of audio at most, or a guess where that is whose turn it is.
    fn turn(&mut self, rank: Rank) -> Next;
}

/// What comes before what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// What sessions hear: somebody waits for each word.
    Live,
    /// Recordings: somebody waits for all of it.
    Recording,
    /// What may be left out.
    Guess,
    /// Recordings of those without a token: what nothing else needs.
    Demo,
}

/// What a job wants after its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another turn.
    Again,
    /// A turn to guess, should nobody need it more.
    Guess,
    /// Nothing, until it is woken.
    Wait,
    /// Nothing any more.
    Over,
}

/// The pool. Its threads end after the turns they are at, once it is dropped.
pub(super) struct Scheduler {
    shared: Arc<Shared>,
    threads: NonZero<usize>,
}

struct Shared {
    order: Mutex<Order>,
    /// There may be a turn to take.
    turn: Condvar,
    metrics: Arc<Metrics>,
}

/// A job's place among the others. The job is dropped with it, after the turn it is at.
pub(super) struct Ticket {
    shared: Arc<Shared>,
    id: u64,
}

impl Scheduler {
    /// A pool of so many threads, which begin with the first job.
    pub(super) fn new(threads: NonZero<usize>, metrics: Arc<Metrics>) -> Scheduler {
        let order = Mutex::new(Order::new(threads.get()));
        let shared = Shared { order, turn: Condvar::new(), metrics };
        Scheduler { shared: Arc::new(shared), threads }
    }

    /// Takes in a job, which is ready for its first turn. `rank` is that of its turns other than guesses.
    ///
    /// # Errors
    /// Where there are no threads yet and the system refuses them.
    pub(super) fn add(&self, rank: Rank, job: Box<dyn Job>) -> io::Result<Ticket> {
        let mut order = self.shared.lock();
        while order.threads() < self.threads.get() {
            let shared = self.shared.clone();
            thread::Builder::new().name("recognise".to_owned()).spawn(move || shared.take_turns())?;
            order.add_thread();
        }
        let id = order.add(rank, job, now());
        self.shared.turn.notify_one();
        Ok(Ticket { shared: self.shared.clone(), id })
    }

    /// How long the live job has waited for its next turn that has waited longest; zero where none waits.
    pub(super) fn lateness(&self) -> Duration {
        self.shared.lock().lateness(now())
    }

    /// Where the jobs tell what they did.
    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.lock().close();
        self.shared.turn.notify_all();
    }
}

impl Ticket {
    /// The job has something to do.
    pub(super) fn wake(&self) {
        if self.shared.lock().wake(self.id, now()) {
            self.shared.turn.notify_one();
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let removed = self.shared.lock().remove(self.id);
        // Without live jobs there are more turns for the others.
        self.shared.turn.notify_all();
        // Outside of the lock: a job is large.
        drop(removed);
    }
}

impl Shared {
    /// A thread of the pool.
    fn take_turns(&self) {
        let mut order = self.lock();
        while !order.is_closed() {
            let Some(mut turn) = order.pick(now()) else {
                order = self.turn.wait(order).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(order);
            let begun = now();
            let next = turn.span.in_scope(|| turn.job.turn(turn.rank));
            let ended = now();
            self.metrics.turn(turn.rank, turn.waited, ended - begun);
            order = self.lock();
            if turn.rank != Rank::Live {
                // Another of its kind may have waited for it.
                self.turn.notify_one();
            }
            if let Some(over) = order.give_back(turn, next, ended - begun, ended) {
                drop(order);
                drop(over);
                order = self.lock();
            }
        }
    }

    /// Jobs don't run under the lock, so a panic of theirs leaves the order whole.
    fn lock(&self) -> MutexGuard<'_, Order> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
