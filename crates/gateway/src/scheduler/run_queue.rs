//! The run queue, without threads or a clock.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tracing::Span;

use super::{Job, Next, Priority};

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
    /// Number of current turns that are not live.
    background: usize,
    /// Number of current turns that are demo recordings.
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
    /// Service received: the duration of all turns of the job.
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
            if priority == Priority::Demo {
                if self.demos >= self.most_demos() {
                    return None;
                }
                self.demos += 1;
            }
            self.background += 1;
        }
        self.ready.pop_first();
        let entry = self.jobs.get_mut(&id).expect("a ready job has an entry");
        let Phase::Ready { since, .. } = entry.phase else { unreachable!("a queued job is ready") };
        let waited = now.saturating_duration_since(since);
        entry.phase = Phase::Running { woken: false };
        let floor = &mut self.floors[floor_of(entry.priority)];
        *floor = served.max(*floor);
        let job = entry.job.take().expect("a ready job is not running");
        Some(Turn { id, priority, waited, job, span: entry.span.clone() })
    }

    /// Ends a turn that took `took`. Returns the job if it is complete, or was removed during the turn.
    pub(super) fn give_back(
        &mut self,
        turn: Turn,
        next: Next,
        took: Duration,
        now: Instant,
    ) -> Option<Box<dyn Job>> {
        self.background -= usize::from(turn.priority != Priority::Live);
        self.demos -= usize::from(turn.priority == Priority::Demo);
        let Some(entry) = self.jobs.get_mut(&turn.id) else { return Some(turn.job) };
        let Phase::Running { woken } = entry.phase else { unreachable!("a turn ends once") };
        entry.served += took;
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

/// Returns the index of the floor for a job of this priority.
fn floor_of(priority: Priority) -> usize {
    match priority {
        Priority::Live | Priority::Partial => 0,
        Priority::Recording => 1,
        Priority::Demo => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Job for Nothing {
        fn turn(&mut self, _: Priority) -> Next {
            Next::Wait
        }
    }

    /// A run queue and a clock that stands still.
    struct Bench {
        queue: RunQueue,
        now: Instant,
    }

    impl Bench {
        #[expect(clippy::disallowed_methods, reason = "an Instant can't be made otherwise")]
        fn new(threads: usize) -> Bench {
            Bench { queue: RunQueue::new(threads), now: Instant::now() }
        }

        fn add(&mut self, priority: Priority) -> u64 {
            self.queue.add(priority, Box::new(Nothing), self.now)
        }

        fn pick(&mut self) -> Turn {
            self.queue.pick(self.now).expect("a turn")
        }

        fn give_back(&mut self, turn: Turn, next: Next, milliseconds: u64) -> bool {
            self.queue.give_back(turn, next, Duration::from_millis(milliseconds), self.now).is_some()
        }

        /// Returns the jobs of the next turns, of `milliseconds` each, if every job wants more.
        fn turns(&mut self, count: usize, milliseconds: u64) -> Vec<u64> {
            let turn = |_| {
                let turn = self.pick();
                let id = turn.id;
                self.give_back(turn, Next::Again, milliseconds);
                id
            };
            (0..count).map(turn).collect()
        }
    }

    #[test]
    fn live_audio_precedes_recordings_and_recordings_precede_partials() {
        let mut bench = Bench::new(1);
        let with_partial = bench.add(Priority::Live);
        let turn = bench.pick();
        bench.give_back(turn, Next::Partial, 1);
        let recording = bench.add(Priority::Recording);
        let live = bench.add(Priority::Live);
        assert_eq!([bench.pick().id, bench.pick().id], [live, recording]);
        // The recording is running, and a partial result must not run beside it.
        assert!(bench.queue.pick(bench.now).is_none());
        // With new audio, the job is live again.
        assert!(bench.queue.wake(with_partial, bench.now));
        let turn = bench.pick();
        assert_eq!((turn.id, turn.priority), (with_partial, Priority::Live));
    }

    #[test]
    fn jobs_of_equal_priority_get_equal_service() {
        let mut bench = Bench::new(1);
        let long = bench.add(Priority::Live);
        assert_eq!(bench.turns(50, 1_000), [long; 50]);
        // A job that comes late is not owed the minute of service that the other had.
        let late = bench.add(Priority::Live);
        let served = |bench: &Bench, id: u64| bench.queue.jobs[&id].served;
        assert!(served(&bench, late) >= Duration::from_secs(49));
        // From then on both receive the same service, however long their turns are.
        for _ in 0..1_000 {
            let turn = bench.pick();
            let milliseconds = if turn.id == long { 1_000 } else { 10 };
            bench.give_back(turn, Next::Again, milliseconds);
            let apart = served(&bench, long).abs_diff(served(&bench, late));
            assert!(apart <= Duration::from_secs(1), "{apart:?} apart");
        }
    }

    #[test]
    fn a_partial_result_that_waited_long_gets_no_extra_service() {
        let mut bench = Bench::new(1);
        let with_partial = bench.add(Priority::Live);
        let turn = bench.pick();
        bench.give_back(turn, Next::Partial, 1);
        let busy = bench.add(Priority::Live);
        assert_eq!(bench.turns(50, 1_000), [busy; 50]);
        let turn = bench.pick();
        bench.give_back(turn, Next::Wait, 1_000);
        let partial = bench.pick();
        assert_eq!((partial.id, partial.priority), (with_partial, Priority::Partial));
        bench.give_back(partial, Next::Wait, 1);
        // A new job begins where the busy job is, not where the partial result was made ready.
        let late = bench.add(Priority::Live);
        let served = bench.queue.jobs[&late].served;
        assert!(served >= Duration::from_secs(49), "{served:?}");
    }

    #[test]
    fn one_thread_stays_free_for_live_jobs() {
        let mut bench = Bench::new(2);
        for _ in 0..3 {
            bench.add(Priority::Recording);
        }
        let (first, second) = (bench.pick(), bench.pick());
        bench.give_back(first, Next::Again, 1);
        bench.give_back(second, Next::Again, 1);
        let live = bench.add(Priority::Live);
        let turn = bench.pick();
        bench.give_back(turn, Next::Wait, 1);
        let held = bench.pick();
        assert_eq!(held.priority, Priority::Recording);
        assert!(bench.queue.pick(bench.now).is_none(), "a second recording while somebody may speak");
        assert!(bench.queue.wake(live, bench.now));
        assert_eq!(bench.pick().id, live);
        bench.queue.remove(live);
        assert_eq!(bench.pick().priority, Priority::Recording, "nobody is live any more");
    }

    #[test]
    fn demo_jobs_come_last_and_use_half_the_threads() {
        let mut bench = Bench::new(4);
        let with_partial = bench.add(Priority::Live);
        let turn = bench.pick();
        bench.give_back(turn, Next::Partial, 1);
        for _ in 0..4 {
            bench.add(Priority::Demo);
        }
        let recording = bench.add(Priority::Recording);
        let turns = [bench.pick(), bench.pick(), bench.pick()];
        let priorities = turns.each_ref().map(|turn| turn.priority);
        assert_eq!((turns[0].id, turns[1].id), (recording, with_partial));
        assert_eq!(priorities, [Priority::Recording, Priority::Partial, Priority::Demo]);
        bench.queue.remove(with_partial);
        let second = bench.pick();
        assert_eq!(second.priority, Priority::Demo);
        let [recorded, partial, demo] = turns;
        bench.give_back(recorded, Next::Over, 1);
        bench.give_back(partial, Next::Wait, 1);
        assert!(bench.queue.pick(bench.now).is_none(), "two threads stay free for others");
        assert_eq!(bench.add(Priority::Recording), bench.pick().id);
        bench.give_back(demo, Next::Again, 1);
        assert_eq!(bench.pick().priority, Priority::Demo);
    }

    #[test]
    fn a_wake_during_a_turn_is_not_lost() {
        let mut bench = Bench::new(1);
        let job = bench.add(Priority::Live);
        for next in [Next::Wait, Next::Partial] {
            let turn = bench.pick();
            assert!(!bench.queue.wake(job, bench.now));
            bench.give_back(turn, next, 1);
            let turn = bench.pick();
            assert_eq!(turn.priority, Priority::Live);
            bench.give_back(turn, Next::Again, 1);
        }
        let turn = bench.pick();
        bench.give_back(turn, Next::Wait, 1);
        assert!(bench.queue.pick(bench.now).is_none());
    }

    #[test]
    fn a_job_is_removed_with_its_handle_or_when_it_is_complete() {
        let mut bench = Bench::new(1);
        let (at_turn, waiting) = (bench.add(Priority::Live), bench.add(Priority::Live));
        let turn = bench.pick();
        assert!(bench.queue.remove(at_turn).is_none(), "its thread has it");
        assert!(bench.queue.remove(waiting).is_some());
        assert!(bench.give_back(turn, Next::Again, 1));
        let last = bench.add(Priority::Recording);
        let turn = bench.pick();
        assert!(bench.give_back(turn, Next::Over, 1));
        assert!(!bench.queue.wake(last, bench.now));
        assert!(
            bench.queue.jobs.is_empty()
                && bench.queue.ready.is_empty()
                && bench.queue.pick(bench.now).is_none()
        );
    }

    #[test]
    fn lateness_counts_live_jobs_only() {
        let mut bench = Bench::new(1);
        bench.add(Priority::Recording);
        let later = bench.now + Duration::from_secs(3);
        assert_eq!(bench.queue.lateness(later), Duration::ZERO);
        bench.add(Priority::Live);
        assert_eq!(bench.queue.lateness(later), Duration::from_secs(3));
    }
}
