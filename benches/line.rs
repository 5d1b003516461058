//! The whole path, in audio per second: a recording is decoded, resampled, cut into chunks, carried to a
//! gateway over a WebSocket on loopback, and ended. It is a sample repeated for a minute, or the one that
//! `VOXLINE_BENCH_FILE` names.

mod loopback;
mod recording;

use std::fs;
use std::path::Path;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, Criterion, criterion_group, criterion_main};
use voxline::pipeline::{Options, Pipeline};
use voxline::source::Source;

use crate::loopback::{Loopback, SAMPLE_RATE};
use crate::recording::{Recording, audio, for_long_work};

const SECONDS: u32 = 60;
const FRAMES: u64 = (SECONDS * SAMPLE_RATE) as u64;

/// Returns a WAV file of one minute that repeats the audio of the sample.
fn looped(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples").join(name);
    let sample = fs::read(path).expect("the samples are in the repository");
    let (format, data) = (chunk(&sample, b"fmt "), chunk(&sample, b"data"));
    let bytes_per_second = u32::from_le_bytes(format[8..12].try_into().expect("four bytes"));
    let length = SECONDS * bytes_per_second;

    let mut file = b"RIFF".to_vec();
    // The form type, and two chunks with their headers.
    file.extend((4 + 8 + format.len() as u32 + 8 + length).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend((format.len() as u32).to_le_bytes());
    file.extend(format);
    file.extend(b"data");
    file.extend(length.to_le_bytes());
    file.extend(data.iter().cycle().take(length as usize));
    file
}

/// Returns the content of the chunk `id` of a WAV file. The ids of our samples do not occur in the bytes
/// before them.
fn chunk<'a>(wav: &'a [u8], id: &[u8; 4]) -> &'a [u8] {
    let at = wav.windows(4).position(|window| window == id).expect("a WAV file has both") + 4;
    let length = u32::from_le_bytes(wav[at..at + 4].try_into().expect("four bytes")) as usize;
    &wav[at + 4..at + 4 + length]
}

/// Carries the recording to the gateway, and returns the number of frames that were recognised.
fn carry(loopback: &Loopback, source: Source) -> u64 {
    let pipeline = Pipeline::open(source, Options::default()).expect("the recording is audio");
    let (mut streams, worker) = pipeline.start();
    let frames = loopback.session(streams.remove(0)).recognised;
    worker.join().expect("the recording is whole");
    frames
}

fn measure(
    group: &mut BenchmarkGroup<'_, WallTime>,
    loopback: &Loopback,
    (name, source): (&str, &dyn Fn() -> Source),
    frames: u64,
) {
    group.throughput(audio(frames, SAMPLE_RATE));
    group.bench_function(name, |b| {
        b.iter_batched(source, |source| assert_eq!(carry(loopback, source), frames), BatchSize::LargeInput);
    });
}

fn bench(c: &mut Criterion) {
    let loopback = Loopback::start();
    let mut group = c.benchmark_group("line");
    if let Some(recording) = Recording::of_user() {
        for_long_work(&mut group);
        let frames = carry(&loopback, recording.source());
        measure(&mut group, &loopback, (&recording.name, &|| recording.source()), frames);
    } else {
        for name in ["speech-44k1-stereo-s16.wav", "speech-8k-mono-mulaw.wav"] {
            let recording = looped(name);
            measure(&mut group, &loopback, (name, &|| Source::bytes(name, recording.clone())), FRAMES);
        }
    }
    group.finish();
}

criterion_group!(benches, bench);
criterion_main!(benches);
