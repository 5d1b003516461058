//! Audio converted to 16 bits and cut into chunks of 100 ms per second: a tone, or the recording that
//! `VOXLINE_BENCH_FILE` names.

mod recording;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use voxline::audio::sample;
use voxline::chunk::Chunker;
use voxline::resample::Resampler;

use recording::{Recording, audio, for_long_work};

/// Rate of a session, in frames per second.
const RATE: u32 = 16_000;
/// Number of frames that the resampler makes of a block.
const BLOCK: usize = 418;

fn at_session_rate(recording: &Recording) -> Vec<f32> {
    let mut resampler = Resampler::new(recording.sample_rate, RATE).expect("decoded rates are within range");
    let mut samples = Vec::new();
    resampler.push(&recording.samples(), &mut samples);
    resampler.finish(&mut samples);
    samples
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("chunk");
    let input: Vec<f32> = match Recording::of_user() {
        Some(recording) => {
            for_long_work(&mut group);
            at_session_rate(&recording)
        }
        None => (0..BLOCK).map(|n| (n as f32 * 0.1).sin()).collect(),
    };
    group.throughput(audio(input.len() as u64, RATE));
    group.bench_function("chunker", |b| {
        let mut chunker = Chunker::new(1_600);
        b.iter(|| {
            for mut samples in input.chunks(BLOCK) {
                while let Some(chunk) = chunker.push(&mut samples) {
                    black_box(chunk);
                }
            }
        });
    });
    group.bench_function("to_s16", |b| {
        let mut pcm = Vec::with_capacity(BLOCK * 2);
        b.iter(|| {
            for samples in input.chunks(BLOCK) {
                pcm.clear();
                sample::write_s16le(black_box(samples), &mut pcm);
                black_box(pcm.as_slice());
            }
        });
    });
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
