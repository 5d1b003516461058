//! Audio decoded and mixed to mono per second: of each format, or of the recording that
//! `VOXLINE_BENCH_FILE` names.

mod recording;

use std::fs;
use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use voxline::decode::{Block, Decoder, Options};
use voxline::source::Source;

use recording::{Recording, audio, for_long_work};

const SAMPLES: [&str; 9] = [
    "speech-8k-mono-mulaw.wav",
    "speech-44k1-stereo.flac",
    "speech-44k1-stereo.mp3",
    "speech-44k1-stereo-vorbis.ogg",
    "speech-44k1-stereo-aac.m4a",
    "speech-16k-mono-alac.m4a",
    "speech-48k-stereo-opus.ogg",
    "speech-16k-mono-voip.opus",
    "speech-16k-mono-s16.wav",
];

/// Decodes the source, and returns the number of frames and their rate.
fn decode(source: Source, options: Options) -> (u64, u32) {
    let mut decoder = Decoder::open(source, options).expect("the recording is audio");
    let (mut block, mut frames) = (Block::new(), 0);
    while decoder.next_block(&mut block).expect("the recording is whole") {
        frames += black_box(&block).frames() as u64;
    }
    (frames, decoder.sample_rate())
}

fn bench(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    if let Some(recording) = Recording::of_user() {
        for_long_work(&mut group);
        group.throughput(audio(recording.frames, recording.sample_rate));
        group.bench_function(&recording.name, |b| b.iter(|| decode(recording.source(), Options::default())));
        group.finish();
        return;
    }
    let read = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples").join(name);
        fs::read(path).expect("the samples are in the repository")
    };
    let own_rate = Options::default();
    let throughput = |source, options| {
        let (frames, sample_rate) = decode(source, options);
        audio(frames, sample_rate)
    };
    for name in SAMPLES {
        let bytes = read(name);
        let source = || Source::bytes(name, bytes.clone());
        group.throughput(throughput(source(), own_rate));
        group.bench_function(name, |b| b.iter(|| decode(source(), own_rate)));
    }

    // Opus straight to the session's rate: a third of the frames.
    let session_rate = Options { sample_rate: Some(16_000), ..own_rate };
    let bytes = read("speech-48k-stereo-opus.ogg");
    let source = || Source::bytes("opus", bytes.clone());
    group.throughput(throughput(source(), session_rate));
    group.bench_function("speech-48k-stereo-opus.ogg to 16 kHz", |b| {
        b.iter(|| decode(source(), session_rate));
    });

    // The stereo sample is too short to measure: ten seconds of the audio after its header, repeated.
    let format = "s16le:44100:2".parse().expect("a format of headerless audio");
    let bytes: Vec<u8> =
        read("speech-44k1-stereo-s16.wav")[44..].iter().copied().cycle().take(1_764_000).collect();
    let source = || Source::bytes("raw", bytes.clone()).headerless(format);
    group.throughput(throughput(source(), own_rate));
    group.bench_function("44.1 kHz stereo s16", |b| b.iter(|| decode(source(), own_rate)));
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
