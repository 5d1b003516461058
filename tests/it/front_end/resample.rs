//! The resampler's contract: exact length, exact time, any split; and rubato's, as a reference.

#[path = "../../../benches/rival.rs"]
mod rival;

use std::f64::consts::TAU;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use voxline::resample::{Resampler, frames_at};

use voxline_fixtures::random::Random;

use rival::Rival;

/// Rates of sources and sinks: the contract on quality holds between any two of these.
const FROM: [u32; 9] = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000];
const TO: [u32; 4] = [8_000, 16_000, 24_000, 48_000];

/// Awkward rates: small common divisors with the session's rate, none at all, both ends.
const AWKWARD: [(u32, u32); 7] = [
    (12_000, 16_000),
    (192_000, 16_000),
    (16_000, 192_000),
    (44_056, 16_000),
    (44_101, 16_000),
    (48_000, 44_100),
    (8_000, 192_000),
];

fn ordinary() -> impl Iterator<Item = (u32, u32)> {
    FROM.into_iter().flat_map(|from| TO.map(|to| (from, to))).filter(|(from, to)| from != to)
}

fn pairs() -> impl Iterator<Item = (u32, u32)> {
    ordinary().chain(AWKWARD)
}

fn resampled(from: u32, to: u32, input: &[f32]) -> Vec<f32> {
    let (mut resampler, mut out) = (Resampler::new(from, to).unwrap(), Vec::new());
    resampler.push(input, &mut out);
    resampler.finish(&mut out);
    out
}

#[test]
fn the_length_is_the_input_times_the_ratio_rounded() {
    let mut random = Random::for_test("front_end::resample::the_length_is_the_input_times_the_ratio_rounded");
    for (from, to) in pairs() {
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
    for (from, to) in pairs() {
        let input: Vec<f32> = (0..from as usize * 5 / 4).map(|_| random.sample()).collect();
        let whole = resampled(from, to, &input);
        let (mut resampler, mut out) = (Resampler::new(from, to).unwrap(), Vec::new());
        // Twice: after the end the resampler is as new.
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
    for (from, to) in pairs() {
        // A time at which both rates have a frame, far enough inside.
        let place = u64::from(from) * 2;
        let mut input = vec![0.0; from as usize * 4];
        input[place as usize] = 1.0;
        let out = resampled(from, to, &input);
        let (peak, lean) = peak(&out);
        assert_eq!(peak, to as usize * 2, "{from} to {to}");
        // The neighbours are alike, so the peak is not between two frames either.
        assert!(lean.abs() < 2e-3, "{from} to {to}: leans by {lean}");
    }
}

#[test]
fn a_sine_keeps_its_amplitude_and_phase() {
    for (from, to) in pairs() {
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

/// Powers in the output of a sine of amplitude 1, in dB relative to the power of that sine.
struct Heard {
    /// The sine, at its own frequency.
    tone: f64,
    /// Everything else: images, aliases, rounding.
    rest: f64,
    /// The whole output.
    all: f64,
}

/// Sends a sine of `hertz` through a resampler and subtracts the sine that is nearest to the output (least
/// squares). `margin` input frames are left out at both ends, where the tone begins and stops.
fn hear(
    resample: &mut dyn FnMut(&[f32]) -> Vec<f32>,
    margin: u64,
    (from, to): (u32, u32),
    hertz: f64,
) -> Heard {
    // A phase other than zero: at the Nyquist frequency itself a sine that starts at 0 is all zeros.
    const PHASE: f64 = 0.7;
    // 0.1 s keeps a tone and its image apart from a distance of 10 Hz on.
    let length = margin * 2 + u64::from(from) / 10;
    let step = TAU * hertz / f64::from(from);
    let input: Vec<f32> = (0..length).map(|n| (step * n as f64 + PHASE).sin() as f32).collect();
    let out = resample(&input);

    let step = TAU * hertz / f64::from(to);
    let margin = frames_at(margin, from, to) as usize;
    let inside = margin..out.len() - margin;
    let waves: Vec<(f64, f64)> = inside.clone().map(|n| (step * n as f64 + PHASE).sin_cos()).collect();
    let out = &out[inside];
    let sum = |term: &dyn Fn(f64, f64, f64) -> f64| -> f64 {
        out.iter().zip(&waves).map(|(&x, &(sin, cos))| term(f64::from(x), sin, cos)).sum()
    };
    let (ss, sc, cc) = (sum(&|_, s, _| s * s), sum(&|_, s, c| s * c), sum(&|_, _, c| c * c));
    let (xs, xc) = (sum(&|x, s, _| x * s), sum(&|x, _, c| x * c));
    let determinant = ss * cc - sc * sc;
    let (in_phase, quadrature) = ((xs * cc - xc * sc) / determinant, (xc * ss - xs * sc) / determinant);
    let rest = sum(&|x, s, c| (x - in_phase * s - quadrature * c).powi(2));
    let whole = sum(&|x, _, _| x * x);
    let decibels = |power: f64| 10.0 * power.log10();
    let one = out.len() as f64 / 2.0; // the power of the input
    let heard = Heard {
        tone: decibels(in_phase * in_phase + quadrature * quadrature),
        rest: decibels(rest / one),
        all: decibels(whole / one),
    };
    // A NaN would break no bound.
    assert!(heard.tone.is_finite() && heard.rest.is_finite() && heard.all.is_finite());
    heard
}

/// Returns `count` numbers from `low` to `high`, both included.
fn spread(low: f64, high: f64, count: u32) -> impl Iterator<Item = f64> {
    (0..count).map(move |n| low + (high - low) * f64::from(n) / f64::from(count - 1))
}

/// Measured quality of a resampler, in dB.
struct Quality {
    /// Difference between the loudest and the quietest tone up to 0.85 of the lower Nyquist frequency.
    ripple: f64,
    /// Quietest tone from 0.85 to 0.91 of it.
    edge: f64,
    /// Loudest image of a tone below it.
    image: f64,
    /// Loudest output of a tone above it; minus infinity where there are none.
    alias: f64,
}

impl Quality {
    fn of(resample: &mut dyn FnMut(&[f32]) -> Vec<f32>, margin: u64, (from, to): (u32, u32)) -> Quality {
        let nyquist = f64::from(from.min(to)) / 2.0;
        let mut at = |share: f64| hear(resample, margin, (from, to), nyquist * share);
        let (mut quietest, mut loudest, mut image) = (0.0_f64, 0.0_f64, f64::NEG_INFINITY);
        for share in spread(0.01, 0.85, 24) {
            let heard = at(share);
            (quietest, loudest) = (quietest.min(heard.tone), loudest.max(heard.tone));
            image = image.max(heard.rest);
        }
        let edge = spread(0.85, 0.91, 5).map(|share| at(share).tone).fold(0.0, f64::min);
        // The filter's transition band, down to 10 Hz from the image.
        image = spread(0.91, 1.0 - 5.0 / nyquist, 24).map(|share| at(share).rest).fold(image, f64::max);
        let mut alias = f64::NEG_INFINITY;
        if from > to {
            // Tones close to the edge, and up to the input's Nyquist frequency. Any output is wrong.
            let top = f64::from(from) / 2.0 / nyquist;
            for share in spread(1.0 + 5.0 / nyquist, 1.1, 24).chain(spread(1.1, top * 0.999, 24)) {
                alias = alias.max(at(share).all);
            }
        }
        Quality { ripple: loudest - quietest, edge, image, alias }
    }

    fn of_ours(from: u32, to: u32) -> Quality {
        let margin = Resampler::new(from, to).unwrap().delay() as u64;
        Quality::of(&mut |input| resampled(from, to, input), margin, (from, to))
    }

    /// Returns whether everything that can be heard is kept, and nothing added above `floor` dB.
    fn holds(&self, floor: f64) -> bool {
        self.ripple <= 0.001 && self.edge >= -0.1 && self.image <= floor && self.alias <= floor
    }
}

impl std::fmt::Display for Quality {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Quality { ripple, edge, image, alias } = self;
        write!(f, "{ripple:>10.5} {edge:>11.4} {image:>9.1} {alias:>9.1}")
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the table that shows how much is to spare")]
fn what_can_be_heard_is_kept_and_nothing_is_added() {
    println!("   from     to  ripple dB  at 0.91 dB  image dB  alias dB");
    let mut failed = Vec::new();
    for (from, to) in ordinary() {
        let quality = Quality::of_ours(from, to);
        println!("{from:>7} {to:>6} {quality}");
        if !quality.holds(-120.0) {
            failed.push((from, to));
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// Resamples with rubato, and drops the delay that it states: the first frame is at the time of the first
/// input frame, and the length is that of ours.
fn resampled_by_rubato(mut rubato: Rival, (from, to): (u32, u32), input: &[f32]) -> Vec<f32> {
    let length = frames_at(input.len() as u64, from, to) as usize;
    let mut input = input.to_vec();
    // The end is pushed out by silence.
    input.resize((input.len() + rubato.block()).next_multiple_of(rubato.block()), 0.0);
    let mut out = vec![0.0; frames_at(input.len() as u64, from, to) as usize];
    rubato.push(&input, &mut out);
    out.drain(..rubato.delay());
    out.truncate(length);
    out
}

/// Returns the place of the highest sample, and how much higher the sample before it is than the one after
/// it, in units of the highest.
fn peak(out: &[f32]) -> (usize, f32) {
    let peak = (0..out.len()).max_by(|&a, &b| out[a].total_cmp(&out[b])).unwrap();
    (peak, (out[peak - 1] - out[peak + 1]) / out[peak])
}

#[test]
#[expect(clippy::print_stdout, reason = "the table that shows that the comparison is fair")]
fn rubato_makes_the_same_of_all_that_can_be_heard() {
    let mut random = Random::for_test("front_end::resample::rubato_makes_the_same_of_all_that_can_be_heard");
    println!("   from     to  ripple dB  at 0.91 dB  image dB  alias dB  (rubato)");
    for (from, to) in rival::FROM.map(|from| (from, rival::TO)) {
        let rubato = |input: &[f32]| resampled_by_rubato(Rival::new(from, to), (from, to), input);
        let margin = Rival::new(from, to).block();
        let quality = Quality::of(&mut |input| rubato(input), margin as u64 * 2, (from, to));
        println!("{from:>7} {to:>6} {quality}");
        assert!(quality.holds(-120.0), "rubato at {from} Hz is no longer a rival of equal quality");

        let mut impulse = vec![0.0; from as usize * 2];
        impulse[from as usize] = 1.0;
        for out in [resampled(from, to, &impulse), rubato(&impulse)] {
            let (peak, lean) = peak(&out);
            assert_eq!((out.len(), peak), (to as usize * 2, to as usize), "{from} to {to}");
            assert!(lean.abs() < 2e-3, "{from} to {to}: leans by {lean}");
        }

        // A hundred tones of any frequency in the flat part of both filters, 0.9 at the peak.
        let highest = f64::from(from.min(to)) / 2.0 * 0.85;
        let tones: Vec<(f64, f64)> = (0..100)
            .map(|_| {
                let hertz = highest * f64::from(random.sample().abs());
                (TAU * hertz / f64::from(from), TAU * f64::from(random.sample()))
            })
            .collect();
        let sound =
            |n: u32| tones.iter().map(|(step, phase)| (step * f64::from(n) + phase).sin()).sum::<f64>();
        let mut input: Vec<f32> = (0..from).map(|n| sound(n) as f32).collect();
        let loudest = input.iter().fold(0.0_f32, |loudest, sample| loudest.max(sample.abs()));
        input.iter_mut().for_each(|sample| *sample *= 0.9 / loudest);
        let (ours, theirs) = (resampled(from, to, &input), rubato(&input));
        assert_eq!(ours.len(), theirs.len(), "{from} to {to}");
        // Where the sound begins and stops, it has all frequencies.
        let margin = frames_at(margin as u64, from, to) as usize;
        let inside = margin..ours.len() - margin;
        let error = inside.map(|n| (ours[n] - theirs[n]).abs()).fold(0.0_f32, f32::max);
        assert!(error < 1e-5, "{from} to {to}: {error} apart");
    }
}

/// If this fails with a later rubato, ARCHITECTURE.md has a reason less for a resampler of our own.
#[test]
fn rubato_still_lacks_what_ours_was_written_for() {
    let (from, to) = (11_025, 16_000);
    let resampled =
        |block, input: &[f32]| resampled_by_rubato(Rival::with_block(from, to, block), (from, to), input);
    // Its shortest block has an odd number of frames, so that its filter is not centred: it is early by
    // half a frame.
    let mut impulse = vec![0.0; from as usize * 2];
    impulse[from as usize] = 1.0;
    let (peak, lean) = peak(&resampled(441, &impulse));
    assert!(peak != to as usize && lean.abs() > 0.1, "a peak at {peak} that leans by {lean}");
    // A sample that is no sound ends the stream.
    let mut input = vec![0.1; from as usize];
    input[100] = f32::NAN;
    assert!(catch_unwind(AssertUnwindSafe(|| resampled(882, &input))).is_err(), "NaN is no panic");
}

#[test]
#[expect(clippy::print_stdout, reason = "the table that shows how much is to spare")]
fn a_frame_waits_for_its_block_and_half_the_filter() {
    println!("   from     to  filter ms  in all ms");
    for (from, to) in pairs() {
        let mut resampler = Resampler::new(from, to).unwrap();
        let (mut made, mut out) = (0, Vec::new());
        // Frames held inside, in units of the product of both rates' periods: whole numbers.
        let (mut most, mut least) = (0, u64::MAX);
        for taken in 1..=resampler.delay() as u64 * 4 {
            resampler.push(&[0.5], &mut out);
            made += out.len() as u64;
            let inside = taken * u64::from(to) - made * u64::from(from);
            most = most.max(inside);
            if !out.is_empty() {
                least = least.min(inside);
            }
            out.clear();
        }
        assert_eq!(most, resampler.delay() as u64 * u64::from(to), "{from} to {to}");
        // Right after a block only the filter holds frames back.
        let milliseconds = |inside: u64| inside as f64 / f64::from(to) / f64::from(from) * 1e3;
        let (filter, all) = (milliseconds(least), milliseconds(most));
        println!("{from:>7} {to:>6} {filter:>10.1} {all:>10.1}");
        // 80 frames of the lower rate.
        assert!(filter <= 10.0, "{from} to {to}: {filter} ms");
    }
}

#[test]
fn longer_and_shorter_blocks_make_the_same_sound() {
    let mut random = Random::for_test("front_end::resample::longer_and_shorter_blocks_make_the_same_sound");
    for (from, to) in ordinary() {
        let input: Vec<f32> = (0..from as usize / 2).map(|_| random.sample()).collect();
        let expected = resampled(from, to, &input);
        let mut last = 0;
        // Kept alive, so that a plan shared between resamplers of different block lengths would be found.
        let mut kept = Vec::new();
        for fill in [Duration::ZERO, Duration::from_millis(40), Duration::from_millis(100), Duration::MAX] {
            let mut resampler = Resampler::with_fill(from, to, fill).unwrap();
            assert!(resampler.delay() >= last, "{fill:?}, {from} to {to}");
            if fill == Duration::MAX {
                assert!(resampler.delay() > last, "{from} to {to}");
            }
            last = resampler.delay();
            let mut out = Vec::new();
            resampler.push(&input, &mut out);
            resampler.finish(&mut out);
            assert_eq!(out.len(), expected.len(), "{fill:?}, {from} to {to}");
            kept.push(resampler);
            let error = out.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0_f32, f32::max);
            // The difference is rounding, and what the filter leaves beyond the Nyquist frequency, folded
            // elsewhere.
            assert!(error < 1e-5, "{fill:?}, {from} to {to}: off by {error}");
        }
    }
}

#[test]
fn streams_at_once_keep_apart() {
    let mut random = Random::for_test("front_end::resample::streams_at_once_keep_apart");
    let inputs = [(); 3].map(|()| (0..44_100).map(|_| random.sample()).collect::<Vec<f32>>());
    let mut streams = [(); 3].map(|()| (Resampler::new(44_100, 16_000).unwrap(), Vec::new()));
    for start in (0..44_100).step_by(700) {
        for ((resampler, out), input) in streams.iter_mut().zip(&inputs) {
            resampler.push(&input[start..start + 700], out);
        }
    }
    for ((mut resampler, mut out), input) in streams.into_iter().zip(&inputs) {
        resampler.finish(&mut out);
        assert!(out == resampled(44_100, 16_000, input));
    }
}

#[test]
fn a_sample_that_is_no_sound_costs_one_frame() {
    for (from, to) in pairs() {
        let sound: Vec<f32> = (0..from as usize / 2).map(|n| (n as f32 * 0.1).sin()).collect();
        let place = sound.len() / 2;
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN] {
            let with = |sample: f32| {
                let mut input = sound.clone();
                input[place..place + 3].fill(sample);
                resampled(from, to, &input)
            };
            assert!(with(broken) == with(0.0), "{broken}, {from} to {to}");
        }
    }
}

#[test]
fn the_loudest_samples_stay_finite() {
    for (from, to) in pairs() {
        let out = resampled(from, to, &vec![1e30; from as usize * 2]);
        assert!(out.iter().all(|x| x.is_finite()), "{from} to {to}");
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
