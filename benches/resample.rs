//! Input frames resampled per second, for each pair of rates, and resamplers created per second.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use voxline::resample::Resampler;

/// A packet of MP3.
const BLOCK: usize = 1_152;

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

fn push(c: &mut Criterion) {
    let mut group = c.benchmark_group("resample");
    let input: Vec<f32> = (0..BLOCK).map(|n| (n as f32 * 0.1).sin()).collect();
    group.throughput(Throughput::Elements(BLOCK as u64));
    // Block lengths for live audio, and for the conversion of files.
    for (from, to) in PAIRS {
        for fill in [20, 80] {
            let mut resampler = Resampler::with_fill(from, to, Duration::from_millis(fill))
                .expect("the rates are within range");
            let mut out = Vec::with_capacity(to as usize * 2);
            group.bench_function(BenchmarkId::new(format!("{from}-{to}"), format!("{fill}ms")), |b| {
                b.iter(|| {
                    out.clear();
                    resampler.push(black_box(&input), &mut out);
                    black_box(out.as_slice());
                });
            });
        }
    }
    group.finish();
}

/// Every channel of every call creates a resampler: the first one also makes the plan, which the others
/// share.
fn new(c: &mut Criterion) {
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

criterion_group!(benches, push, new);
criterion_main!(benches);
