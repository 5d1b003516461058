//! Plans of the resampler: the transforms and the filter between two rates, which all resamplers between them
//! share.

use std::collections::VecDeque;
use std::f64::consts::PI;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustfft::num_complex::Complex;
use rustfft::num_traits::Zero as _;
use rustfft::{Fft, FftPlanner};

/// Longest time that a caller may choose for blocks to fill: longer blocks are no faster.
const LONGEST_FILL: Duration = Duration::from_secs(1);

/// Half the length of the filter, in frames of the lower rate. The value was chosen by measurement,
/// together with [`CUTOFF`] and [`BETA`]: the shortest filter that keeps 0.1 dB at 0.91 of the Nyquist
/// frequency and -120 dB from there on, both with a margin.
const REACH: usize = 80;

/// Frequency of half amplitude, in Nyquist frequencies of the lower rate.
const CUTOFF: f64 = 0.945;

/// Shape parameter of the Kaiser window.
const BETA: f64 = 12.5;

/// State shared by all resamplers between the same rates.
pub(super) struct Plan {
    pub(super) forward: Arc<dyn Fft<f32>>,
    pub(super) inverse: Arc<dyn Fft<f32>>,
    /// Spectrum of the filter, from 0 to below the lower Nyquist frequency.
    pub(super) response: Vec<Complex<f32>>,
    /// Length of a block before and after the conversion.
    pub(super) block: usize,
    pub(super) block_out: usize,
    /// Position of the filter's peak, which is the filter's delay in input frames.
    pub(super) peak: usize,
    /// Zeros inserted before the stream, so that `lead + peak` is a whole number of output frames.
    /// Without them, 44.1 kHz to 16 kHz would be 0.18 frames early.
    pub(super) lead: usize,
    /// Value of `lead + peak` in output frames.
    pub(super) ahead: usize,
}

/// Rates from and to, and the time that blocks take to fill.
type PlanKey = (u32, u32, Duration);

/// A plan that is made once. Only resamplers that need the same plan wait for it.
type PlanCell = Arc<OnceLock<Arc<Plan>>>;

/// Maximum total size of the transforms of kept plans, in points: enough for two plans from 191,999 Hz, a
/// prime number, or for hundreds at ordinary rates. A point takes some 40 bytes.
const POINTS_KEPT: usize = 1 << 20;

/// LRU cache of plans, which are kept even while unused. Planning takes a hundred times as long as the
/// rest (300 ms from 191,999 Hz), and a session with gaps creates one resampler after another.
#[derive(Default)]
struct PlanCache {
    /// Plans with their points, least recently used first.
    plans: VecDeque<(PlanKey, usize, PlanCell)>,
}

impl PlanCache {
    /// Returns the cell of a plan, which may be empty, and marks it as the most recently used.
    fn cell(&mut self, key: PlanKey) -> PlanCell {
        let known = self.plans.iter().position(|(known, ..)| *known == key);
        let plan = known.and_then(|at| self.plans.remove(at)).unwrap_or_else(|| {
            let sizes = Sizes::of(key.0, key.1, key.2);
            (key, sizes.fft + sizes.fft_out, PlanCell::default())
        });
        let cell = Arc::clone(&plan.2);
        self.plans.push_back(plan);
        let mut points: usize = self.plans.iter().map(|(_, points, _)| points).sum();
        while points > POINTS_KEPT
            && let Some((_, oldest, _)) = self.plans.pop_front()
        {
            points -= oldest;
        }
        cell
    }
}

impl Plan {
    /// Returns the cached plan for these parameters, or makes a new one.
    pub(super) fn shared(from_hz: u32, to_hz: u32, fill: Duration) -> Arc<Plan> {
        static PLANS: Mutex<PlanCache> = Mutex::new(PlanCache { plans: VecDeque::new() });
        let cell = PLANS.lock().unwrap_or_else(PoisonError::into_inner).cell((from_hz, to_hz, fill));
        // The plan is made outside of the lock.
        Arc::clone(cell.get_or_init(|| Arc::new(Plan::new(from_hz, to_hz, fill))))
    }

    fn new(from_hz: u32, to_hz: u32, fill: Duration) -> Plan {
        let sizes = Sizes::of(from_hz, to_hz, fill);
        let mut planner = FftPlanner::new();
        let forward = planner.plan_fft_forward(sizes.fft);
        let inverse = planner.plan_fft_inverse(sizes.fft_out);
        let mut taps = vec![Complex::zero(); sizes.fft];
        let cutoff = CUTOFF * f64::from(from_hz.min(to_hz)) / f64::from(from_hz);
        for (tap, value) in taps.iter_mut().zip(windowed_sinc(sizes.peak, cutoff)) {
            // rustfft scales neither transform.
            tap.re = (value / sizes.fft as f64) as f32;
        }
        forward.process(&mut taps);
        // Each bin is mirrored among the negative frequencies, except the one at the Nyquist frequency,
        // where the filter passes nothing.
        taps.truncate(sizes.fft.min(sizes.fft_out).div_ceil(2));
        let lead = sizes.peak.next_multiple_of(sizes.shortest) - sizes.peak;
        Plan {
            forward,
            inverse,
            response: taps,
            block: sizes.block,
            block_out: sizes.block / sizes.shortest * sizes.shortest_out,
            peak: sizes.peak,
            lead,
            ahead: (sizes.peak + lead) / sizes.shortest * sizes.shortest_out,
        }
    }
}

/// Returns a low-pass filter of `2 * reach + 1` taps with half amplitude at `cutoff` Nyquist frequencies,
/// and gain 1 at 0 Hz.
fn windowed_sinc(reach: usize, cutoff: f64) -> Vec<f64> {
    let mut taps: Vec<f64> = (0..=2 * reach)
        .map(|n| {
            let x = n as f64 - reach as f64;
            let sinc = if x == 0.0 { cutoff } else { (PI * cutoff * x).sin() / (PI * x) };
            // The window is 0 one frame beyond either end.
            sinc * bessel_i0(BETA * (1.0 - (x / (reach as f64 + 1.0)).powi(2)).sqrt())
        })
        .collect();
    let sum: f64 = taps.iter().sum();
    taps.iter_mut().for_each(|tap| *tap /= sum);
    taps
}

/// Returns the modified Bessel function of the first kind and order 0, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for k in 1_u32.. {
        term *= (x / 2.0 / f64::from(k)).powi(2);
        sum += term;
        if term < sum * f64::EPSILON {
            break;
        }
    }
    sum
}

/// Lengths of a plan, in input frames unless stated otherwise.
struct Sizes {
    block: usize,
    /// Length of the transform before and after the change of rate.
    fft: usize,
    fft_out: usize,
    peak: usize,
    /// Shortest block with whole frames on both sides.
    shortest: usize,
    shortest_out: usize,
}

impl Sizes {
    /// Returns lengths such that two blocks last `fill`, or longer if whole frames on both sides require
    /// it, and such that a transform holds one block and the tail of the filter's response.
    ///
    /// A transform is the shortest block times a factor with prime factors up to 5 only, for which FFTs
    /// are fast. Sizes chosen otherwise, such as powers of two, were measured up to five times slower.
    fn of(from_hz: u32, to_hz: u32, fill: Duration) -> Sizes {
        let divisor = greatest_common_divisor(from_hz, to_hz);
        let (shortest, shortest_out) = ((from_hz / divisor) as usize, (to_hz / divisor) as usize);
        let peak = REACH * from_hz as usize / from_hz.min(to_hz) as usize;
        let wanted = (fill.min(LONGEST_FILL) / 2).as_micros() as usize * from_hz as usize / 1_000_000;
        let block = wanted.next_multiple_of(shortest).max(shortest);
        let factor = ((block + 2 * peak).div_ceil(shortest)..)
            .find(|&n| is_smooth(n))
            .expect("powers of two are smooth");
        Sizes { block, fft: shortest * factor, fft_out: shortest_out * factor, peak, shortest, shortest_out }
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Returns whether `n` has no prime factor above 5.
fn is_smooth(mut n: usize) -> bool {
    for prime in [2, 3, 5] {
        while n.is_multiple_of(prime) {
            n /= prime;
        }
    }
    n == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resample::FILL;

    #[test]
    fn common_rates_get_blocks_of_10_to_40_ms() {
        let sizes = |from, to| {
            let sizes = Sizes::of(from, to, FILL);
            (sizes.block, sizes.fft, sizes.fft_out)
        };
        assert_eq!(sizes(44_100, 16_000), (441, 882, 320));
        assert_eq!(sizes(48_000, 16_000), (480, 960, 320));
        assert_eq!(sizes(16_000, 8_000), (160, 480, 240));
        assert_eq!(sizes(24_000, 16_000), (240, 480, 320));
        assert_eq!(sizes(8_000, 16_000), (80, 240, 480));
        // With common divisors of 50 and 25 Hz there is no shorter block.
        assert_eq!(sizes(22_050, 16_000), (441, 882, 640));
        assert_eq!(sizes(11_025, 16_000), (441, 882, 1_280));
    }

    /// Returns the points of a plan's transforms.
    fn points(from_hz: u32) -> usize {
        let sizes = Sizes::of(from_hz, 16_000, FILL);
        sizes.fft + sizes.fft_out
    }

    #[test]
    fn a_plan_outlives_its_resamplers() {
        // No other test uses this rate.
        let first = Plan::shared(44_123, 16_000, FILL);
        let plan = Arc::downgrade(&first);
        drop(first);
        let again = plan.upgrade().expect("the plan is kept");
        assert!(Arc::ptr_eq(&again, &Plan::shared(44_123, 16_000, FILL)));
    }

    #[test]
    fn who_plans_holds_up_only_those_who_need_the_same() {
        let mut cache = PlanCache::default();
        let (slow, other) = (cache.cell((191_999, 16_000, FILL)), cache.cell((44_100, 16_000, FILL)));
        assert!(Arc::ptr_eq(&slow, &cache.cell((191_999, 16_000, FILL))));
        slow.get_or_init(|| {
            // The other plan is made while this one is in progress.
            assert_eq!(other.get_or_init(|| Arc::new(Plan::new(44_100, 16_000, FILL))).block, 441);
            assert!(Arc::ptr_eq(&other, &cache.cell((44_100, 16_000, FILL))));
            Arc::new(Plan::new(8_000, 16_000, FILL))
        });
    }

    #[test]
    fn the_plans_that_are_kept_are_bounded_and_the_last_used() {
        let mut cache = PlanCache::default();
        let common = cache.cell((44_100, 16_000, FILL));
        for prime in [191_999, 191_977, 191_969, 191_957] {
            assert!(points(prime) > POINTS_KEPT / 4, "{prime} Hz");
            cache.cell((prime, 16_000, FILL));
            assert!(Arc::ptr_eq(&common, &cache.cell((44_100, 16_000, FILL))), "it was used last but one");
            assert!(cache.plans.iter().map(|(_, points, _)| points).sum::<usize>() <= POINTS_KEPT);
        }
        assert_eq!(cache.plans.len(), 3);
        assert!(!cache.plans.iter().any(|(key, ..)| key.0 == 191_999));
    }
}
