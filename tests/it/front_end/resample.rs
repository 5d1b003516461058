//! The resampler's contract: exact length, exact time, any split.

use std::f64::consts::TAU;

use voxline::resample::{Resampler, frames_at};

use crate::random::Random;

/// Ordinary rates, and awkward ones: small common divisors with the session's rate, none at all, both ends.
const PAIRS: [(u32, u32); 18] = [
    (44_100, 16_000),
    (48_000, 16_000),
    (32_000, 16_000),
    (24_000, 16_000),
    (22_050, 16_000),
    (12_000, 16_000),
    (11_025, 16_000),
    (8_000, 16_000),
    (96_000, 16_000),
    (192_000, 16_000),
    (16_000, 8_000),
    (44_100, 8_000),
    (16_000, 24_000),
    (16_000, 48_000),
    (44_056, 16_000),
    (44_101, 16_000),
    (48_000, 44_100),
    (8_000, 192_000),
];

fn resampled(from: u32, to: u32, input: &[f32]) -> Vec<f32> {
    let (mut resampler, mut out) = (Resampler::new(from, to).unwrap(), Vec::new());
    resampler.push(input, &mut out);
    resampler.finish(&mut out);
    out
}

#[test]
fn the_length_is_the_input_times_the_ratio_rounded() {
    let mut random = Random::for_test("front_end::resample::the_length_is_the_input_times_the_ratio_rounded");
    for (from, to) in PAIRS {
        let lengths = [0, 1, 2, 3, 159, 160, 161, 440, 441, 442, from as usize];
        for length in lengths.into_iter().chain((0..5).map(|_| random.below(20_000))) {
            let out = resampled(from, to, &vec![0.5; length]);
            assert_eq!(
                out.len() as u64,
                frames_at(length as u64, from, to),
                "{length} frames, {from} to {to}"
            );
        }
    }
}

#[test]
fn any_split_gives_the_same_samples() {
    let mut random = Random::for_test("front_end::resample::any_split_gives_the_same_samples");
    for (from, to) in PAIRS {
        let input: Vec<f32> = (0..from as usize * 5 / 4).map(|_| random.sample()).collect();
        let whole = resampled(from, to, &input);
        let (mut resampler, mut out) = (Resampler::new(from, to).unwrap(), Vec::new());
        // Twice: after the end it is as new.
        for _ in 0..2 {
            out.clear();
            let mut rest = input.as_slice();
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(random.below(3_000).min(rest.len()));
                resampler.push(head, &mut out);
                rest = tail;
            }
            resampler.finish(&mut out);
            assert!(out == whole, "{from} to {to}");
        }
    }
}

#[test]
fn an_impulse_stays_where_it_is() {
    for (from, to) in PAIRS {
        // A place that both rates have a frame at, far enough inside.
        let place = u64::from(from) * 2;
        let mut input = vec![0.0; from as usize * 4];
        input[place as usize] = 1.0;
        let out = resampled(from, to, &input);
        let peak = (0..out.len()).max_by(|&a, &b| out[a].total_cmp(&out[b])).unwrap();
        assert_eq!(peak, to as usize * 2, "{from} to {to}");
        // The neighbours are alike: it is not between two frames either.
        let lean = (out[peak - 1] - out[peak + 1]).abs() / out[peak];
        assert!(lean < 2e-3, "{from} to {to}: leans by {lean}");
    }
}

#[test]
fn a_sine_keeps_its_amplitude_and_phase() {
    for (from, to) in PAIRS {
        for share in [0.02, 0.3, 0.8] {
            let hertz = f64::from(from.min(to)) / 2.0 * share;
            let wave = |frame: usize, rate: u32| (TAU * hertz * frame as f64 / f64::from(rate)).sin() as f32;
            let input: Vec<f32> = (0..from as usize * 4).map(|n| wave(n, from)).collect();
            let out = resampled(from, to, &input);
            let inside = to as usize..to as usize * 3;
            let error = inside.map(|n| (out[n] - wave(n, to)).abs()).fold(0.0_f32, f32::max);
            assert!(error < 1e-3, "{hertz} Hz, {from} to {to}: off by {error}");
        }
    }
}

#[test]
fn what_the_new_rate_cannot_hold_is_gone() {
    for (from, to, hertz) in [(44_100, 16_000, 9_000.0), (48_000, 16_000, 8_100.0), (16_000, 8_000, 4_300.0)]
    {
        let input: Vec<f32> =
            (0..from as usize * 2).map(|n| (TAU * hertz * n as f64 / f64::from(from)).sin() as f32).collect();
        let out = resampled(from, to, &input);
        let inside = &out[to as usize / 2..to as usize * 3 / 2];
        let peak = inside.iter().fold(0.0_f32, |peak, x| peak.max(x.abs()));
        assert!(peak < 1e-5, "{hertz} Hz, {from} to {to}: {peak}"); // -100 dB
    }
}

#[test]
fn equal_rates_pass_through() {
    let input: Vec<f32> = (0..1_000).map(|n| n as f32 / 7.0).collect();
    let mut resampler = Resampler::new(16_000, 16_000).unwrap();
    assert_eq!(resampler.delay(), 0);
    let mut out = Vec::new();
    resampler.push(&input, &mut out);
    assert_eq!(out, input);
    resampler.finish(&mut out);
    assert_eq!(out, input);
}

#[test]
fn rates_out_of_reach_are_refused() {
    for (from, to) in [(0, 16_000), (7_999, 16_000), (192_001, 16_000), (16_000, 0), (16_000, u32::MAX)] {
        let error = Resampler::new(from, to).unwrap_err().to_string();
        let expected =
            format!("cannot resample from {from} Hz to {to} Hz, expected rates from 8000 to 192000 Hz");
        assert_eq!(error, expected);
    }
}
