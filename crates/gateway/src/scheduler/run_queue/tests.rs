//! Tests of the run queue, with a clock that stands still.

use super::*;

/// A job that can use so many threads.
struct Nothing(usize);

impl Job for Nothing {
    fn turn(&mut self, _: Priority, _: usize) -> Next {
        Next::Wait
    }

    fn max_threads(&self) -> usize {
        self.0
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
        self.add_for_threads(priority, 1)
    }

    fn add_for_threads(&mut self, priority: Priority, threads: usize) -> u64 {
        self.queue.add(priority, Box::new(Nothing(threads)), self.now)
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
fn a_recording_uses_the_threads_that_no_other_job_waits_for() {
    let mut bench = Bench::new(4);
    let long = bench.add_for_threads(Priority::Recording, 8);
    let turn = bench.pick();
    assert_eq!((turn.id, turn.threads), (long, 4));
    bench.give_back(turn, Next::Again, 10);
    // Its service is that of all threads.
    assert_eq!(bench.queue.jobs[&long].served, Duration::from_millis(40));
    let short = bench.add(Priority::Recording);
    let turns = [bench.pick(), bench.pick()];
    let mut threads = turns.each_ref().map(|turn| (turn.id, turn.threads));
    threads.sort_unstable();
    assert_eq!(threads, [(long, 3), (short, 1)]);
    for turn in turns {
        bench.give_back(turn, Next::Again, 1);
    }
    bench.queue.remove(short);
    // One thread is free for a live job, which uses one in any case.
    let live = bench.add_for_threads(Priority::Live, 8);
    let speaking = bench.pick();
    assert_eq!((speaking.id, speaking.threads), (live, 1));
    let turn = bench.pick();
    assert_eq!((turn.id, turn.threads), (long, 3));
    bench.give_back(speaking, Next::Wait, 1);
    bench.give_back(turn, Next::Again, 1);
    bench.queue.remove(live);
    let turn = bench.pick();
    assert_eq!((turn.id, turn.threads), (long, 4), "nobody is live any more");
}

/// A turn on all threads ends before live audio that came meanwhile would notice.
#[test]
fn live_audio_waits_for_no_recording_on_all_threads() {
    let mut bench = Bench::new(2);
    let long = bench.add_for_threads(Priority::Recording, 8);
    let turn = bench.pick();
    assert_eq!(turn.threads, 2);
    let live = bench.add(Priority::Live);
    let speaking = bench.pick();
    assert_eq!(speaking.id, live);
    bench.give_back(turn, Next::Again, 1);
    let turn = bench.pick();
    assert_eq!((turn.id, turn.threads), (long, 1));
    bench.give_back(speaking, Next::Again, 1);
    assert_eq!(bench.pick().id, live);
}

#[test]
fn a_demo_job_uses_half_the_threads() {
    let mut bench = Bench::new(4);
    bench.add_for_threads(Priority::Demo, 8);
    let turn = bench.pick();
    assert_eq!(turn.threads, 2);
    bench.add(Priority::Demo);
    assert!(bench.queue.pick(bench.now).is_none());
    bench.give_back(turn, Next::Over, 1);
    assert_eq!(bench.pick().threads, 1);
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
        bench.queue.jobs.is_empty() && bench.queue.ready.is_empty() && bench.queue.pick(bench.now).is_none()
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
