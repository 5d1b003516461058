//! Ten thousand random fault schedules on the session's core.

use voxline::testing::schedule::{self, Breach};

use crate::random;

/// How many schedules are played.
const SCHEDULES: u64 = 10_000;

#[test]
fn random_faults_lose_nothing_and_repeat_nothing() {
    const TEST: &str = "schedule::random_faults_lose_nothing_and_repeat_nothing";
    let first = random::seed();
    let (mut whole, mut reconnects) = (0, 0);
    for seed in first..first + SCHEDULES {
        match schedule::play(seed) {
            Ok(played) => {
                if let Ok(ledger) = played.result {
                    whole += 1;
                    reconnects += ledger.reconnects;
                }
            }
            Err(breach) => {
                let Breach { seed, .. } = *breach;
                panic!("{breach}\n{}", random::replay(TEST, seed));
            }
        }
    }
    // The rest were ended by faults that allow no recovery, as they should be.
    assert!(whole > SCHEDULES * 8 / 10, "only {whole} sessions ended well");
    assert!(reconnects > SCHEDULES / 2, "only {reconnects} reconnects: the faults don't strike");
}

#[test]
fn the_same_seed_gives_the_same_story() {
    for seed in 0..200 {
        let [one, two] = [schedule::play(seed).unwrap(), schedule::play(seed).unwrap()];
        assert!(!one.log.is_empty() && one.log == two.log, "schedule {seed}");
        assert_eq!((one.result, one.duration), (two.result, two.duration));
    }
}
