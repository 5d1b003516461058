//! Equal loudness of all voices: a constant gain for each voice, so that consecutive sentences are
//! equally loud.
//!
//! The measure is integrated loudness by ITU-R BS.1770-4, which weights by hearing and ignores pauses.

use ebur128::{EbuR128, Mode};

use voxline::audio::sample;

/// Loudness of the output, in LUFS: the broadcasters' standard (EBU R 128). Peaks of speech are some 22
/// dB above it, just below full scale.
pub(super) const TARGET: f64 = -23.0;

/// Level up to which samples are only scaled. Higher samples bend towards full scale, and are never
/// clipped.
const KNEE: f32 = 0.8;

/// Factor that a voice's samples are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Gain(f32);

impl Gain {
    /// Returns the gain of a voice of known loudness, in LUFS. A loudness that could not be measured
    /// gives a gain of 1.
    pub(super) fn of(loudness: f64) -> Gain {
        // Twenty decibels are enough for any voice; more would raise the noise of a silent one.
        let gain = (TARGET - loudness).clamp(-20.0, 20.0);
        Gain(if loudness.is_finite() { 10f64.powf(gain / 20.0) as f32 } else { 1.0 })
    }

    /// Applies the gain to 16-bit samples.
    pub(super) fn apply(self, samples: &mut [i16]) {
        for value in samples {
            *value = sample::to_s16(self.raised(sample::to_f32(*value)));
        }
    }

    /// Applies the gain and converts to 16-bit samples.
    pub(super) fn to_pcm(self, samples: &[f32]) -> Vec<i16> {
        samples.iter().map(|&value| sample::to_s16(self.raised(value))).collect()
    }

    fn raised(self, value: f32) -> f32 {
        let value = value * self.0;
        let over = value.abs() - KNEE;
        if over > 0.0 {
            let room = 1.0 - KNEE;
            (KNEE + room * (over / room).tanh()).copysign(value)
        } else {
            value
        }
    }
}

/// Returns the loudness of mono samples, in LUFS; minus infinity for silence.
pub(super) fn loudness(samples: &[f32], rate: u32) -> f64 {
    let measure = || -> Result<f64, ebur128::Error> {
        let mut meter = EbuR128::new(1, rate, Mode::I)?;
        meter.add_frames_f32(samples)?;
        meter.loudness_global()
    };
    measure().unwrap_or(f64::NEG_INFINITY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(amplitude: f32) -> Vec<f32> {
        (0..22_050).map(|n| amplitude * (n as f32 * 997.0 * std::f32::consts::TAU / 22_050.0).sin()).collect()
    }

    #[test]
    fn a_tone_of_any_loudness_comes_to_the_target() {
        for amplitude in [0.02, 0.1, 0.6] {
            let tone = tone(amplitude);
            let raised: Vec<f32> =
                Gain::of(loudness(&tone, 22_050)).to_pcm(&tone).into_iter().map(sample::to_f32).collect();
            assert!((loudness(&raised, 22_050) - TARGET).abs() < 0.1, "{amplitude}");
        }
    }

    #[test]
    fn silence_stays_and_peaks_are_bent_not_cut() {
        assert_eq!(loudness(&[], 22_050), f64::NEG_INFINITY);
        assert_eq!(Gain::of(loudness(&[0.0; 22_050], 22_050)).to_pcm(&[0.001, f32::NAN]), [33, 0]);
        let raised: Vec<i16> = Gain(1.0).to_pcm(&[0.7, 0.9, 1.0, 1.2, -1.2]);
        assert!(raised.windows(2).take(3).all(|pair| pair[0] < pair[1]), "{raised:?}");
        assert!(raised[3] < i16::MAX && raised[4] == -raised[3], "{raised:?}");
    }
}
