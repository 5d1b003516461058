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

mod plan;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use rustfft::num_complex::Complex;
use rustfft::num_traits::Zero as _;

use self::plan::Plan;

/// Supported rates, in Hz: from telephony to studio recordings. Rates outside come from damaged headers.
pub const RATES: RangeInclusive<u32> = 8_000..=192_000;

/// Loudest sample, in full scales. A louder one is a decoder's mistake. The longest block still has a
/// finite sum with samples of this level, which it would not have with [`f32::MAX`].
const LOUDEST: f32 = 1e30;

/// Default time that a pair of blocks takes to fill: a fifth of the 100 ms that a recogniser is sent at
/// once, and the amount that a telephone sends at once.
const FILL: Duration = Duration::from_millis(20);

/// Error creating a resampler: the caller takes another rate.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_counted_exactly_far_from_the_start() {
        assert_eq!(frames_at(44_100 * 3_600 * 24 * 3_650, 44_100, 16_000), 16_000 * 3_600 * 24 * 3_650);
        assert_eq!(frames_at(441, 44_100, 16_000), 160);
        assert_eq!(frames_at(1, 48_000, 16_000), 0);
        assert_eq!(frames_at(1, 32_000, 16_000), 1); // halves round up
    }
}
