//! Random fault schedules of the session's state machine: ten thousand per run, or as many as
//! `VOXLINE_SCHEDULES` states, and different ones in each run.

use voxline::session::Ledger;
use voxline_testing::Planted;
use voxline_testing::schedule::{self, Breach, Played};

use voxline_fixtures::knob::knob;
use voxline_fixtures::random;

/// Returns the number of schedules to play.
fn schedules() -> u64 {
    knob("VOXLINE_SCHEDULES").unwrap_or(10_000)
}

/// Sums over all schedules of a thread.
#[derive(Default)]
struct Tally {
    /// Sessions that ended well.
    whole: u64,
    /// Sessions that continued in a new one of a server while the previous session still ran.
    restarts: u64,
    /// Sums of reconnects, handovers, token renewals and gaps; the other counts stay zero.
    sum: Ledger,
}

impl Tally {
    fn add(&mut self, played: &Played) {
        let Ledger { reconnects, handovers, token_renewals, gaps, .. } = played.ended.ledger;
        self.whole += u64::from(played.ended.result.is_ok());
        let anew = played.log.iter().filter(|happening| happening.what() == "starts anew while it runs");
        self.restarts += anew.count() as u64;
        self.sum.reconnects += reconnects;
        self.sum.handovers += handovers;
        self.sum.token_renewals += token_renewals;
        self.sum.gaps += gaps;
    }
}

/// Plays as many schedules as are asked for, each by `play`. Returns the number of schedules and the sums.
#[allow(clippy::print_stdout, reason = "the figures of a long run")]
fn play_all(test: &str, play: fn(u64) -> Result<Played, Box<Breach>>) -> (u64, Tally) {
    let (first, count) = (random::moving_seed(), schedules());
    let tallies = random::play_all(first..first + count, |seed, tally: &mut Tally| match play(seed) {
        Ok(played) => tally.add(&played),
        Err(breach) => panic!("{breach}\n{}", random::replay(test, seed)),
    });
    let mut all = Tally::default();
    for Tally { whole, restarts, sum } in tallies {
        all.whole += whole;
        all.restarts += restarts;
        all.sum.reconnects += sum.reconnects;
        all.sum.handovers += sum.handovers;
        all.sum.token_renewals += sum.token_renewals;
        all.sum.gaps += sum.gaps;
    }
    let Tally { whole, restarts, sum: Ledger { reconnects, handovers, token_renewals, gaps, .. } } = all;
    println!(
        "{count} schedules from seed {first}: {whole} whole, {reconnects} reconnects, {handovers} handovers, {restarts} restarts, {token_renewals} token renewals, {gaps} frames in gaps"
    );
    (count, all)
}

#[test]
fn random_faults_lose_nothing_and_repeat_nothing() {
    let test = "schedule::random_faults_lose_nothing_and_repeat_nothing";
    let (count, Tally { whole, restarts, sum }) = play_all(test, schedule::play);
    // The other sessions were ended by faults that allow no recovery, as they should be. Lower counts
    // would mean that the faults have no effect.
    assert!(whole > count * 7 / 10, "only {whole} sessions ended well");
    assert!(sum.reconnects > count / 2 && sum.handovers > count / 20);
    assert!(sum.token_renewals > count / 20 && sum.gaps > count / 10);
    // One schedule in 62 has a restart: of a thousand, which the mutants are played, five at the least.
    assert!(restarts > count / 200, "only {restarts} restarts");
}

/// The same faults with a server that can resume nothing and acknowledges by its replies.
#[test]
fn a_vosk_server_loses_nothing_and_repeats_nothing() {
    let test = "schedule::a_vosk_server_loses_nothing_and_repeats_nothing";
    let (count, Tally { whole, restarts, sum }) = play_all(test, schedule::play_vosk);
    assert!(whole > count * 7 / 10, "only {whole} sessions ended well");
    assert!(sum.reconnects > count / 2 && sum.gaps > count / 10);
    // Connections that would soon be closed are replaced before.
    assert!(
        sum.handovers > count / 100 && restarts > count / 100,
        "{} handovers, {restarts} restarts",
        sum.handovers
    );
}

#[test]
fn the_same_seed_gives_the_same_story() {
    for seed in 0..200 {
        for play in [schedule::play, schedule::play_vosk] {
            let [one, two] = [play(seed).unwrap(), play(seed).unwrap()];
            assert!(!one.log.is_empty() && one.log == two.log, "schedule {seed}");
            assert_eq!((one.ended.result, one.duration), (two.ended.result, two.duration));
        }
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
