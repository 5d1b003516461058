//! Spectral change: tells speech, in noise too, from tones and steady noise.
//!
//! Loudness alone can't: it hardly moves where a noise is louder than the speech in it. But speech goes from
//! sound to sound without a rest, and moves some bands against the others wherever it stands out from the
//! noise, while the spectrum of a tone changes only where the tone begins and ends, and that of noise only as
//! chance has it.
//!
//! The figures below were measured with 20 telephone prompts and readings and 20 single digits (English and
//! Russian), in white, pink, brown, fan and babble noise, hum, music and telephone tones at 20 to 0 dB, and
//! with 5 minutes of each noise and the tones of ITU-T E.180 by themselves. `benches/noise.py` shows what
//! comes of them.

use std::collections::VecDeque;
use std::sync::Arc;

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use voxline::engine::RECOGNIZER_RATE;
use voxline::voice::HOP;

/// Samples in a spectrum: 32 ms, so that a bin is 31 Hz wide and the harmonics of a voice fall together in
/// bands.
const WINDOW: usize = 2 * HOP;
/// Edges of the bands, in Hz: no narrower than four bins, since the power of noise in fewer varies too much
/// by chance.
const EDGES: [u32; BANDS + 1] = [
    125, 250, 375, 500, 625, 750, 875, 1_000, 1_250, 1_500, 1_750, 2_000, 2_500, 3_000, 3_500, 4_000, 5_000,
    6_000, 7_500,
];
const BANDS: usize = 18;
/// Hops whose power is averaged before two such means are compared: 64 ms, about a short vowel.
const MEAN: usize = 4;
/// The band whose change counts is the one that changes second most: in the one that changes most, chance
/// counts.
const RANK: usize = 2;
/// A band this much weaker than the strongest one doesn't count, as a power ratio (-30 dB): below it lie the
/// side lobes of a tone and the quantisation noise of telephones (G.711: -38 dB).
const WEAKEST: f32 = 1e-3;
/// The power added to each band, so that the last bit of the samples doesn't count.
const FLOOR: f32 = 9.0;
/// Hops for which a change must last: 160 ms. The edge of a tone moves the comparison of two means for 2 *
/// `MEAN` hops and those its windows overlap: 9.
const LASTING: usize = 10;

/// Below this lasting change, in dB, a sound is a tone. Tones and hum give 0.1 dB at most, noise for a second
/// or longer 2.2, a digit in noise as loud as itself 2.6 and more.
pub(super) const STEADY: f32 = 1.0;
/// From this lasting change on, in dB, a sound is like speech. In 5 minutes noise gives 3.8 dB at most; the
/// prompts and readings give 4.8 and more down to 5 dB in any noise.
pub(super) const LIKE_SPEECH: f32 = 4.5;
/// Hops over which a lasting change was seen.
pub(super) const SEEN: usize = LASTING + 2 * MEAN - 1;

/// A measure of how a stream's spectrum changes, hop by hop.
pub(super) struct Modulation {
    fft: Arc<dyn Fft<f32>>,
    hann: Vec<f32>,
    buffer: Vec<Complex<f32>>,
    scratch: Vec<Complex<f32>>,
    /// The first and last bin of each band, the last excluded.
    bands: [(usize, usize); BANDS],
    /// The mean-square below which a pair of means is silence.
    audible: f32,
    /// The hop before.
    previous: [f32; HOP],
    /// The spectra of the last hops, oldest first, and the mean-squares of their samples.
    spectra: VecDeque<([f32; BANDS], f32)>,
    /// The last changes, oldest first, in dB.
    changes: VecDeque<f32>,
}

impl Modulation {
    /// A measure at the start of a stream in which less than `audible`, a mean-square, is silence.
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

    /// Forgets what it has heard.
    pub(super) fn reset(&mut self) {
        self.previous = [0.0; HOP];
        self.spectra.clear();
        self.changes.clear();
    }

    /// Takes the next hop with its mean-square, and returns the lasting change in dB: the least of the last
    /// `LASTING`.
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

    /// The mean-square of each band in the last two hops.
    fn spectrum(&mut self, hop: &[i16; HOP]) -> [f32; BANDS] {
        let (before, now) = self.buffer.split_at_mut(HOP);
        for (at, sample) in hop.iter().enumerate() {
            let sample = f32::from(*sample);
            before[at] = Complex::new(self.previous[at] * self.hann[at], 0.0);
            now[at] = Complex::new(sample * self.hann[HOP + at], 0.0);
            self.previous[at] = sample;
        }
        self.fft.process_with_scratch(&mut self.buffer, &mut self.scratch);
        // The mean of a squared Hann window is 3/8, and each bin stands for its mirror image, too.
        let scale = 2.0 / (0.375 * (WINDOW * WINDOW) as f32);
        self.bands.map(|(from, to)| self.buffer[from..to].iter().map(Complex::norm_sqr).sum::<f32>() * scale)
    }

    /// The change from the older half of the last hops to the newer, in dB.
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

    /// The greatest lasting change in seconds of a sound.
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

    /// White noise between -1 and 1.
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

    /// A formant that glides is like speech in noise as loud as itself, though the loudness of both hardly
    /// changes.
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
