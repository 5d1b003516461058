//! All voices equally loud: a constant gain for each, so that no sentence is louder than the one before.
//!
//! The measure is integrated loudness by ITU-R BS.1770-4, which weighs what the ear hears and passes over pauses.

use ebur128::{EbuR128, Mode};

use voxline::audio::sample;

/// How loud speech is made, in LUFS: what broadcasters agreed on (EBU R 128). Peaks of speech are some 22 dB above, just
/// below full scale.
pub(super) const TARGET: f64 = -23.0;

/// Up to here samples are only scaled. Higher ones bend towards full scale, and are never cut off.
const KNEE: f32 = 0.8;

/// What a voice's samples are multiplied by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Gain(f32);

impl Gain {
    /// That of a voice whose loudness, in LUFS, is known. What can't be measured stays as it is.
    pub(super) fn of(loudness: f64) -> Gain {
        // Twenty decibels raise any voice; more would raise the noise of one that says nothing.
        let gain = (TARGET - loudness).clamp(-20.0, 20.0);
        Gain(if loudness.is_finite() { 10f64.powf(gain / 20.0) as f32 } else { 1.0 })
    }

    /// Applied to 16-bit samples.
    pub(super) fn apply(self, samples: &mut [i16]) {
        for value in samples {
            *value = sample::to_s16(self.raised(sample::to_f32(*value)));
        }
    }

    /// Applied to what becomes 16-bit samples.
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

/// The loudness of mono samples, in LUFS; minus infinity where there is nothing to hear.
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
