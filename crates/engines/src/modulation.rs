//! Spectral change, which tells speech, also in noise, from tones and steady noise.
//!
//! Loudness alone cannot: it hardly changes where a noise is louder than the speech in it. But speech
//! moves from sound to sound without a rest, and changes some bands relative to others wherever it stands
//! out from the noise. The spectrum of a tone changes only where the tone begins and ends, and that of
//! noise only at random.
//!
//! The figures below were measured with 20 telephone prompts and readings and 20 single digits (English
//! and Russian), in white, pink, brown, fan and babble noise, hum, music and telephone tones at 20 to 0
//! dB, and with 5 minutes of each noise and the tones of ITU-T E.180 by themselves. `benches/noise.py`
//! shows the results.

use std::collections::VecDeque;
use std::sync::Arc;

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use voxline::engine::RECOGNIZER_RATE;
use voxline::vad::HOP;

/// Samples in a spectrum: 32 ms, so that a bin is 31 Hz wide and the harmonics of a voice fall together
/// in bands.
const WINDOW: usize = 2 * HOP;
/// Edges of the bands, in Hz. No band is narrower than four bins, since the power of noise in fewer bins
/// varies too much at random.
const EDGES: [u32; BANDS + 1] = [
    125, 250, 375, 500, 625, 750, 875, 1_000, 1_250, 1_500, 1_750, 2_000, 2_500, 3_000, 3_500, 4_000, 5_000,
    6_000, 7_500,
];
const BANDS: usize = 18;
/// Number of hops whose power is averaged before two such means are compared: 64 ms, about a short vowel.
const MEAN: usize = 4;
/// Rank of the band whose change counts: the second largest change, since the largest is subject to
/// chance.
const RANK: usize = 2;
/// Power ratio to the strongest band below which a band is ignored (-30 dB): below it lie the side lobes
/// of a tone and the quantisation noise of telephones (G.711: -38 dB).
const WEAKEST: f32 = 1e-3;
/// Power added to each band, so that the last bit of the samples has no effect.
const FLOOR: f32 = 9.0;
/// Number of hops for which a change must last: 160 ms. The edge of a tone affects the comparison of two
/// means for 2 * `MEAN` hops and those that its windows overlap: 9.
const LASTING: usize = 10;

/// Lasting change, in dB, below which a sound is a tone. Tones and hum give 0.1 dB at most, noise for a
/// second or longer 2.2, a digit in noise as loud as itself 2.6 and more.
pub(super) const STEADY: f32 = 1.0;
/// Lasting change, in dB, from which a sound is like speech. In 5 minutes noise gives 3.8 dB at most; the
/// prompts and readings give 4.8 and more down to 5 dB in any noise.
pub(super) const LIKE_SPEECH: f32 = 4.5;
/// Number of hops over which a lasting change is seen.
pub(super) const SEEN: usize = LASTING + 2 * MEAN - 1;

/// A measure of the change of a stream's spectrum, hop by hop.
pub(super) struct Modulation {
    fft: Arc<dyn Fft<f32>>,
    hann: Vec<f32>,
    buffer: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    /// First and last bin of each band, the last excluded.
    bands: [(usize, usize); BANDS],
    /// Mean square below which a pair of means is silence.
    audible: f32,
    /// The hop before.
    previous: [f32; HOP],
    /// Spectra of the last hops, oldest first, and the mean squares of their samples.
    spectra: VecDeque<([f32; BANDS], f32)>,
    /// The last changes, oldest first, in dB.
    changes: VecDeque<f32>,
}

impl Modulation {
    /// Creates a measure at the start of a stream in which a mean square below `audible` is silence.
    pub(super) fn new(audible: f32) -> Modulation {
        let fft = FftPlanner::new().plan_fft_forward(WINDOW);
        let hann = (0..WINDOW)
            .map(|i| (0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / WINDOW as f64).cos()) as f32)
            .collect();
        let bin = |hz: u32| (hz * WINDOW as u32 / RECOGNIZER_RATE) as usize;
        Modulation {
            hann,
            buffer: vec![Complex::default(); WINDOW],
            scratch: vec![Complex::default(); fft.get_inplace_scratch_len()],
            fft,
            bands: std::array::from_fn(|band| (bin(EDGES[band]), bin(EDGES[band + 1]))),
            audible,
            previous: [0.0; HOP],
            spectra: VecDeque::new(),
            changes: VecDeque::new(),
        }
    }

    /// Forgets the stream so far.
    pub(super) fn reset(&mut self) {
        self.previous = [0.0; HOP];
        self.spectra.clear();
        self.changes.clear();
    }

    /// Takes the next hop with its mean square, and returns the lasting change in dB: the least of the
    /// last `LASTING` changes.
    pub(super) fn push(&mut self, hop: &[i16; HOP], energy: f32) -> f32 {
        if self.spectra.len() == 2 * MEAN {
            self.spectra.pop_front();
        }
        let spectrum = self.spectrum(hop);
        self.spectra.push_back((spectrum, energy));
        if self.spectra.len() < 2 * MEAN {
            return 0.0;
        }
        if self.changes.len() == LASTING {
            self.changes.pop_front();
        }
        self.changes.push_back(self.change());
        if self.changes.len() < LASTING {
            return 0.0;
        }
        self.changes.iter().copied().fold(f32::INFINITY, f32::min)
    }

    /// Returns the mean square of each band in the last two hops.
    fn spectrum(&mut self, hop: &[i16; HOP]) -> [f32; BANDS] {
        let (before, now) = self.buffer.split_at_mut(HOP);
        for (at, sample) in hop.iter().enumerate() {
            let sample = f32::from(*sample);
            before[at] = Complex::new(self.previous[at] * self.hann[at], 0.0);
            now[at] = Complex::new(sample * self.hann[HOP + at], 0.0);
            self.previous[at] = sample;
        }
        self.fft.process_with_scratch(&mut self.buffer, &mut self.scratch);
        // The mean of a squared Hann window is 3/8, and each bin also stands for its mirror image.
        let scale = 2.0 / (0.375 * (WINDOW * WINDOW) as f32);
        self.bands.map(|(from, to)| self.buffer[from..to].iter().map(Complex::norm_sqr).sum::<f32>() * scale)
    }

    /// Returns the change from the older half of the last hops to the newer half, in dB.
    fn change(&self) -> f32 {
        let mean = |half: usize| {
            let mut sums = ([0.0f32; BANDS], 0.0);
            for (spectrum, energy) in self.spectra.range(half * MEAN..(half + 1) * MEAN) {
                sums.1 += energy / MEAN as f32;
                for (sum, power) in sums.0.iter_mut().zip(spectrum) {
                    *sum += power / MEAN as f32;
                }
            }
            sums
        };
        let ((older, before), (newer, after)) = (mean(0), mean(1));
        if before.max(after) < self.audible {
            return 0.0;
        }
        let louder = |(a, b): (&f32, &f32)| a.max(*b);
        let least = WEAKEST * older.iter().zip(&newer).map(louder).fold(0.0, f32::max);
        let mut ratios = [1.0f32; BANDS];
        for (ratio, (a, b)) in ratios.iter_mut().zip(older.iter().zip(&newer)) {
            if a.max(*b) >= least {
                let (a, b) = (a + FLOOR, b + FLOOR);
                *ratio = a.max(b) / a.min(b);
            }
        }
        ratios.sort_unstable_by(f32::total_cmp);
        10.0 * ratios[BANDS - RANK].log10()
    }
}

#[cfg(test)]
mod tests {
    use std::f32::consts::TAU;

    use super::*;

    /// Returns the greatest lasting change in `seconds` of a sound.
    fn greatest(seconds: usize, mut sample: impl FnMut(f32) -> f32) -> f32 {
        let rate = RECOGNIZER_RATE as usize;
        let pcm: Vec<i16> = (0..seconds * rate).map(|at| sample(at as f32 / rate as f32) as i16).collect();
        let mut modulation = Modulation::new(1_000.0);
        let hops = pcm.as_chunks::<HOP>().0.iter();
        let energy = |hop: &[i16; HOP]| hop.iter().map(|x| f32::from(*x).powi(2)).sum::<f32>() / HOP as f32;
        hops.map(|hop| modulation.push(hop, energy(hop))).fold(0.0, f32::max)
    }

    fn tone(hz: f32, t: f32) -> f32 {
        (TAU * hz * t).sin()
    }

    /// Returns a generator of white noise between -1 and 1.
    fn noise() -> impl FnMut() -> f32 {
        let mut seed = 1u32;
        move || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
        }
    }

    #[test]
    fn tones_are_steady_where_they_begin_and_end_too() {
        for turn in [0.35, 0.5, 60.0] {
            for hz in [[425.0, 425.0], [350.0, 440.0], [480.0, 620.0], [50.0, 150.0]] {
                let change = greatest(10, |t| {
                    let is_on = t / turn % 2.0 < 1.0;
                    if is_on { 4_000.0 * (tone(hz[0], t) + tone(hz[1], t)) } else { 0.0 }
                });
                assert!(change < STEADY, "{hz:?} Hz, {turn} s: {change} dB");
            }
        }
    }

    #[test]
    fn noise_is_neither_steady_nor_like_speech() {
        let mut noise = noise();
        let change = greatest(60, |_| 8_000.0 * noise());
        assert!((STEADY..LIKE_SPEECH).contains(&change), "{change} dB");
    }

    /// Covers a formant that glides: it is like speech in noise as loud as itself, although the loudness
    /// of both hardly changes.
    #[test]
    fn what_glides_in_noise_is_like_speech() {
        let mut noise = noise();
        let mut phase = 0.0f32;
        let change = greatest(10, |t| {
            let hz = 800.0 + 500.0 * (TAU * 2.0 * t).sin();
            phase += TAU * hz / RECOGNIZER_RATE as f32;
            3_000.0 * phase.sin() + 3_700.0 * noise()
        });
        assert!(change >= LIKE_SPEECH, "{change} dB");
    }
}
