//! Frames converted to 16 bits and cut into chunks of 100 ms per second.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use voxline::audio::sample;
use voxline::chunk::Chunker;

/// Number of frames that the resampler makes of a block.
const BLOCK: usize = 418;

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk");
    let input: Vec<f32> = (0..BLOCK).map(|n| (n as f32 * 0.1).sin()).collect();
    group.throughput(Throughput::Elements(BLOCK as u64));
    group.bench_function("chunker", |b| {
        let mut chunker = Chunker::new(1_600);
        b.iter(|| {
            let mut samples = input.as_slice();
            while let Some(chunk) = chunker.push(&mut samples) {
                black_box(chunk);
            }
        });
    });
    group.bench_function("to_s16", |b| {
        let mut pcm = Vec::with_capacity(BLOCK * 2);
        b.iter(|| {
            pcm.clear();
            sample::write_s16le(black_box(&input), &mut pcm);
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
