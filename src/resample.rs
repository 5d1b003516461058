//! Changing the sample rate, block by block, without moving the audio in time.
//!
//! The filter is rubato's FFT resampler, in blocks and with windows that keep everything above the lower of the two
//! Nyquist frequencies below -120 dB and everything up to 0.91 of it within 0.1 dB. What rubato leaves to its caller
//! is done here: cutting the input into its blocks, removing the filter's delay, ending on the exact number of
//! frames, and keeping out samples that are no numbers, at which it panics.
//!
//! A frame waits for two things before it is in the output: for its block to fill, and for the frames after it that
//! the filter needs, which are half a block (the filter is as long as a block and symmetric). At ordinary rates the
//! filter's part is at most 15 ms: 5 ms from 44.1 or 48 kHz to 16 kHz, 10 ms from anything to 8 kHz, 15 ms from
//! 8 kHz upwards. Between 11.025 kHz and 8 or 16 kHz it is 20 ms, for no block shorter than 441 frames of 11.025 kHz
//! lasts a whole number of frames at the other rate.

use std::ops::RangeInclusive;

use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

/// The rates that can be resampled between, in Hz: telephony to studio recordings. Outside lie broken headers.
pub const RATES: RangeInclusive<u32> = 8_000..=192_000;

/// What is louder than this, in full scales, is no sound but a decoder's mistake. Sums of as many such samples as the
/// longest block has are still finite, which a sum of [`f32::MAX`] is not.
const LOUDEST: f32 = 1e30;

/// Why there is no resampler.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ResampleError {
    /// A rate is outside [`RATES`].
    #[error("cannot resample from {from_hz} Hz to {to_hz} Hz, expected rates from {} to {} Hz", RATES.start(), RATES.end())]
    Rate {
        /// The rate of the input.
        from_hz: u32,
        /// The rate asked for.
        to_hz: u32,
    },
}

/// Resamples one mono stream.
///
/// Of `n` input frames it makes exactly `n * to_hz / from_hz` frames, rounded to the nearest, and the first of them
/// is at the time of the first input frame. Any split of the input into pushes gives the same samples, bit for bit.
/// Equal rates pass the samples through. Otherwise a sample that is not finite, or louder than 1e30 times full scale,
/// counts as silence: it costs one frame and not the stream.
pub struct Resampler {
    from_hz: u32,
    to_hz: u32,
    /// `None` when the rates are equal.
    filter: Option<Filter>,
    /// Input frames since the start of the stream.
    taken: u64,
    /// Output frames since the start of the stream.
    made: u64,
}

impl Resampler {
    /// A resampler from `from_hz` to `to_hz` frames per second.
    ///
    /// # Errors
    /// If a rate is outside [`RATES`].
    pub fn new(from_hz: u32, to_hz: u32) -> Result<Resampler, ResampleError> {
        if !RATES.contains(&from_hz) || !RATES.contains(&to_hz) {
            return Err(ResampleError::Rate { from_hz, to_hz });
        }
        let filter = (from_hz != to_hz).then(|| Filter::new(from_hz, to_hz));
        Ok(Resampler { from_hz, to_hz, filter, taken: 0, made: 0 })
    }

    /// How many input frames are inside at most: pushed, but not in the output yet. They are the block that has to
    /// fill, less its last frame, and the half of the filter that lies ahead of a frame. 0 when the rates are equal.
    #[must_use]
    pub fn delay(&self) -> usize {
        self.filter.as_ref().map_or(0, |filter| filter.block.len() - 1 + filter.peak)
    }

    /// Takes `input` and appends what is complete to `out`. Allocates only if `out` has to grow.
    pub fn push(&mut self, input: &[f32], out: &mut Vec<f32>) {
        self.taken += input.len() as u64;
        let before = out.len();
        match &mut self.filter {
            None => out.extend_from_slice(input),
            Some(filter) => filter.push(input, out),
        }
        self.made += (out.len() - before) as u64;
    }

    /// Ends the stream: appends the frames still inside. The resampler is then as new, ready for another stream.
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

/// How many frames at `to_hz` last as long as `frames` at `from_hz`, rounded to the nearest.
#[must_use]
pub fn frames_at(frames: u64, from_hz: u32, to_hz: u32) -> u64 {
    let (from, to) = (u128::from(from_hz), u128::from(to_hz));
    let rounded = (u128::from(frames) * to * 2 + from) / (2 * from);
    u64::try_from(rounded).expect("a stream of fewer than 2^64 frames at either rate")
}

/// The FFT filter with the block it is filling.
struct Filter {
    fft: Fft<f32>,
    /// One block of input; the first `filled` frames are taken.
    block: Vec<f32>,
    filled: usize,
    /// One block of output.
    resampled: Vec<f32>,
    /// Where the filter has its peak: how many input frames it delays.
    peak: usize,
    /// Zeros put before the stream, so that `lead + peak` is a whole number of output frames.
    lead: usize,
    /// `lead + peak` in output frames.
    ahead: usize,
    /// Output frames of those still to be dropped.
    skip: usize,
}

impl Filter {
    fn new(from_hz: u32, to_hz: u32) -> Filter {
        let sizes = BlockSizes::of(from_hz, to_hz);
        let fft = Fft::new_custom(
            from_hz as usize,
            to_hz as usize,
            sizes.input,
            1,
            1,
            if from_hz > to_hz { DOWN.window } else { UP.window },
            FixedSync::Both,
        )
        .expect("rates and block size are above zero");
        // invariant: a multiple of the shortest block with whole frames on both sides is taken as it is
        debug_assert_eq!((fft.fft_size_in(), fft.fft_size_out()), (sizes.input, sizes.output));
        // rubato rounds down. With the lead the peak is on a common multiple of both periods: without it 44.1 kHz to
        // 16 kHz would be 0.18 frames early.
        let peak = sizes.input / 2;
        let lead = peak.next_multiple_of(sizes.shortest_input) - peak;
        let ahead = (peak + lead) / sizes.shortest_input * sizes.shortest_output;
        Filter {
            fft,
            block: vec![0.0; sizes.input],
            filled: lead,
            resampled: vec![0.0; sizes.output],
            peak,
            lead,
            ahead,
            skip: ahead,
        }
    }

    fn push(&mut self, mut input: &[f32], out: &mut Vec<f32>) {
        while !input.is_empty() {
            let room = &mut self.block[self.filled..];
            let (head, rest) = input.split_at(room.len().min(input.len()));
            for (place, &sample) in room.iter_mut().zip(head) {
                // False for NaN too.
                *place = if sample.abs() <= LOUDEST { sample } else { 0.0 };
            }
            self.filled += head.len();
            input = rest;
            if self.filled == self.block.len() {
                self.filled = 0;
                self.run(out);
            }
        }
    }

    /// Resamples the block and appends what comes out, less what lies before the stream.
    fn run(&mut self, out: &mut Vec<f32>) {
        let (taken, made) = (self.block.len(), self.resampled.len());
        let input =
            SequentialSlice::new(&self.block, 1, taken).expect("one channel of the slice's own length");
        let mut output = SequentialSlice::new_mut(&mut self.resampled, 1, made)
            .expect("one channel of the slice's own length");
        self.fft
            .process_into_buffer(&input, &mut output, None)
            .expect("both buffers have the resampler's block size");
        let skipped = self.skip.min(self.resampled.len());
        self.skip -= skipped;
        out.extend_from_slice(&self.resampled[skipped..]);
    }

    /// Appends exactly `missing` frames by pushing silence, and starts over.
    fn flush(&mut self, missing: usize, out: &mut Vec<f32>) {
        let end = out.len() + missing;
        while out.len() < end {
            self.block[self.filled..].fill(0.0);
            self.filled = 0;
            self.run(out);
        }
        out.truncate(end);
        self.fft.reset();
        self.block.fill(0.0);
        self.filled = self.lead;
        self.skip = self.ahead;
    }
}

/// A window, and how long it must be for the contract.
struct Setting {
    window: WindowFunction,
    /// The shortest filter that is within 0.1 dB at 0.91 of the lower Nyquist frequency, in frames of the lower rate.
    frames: u32,
}

/// From the lower Nyquist frequency on it is below -121 dB, measured; the edge has 0.005 dB to spare.
const DOWN: Setting = Setting { window: WindowFunction::BlackmanHarris, frames: 160 };

/// rubato filters at the input's rate and interpolates each block as if it repeated, so what comes near the Nyquist
/// frequency is mirrored at its own strength. The window must have fallen below -120 dB before that, not at it: with
/// that of [`DOWN`] the image of a tone at 0.999 of it is at -106 dB, at any length.
const UP: Setting = Setting { window: WindowFunction::BlackmanHarris2, frames: 240 };

/// The lengths of a block before and after, in frames.
struct BlockSizes {
    input: usize,
    output: usize,
    /// The shortest block with whole frames on both sides.
    shortest_input: usize,
    shortest_output: usize,
}

impl BlockSizes {
    /// The block that covers 10 ms or the frames of [`DOWN`] or [`UP`], whichever is longer: shorter blocks make a
    /// filter that cuts into speech, longer ones only delay. Rates with a small common divisor force a longer one, at
    /// most a second.
    ///
    /// It is a multiple of the shortest block by a factor with primes up to 5 only, for which FFTs are fast. Block
    /// sizes picked without that, such as powers of two, were measured up to five times slower.
    fn of(from_hz: u32, to_hz: u32) -> BlockSizes {
        let divisor = greatest_common_divisor(from_hz, to_hz);
        let (shortest_input, shortest_output) = (from_hz / divisor, to_hz / divisor);
        let shortest_low = shortest_input.min(shortest_output);
        let setting = if from_hz > to_hz { DOWN } else { UP };
        let wanted_low = (from_hz.min(to_hz) / 100).max(setting.frames);
        let factor =
            (wanted_low.div_ceil(shortest_low)..).find(|&n| is_smooth(n)).expect("powers of two are smooth");
        BlockSizes {
            input: (shortest_input * factor) as usize,
            output: (shortest_output * factor) as usize,
            shortest_input: shortest_input as usize,
            shortest_output: shortest_output as usize,
        }
    }
}

fn greatest_common_divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// Whether `n` has no prime factor above 5.
fn is_smooth(mut n: u32) -> bool {
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
        let blocks = |from, to| {
            let sizes = BlockSizes::of(from, to);
            (sizes.input, sizes.output)
        };
        assert_eq!(blocks(44_100, 16_000), (441, 160));
        assert_eq!(blocks(48_000, 16_000), (480, 160));
        assert_eq!(blocks(32_000, 16_000), (320, 160));
        assert_eq!(blocks(16_000, 8_000), (320, 160));
        assert_eq!(blocks(24_000, 16_000), (240, 160));
        assert_eq!(blocks(8_000, 16_000), (240, 480));
        assert_eq!(blocks(16_000, 24_000), (240, 360));
        assert_eq!(blocks(32_000, 48_000), (320, 480));
        // The common divisors of 50 and 25 Hz leave nothing shorter.
        assert_eq!(blocks(22_050, 16_000), (441, 320));
        assert_eq!(blocks(11_025, 16_000), (441, 640));
    }

    #[test]
    fn frames_are_counted_exactly_far_from_the_start() {
        assert_eq!(frames_at(44_100 * 3_600 * 24 * 3_650, 44_100, 16_000), 16_000 * 3_600 * 24 * 3_650);
        assert_eq!(frames_at(441, 44_100, 16_000), 160);
        assert_eq!(frames_at(1, 48_000, 16_000), 0);
        assert_eq!(frames_at(1, 32_000, 16_000), 1); // halves round up
    }
}
