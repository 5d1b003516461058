//! `voxline speak`: text that arrives bit by bit, every form of output, and ctrl-c.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::thread;

use crate::cli::{Place, assert_fails, signal, text};

const VOICE: [&str; 2] = ["--voice", "espeak-en"];
/// Size of a WAV header in bytes.
const HEADER: usize = 44;

fn speak(place: &Place, arguments: &[&str]) -> Command {
    place.command(&[&["speak"], arguments, &VOICE].concat())
}

fn piped(mut command: Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
fn assert_done(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    output.stdout
}

/// Returns the length of a decoded file, in frames at 16 kHz.
fn frames(place: &Place, file: &str) -> usize {
    assert_done(&mut place.command(&["decode", file, "--format", "s16le"])).len() / 2
}

#[test]
fn a_line_is_spoken_before_the_next_is_written() {
    let place = Place::new();
    let mut speaking = piped(speak(&place, &["-", "-o", "-"]));
    let (mut input, mut output) = (speaking.stdin.take().unwrap(), speaking.stdout.take().unwrap());
    let mut heard = vec![0; HEADER + 48_000];
    input.write_all("The first line.\n".as_bytes()).unwrap();
    // A second of speech has arrived, and standard input is still open.
    output.read_exact(&mut heard).unwrap();
    // A character may also arrive in pieces.
    let (begun, rest) = "A café, and that is all.".as_bytes().split_at("A caf".len() + 1);
    input.write_all(begun).unwrap();
    input.write_all(rest).unwrap();
    drop(input);
    output.read_to_end(&mut heard).unwrap();
    assert!(speaking.wait().unwrap().success());
    let alone = assert_done(&mut speak(&place, &["A café, and that is all.", "-o", "-"]));
    assert!(heard.ends_with(&alone[HEADER..]), "{} bytes, {}", heard.len(), alone.len());
}

#[test]
fn every_form_holds_the_same_speech() {
    let place = Place::new();
    let sentence = "The weather in Boston was cold and cloudy for seven days.";
    place.file("text.txt", sentence);
    for (file, tolerance) in [("a.wav", 0), ("a.mp3", 2_000), ("a.opus", 2)] {
        assert_done(&mut speak(&place, &["--file", "text.txt", "-o", file]));
        assert!(frames(&place, "a.wav").abs_diff(frames(&place, file)) <= tolerance, "{file}");
    }
    let wav = fs::read(place.path("a.wav")).unwrap();
    assert_done(&mut speak(&place, &[sentence, "-o", "a.raw"]));
    assert!(fs::read(place.path("a.raw")).unwrap() == wav[HEADER..]);
    assert!(assert_done(&mut speak(&place, &[sentence, "-o", "-"]))[HEADER..] == wav[HEADER..]);
    let mp3 = assert_done(&mut speak(&place, &[sentence, "-o", "-", "--encoder", "mp3"]));
    assert!(mp3 == fs::read(place.path("a.mp3")).unwrap());
    assert_done(&mut speak(&place, &[sentence, "-o", "b.wav", "--rate", "8000", "--tempo", "1.5"]));
    let slow = hound::WavReader::open(place.path("b.wav")).unwrap();
    assert_eq!(slow.spec().sample_rate, 8_000);
    let ratio = f64::from(slow.duration()) * 3.0 / ((wav.len() - HEADER) / 2) as f64;
    assert!((0.55..0.8).contains(&ratio), "{ratio}");
}

#[test]
fn a_text_longer_than_the_service_takes_is_one_file() {
    let place = Place::new();
    let text = "It was a dark and stormy night, and the rain fell in torrents. ".repeat(40);
    assert!(text.len() > 2_000);
    place.file("text.txt", &text);
    for file in ["a.wav", "a.mp3", "a.opus"] {
        assert_done(&mut speak(&place, &["-f", "text.txt", "-o", file]));
    }
    // MP3 frames follow MP3 frames, and an Ogg stream follows another. ffmpeg and our own decoder support
    // both.
    let said = frames(&place, "a.wav");
    assert!(said > 16_000 * 100 && frames(&place, "a.mp3").abs_diff(said) < 5_000);
    let info = Command::new("opusinfo").arg(place.path("a.opus")).output().expect("./dev installs opusinfo");
    let info = text_of(&info.stdout);
    assert!(
        info.matches("New logical stream").count() >= 2 && !info.to_lowercase().contains("warning"),
        "{info}"
    );
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_text_is_not_overwritten_by_its_speech() {
    let place = Place::new();
    place.file("text.txt", "It was a dark night.");
    let output = speak(&place, &["-f", "text.txt", "-o", "./text.txt"]).output().unwrap();
    assert_fails(&output, 2, &["./text.txt: the output is the text itself"]);
    assert_eq!(fs::read_to_string(place.path("text.txt")).unwrap(), "It was a dark night.");
}

#[test]
fn ctrl_c_stops_at_once_and_leaves_a_whole_file() {
    let place = Place::new();
    let mut speaking = piped(speak(&place, &["-", "-o", "a.wav"]));
    let mut input = speaking.stdin.take().unwrap();
    let line = "This is a line with some words in it, and it is one of a great many.\n";
    input.write_all(line.repeat(500).as_bytes()).unwrap();
    // The program writes as long as there is text to speak.
    let length = || fs::metadata(place.path("a.wav")).map_or(0, |file| file.len());
    while length() < 200_000 {
        assert!(speaking.try_wait().unwrap().is_none(), "it ended early");
        thread::yield_now();
    }
    signal(&speaking, "INT");
    let output = speaking.wait_with_output().unwrap();
    assert_fails(&output, 130, &["interrupted"]);
    let wav = hound::WavReader::open(place.path("a.wav")).unwrap();
    assert!((90_000..24_000 * 1_500).contains(&wav.duration()), "{} frames", wav.duration());
    assert_eq!(length(), HEADER as u64 + 2 * u64::from(wav.duration()));
    drop(input);
}

/// Writes a program with the name of a player. Returns a search path on which that program comes first.
fn player(place: &Place, script: &str) -> String {
    fs::create_dir(place.path("bin")).unwrap();
    let path = place.file("bin/pw-play", format!("#!/bin/sh\n{script}\n"));
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:/usr/bin:/bin", place.path("bin").display())
}

#[test]
fn a_player_gets_samples_of_its_rate_and_falls_silent_when_told() {
    let place = Place::new();
    let path = player(&place, "echo \"$@\" > arguments; exec cat > played");
    let mut playing = speak(&place, &["One sentence.", "--rate", "16000"]);
    assert_done(playing.env("PATH", &path));
    assert!(fs::read_to_string(place.path("arguments")).unwrap().contains("--rate 16000"));
    let raw = assert_done(&mut speak(&place, &["One sentence.", "--rate", "16000", "-o", "-"]));
    assert!(fs::read(place.path("played")).unwrap() == raw[HEADER..]);

    // One player reads nothing, and the other has read everything. Each reports its state on a pipe of
    // the test.
    for script in ["echo runs >&3; exec sleep 600", "cat > /dev/null; echo runs >&3; exec sleep 600"] {
        let place = Place::new();
        let path = player(&place, script);
        let mut silent = Command::new("sh");
        silent.args(["-c", "exec 3>&2; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_voxline")]);
        silent.args(["speak", "One sentence, and another."]).args(VOICE);
        silent.current_dir(place.path("")).env("HOME", place.path("")).env("PATH", &path);
        let mut silent = silent.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut told = [0; 5];
        silent.stderr.as_mut().unwrap().read_exact(&mut told).unwrap();
        signal(&silent, "INT");
        // Standard error ends when the player has ended, because the player holds it, too.
        let output = silent.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    }
}

#[test]
fn what_does_not_go_together_is_refused_before_anything_is_asked() {
    let place = Place::new();
    for (arguments, part) in [
        (&["Hello.", "--encoder", "mp3"][..], "--encoder mp3: players take PCM"),
        (&["Hello.", "--encoder", "opus", "-o", "a.wav"], "contradicts the extension of a.wav"),
        (&["Hello.", "--rate", "8000", "-o", "a.mp3"], "--rate: goes with PCM"),
        (&["?!", "-o", "a.wav"], "no words"),
        (&["--file", "missing.txt"], "missing.txt"),
    ] {
        assert_fails(&speak(&place, arguments).output().unwrap(), 2, &[part]);
    }
    for arguments in [&[][..], &["Hello.", "--file", "a.txt"], &["Hello.", "--rate", "1"]] {
        assert_eq!(speak(&place, arguments).output().unwrap().status.code(), Some(2), "{arguments:?}");
    }
    place.file("bad.txt", b"Hello there. \xff\xfe");
    let bad = speak(&place, &["--file", "bad.txt", "-o", "b.wav"]).output().unwrap();
    assert_fails(&bad, 2, &["bad.txt: text is not UTF-8"]);
    assert!(!place.path("a.wav").exists() && !place.path("a.mp3").exists());
}
