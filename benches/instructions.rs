//! Instructions that each step of the front end takes, counted by valgrind. The counts are the same on
//! every run, whatever else the machine does, so a change of one per cent shows. Not part of `cargo bench`,
//! since it needs two programs:
//!
//! ```text
//! apt-get install valgrind
//! cargo install --locked gungraun-runner --version 0.20.0     # the version of gungraun in Cargo.lock
//! cargo bench --bench instructions --features instructions
//! ```
//!
//! A count covers one call after warm-up: buffers have grown, filters are planned. Valgrind hides
//! instructions beyond AVX2 from a program, so the vector code that is counted is not always the code that
//! a newer machine runs. gungraun's attributes take no documentation, so plain comments describe the cases.

#![expect(missing_docs, reason = "the macros make public modules")]

use std::hint::black_box;

use gungraun::{library_benchmark, library_benchmark_group, main};
use voxline::audio::{AudioChunk, sample};
use voxline::chunk::Chunker;
use voxline::decode::{Block, Decoder, Options};
use voxline::resample::Resampler;
use voxline::source::Source;

/// Frames per second of the session stream.
const SESSION_RATE: u32 = 16_000;

/// Returns a tone, not silence: the time of some operations depends on their input.
fn tone(frames: u32) -> Vec<f32> {
    (0..frames).map(|n| (n as f32 * 0.1).sin() * 0.5).collect()
}

/// Returns samples of 16 bits, both channels alike.
fn stereo_s16(frames: u32) -> Vec<u8> {
    let mut pcm = Vec::new();
    sample::write_s16le(&tone(frames).into_iter().flat_map(|value| [value; 2]).collect::<Vec<_>>(), &mut pcm);
    pcm
}

/// Returns a decoder of headerless audio that has decoded the first of its blocks of 64 KiB.
fn warm(format: &str, bytes: Vec<u8>) -> (Decoder, Block) {
    let format = format.parse().expect("the formats are written as documented");
    let source = Source::bytes("raw", bytes).headerless(format);
    let mut decoder = Decoder::open(source, Options::default()).expect("headerless audio is always audio");
    let mut block = Block::new();
    decoder.next_block(&mut block).expect("memory can be read");
    (decoder, block)
}

fn stereo_blocks() -> (Decoder, Block) {
    warm("s16le:44100:2", stereo_s16(2 * 16_384))
}

fn mulaw_blocks() -> (Decoder, Block) {
    // Every code, in an order that no branch predictor learns.
    warm("mulaw", (0..2 * 65_536_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect())
}

// 16,384 stereo frames mixed to mono; 65,536 frames of G.711.
#[library_benchmark]
#[bench::stereo_s16_to_mono(setup = stereo_blocks)]
#[bench::mulaw_to_float(setup = mulaw_blocks)]
fn block((mut decoder, mut block): (Decoder, Block)) -> (Decoder, Block) {
    let more = decoder.next_block(black_box(&mut block));
    assert!(matches!(more, Ok(true)), "there is a second block");
    (decoder, block)
}

fn floats_and_room() -> (Vec<f32>, Vec<u8>) {
    (tone(SESSION_RATE), Vec::with_capacity(SESSION_RATE as usize * 2))
}

// One second of the session stream.
#[library_benchmark]
#[bench::second(setup = floats_and_room)]
fn f32_to_s16((samples, mut pcm): (Vec<f32>, Vec<u8>)) -> (Vec<f32>, Vec<u8>) {
    sample::write_s16le(black_box(&samples), &mut pcm);
    (samples, pcm)
}

fn chunker_and_blocks() -> (Chunker, Vec<f32>, Vec<AudioChunk>) {
    (Chunker::new(1_600), tone(SESSION_RATE), Vec::with_capacity(10))
}

// One second cut into ten chunks, in blocks as the resampler makes them, with the conversion to 16 bits.
#[library_benchmark]
#[bench::second(setup = chunker_and_blocks)]
fn chunk(
    (mut chunker, samples, mut chunks): (Chunker, Vec<f32>, Vec<AudioChunk>),
) -> (Chunker, Vec<f32>, Vec<AudioChunk>) {
    for mut block in black_box(&samples).chunks(640) {
        chunks.extend(std::iter::from_fn(|| chunker.push(&mut block)));
    }
    (chunker, samples, chunks)
}

/// Returns a resampler that has processed one second, the next 100 ms for it, and room for its output.
fn resampler(from_hz: u32) -> (Resampler, Vec<f32>, Vec<f32>) {
    let mut resampler = Resampler::new(from_hz, SESSION_RATE).expect("the rates are within range");
    let mut out = Vec::with_capacity(2 * SESSION_RATE as usize);
    resampler.push(&tone(from_hz), &mut out);
    out.clear();
    (resampler, tone(from_hz / 10), out)
}

// 100 ms, five of the resampler's blocks.
#[library_benchmark]
#[bench::from_44100(args = (44_100), setup = resampler)]
#[bench::from_8000(args = (8_000), setup = resampler)]
fn resample(
    (mut resampler, input, mut out): (Resampler, Vec<f32>, Vec<f32>),
) -> (Resampler, Vec<f32>, Vec<f32>) {
    resampler.push(black_box(&input), &mut out);
    (resampler, input, out)
}

/// Returns a WAV file of one second, 44.1 kHz stereo.
fn wav_file() -> Source {
    let pcm = stereo_s16(44_100);
    let mut file = b"RIFF".to_vec();
    file.extend((36 + pcm.len() as u32).to_le_bytes());
    file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x02\0");
    file.extend(44_100_u32.to_le_bytes());
    file.extend((44_100_u32 * 4).to_le_bytes());
    file.extend(b"\x04\0\x10\0data");
    file.extend((pcm.len() as u32).to_le_bytes());
    file.extend(pcm);
    Source::bytes("second.wav", file)
}

// The whole file, from recognising the format to the end.
#[library_benchmark]
#[bench::wav_second(setup = wav_file)]
fn decode(source: Source) -> Decoder {
    let mut decoder = Decoder::open(source, Options::default()).expect("it is a WAV file");
    let (mut block, mut frames) = (Block::new(), 0);
    while decoder.next_block(&mut block).expect("it is whole") {
        frames += black_box(&block).frames();
    }
    assert_eq!(frames, 44_100);
    decoder
}

library_benchmark_group!(name = front_end, benchmarks = [block, f32_to_s16, chunk, resample, decode]);
main!(library_benchmark_groups = front_end);
