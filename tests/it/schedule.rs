//! Random fault schedules of the session's state machine: ten thousand per run, or as many as
//! `VOXLINE_SCHEDULES` states, and different ones in each run.

use voxline::session::Ledger;
use voxline_testing::{Planted, schedule};

use voxline_fixtures::random;

/// Returns the number of schedules to play.
#[allow(clippy::disallowed_methods, reason = "a knob of the tests")]
fn schedules() -> u64 {
    let asked = std::env::var("VOXLINE_SCHEDULES").ok();
    asked.map_or(10_000, |count| count.parse().expect("VOXLINE_SCHEDULES is a number"))
}

/// Sums over all schedules of a thread.
#[derive(Default)]
struct Tally {
    /// Sessions that ended well.
    whole: u64,
    /// Sessions that continued at another server while the previous session still ran.
    restarts: u64,
    /// Sums of reconnects, moves, token swaps and gaps; the other counts stay zero.
    sum: Ledger,
}

/// Plays the schedule of this seed, and adds it to `tally`.
fn play(seed: u64, tally: &mut Tally) {
    const TEST: &str = "schedule::random_faults_lose_nothing_and_repeat_nothing";
    match schedule::play(seed) {
        Ok(played) => {
            let Ledger { reconnects, moves, token_swaps, gaps, .. } = played.ended.ledger;
            tally.whole += u64::from(played.ended.result.is_ok());
            let anew = played.log.iter().filter(|happening| happening.what() == "starts anew while it runs");
            tally.restarts += anew.count() as u64;
            tally.sum.reconnects += reconnects;
            tally.sum.moves += moves;
            tally.sum.token_swaps += token_swaps;
            tally.sum.gaps += gaps;
        }
        Err(breach) => panic!("{breach}\n{}", random::replay(TEST, seed)),
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "the figures of a long run")]
fn random_faults_lose_nothing_and_repeat_nothing() {
    let (first, count) = (random::moving_seed(), schedules());
    let tallies = random::play_all(first..first + count, play);
    let sum = |count: fn(&Tally) -> u64| tallies.iter().map(count).sum::<u64>();
    let whole = sum(|tally| tally.whole);
    let (reconnects, moves) = (sum(|tally| tally.sum.reconnects), sum(|tally| tally.sum.moves));
    let restarts = sum(|tally| tally.restarts);
    let (swaps, gaps) = (sum(|tally| tally.sum.token_swaps), sum(|tally| tally.sum.gaps));
    println!(
        "{count} schedules from seed {first}: {whole} whole, {reconnects} reconnects, {moves} moves, {restarts} restarts, {swaps} token swaps, {gaps} frames in gaps"
    );
    // The other sessions were ended by faults that allow no recovery, as they should be. Lower counts
    // would mean that the faults have no effect.
    assert!(whole > count * 7 / 10, "only {whole} sessions ended well");
    assert!(reconnects > count / 2 && moves > count / 20 && swaps > count / 20 && gaps > count / 10);
    assert!(restarts > count / 100, "only {restarts} restarts");
}

#[test]
fn the_same_seed_gives_the_same_story() {
    for seed in 0..200 {
        let [one, two] = [schedule::play(seed).unwrap(), schedule::play(seed).unwrap()];
        assert!(!one.log.is_empty() && one.log == two.log, "schedule {seed}");
        assert_eq!((one.ended.result, one.duration), (two.ended.result, two.duration));
    }
}

/// Each of the bugs that others have shipped is caught within 100 schedules.
#[test]
fn planted_bugs_are_caught() {
    for bug in [
        Planted::DeliveredBeforeSent,
        Planted::ChunkInFlightForgotten,
        Planted::ReplayFromSent,
        Planted::BackoffResetOnConnect,
        Planted::FlushForgotten,
    ] {
        let caught = (0..100).filter_map(|seed| schedule::play_planted(seed, bug).err()).next();
        let Some(breach) = caught else { panic!("{bug:?} was not caught within 100 schedules") };
        assert!(breach.story.contains("at its simplest"), "{breach}");
    }
}
