//! The run queue, without threads or a clock.

#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tracing::Span;

use super::{Job, Next, Priority, thread_factor};

/// Jobs and their order.
pub(super) struct RunQueue {
    jobs: HashMap<u64, Entry>,
    /// Run queue, ordered by priority, then by service received (fair queuing).
    ready: BTreeSet<(Priority, Duration, u64)>,
    next_id: u64,
    /// Number of threads that the pool shall have.
    wanted: usize,
    /// Number of threads started.
    threads: usize,
    /// Number of threads in use.
    busy: usize,
    /// Number of threads in use by turns that are not live.
    background: usize,
    /// Number of threads in use by demo recordings.
    demos: usize,
    live_jobs: usize,
    /// Service that the last job to get a turn had received before it, for live jobs, recordings and demo
    /// recordings. A value never decreases.
    floors: [Duration; 3],
    closed: bool,
}

struct Entry {
    /// Priority of the job's turns other than partial results.
    priority: Priority,
    /// Service received: the duration of all turns of the job, times the threads of each.
    served: Duration,
    phase: Phase,
    /// `None` while a thread is running the job.
    job: Option<Box<dyn Job>>,
    /// Span of the client that brought the job, for the job's log lines.
    span: Span,
}

#[derive(Clone, Copy)]
enum Phase {
    Waiting,
    Ready {
        priority: Priority,
        since: Instant,
    },
    Running {
        /// True if the job was woken during its turn.
        woken: bool,
    },
}

/// A job whose turn is now.
pub(super) struct Turn {
    id: u64,
    pub(super) priority: Priority,
    /// Number of threads that it may use.
    pub(super) threads: usize,
    /// Time that the job has waited for its turn.
    pub(super) waited: Duration,
    pub(super) job: Box<dyn Job>,
    pub(super) span: Span,
}

impl RunQueue {
    /// Creates a run queue for `threads` threads.
    pub(super) fn new(threads: usize) -> RunQueue {
        RunQueue {
            jobs: HashMap::new(),
            ready: BTreeSet::new(),
            next_id: 0,
            wanted: threads,
            threads: 0,
            busy: 0,
            background: 0,
            demos: 0,
            live_jobs: 0,
            floors: [Duration::ZERO; 3],
            closed: false,
        }
    }

    pub(super) fn threads(&self) -> usize {
        self.threads
    }

    pub(super) fn add_thread(&mut self) {
        self.threads += 1;
    }

    /// Returns the number of jobs that wait for a turn.
    pub(super) fn ready_jobs(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Adds a job, which is ready.
    pub(super) fn add(&mut self, priority: Priority, job: Box<dyn Job>, now: Instant) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.live_jobs += usize::from(priority == Priority::Live);
        let entry = Entry {
            priority,
            served: Duration::ZERO,
            phase: Phase::Waiting,
            job: Some(job),
            span: Span::current(),
        };
        self.jobs.insert(id, entry);
        self.make_ready(id, priority, now);
        id
    }

    /// Removes a job and returns it. If the job is running, [`give_back`](RunQueue::give_back) returns it
    /// after its turn instead.
    pub(super) fn remove(&mut self, id: u64) -> Option<Box<dyn Job>> {
        let entry = self.jobs.remove(&id)?;
        self.live_jobs -= usize::from(entry.priority == Priority::Live);
        if let Phase::Ready { priority, .. } = entry.phase {
            self.ready.remove(&(priority, entry.served, id));
        }
        entry.job
    }

    /// Makes a job ready that waits, or that has only a partial result to do. Returns whether there is one
    /// more turn to take.
    pub(super) fn wake(&mut self, id: u64, now: Instant) -> bool {
        // The job may have completed its last turn.
        let Some(entry) = self.jobs.get_mut(&id) else { return false };
        let priority = entry.priority;
        match &mut entry.phase {
            Phase::Running { woken } => {
                *woken = true;
                return false;
            }
            Phase::Ready { priority: Priority::Partial, .. } => {
                self.ready.remove(&(Priority::Partial, entry.served, id));
            }
            Phase::Ready { .. } => return false,
            Phase::Waiting => {}
        }
        self.make_ready(id, priority, now);
        true
    }

    /// Returns the next turn, if one can be taken now.
    pub(super) fn pick(&mut self, now: Instant) -> Option<Turn> {
        let &(priority, served, id) = self.ready.first()?;
        if priority != Priority::Live {
            if self.background >= self.most_background() {
                return None;
            }
            // This is the lowest priority, so no other job is waiting if this one gets no turn.
            if priority == Priority::Demo && self.demos >= self.most_demos() {
                return None;
            }
        }
        self.ready.pop_first();
        let entry = self.jobs.get_mut(&id).expect("a ready job has an entry");
        let Phase::Ready { since, .. } = entry.phase else { unreachable!("a queued job is ready") };
        let waited = now.saturating_duration_since(since);
        entry.phase = Phase::Running { woken: false };
        let floor = &mut self.floors[floor_of(entry.priority)];
        *floor = served.max(*floor);
        let job = entry.job.take().expect("a ready job is not running");
        let span = entry.span.clone();
        let threads = self.threads_for(priority, job.max_threads());
        self.busy += threads;
        self.background += background_of(priority, threads);
        self.demos += demos_of(priority, threads);
        Some(Turn { id, priority, threads, waited, job, span })
    }

    /// Returns the number of threads for a turn that can use `most`: one, and those that no other job waits
    /// for.
    fn threads_for(&self, priority: Priority, most: usize) -> usize {
        let idle = match priority {
            Priority::Live | Priority::Partial => 1,
            Priority::Recording => self.most_background().saturating_sub(self.background),
            Priority::Demo => self.most_demos().saturating_sub(self.demos),
        };
        let unused = self.wanted.saturating_sub(self.busy + self.ready.len());
        most.min(idle).min(unused).max(1)
    }

    /// Ends a turn that took `took`. Returns the job if it is complete, or was removed during the turn.
    pub(super) fn give_back(
        &mut self,
        turn: Turn,
        next: Next,
        took: Duration,
        now: Instant,
    ) -> Option<Box<dyn Job>> {
        self.busy -= turn.threads;
        self.background -= background_of(turn.priority, turn.threads);
        self.demos -= demos_of(turn.priority, turn.threads);
        let Some(entry) = self.jobs.get_mut(&turn.id) else { return Some(turn.job) };
        let Phase::Running { woken } = entry.phase else { unreachable!("a turn ends once") };
        entry.served += took * thread_factor(turn.threads);
        entry.job = Some(turn.job);
        entry.phase = Phase::Waiting;
        let priority = entry.priority;
        match next {
            Next::Over => return self.remove(turn.id),
            Next::Again => self.make_ready(turn.id, priority, now),
            Next::Partial | Next::Wait if woken => self.make_ready(turn.id, priority, now),
            Next::Partial => self.make_ready(turn.id, Priority::Partial, now),
            Next::Wait => {}
        }
        None
    }

    /// Returns the longest current wait of any live job.
    pub(super) fn lateness(&self, now: Instant) -> Duration {
        let waiting = self.jobs.values().filter_map(|entry| match entry.phase {
            Phase::Ready { priority: Priority::Live, since } => Some(now.saturating_duration_since(since)),
            _ => None,
        });
        waiting.max().unwrap_or_default()
    }

    fn make_ready(&mut self, id: u64, priority: Priority, now: Instant) {
        let entry = self.jobs.get_mut(&id).expect("a job that becomes ready has an entry");
        // A job that is new, or waited long, is not owed the turns that others had meanwhile.
        entry.served = entry.served.max(self.floors[floor_of(entry.priority)]);
        entry.phase = Phase::Ready { priority, since: now };
        self.ready.insert((priority, entry.served, id));
    }

    /// Returns the number of threads available to other turns than live ones. While there are live jobs,
    /// one thread stays free for them, since a turn can't be interrupted.
    fn most_background(&self) -> usize {
        match self.live_jobs {
            0 => self.wanted,
            _ => self.wanted.saturating_sub(1).max(1),
        }
    }

    /// Returns the number of threads available to demo recordings. Half of the threads stay free for
    /// others, since a turn can't be interrupted.
    fn most_demos(&self) -> usize {
        (self.wanted / 2).max(1)
    }
}

/// Returns how many of the threads of a turn are in use by turns that are not live.
fn background_of(priority: Priority, threads: usize) -> usize {
    if priority == Priority::Live { 0 } else { threads }
}

/// Returns how many of the threads of a turn are in use by demo recordings.
fn demos_of(priority: Priority, threads: usize) -> usize {
    if priority == Priority::Demo { threads } else { 0 }
}

/// Returns the index of the floor for a job of this priority.
fn floor_of(priority: Priority) -> usize {
    match priority {
        Priority::Live | Priority::Partial => 0,
        Priority::Recording => 1,
        Priority::Demo => 2,
    }
}
