//! Random test cases that can be replayed.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// A random number generator (SplitMix64). It reports how to replay the same numbers if its test fails.
pub(crate) struct Random(u64);

impl Random {
    /// Returns the generator for `test`, seeded with [`seed`], and prints the command that replays the
    /// test. The output is shown if the test fails.
    #[allow(clippy::print_stdout, reason = "the one line that a failure needs")]
    pub(crate) fn for_test(test: &str) -> Random {
        println!("{}", replay(test, seed()));
        Random(seed())
    }

    /// Returns a generator that starts at `seed`, for a test that counts its own seeds.
    pub(crate) fn seeded(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Returns a sample in -1.0..1.0.
    pub(crate) fn sample(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// Returns the seed of this run: `VOXLINE_SEED`, or else 1.
#[allow(clippy::disallowed_methods, reason = "the one knob of the tests")]
pub(crate) fn seed() -> u64 {
    std::env::var("VOXLINE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// Returns the first seed of a test that plays different cases in each run: `VOXLINE_SEED`, or else a
/// seed from the current time. Runs that begin a second apart have ten thousand seeds between them.
#[allow(
    clippy::disallowed_methods,
    reason = "runs move on with the time; what they print says where they are"
)]
pub(crate) fn moving_seed() -> u64 {
    let asked = std::env::var("VOXLINE_SEED").ok().and_then(|seed| seed.parse().ok());
    asked.unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.expect("the clock is past 1970").as_secs() * 10_000
    })
}

/// Returns the command that runs `test` with this seed.
pub(crate) fn replay(test: &str, seed: u64) -> String {
    format!("replay: VOXLINE_SEED={seed} cargo test -p voxline-cli --test it -- --exact {test}")
}

/// Plays all of these seeds on two threads, and returns the tally of each thread.
pub(crate) fn play_all<T: Default + Send>(seeds: Range<u64>, play: impl Fn(u64, &mut T) + Sync) -> Vec<T> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut tally = T::default();
        loop {
            match next.fetch_add(1, Ordering::Relaxed) {
                seed if seed < seeds.end => play(seed, &mut tally),
                _ => return tally,
            }
        }
    };
    thread::scope(|scope| {
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic))).into()
    })
}
