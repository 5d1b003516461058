//! Sounds without speech, a sample at a time, at 16 kHz.

use std::f64::consts::TAU;

/// Number of samples in a second.
pub(crate) const RATE: usize = 16_000;

/// Returns a pure tone at a time in seconds.
pub(crate) fn tone(hz: f64, time: f64) -> f64 {
    (TAU * hz * time).sin()
}

/// Returns a generator of white noise from -1 to 1.
pub(crate) fn white(mut seed: u32) -> impl FnMut() -> f64 {
    move || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(seed >> 8) / f64::from(1 << 23) - 1.0
    }
}

/// Returns a generator of pink noise (nearly the same power in every octave) from -1 to 1: the
/// Voss-McCartney sum of generators, each of them updated half as often as the one before.
pub(crate) fn pink(seed: u32) -> impl FnMut() -> f64 {
    const OCTAVES: usize = 12;
    let (mut white, mut held, mut count) = (white(seed), [0.0; OCTAVES], 0u32);
    move || {
        count = count.wrapping_add(1);
        held[count.trailing_zeros() as usize % OCTAVES] = white();
        held.iter().sum::<f64>() / OCTAVES as f64
    }
}

/// Returns a generator of brown noise from -1 to 1: a random walk that is drawn back to zero.
pub(crate) fn brown(seed: u32) -> impl FnMut() -> f64 {
    let (mut white, mut at) = (white(seed), 0.0f64);
    move || {
        at = (at * 0.998 + white() * 0.05).clamp(-1.0, 1.0);
        at
    }
}

/// Returns a generator of the sound of a fan: air, and the passing of seven blades at 1,000 turns a minute
/// with its harmonics.
pub(crate) fn fan(seed: u32) -> impl FnMut() -> f64 {
    let (mut white, mut air, mut at) = (white(seed), 0.0f64, 0.0f64);
    move || {
        at += 1.0 / RATE as f64;
        // A first-order low-pass filter at 600 Hz.
        air += 0.21 * (white() - air);
        let blades = [(117.0, 0.12), (234.0, 0.07), (351.0, 0.04)];
        air + blades.map(|(hz, level)| level * tone(hz, at)).iter().sum::<f64>()
    }
}

/// Returns a generator of European mains hum: 50 Hz and its odd harmonics.
pub(crate) fn hum() -> impl FnMut() -> f64 {
    let mut at = 0.0;
    move || {
        at += 1.0 / RATE as f64;
        [(50.0, 0.5), (150.0, 0.3), (250.0, 0.15), (350.0, 0.1), (550.0, 0.05)]
            .map(|(hz, level)| level * tone(hz, at))
            .iter()
            .sum()
    }
}

/// Returns speech in noise, with a second of noise before and after it. `ratio` is the signal-to-noise
/// ratio in dB. If the mix would exceed full scale, all of it is made quieter.
pub(crate) fn in_noise(speech: &[i16], mut noise: impl FnMut() -> f64, ratio: f64) -> Vec<i16> {
    let power = |samples: &[f64]| samples.iter().map(|x| x * x).sum::<f64>() / samples.len() as f64;
    let silence = std::iter::repeat_n(0.0, RATE);
    let speech: Vec<f64> = speech.iter().map(|sample| f64::from(*sample)).collect();
    let noise: Vec<f64> = (0..speech.len() + 2 * RATE).map(|_| noise()).collect();
    let level = (power(&speech) / power(&noise)).sqrt() * 10f64.powf(-ratio / 20.0);
    let padded = silence.clone().chain(speech).chain(silence);
    let mixed: Vec<f64> = padded.zip(&noise).map(|(sample, noise)| sample + level * noise).collect();
    let loudest = mixed.iter().fold(1.0f64, |loudest, sample| loudest.max(sample.abs()));
    let gain = f64::min(1.0, 32_000.0 / loudest);
    mixed.iter().map(|sample| (sample * gain) as i16).collect()
}
