//! Frames decoded and mixed to mono per second, for each format.

use std::fs;
use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use voxline::decode::{Block, Decoder, Options};
use voxline::source::Source;

const SAMPLES: [&str; 7] = [
    "speech-44k1-stereo-s16.wav",
    "speech-8k-mono-mulaw.wav",
    "speech-44k1-stereo.flac",
    "speech-44k1-stereo.mp3",
    "speech-44k1-stereo-vorbis.ogg",
    "speech-44k1-stereo-aac.m4a",
    "speech-16k-mono-alac.m4a",
];

fn decode(bytes: Vec<u8>) -> u64 {
    let mut decoder =
        Decoder::open(Source::bytes("sample", bytes), Options::default()).expect("the samples are audio");
    let (mut block, mut frames) = (Block::new(), 0);
    while decoder.next_block(&mut block).expect("the samples are whole") {
        frames += black_box(&block).frames() as u64;
    }
    frames
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for name in SAMPLES {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name);
        let bytes = fs::read(path).expect("the samples are in the repository");
        group.throughput(Throughput::Elements(decode(bytes.clone())));
        group.bench_function(name, |b| b.iter(|| decode(bytes.clone())));
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
