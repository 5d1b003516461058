//! Input frames resampled per second, for each pair of rates.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use voxline::resample::Resampler;

/// A packet of MP3.
const BLOCK: usize = 1_152;

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("resample");
    let input: Vec<f32> = (0..BLOCK).map(|n| (n as f32 * 0.1).sin()).collect();
    for (from, to) in [
        (44_100, 16_000),
        (48_000, 16_000),
        (8_000, 16_000),
        (16_000, 8_000),
        (11_025, 16_000),
        (44_056, 16_000),
        (44_101, 16_000),
    ] {
        let mut resampler = Resampler::new(from, to).expect("the rates are within range");
        let mut out = Vec::with_capacity(to as usize * 2);
        group.throughput(Throughput::Elements(BLOCK as u64));
        group.bench_function(BenchmarkId::from_parameter(format!("{from}-{to}")), |b| {
            b.iter(|| {
                out.clear();
                resampler.push(&input, &mut out);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
