//! Audio resampled per second, for each pair of rates, beside rubato's resampler at equal quality, and
//! resamplers created per second. `VOXLINE_BENCH_FILE` names a recording to resample instead.
#![allow(clippy::print_stdout, reason = "the ratio is what it is for")]

mod recording;
mod rival;

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::{Measurement, WallTime};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use voxline::resample::Resampler;

use recording::{Recording, audio, for_long_work};
use rival::Rival;

/// A packet of MP3.
const BLOCK: usize = 1_152;

/// Times that blocks take to fill: for live audio, and for the conversion of files.
const FILLS: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(80)];

/// Recordings and telephony for recognition, voices for the telephone, and two rates that share almost no
/// divisor.
const PAIRS: [(u32, u32); 11] = [
    (44_100, 16_000),
    (48_000, 16_000),
    (32_000, 16_000),
    (24_000, 16_000),
    (22_050, 16_000),
    (11_025, 16_000),
    (8_000, 16_000),
    (16_000, 8_000),
    (22_050, 8_000),
    (44_056, 16_000),
    (44_101, 16_000),
];

/// Number of pairs of measurements for a ratio.
const RATIOS: usize = 101;

/// Returns a name for the resampler of a pair of rates.
fn named(from: u32, to: u32, fill: Duration) -> BenchmarkId {
    BenchmarkId::new(format!("{from}-{to}"), format!("{}ms", fill.as_millis()))
}

fn resampler(from: u32, to: u32, fill: Duration) -> Resampler {
    Resampler::with_fill(from, to, fill).expect("the rates are within range")
}

fn push(c: &mut Criterion) {
    let mut group = c.benchmark_group("resample");
    let (input, pairs) = match Recording::of_user() {
        // A recording at the session's rate needs no resampler, and shows what copying takes.
        Some(recording) => {
            for_long_work(&mut group);
            (recording.samples(), vec![(recording.sample_rate, rival::TO)])
        }
        None => ((0..BLOCK).map(|n| (n as f32 * 0.1).sin()).collect(), PAIRS.to_vec()),
    };
    for (from, to) in pairs {
        group.throughput(audio(input.len() as u64, from));
        for fill in FILLS {
            let mut resampler = resampler(from, to, fill);
            let mut out = Vec::with_capacity(to as usize * 2);
            group.bench_function(named(from, to, fill), |b| {
                b.iter(|| {
                    for block in input.chunks(BLOCK) {
                        out.clear();
                        resampler.push(black_box(block), &mut out);
                        black_box(out.as_slice());
                    }
                });
            });
        }
    }
    group.finish();
}

/// Both resamplers get the same audio in blocks of rubato's own length, which suits it best. The ratio is
/// that of pairs of measurements one after the other, since a machine is never idle.
fn against_rubato(c: &mut Criterion) {
    if Recording::of_user().is_some() {
        return;
    }
    let mut group = c.benchmark_group("resample-rival");
    let mut ratios = Vec::new();
    for from in rival::FROM {
        let mut rubato = Rival::new(from, rival::TO);
        let block = rubato.block();
        let input: Vec<f32> =
            (0..(from as usize).next_multiple_of(block)).map(|n| (n as f32 * 0.1).sin()).collect();
        let mut buffer = vec![0.0; input.len() * rival::TO as usize / from as usize];
        let mut by_rubato = || {
            rubato.push(black_box(&input), &mut buffer);
            black_box(buffer.as_slice());
        };
        group.throughput(audio(input.len() as u64, from));
        group.bench_function(BenchmarkId::new(format!("{from}-{}", rival::TO), "rubato"), |b| {
            b.iter(&mut by_rubato);
        });
        for fill in FILLS {
            let (mut ours, mut out) = (resampler(from, rival::TO, fill), Vec::new());
            let mut by_ours = || {
                out.clear();
                for block in black_box(&input).chunks_exact(block) {
                    ours.push(block, &mut out);
                }
                black_box(out.as_slice());
            };
            group.bench_function(named(from, rival::TO, fill), |b| b.iter(&mut by_ours));
            ratios.push(format!("{from} Hz, {fill:?}: {}", ratio(&mut by_ours, &mut by_rubato)));
        }
    }
    group.finish();
    println!("time of voxline over that of rubato, median (10 to 90 %) of {RATIOS} pairs");
    ratios.iter().for_each(|line| println!("{line}"));
}

/// Returns the time of `ours` over that of `theirs`: the median of pairs, the tenth and the ninetieth
/// percentile.
fn ratio(ours: &mut dyn FnMut(), theirs: &mut dyn FnMut()) -> String {
    let clock = WallTime;
    let spent = |work: &mut dyn FnMut()| {
        let start = clock.start();
        work();
        clock.to_f64(&clock.end(start))
    };
    let mut ratios: Vec<f64> = (0..RATIOS).map(|_| spent(ours) / spent(theirs)).collect();
    ratios.sort_by(f64::total_cmp);
    let at = |share: usize| ratios[(RATIOS - 1) * share / 10];
    format!("{:.2} ({:.2}-{:.2})", at(5), at(1), at(9))
}

/// Every channel of every call creates a resampler: the first one also makes the plan, which the others
/// share.
fn new(c: &mut Criterion) {
    if Recording::of_user().is_some() {
        return;
    }
    let mut group = c.benchmark_group("resample-new");
    group.throughput(Throughput::Elements(1));
    for (from, to) in [(44_100, 16_000), (8_000, 16_000), (44_101, 16_000)] {
        let make = || Resampler::new(black_box(from), black_box(to)).expect("the rates are within range");
        group.bench_function(BenchmarkId::new(format!("{from}-{to}"), "first"), |b| b.iter(make));
        let _first = make();
        group.bench_function(BenchmarkId::new(format!("{from}-{to}"), "other"), |b| b.iter(make));
    }
    group.finish();
}

criterion_group!(benches, push, against_rubato, new);
criterion_main!(benches);
