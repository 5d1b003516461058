//! Log-mel features, the input of Whisper.
//!
//! The constants are those of Whisper's `audio.py`: 25 ms windows every 10 ms at 16 kHz, centred on their
//! hop with the signal mirrored at its start, Slaney's mel bands, and a logarithm clipped 8 decades below
//! the loudest value.

use std::sync::Arc;

use realfft::{RealFftPlanner, RealToComplex};

/// Number of samples in a window.
const WINDOW: usize = 400;
/// Number of samples from one feature frame to the next.
pub(super) const HOP: usize = 160;
/// Number of bins of a window's spectrum.
const BINS: usize = WINDOW / 2 + 1;
/// Width of a bin, in Hz.
const BIN_HZ: f64 = 16_000.0 / WINDOW as f64;

/// A calculator of log-mel features.
pub(super) struct Mel {
    fft: Arc<dyn RealToComplex<f32>>,
    hann: Vec<f32>,
    bands: Vec<Band>,
}

/// A triangular filter: its first bin, and the weights from there on.
struct Band {
    first: usize,
    weights: Vec<f32>,
}

impl Mel {
    /// Creates a bank of `bands` filters between 0 and 8 kHz.
    pub(super) fn new(bands: usize) -> Mel {
        let hann = (0..WINDOW)
            .map(|i| (0.5 - 0.5 * (std::f64::consts::TAU * i as f64 / WINDOW as f64).cos()) as f32)
            .collect();
        Mel { fft: RealFftPlanner::new().plan_fft_forward(WINDOW), hann, bands: slaney_bands(bands) }
    }

    /// Returns the features of `pcm` followed by silence: a row of bands for each of `frames`. Samples
    /// beyond the last frame are left out.
    pub(super) fn features(&self, pcm: &[i16], frames: usize) -> Vec<f32> {
        let bands = self.bands.len();
        let mut values = vec![FLOOR.log10(); frames * bands];
        let mut window = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let mut power = [0.0f32; BINS];

        // A frame covers the samples up to half a window after its centre; all further frames are
        // silence.
        let audible = frames.min((pcm.len() + WINDOW / 2).div_ceil(HOP));
        for (frame, row) in values.chunks_exact_mut(bands).take(audible).enumerate() {
            for (i, (slot, weight)) in window.iter_mut().zip(&self.hann).enumerate() {
                let at = (frame * HOP + i).abs_diff(WINDOW / 2);
                *slot = pcm.get(at).map_or(0.0, |sample| f32::from(*sample) / 32_768.0 * weight);
            }
            self.fft
                .process_with_scratch(&mut window, &mut spectrum, &mut scratch)
                .expect("the buffers were made by the plan");
            for (power, bin) in power.iter_mut().zip(&spectrum) {
                *power = bin.norm_sqr();
            }
            for (value, band) in row.iter_mut().zip(&self.bands) {
                let heard = &power[band.first..];
                let energy: f32 = heard.iter().zip(&band.weights).map(|(power, weight)| power * weight).sum();
                *value = energy.max(FLOOR).log10();
            }
        }

        let loudest = values.iter().fold(f32::NEG_INFINITY, |loudest, value| loudest.max(*value));
        for value in &mut values {
            *value = (value.max(loudest - 8.0) + 4.0) / 4.0;
        }
        values
    }
}

/// Lowest energy, used for silence.
const FLOOR: f32 = 1e-10;

/// Returns Slaney's filters (Auditory Toolbox): triangles of equal area, linear in frequency up to 1 kHz
/// and logarithmic above.
fn slaney_bands(count: usize) -> Vec<Band> {
    const LINEAR_STEP: f64 = 200.0 / 3.0;
    const BREAK_HZ: f64 = 1_000.0;
    const BREAK_MEL: f64 = BREAK_HZ / LINEAR_STEP;
    let log_step = 6.4f64.ln() / 27.0;

    let highest_mel = BREAK_MEL + (8_000.0 / BREAK_HZ).ln() / log_step;
    let edge = |i: usize| {
        let mel = highest_mel * i as f64 / (count + 1) as f64;
        if mel < BREAK_MEL { mel * LINEAR_STEP } else { BREAK_HZ * ((mel - BREAK_MEL) * log_step).exp() }
    };
    (0..count)
        .map(|i| {
            let (low, centre, high) = (edge(i), edge(i + 1), edge(i + 2));
            let weight = |bin: usize| {
                let hz = bin as f64 * BIN_HZ;
                let height = ((hz - low) / (centre - low)).min((high - hz) / (high - centre)).max(0.0);
                (height * 2.0 / (high - low)) as f32
            };
            let first = (0..BINS).find(|bin| weight(*bin) > 0.0).unwrap_or(0);
            let weights = (first..BINS).map(weight).take_while(|weight| *weight > 0.0).collect();
            Band { first, weights }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with `librosa.filters.mel(sr=16000, n_fft=400, n_mels=80)`, the bank that Whisper ships.
    #[test]
    fn bands_are_slaneys() {
        let bands = slaney_bands(80);
        assert_eq!(bands[0].first, 1);
        assert!((bands[0].weights[0] - 0.024_862_6).abs() < 1e-6, "{:?}", bands[0].weights);
        let last = &bands[79];
        assert_eq!(last.first + last.weights.len(), BINS - 1);
    }

    #[test]
    fn silence_is_flat() {
        let features = Mel::new(80).features(&[0; 1_600], 20);
        assert_eq!(features.len(), 20 * 80);
        assert!(features.iter().all(|value| (value + 1.5).abs() < 1e-6));
    }

    #[test]
    fn a_tone_sounds_in_its_band() {
        let tone: Vec<i16> = (0..16_000)
            .map(|i| (f64::from(i) * 1_000.0 / 16_000.0 * std::f64::consts::TAU).sin() * 8_192.0)
            .map(|sample| sample as i16)
            .collect();
        let features = Mel::new(80).features(&tone, 100);
        let row = &features[50 * 80..51 * 80];
        let loudest = (0..80).max_by(|a, b| row[*a].total_cmp(&row[*b])).unwrap();
        // Band i is centred on edge i + 1; 1 kHz is 15 mel of 45.245, on a scale of 81 steps.
        assert!((26..=27).contains(&loudest), "{loudest}");
        // A quarter of full scale makes a bin of 0.25 / 2 times the window's sum of 200, 25 in all. The
        // bin's power and half of that from the two neighbours, weighted by some 0.015 to 0.025, give a
        // logarithm of about 1.1.
        let expected = (1.1 + 4.0) / 4.0;
        assert!((row[loudest] - expected).abs() < 0.05, "{}", row[loudest]);
    }
}
