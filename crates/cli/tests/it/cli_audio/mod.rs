//! The audio commands of the program as users run them: `decode`, `probe`, recordings on the web,
//! two-channel calls.

mod calls;
mod decode;
mod web;

use std::fs;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::{Place, assert_fails, assert_said, path, text};
use voxline_fixtures::samples::{SAMPLES, sample};

/// Sample in telephone encoding.
const MULAW: &str = "speech-8k-mono-mulaw.wav";
/// Sample with two different channels.
const STEREO: &str = "speech-44k1-stereo-s16.wav";

/// Asserts that a command succeeded and printed nothing on standard error.
#[track_caller]
fn assert_done(output: &Output) {
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

/// Asserts that the command line parser refused a command with a message that contains `part`. Such a
/// message has several lines.
#[track_caller]
fn assert_misused(output: &Output, part: &str) {
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains(part), "{}", text(&output.stderr));
    assert!(output.stdout.is_empty());
}

/// Reads a 16-bit WAV file. Returns its rate, channels and samples.
fn wav(file: &std::path::Path) -> (u32, u16, Vec<i16>) {
    let mut reader = hound::WavReader::open(file).unwrap();
    let spec = reader.spec();
    assert_eq!((spec.bits_per_sample, spec.sample_format), (16, hound::SampleFormat::Int));
    (spec.sample_rate, spec.channels, reader.samples().map(Result::unwrap).collect())
}

/// Returns the contents of a WAV file's data chunk: as many bytes as its header states. For a pipe, the
/// header states the maximum, so the contents are all bytes that follow.
fn data(wav: &[u8]) -> &[u8] {
    let at = wav.windows(4).position(|window| window == b"data").unwrap();
    let length = u32::from_le_bytes(wav[at + 4..at + 8].try_into().unwrap()) as usize;
    let rest = &wav[at + 8..];
    &rest[..length.min(rest.len())]
}

#[test]
fn probe_tells_of_each_recording_what_it_is() {
    let place = Place::new();
    let paths: Vec<_> = SAMPLES.iter().map(|(name, ..)| sample(name)).collect();
    let all: Vec<&str> = paths.iter().map(|file| path(file)).collect();
    let told = place.run(&[&["probe", "--json"], &all[..]].concat());
    assert_done(&told);
    let lines: Vec<Value> =
        text(&told.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), SAMPLES.len());
    for ((_, container, codec, rate, channels, frames), (line, file)) in
        SAMPLES.into_iter().zip(lines.iter().zip(&all))
    {
        // Matroska does not state the number of frames.
        let known = (container != "matroska").then_some(frames);
        let expected = serde_json::json!({
            "name": file, "container": container, "codec": codec, "sample_rate": rate, "channels": channels,
            "frames": known, "duration": known.map(|frames| frames as f64 / f64::from(rate)),
        });
        let (mut expected, mut line) = (expected, line.clone());
        // A duration is a whole number of nanoseconds.
        let seconds = |value: &mut Value| value["duration"].take().as_f64();
        match (seconds(&mut expected), seconds(&mut line)) {
            (Some(expected), Some(told)) => assert!((expected - told).abs() < 1e-8, "{file}: {told}"),
            (expected, told) => assert_eq!(expected, told, "{file}"),
        }
        assert_eq!(line, expected);
    }
}

#[test]
fn a_bad_file_among_good_ones_is_one_line_and_the_others_are_told() {
    let place = Place::new();
    place.file("notes.txt", "These are notes, and no audio.\n".repeat(50));
    for (name, short) in [(MULAW, "call.wav"), ("speech-48k-stereo-opus.webm", "web.webm")] {
        place.file(short, fs::read(sample(name)).unwrap());
    }
    let told = place.run(&["probe", "call.wav", "notes.txt", "web.webm"]);
    assert_fails(&told, 3, &["notes.txt", "not a known audio format"]);
    let expected = "\
        CONTAINER  CODEC      RATE      CHANNELS  DURATION  FILE\n\
        wave       pcm_mulaw  8000 Hz   1         0:04.214  call.wav\n\
        matroska   opus       48000 Hz  2         unknown   web.webm\n";
    assert_eq!(text(&told.stdout), expected);

    let told = place.run(&["probe", "--json", "missing.wav", "call.wav"]);
    assert_fails(&told, 3, &["missing.wav", "no such file"]);
    let line: Value = serde_json::from_slice(&told.stdout).unwrap();
    assert_eq!((&line["name"], &line["frames"]), (&Value::from("call.wav"), &Value::from(33_715)));

    // If there are only bad files, no empty table is printed.
    let told = place.run(&["probe", "notes.txt"]);
    assert_fails(&told, 3, &["notes.txt"]);
    assert_eq!(text(&told.stdout), "");
    let told = place.run(&["probe", "call.wav", "--channels", "right"]);
    assert_fails(&told, 3, &["call.wav", "no channel 2, only 1"]);
    let told = place.run(&["probe", "notes.txt", "--raw", "s16le:16000:2"]);
    assert_done(&told);
    assert!(text(&told.stdout).contains("raw        pcm_s16le  16000 Hz  2"), "{}", text(&told.stdout));
}

#[test]
fn a_headerless_telephone_recording_is_transcribed() {
    let place = Place::new();
    let telephone = fs::read(sample(MULAW)).unwrap();
    place.file("call.raw", data(&telephone));
    let told = place.run(&["transcribe", "call.raw", "--raw", "mulaw", "--language", "en"]);
    assert_said(&told, include_str!("../../../../../samples/speech.txt"));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long the program takes is what is tested")]
fn a_pace_holds_audio_back() {
    let place = Place::new();
    // Recognition of silence takes no time, so only the pace takes time.
    place.file("silence.raw", vec![0; 60 * 16_000]);
    let start = Instant::now();
    let silent =
        place.run(&["transcribe", "silence.raw", "--raw", "s16le:8000", "--language", "en", "--pace", "20"]);
    let taken = start.elapsed();
    assert_fails(&silent, 1, &["silence.raw", "no speech"]);
    assert!(taken >= Duration::from_secs(60 / 20), "{taken:?}");
    // In real time the recording would take at least this long.
    assert!(taken < Duration::from_secs(60), "{taken:?}");
    for pace in ["0", "-1", "fast", "1001", "NaN"] {
        assert_misused(&place.run(&["transcribe", "silence.raw", &format!("--pace={pace}")]), pace);
    }
}
