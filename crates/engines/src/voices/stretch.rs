//! Time stretching: speech made faster or slower at the same pitch, for voices that cannot do it
//! themselves.
//!
//! WSOLA (Verhelst and Roelands, "An overlap-add technique based on waveform similarity", ICASSP 1993):
//! windows are taken from the input at one spacing and laid down at another. Each window is shifted by up
//! to half a pitch period or so, to the place where it best continues the one before.

/// Length of a window, in seconds: two or three periods of a low male voice.
const WINDOW: f32 = 0.030;

/// Largest shift of a window in either direction, in seconds: one period at 100 Hz.
const REACH: f32 = 0.010;

/// Returns `samples` at `tempo` times the speed. Tempo 1 returns the input; so does an input shorter than
/// a few windows.
pub(super) fn stretched(samples: &[i16], rate: u32, tempo: f32) -> Vec<i16> {
    let in_samples = |seconds: f32| (seconds * rate as f32) as usize;
    let half = in_samples(WINDOW) / 2;
    let reach = in_samples(REACH);
    if (tempo - 1.0).abs() < 0.01 || half == 0 || samples.len() < 4 * half + 2 * reach {
        return samples.to_vec();
    }
    let wanted = (samples.len() as f32 / tempo) as usize;
    let mut out = Vec::with_capacity(wanted + half);
    out.extend_from_slice(&samples[..half]);
    // Position at which the last window would continue by itself.
    let mut natural = half;
    let last = samples.len() - half;
    while out.len() < wanted && natural <= last {
        let ideal = (out.len() as f32 * tempo) as usize;
        let (from, to) = (ideal.saturating_sub(reach).min(last), (ideal + reach).min(last));
        let best = best_match(samples, natural, from, to, half);
        for i in 0..half {
            // Linear cross-fade: both sides are alike, so amplitudes and not powers add up.
            let fade_in = i as f32 / half as f32;
            let (old, new) = (f32::from(samples[natural + i]), f32::from(samples[best + i]));
            out.push((old * (1.0 - fade_in) + new * fade_in) as i16);
        }
        natural = best + half;
    }
    // At most half a window is left: the last sound dies away as it was recorded.
    out.extend_from_slice(&samples[natural.min(samples.len())..]);
    out.truncate(wanted);
    out
}

/// Returns the start in `from..=to` whose `length` samples are most like those at `natural`: the highest
/// normalised correlation, computed at every second place and over every second sample, which suffices
/// for speech at 16 kHz.
fn best_match(samples: &[i16], natural: usize, from: usize, to: usize, length: usize) -> usize {
    let reference = &samples[natural..natural + length];
    let likeness = |start: usize| {
        let (mut product, mut energy) = (0.0f32, 1.0f32);
        for (&a, &b) in reference.iter().zip(&samples[start..start + length]).step_by(2) {
            product += f32::from(a) * f32::from(b);
            energy += f32::from(b) * f32::from(b);
        }
        product / energy.sqrt()
    };
    (from..=to).step_by(2).max_by(|&a, &b| likeness(a).total_cmp(&likeness(b))).unwrap_or(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(rate: u32, hertz: f32, seconds: f32) -> Vec<i16> {
        let step = std::f32::consts::TAU * hertz / rate as f32;
        (0..(rate as f32 * seconds) as usize).map(|i| ((i as f32 * step).sin() * 10_000.0) as i16).collect()
    }

    fn crossings(samples: &[i16]) -> usize {
        samples.windows(2).filter(|pair| pair[0] < 0 && pair[1] >= 0).count()
    }

    #[test]
    fn length_follows_the_tempo_and_pitch_stays() {
        let input = tone(16_000, 200.0, 2.0);
        for tempo in [0.5, 0.75, 1.5, 2.0] {
            let out = stretched(&input, 16_000, tempo);
            let seconds = out.len() as f32 / 16_000.0;
            assert!((seconds - 2.0 / tempo).abs() < 0.05, "tempo {tempo}: {seconds} s");
            let hertz = crossings(&out) as f32 / seconds;
            assert!((hertz - 200.0).abs() < 6.0, "tempo {tempo}: {hertz} Hz");
            let loudest = out.iter().map(|sample| sample.unsigned_abs()).max().unwrap();
            assert!(loudest <= 10_001, "tempo {tempo}: {loudest}");
        }
    }

    #[test]
    fn short_and_unchanged_input_comes_back_as_it_is() {
        assert_eq!(stretched(&[], 16_000, 2.0), Vec::<i16>::new());
        assert_eq!(stretched(&[1, 2, 3], 16_000, 2.0), [1, 2, 3]);
        let input = tone(16_000, 200.0, 0.5);
        assert_eq!(stretched(&input, 16_000, 1.0), input);
    }
}
