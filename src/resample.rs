//! Sample rate conversion, block by block, without shifting the audio in time.
//!
//! The filter is a windowed sinc, applied to successive blocks in the frequency domain (overlap-add). The
//! rate changes there, too: the lengths of the inverse and the forward transform have the ratio of the
//! rates. The filter attenuates everything from the lower of the two Nyquist frequencies on by more than
//! 120 dB, and keeps everything up to 0.91 of it within 0.1 dB.
//!
//! A frame is delayed for two reasons. First, its pair of blocks must fill, which takes 20 ms at ordinary
//! rates. Second, the filter needs frames after it: 80 frames of the lower rate, which is 5 ms to 16 kHz,
//! and 10 ms to or from 8 kHz. Rates with a small common divisor take longer to fill (40 ms from 22.05
//! and 80 ms from 11.025 to 8 or 16 kHz), since a block must be a whole number of frames at both rates.

use std::collections::VecDeque;
use std::f64::consts::PI;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustfft::num_complex::Complex;
use rustfft::num_traits::Zero as _;
use rustfft::{Fft, FftPlanner};

/// Supported rates, in Hz: from telephony to studio recordings. Rates outside come from damaged headers.
pub const RATES: RangeInclusive<u32> = 8_000..=192_000;

/// Loudest sample, in full scales. A louder one is a decoder's mistake. The longest block still has a
/// finite sum with samples of this level, which it would not have with [`f32::MAX`].
const LOUDEST: f32 = 1e30;

/// Default time that a pair of blocks takes to fill: a fifth of the 100 ms that a recogniser is sent at
/// once, and the amount that a telephone sends at once.
const FILL: Duration = Duration::from_millis(20);

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

/// Error creating a resampler.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResampleError {
    /// A rate is outside [`RATES`].
    #[error("cannot resample from {from_hz} Hz to {to_hz} Hz, expected rates from {} to {} Hz", RATES.start(), RATES.end())]
    Rate {
        /// Rate of the input, in Hz.
        from_hz: u32,
        /// Requested output rate, in Hz.
        to_hz: u32,
    },
}

/// Resampler of one mono stream. A source that changes its rate is two streams:
/// [finish](Resampler::finish) the first.
///
/// From `n` input frames the resampler makes exactly `n * to_hz / from_hz` frames, rounded to the
/// nearest, the first of which is at the time of the first input frame. Any split of the input into
/// pushes yields the same samples, bit for bit. At equal rates the samples pass unchanged. Otherwise a
/// sample that is not finite, or louder than 1e30 times full scale, counts as silence: the loss is one
/// frame instead of the stream.
pub struct Resampler {
    from_hz: u32,
    to_hz: u32,
    /// Filter; `None` if the rates are equal.
    filter: Option<Filter>,
    /// Input frames since the start of the stream.
    taken: u64,
    /// Output frames since the start of the stream.
    made: u64,
}

impl Resampler {
    /// Creates a resampler from `from_hz` to `to_hz` frames per second.
    ///
    /// # Errors
    /// Returns [`ResampleError`] if a rate is outside [`RATES`].
    pub fn new(from_hz: u32, to_hz: u32) -> Result<Resampler, ResampleError> {
        Resampler::with_fill(from_hz, to_hz, FILL)
    }

    /// Creates a resampler whose blocks take `fill` to fill, if the rates allow, instead of 20 ms. Audio
    /// that is not live is converted with less work in longer blocks: from 44.1 or 8 kHz to 16 kHz, 40 ms
    /// take about 0.6 of the work. The samples differ by rounding only.
    ///
    /// # Errors
    /// Returns [`ResampleError`] if a rate is outside [`RATES`].
    pub fn with_fill(from_hz: u32, to_hz: u32, fill: Duration) -> Result<Resampler, ResampleError> {
        if !RATES.contains(&from_hz) || !RATES.contains(&to_hz) {
            return Err(ResampleError::Rate { from_hz, to_hz });
        }
        let filter = (from_hz != to_hz).then(|| Filter::new(Plan::shared(from_hz, to_hz, fill)));
        Ok(Resampler { from_hz, to_hz, filter, taken: 0, made: 0 })
    }

    /// Returns the maximum number of input frames that are pushed and not yet in the output. They are the
    /// pair of blocks that has to fill, less its last frame, and the half of the filter that lies ahead
    /// of a frame. 0 if the rates are equal.
    #[must_use]
    pub fn delay(&self) -> usize {
        self.filter.as_ref().map_or(0, |filter| 2 * filter.plan.block - 1 + filter.plan.peak)
    }

    /// Takes `input` and appends the completed frames to `out`. Allocates only if `out` has to grow.
    pub fn push(&mut self, input: &[f32], out: &mut Vec<f32>) {
        self.taken += input.len() as u64;
        let before = out.len();
        match &mut self.filter {
            None => out.extend_from_slice(input),
            Some(filter) => filter.push(input, out),
        }
        self.made += (out.len() - before) as u64;
    }

    /// Ends the stream: appends the frames still inside. The resampler is then ready for another stream.
    pub fn finish(&mut self, out: &mut Vec<f32>) {
        if let Some(filter) = &mut self.filter {
            let total = frames_at(self.taken, self.from_hz, self.to_hz);
            // invariant: made <= total, since half the filter is longer than half an output frame
            let missing =
                usize::try_from(total - self.made).expect("the filter holds back less than memory does");
            filter.flush(missing, out);
        }
        (self.taken, self.made) = (0, 0);
    }
}

impl std::fmt::Debug for Resampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Resampler({} Hz to {} Hz, {} frames in)", self.from_hz, self.to_hz, self.taken)
    }
}

/// Returns the number of frames at `to_hz` that last as long as `frames` at `from_hz`, rounded to the
/// nearest.
#[must_use]
pub fn frames_at(frames: u64, from_hz: u32, to_hz: u32) -> u64 {
    let (from, to) = (u128::from(from_hz), u128::from(to_hz));
    let rounded = (u128::from(frames) * to * 2 + from) / (2 * from);
    u64::try_from(rounded).expect("a stream of fewer than 2^64 frames at either rate")
}

/// State shared by all resamplers between the same rates.
struct Plan {
    forward: Arc<dyn Fft<f32>>,
    inverse: Arc<dyn Fft<f32>>,
    /// Spectrum of the filter, from 0 to below the lower Nyquist frequency.
    response: Vec<Complex<f32>>,
    /// Length of a block before and after the conversion.
    block: usize,
    block_out: usize,
    /// Position of the filter's peak, which is the filter's delay in input frames.
    peak: usize,
    /// Zeros inserted before the stream, so that `lead + peak` is a whole number of output frames.
    /// Without them, 44.1 kHz to 16 kHz would be 0.18 frames early.
    lead: usize,
    /// Value of `lead + peak` in output frames.
    ahead: usize,
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
    fn shared(from_hz: u32, to_hz: u32, fill: Duration) -> Arc<Plan> {
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

/// Filter of one stream, with the pair of blocks that it is filling.
///
/// The filter's taps are real, so it affects the real and the imaginary part of a complex signal alike,
/// and one transform takes two blocks. This is half the work, without the reordering that real transforms
/// need afterwards.
struct Filter {
    plan: Arc<Plan>,
    /// Pair of blocks: the first is the real part of the first frames, the second their imaginary part;
    /// the rest is zero.
    pair: Vec<Complex<f32>>,
    /// Number of frames in the pair.
    filled: usize,
    filtered: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    /// Output of this pair of blocks, followed by the tail of the filter's response, which is added to
    /// the next.
    sum: Vec<f32>,
    /// Output frames before the start of the stream that are still to be dropped.
    skip: usize,
}

impl Filter {
    fn new(plan: Arc<Plan>) -> Filter {
        let (forward, inverse) = (&plan.forward, &plan.inverse);
        Filter {
            pair: vec![Complex::zero(); forward.len()],
            filled: plan.lead,
            filtered: vec![Complex::zero(); inverse.len()],
            scratch: vec![
                Complex::zero();
                forward.get_inplace_scratch_len().max(inverse.get_inplace_scratch_len())
            ],
            sum: vec![0.0; plan.block_out + inverse.len()],
            skip: plan.ahead,
            plan,
        }
    }

    fn push(&mut self, mut input: &[f32], out: &mut Vec<f32>) {
        let block = self.plan.block;
        while !input.is_empty() {
            let second = self.filled >= block;
            let room = &mut self.pair[if second { self.filled - block } else { self.filled }..block];
            let (head, rest) = input.split_at(room.len().min(input.len()));
            for (place, &sample) in room.iter_mut().zip(head) {
                // The comparison is false for NaN, too.
                let sample = if sample.abs() <= LOUDEST { sample } else { 0.0 };
                if second {
                    place.im = sample;
                } else {
                    place.re = sample;
                }
            }
            self.filled += head.len();
            input = rest;
            if self.filled == 2 * block {
                self.run(out);
            }
        }
    }

    /// Filters the pair of blocks and appends the output, without frames before the start of the stream.
    fn run(&mut self, out: &mut Vec<f32>) {
        let plan = &*self.plan;
        plan.forward.process_with_scratch(&mut self.pair, &mut self.scratch);
        // Positive frequencies come first; negative ones follow backwards from the end, and their
        // response is conjugate.
        let bins = plan.response.len();
        let (positive, negative) = self.filtered.split_at_mut(bins);
        for ((to, from), by) in positive.iter_mut().zip(&self.pair).zip(&plan.response) {
            *to = from * by;
        }
        let (above, negative) = negative.split_at_mut(negative.len() - (bins - 1));
        above.fill(Complex::zero());
        let backwards = negative.iter_mut().rev().zip(self.pair.iter().rev());
        for ((to, from), by) in backwards.zip(&plan.response[1..]) {
            *to = from * by.conj();
        }
        plan.inverse.process_with_scratch(&mut self.filtered, &mut self.scratch);
        for (sum, frame) in self.sum.iter_mut().zip(&self.filtered) {
            *sum += frame.re;
        }
        for (sum, frame) in self.sum[plan.block_out..].iter_mut().zip(&self.filtered) {
            *sum += frame.im;
        }
        let ready = 2 * plan.block_out;
        let skipped = self.skip.min(ready);
        self.skip -= skipped;
        out.extend_from_slice(&self.sum[skipped..ready]);
        self.sum.copy_within(ready.., 0);
        let left = self.sum.len() - ready;
        self.sum[left..].fill(0.0);
        self.clear();
    }

    /// Empties the pair of blocks.
    fn clear(&mut self) {
        self.pair.fill(Complex::zero());
        self.filled = 0;
    }

    /// Appends exactly `missing` frames by pushing silence, and resets the filter.
    fn flush(&mut self, missing: usize, out: &mut Vec<f32>) {
        let end = out.len() + missing;
        while out.len() < end {
            self.run(out);
        }
        out.truncate(end);
        self.clear();
        self.sum.fill(0.0);
        self.filled = self.plan.lead;
        self.skip = self.plan.ahead;
    }
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

    #[test]
    fn frames_are_counted_exactly_far_from_the_start() {
        assert_eq!(frames_at(44_100 * 3_600 * 24 * 3_650, 44_100, 16_000), 16_000 * 3_600 * 24 * 3_650);
        assert_eq!(frames_at(441, 44_100, 16_000), 160);
        assert_eq!(frames_at(1, 48_000, 16_000), 0);
        assert_eq!(frames_at(1, 32_000, 16_000), 1); // halves round up
    }
}
