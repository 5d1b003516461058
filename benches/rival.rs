//! rubato's FFT resampler, set to the quality of ours: the rival in a benchmark, the reference in a test.

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{Fft, FixedSync, Resampler as _, WindowFunction};

/// Rates that are compared: recordings and telephony, to the rate of recognition.
pub(crate) const FROM: [u32; 4] = [8_000, 11_025, 44_100, 48_000];
/// Rate of recognition.
pub(crate) const TO: u32 = 16_000;

/// Shortest block of rubato, in frames of the lower rate, that keeps to the contract of ours: 0.1 dB at 0.91
/// of the lower Nyquist frequency, and no image or alias above -120 dB. rubato's filter is as long as its
/// block; of 200 frames it takes 0.6 dB.
const BLOCK: u32 = 240;

/// rubato's resampler of one mono stream.
pub(crate) struct Rival {
    fft: Fft<f32>,
}

impl Rival {
    /// Creates a resampler of equal quality: rubato's fastest for a fixed pair of rates, with its default
    /// window. The block has an even number of input frames, since rubato centres no other filter.
    pub(crate) fn new(from_hz: u32, to_hz: u32) -> Rival {
        let rival = Rival::with_block(from_hz, to_hz, BLOCK);
        if rival.block().is_multiple_of(2) { rival } else { Rival::with_block(from_hz, to_hz, 2 * BLOCK) }
    }

    /// Creates a resampler whose block has `block` frames of the lower rate, or as many more as whole
    /// frames on both sides require.
    pub(crate) fn with_block(from_hz: u32, to_hz: u32, block: u32) -> Rival {
        let input = block as usize * from_hz as usize / from_hz.min(to_hz) as usize;
        let (from_hz, to_hz) = (from_hz as usize, to_hz as usize);
        let window = WindowFunction::BlackmanHarris2;
        let fft = Fft::new_custom(from_hz, to_hz, input, 1, 1, window, FixedSync::Both)
            .expect("the rates are not 0, and a block has frames");
        Rival { fft }
    }

    /// Returns the length of a block, in input frames.
    pub(crate) fn block(&self) -> usize {
        self.fft.fft_size_in()
    }

    /// Returns the number of output frames that precede the one at the time of the first input frame.
    #[allow(dead_code, reason = "the benchmark has no use for it")]
    pub(crate) fn delay(&self) -> usize {
        self.fft.output_delay()
    }

    /// Takes `input`, whole blocks, and fills `out` with as many blocks of output.
    pub(crate) fn push(&mut self, input: &[f32], out: &mut [f32]) {
        let blocks = input.chunks_exact(self.fft.fft_size_in());
        for (input, out) in blocks.zip(out.chunks_exact_mut(self.fft.fft_size_out())) {
            let (frames_in, frames_out) = (input.len(), out.len());
            let input = InterleavedSlice::new(input, 1, frames_in).expect("one channel");
            let mut out = InterleavedSlice::new_mut(out, 1, frames_out).expect("one channel");
            self.fft.process_into_buffer(&input, &mut out, None).expect("the buffers are of its length");
        }
    }
}
