//! Random cases that can be run again.

use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// A generator (SplitMix64) that says how to get the same numbers again when its test fails.
pub(crate) struct Random(u64);

impl Random {
    /// The generator for `test`, seeded with [`seed`]. What it prints is shown by a test that fails.
    #[allow(clippy::print_stdout, reason = "the one line that a failure needs")]
    pub(crate) fn for_test(test: &str) -> Random {
        println!("{}", replay(test, seed()));
        Random(seed())
    }

    /// The generator that starts at `seed`, for a test that counts its own.
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

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// A sample in -1.0..1.0.
    pub(crate) fn sample(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }
}

/// The seed of this run: `VOXLINE_SEED`, or else always the same.
#[allow(clippy::disallowed_methods, reason = "the one knob of the tests")]
pub(crate) fn seed() -> u64 {
    std::env::var("VOXLINE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

/// The first seed of a test that plays other cases in each run: `VOXLINE_SEED`, or else one that the time
/// decides. Runs that begin a second apart have ten thousand seeds between them.
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

/// The command that runs `test` with this seed.
pub(crate) fn replay(test: &str, seed: u64) -> String {
    format!("replay: VOXLINE_SEED={seed} cargo test -p voxline-cli --test it -- --exact {test}")
}

/// Plays all of these seeds, on two threads, and returns what each thread came to.
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
