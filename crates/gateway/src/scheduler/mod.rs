//! Scheduler of recognition: a worker pool of fixed size, shared by all sessions and recordings.
//!
//! Live audio comes first, then recordings, then partial results, which are left out while anything else
//! waits. Among jobs of equal priority, the one that has received least service comes next (fair queuing),
//! so that a client that brings an hour of audio at once doesn't hold up the others.
//!
//! A turn of a recording may use threads of the pool that no other job waits for. It computes on threads of
//! its own, and those of the pool rest for as long: a turn is short, so that live audio comes next.
//!
//! This room imports [`metrics`](crate::metrics) alone.

mod run_queue;

use std::num::NonZero;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use std::{io, thread};

use self::run_queue::RunQueue;
use crate::metrics::Metrics;
pub(crate) use voxline_support::clock::now;

/// A recognition job, which is done in pieces.
pub(crate) trait Job: Send {
    /// Does one piece of work, on at most `threads` threads at once: at most a block of audio, or a partial
    /// result if `priority` is [`Priority::Partial`].
    fn turn(&mut self, priority: Priority, threads: usize) -> Next;

    /// Returns the number of threads that the next turn can use at once.
    fn max_threads(&self) -> usize {
        1
    }
}

/// Priority of a turn, the highest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Priority {
    /// Audio of live sessions, whose clients wait for each word.
    Live,
    /// Recordings, whose clients wait for the whole result.
    Recording,
    /// Partial results, which may be left out.
    Partial,
    /// Recordings of clients without a token, which get time that no other turn needs.
    Demo,
}

impl Priority {
    /// Returns the label of the priority in the metrics.
    fn name(self) -> &'static str {
        match self {
            Priority::Live => "live",
            Priority::Recording => "recording",
            Priority::Partial => "partial",
            Priority::Demo => "demo",
        }
    }
}

/// Request of a job at the end of its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The job wants another turn.
    Again,
    /// The job wants a turn for a partial result, if no other job needs the time more.
    Partial,
    /// The job wants no turn until it is woken.
    Wait,
    /// The job is complete.
    Over,
}

/// The worker pool. Once it is dropped, its threads end after their current turns.
pub(crate) struct Scheduler {
    shared: Arc<Shared>,
    threads: NonZero<usize>,
}

struct Shared {
    queue: Mutex<RunQueue>,
    /// Notified when there may be a turn to take.
    turn: Condvar,
    metrics: Arc<Metrics>,
}

/// The handle of a job. Dropping it drops the job, after its current turn.
pub(crate) struct JobHandle {
    shared: Arc<Shared>,
    id: u64,
}

impl Scheduler {
    /// Creates a pool of `threads` threads, which start with the first job.
    pub(crate) fn new(threads: NonZero<usize>, metrics: Arc<Metrics>) -> Scheduler {
        let queue = Mutex::new(RunQueue::new(threads.get()));
        let shared = Shared { queue, turn: Condvar::new(), metrics };
        Scheduler { shared: Arc::new(shared), threads }
    }

    /// Adds a job, which is ready for its first turn. `priority` is the priority of its turns other than
    /// partial results.
    ///
    /// # Errors
    /// Returns [`io::Error`] if threads of the pool have yet to be started and the system refuses one.
    pub(crate) fn add(&self, priority: Priority, job: Box<dyn Job>) -> io::Result<JobHandle> {
        let mut queue = self.shared.lock();
        while queue.threads() < self.threads.get() {
            let shared = self.shared.clone();
            thread::Builder::new().name("recognise".to_owned()).spawn(move || shared.take_turns())?;
            queue.add_thread();
        }
        let id = queue.add(priority, job, now());
        self.shared.turn.notify_one();
        Ok(JobHandle { shared: self.shared.clone(), id })
    }

    /// Returns the longest current wait of any live job for its next turn, or zero if none waits.
    pub(crate) fn lateness(&self) -> Duration {
        self.shared.lock().lateness(now())
    }

    /// Returns the metrics that jobs report to.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.shared.metrics
    }
}

/// Returns the number by which the duration of a turn on so many threads is multiplied.
fn thread_factor(threads: usize) -> u32 {
    u32::try_from(threads).unwrap_or(u32::MAX)
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        self.shared.lock().close();
        self.shared.turn.notify_all();
    }
}

impl JobHandle {
    /// Tells the scheduler that the job has work.
    pub(crate) fn wake(&self) {
        if self.shared.lock().wake(self.id, now()) {
            self.shared.turn.notify_one();
        }
    }
}

impl Drop for JobHandle {
    fn drop(&mut self) {
        let removed = self.shared.lock().remove(self.id);
        // Without live jobs, more turns are open to the others.
        self.shared.turn.notify_all();
        // Drop outside of the lock: a job is large.
        drop(removed);
    }
}

impl Shared {
    /// Runs a thread of the pool.
    fn take_turns(&self) {
        let mut queue = self.lock();
        while !queue.is_closed() {
            let Some(mut turn) = queue.pick(now()) else {
                queue = self.turn.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(queue);
            let begun = now();
            let next = turn.span.in_scope(|| turn.job.turn(turn.priority, turn.threads));
            let ended = now();
            self.metrics.turn(turn.priority.name(), (ended - begun) * thread_factor(turn.threads));
            if turn.priority == Priority::Live {
                self.metrics.live_turn_after(turn.waited);
            }
            queue = self.lock();
            if turn.priority != Priority::Live {
                // Other turns of lower priority than live may have waited for the threads of this one.
                for _ in 0..turn.threads.min(queue.ready_jobs()) {
                    self.turn.notify_one();
                }
            }
            if let Some(over) = queue.give_back(turn, next, ended - begun, ended) {
                drop(queue);
                drop(over);
                queue = self.lock();
            }
        }
    }

    /// Locks the run queue. Jobs don't run under the lock, so a panic of a job leaves the queue consistent.
    fn lock(&self) -> MutexGuard<'_, RunQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
