//! The run queue, without threads or a clock.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use tracing::Span;

use super::{Job, Next, Rank};

/// Jobs and their order.
pub(super) struct Order {
    jobs: HashMap<u64, Entry>,
    /// Run queue, ordered by priority, then by service received (fair queuing).
    ready: BTreeSet<(Rank, Duration, u64)>,
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
    rank: Rank,
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
        rank: Rank,
        since: Instant,
    },
    AtTurn {
        /// True if the job was woken during its turn.
        woken: bool,
    },
}

/// A job whose turn is now.
pub(super) struct Turn {
    id: u64,
    pub(super) rank: Rank,
    /// Time that the job has waited for its turn.
    pub(super) waited: Duration,
    pub(super) job: Box<dyn Job>,
    pub(super) span: Span,
}

impl Order {
    /// Creates a run queue for `threads` threads.
    pub(super) fn new(threads: usize) -> Order {
        Order {
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
    pub(super) fn add(&mut self, rank: Rank, job: Box<dyn Job>, now: Instant) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.live_jobs += usize::from(rank == Rank::Live);
        let entry = Entry {
            rank,
            served: Duration::ZERO,
            phase: Phase::Waiting,
            job: Some(job),
            span: Span::current(),
        };
        self.jobs.insert(id, entry);
        self.make_ready(id, rank, now);
        id
    }

    /// Removes a job and returns it. If the job is running, [`give_back`](Order::give_back) returns it
    /// after its turn instead.
    pub(super) fn remove(&mut self, id: u64) -> Option<Box<dyn Job>> {
        let entry = self.jobs.remove(&id)?;
        self.live_jobs -= usize::from(entry.rank == Rank::Live);
        if let Phase::Ready { rank, .. } = entry.phase {
            self.ready.remove(&(rank, entry.served, id));
        }
        entry.job
    }

    /// Makes a job ready that waits, or that has only a partial result to do. Returns whether there is one
    /// more turn to take.
    pub(super) fn wake(&mut self, id: u64, now: Instant) -> bool {
        // The job may have completed its last turn.
        let Some(entry) = self.jobs.get_mut(&id) else { return false };
        let rank = entry.rank;
        match &mut entry.phase {
            Phase::AtTurn { woken } => {
                *woken = true;
                return false;
            }
            Phase::Ready { rank: Rank::Guess, .. } => {
                self.ready.remove(&(Rank::Guess, entry.served, id));
            }
            Phase::Ready { .. } => return false,
            Phase::Waiting => {}
        }
        self.make_ready(id, rank, now);
        true
    }

    /// Returns the next turn, if one can be taken now.
    pub(super) fn pick(&mut self, now: Instant) -> Option<Turn> {
        let &(rank, served, id) = self.ready.first()?;
        if rank != Rank::Live {
            if self.background >= self.most_background() {
                return None;
            }
            // This is the lowest priority, so no other job is waiting if this one gets no turn.
            if rank == Rank::Demo {
                if self.demos >= self.most_demos() {
                    return None;
                }
                self.demos += 1;
            }
            self.background += 1;
        }
        self.ready.pop_first();
        let entry = self.jobs.get_mut(&id).expect("who is ready has an entry");
        let Phase::Ready { since, .. } = entry.phase else { unreachable!("who waits for a turn is ready") };
        let waited = now.saturating_duration_since(since);
        entry.phase = Phase::AtTurn { woken: false };
        let floor = &mut self.floors[floor_of(entry.rank)];
        *floor = served.max(*floor);
        let job = entry.job.take().expect("who is ready is not away");
        Some(Turn { id, rank, waited, job, span: entry.span.clone() })
    }

    /// Ends a turn that took `took`. Returns the job if it is complete, or was removed during the turn.
    pub(super) fn give_back(
        &mut self,
        turn: Turn,
        next: Next,
        took: Duration,
        now: Instant,
    ) -> Option<Box<dyn Job>> {
        self.background -= usize::from(turn.rank != Rank::Live);
        self.demos -= usize::from(turn.rank == Rank::Demo);
        let Some(entry) = self.jobs.get_mut(&turn.id) else { return Some(turn.job) };
        let Phase::AtTurn { woken } = entry.phase else { unreachable!("a turn ends once") };
        entry.served += took;
        entry.job = Some(turn.job);
        entry.phase = Phase::Waiting;
        let rank = entry.rank;
        match next {
            Next::Over => return self.remove(turn.id),
            Next::Again => self.make_ready(turn.id, rank, now),
            Next::Guess | Next::Wait if woken => self.make_ready(turn.id, rank, now),
            Next::Guess => self.make_ready(turn.id, Rank::Guess, now),
            Next::Wait => {}
        }
        None
    }

    /// Returns the longest current wait of any live job.
    pub(super) fn lateness(&self, now: Instant) -> Duration {
        let waiting = self.jobs.values().filter_map(|entry| match entry.phase {
            Phase::Ready { rank: Rank::Live, since } => Some(now.saturating_duration_since(since)),
            _ => None,
        });
        waiting.max().unwrap_or_default()
    }

    fn make_ready(&mut self, id: u64, rank: Rank, now: Instant) {
        let entry = self.jobs.get_mut(&id).expect("who becomes ready has an entry");
        // A job that is new, or waited long, is not owed the turns that others had meanwhile.
        entry.served = entry.served.max(self.floors[floor_of(entry.rank)]);
        entry.phase = Phase::Ready { rank, since: now };
        self.ready.insert((rank, entry.served, id));
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

/// Returns the index of the floor for a job of this rank.
fn floor_of(rank: Rank) -> usize {
    match rank {
        Rank::Live | Rank::Guess => 0,
        Rank::Recording => 1,
        Rank::Demo => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl Job for Nothing {
        fn turn(&mut self, _: Rank) -> Next {
            Next::Wait
        }
    }

    /// A run queue and a clock that stands still.
    struct Bench {
        order: Order,
        now: Instant,
    }

    impl Bench {
        #[expect(clippy::disallowed_methods, reason = "an Instant can't be made otherwise")]
        fn new(threads: usize) -> Bench {
            Bench { order: Order::new(threads), now: Instant::now() }
        }

        fn add(&mut self, rank: Rank) -> u64 {
            self.order.add(rank, Box::new(Nothing), self.now)
        }

        fn pick(&mut self) -> Turn {
            self.order.pick(self.now).expect("a turn")
        }

        fn give_back(&mut self, turn: Turn, next: Next, milliseconds: u64) -> bool {
            self.order.give_back(turn, next, Duration::from_millis(milliseconds), self.now).is_some()
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
    fn live_comes_before_recordings_and_those_before_guesses() {
        let mut bench = Bench::new(1);
        let guesser = bench.add(Rank::Live);
        let turn = bench.pick();
        bench.give_back(turn, Next::Guess, 1);
        let recording = bench.add(Rank::Recording);
        let live = bench.add(Rank::Live);
        assert_eq!([bench.pick().id, bench.pick().id], [live, recording]);
        // The recording is running, and a partial result must not run beside it.
        assert!(bench.order.pick(bench.now).is_none());
        // With new audio, the job is live again.
        assert!(bench.order.wake(guesser, bench.now));
        let turn = bench.pick();
        assert_eq!((turn.id, turn.rank), (guesser, Rank::Live));
    }

    #[test]
    fn among_equals_each_is_served_alike() {
        let mut bench = Bench::new(1);
        let long = bench.add(Rank::Live);
        assert_eq!(bench.turns(50, 1_000), [long; 50]);
        // A job that comes late is not owed the minute of service that the other had.
        let late = bench.add(Rank::Live);
        let served = |bench: &Bench, id: u64| bench.order.jobs[&id].served;
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
    fn a_guess_that_waited_long_owes_nobody_a_turn() {
        let mut bench = Bench::new(1);
        let guesser = bench.add(Rank::Live);
        let turn = bench.pick();
        bench.give_back(turn, Next::Guess, 1);
        let busy = bench.add(Rank::Live);
        assert_eq!(bench.turns(50, 1_000), [busy; 50]);
        let turn = bench.pick();
        bench.give_back(turn, Next::Wait, 1_000);
        let guess = bench.pick();
        assert_eq!((guess.id, guess.rank), (guesser, Rank::Guess));
        bench.give_back(guess, Next::Wait, 1);
        // A new job begins where the busy job is, not where the partial result was made ready.
        let late = bench.add(Rank::Live);
        let served = bench.order.jobs[&late].served;
        assert!(served >= Duration::from_secs(49), "{served:?}");
    }

    #[test]
    fn one_thread_stays_free_for_live_ones() {
        let mut bench = Bench::new(2);
        for _ in 0..3 {
            bench.add(Rank::Recording);
        }
        let (first, second) = (bench.pick(), bench.pick());
        bench.give_back(first, Next::Again, 1);
        bench.give_back(second, Next::Again, 1);
        let live = bench.add(Rank::Live);
        let turn = bench.pick();
        bench.give_back(turn, Next::Wait, 1);
        let held = bench.pick();
        assert_eq!(held.rank, Rank::Recording);
        assert!(bench.order.pick(bench.now).is_none(), "a second recording while somebody may speak");
        assert!(bench.order.wake(live, bench.now));
        assert_eq!(bench.pick().id, live);
        bench.order.remove(live);
        assert_eq!(bench.pick().rank, Rank::Recording, "nobody is live any more");
    }

    #[test]
    fn a_demo_comes_last_and_has_half_the_threads() {
        let mut bench = Bench::new(4);
        let guesser = bench.add(Rank::Live);
        let turn = bench.pick();
        bench.give_back(turn, Next::Guess, 1);
        for _ in 0..4 {
            bench.add(Rank::Demo);
        }
        let recording = bench.add(Rank::Recording);
        let turns = [bench.pick(), bench.pick(), bench.pick()];
        let ranks = turns.each_ref().map(|turn| turn.rank);
        assert_eq!((turns[0].id, turns[1].id), (recording, guesser));
        assert_eq!(ranks, [Rank::Recording, Rank::Guess, Rank::Demo]);
        bench.order.remove(guesser);
        let second = bench.pick();
        assert_eq!(second.rank, Rank::Demo);
        let [recorded, guessed, demo] = turns;
        bench.give_back(recorded, Next::Over, 1);
        bench.give_back(guessed, Next::Wait, 1);
        assert!(bench.order.pick(bench.now).is_none(), "two threads stay free for others");
        assert_eq!(bench.add(Rank::Recording), bench.pick().id);
        bench.give_back(demo, Next::Again, 1);
        assert_eq!(bench.pick().rank, Rank::Demo);
    }

    #[test]
    fn news_during_a_turn_is_not_lost() {
        let mut bench = Bench::new(1);
        let job = bench.add(Rank::Live);
        for next in [Next::Wait, Next::Guess] {
            let turn = bench.pick();
            assert!(!bench.order.wake(job, bench.now));
            bench.give_back(turn, next, 1);
            let turn = bench.pick();
            assert_eq!(turn.rank, Rank::Live);
            bench.give_back(turn, Next::Again, 1);
        }
        let turn = bench.pick();
        bench.give_back(turn, Next::Wait, 1);
        assert!(bench.order.pick(bench.now).is_none());
    }

    #[test]
    fn a_job_leaves_with_its_ticket_or_when_it_is_over() {
        let mut bench = Bench::new(1);
        let (at_turn, waiting) = (bench.add(Rank::Live), bench.add(Rank::Live));
        let turn = bench.pick();
        assert!(bench.order.remove(at_turn).is_none(), "its thread has it");
        assert!(bench.order.remove(waiting).is_some());
        assert!(bench.give_back(turn, Next::Again, 1));
        let last = bench.add(Rank::Recording);
        let turn = bench.pick();
        assert!(bench.give_back(turn, Next::Over, 1));
        assert!(!bench.order.wake(last, bench.now));
        assert!(
            bench.order.jobs.is_empty()
                && bench.order.ready.is_empty()
                && bench.order.pick(bench.now).is_none()
        );
    }

    #[test]
    fn lateness_is_that_of_live_ones() {
        let mut bench = Bench::new(1);
        bench.add(Rank::Recording);
        let later = bench.now + Duration::from_secs(3);
        assert_eq!(bench.order.lateness(later), Duration::ZERO);
        bench.add(Rank::Live);
        assert_eq!(bench.order.lateness(later), Duration::from_secs(3));
    }
}
