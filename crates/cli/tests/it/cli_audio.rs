//! The audio commands of the program as users run them: `decode`, `probe`, recordings on the web,
//! two-channel calls.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use voxline::audio::sample as samples;
use voxline::resample::frames_at;

use crate::cli::{Place, assert_fails, assert_said, path, signal, text};
use crate::support::model_hub::{Fault, ModelHub};
use voxline_engines::wer::normal;
use voxline_fixtures::clips;
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

fn s16le(pcm: &[i16]) -> Vec<u8> {
    pcm.iter().flat_map(|value| value.to_le_bytes()).collect()
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
fn every_sample_becomes_a_wav_with_all_its_frames() {
    let place = Place::new();
    for (name, _, _, rate, _, frames) in SAMPLES {
        assert_done(&place.run(&["decode", path(&sample(name)), "-o", "out.wav"]));
        let (out_rate, channels, pcm) = wav(&place.path("out.wav"));
        let expected = frames_at(frames as u64, rate, 16_000);
        assert_eq!((out_rate, channels, pcm.len() as u64), (16_000, 1, expected), "{name}");
        assert!(pcm.iter().any(|value| value.unsigned_abs() > 1_000), "{name} is silent");
    }
}

#[test]
fn pcm_at_its_own_rate_comes_out_as_it_went_in() {
    let place = Place::new();
    let source = sample("source.wav");
    assert_done(&place.run(&["decode", path(&source), "--rate", "24000", "-o", "same.wav"]));
    assert!(wav(&place.path("same.wav")) == wav(&source));
    for rate in [8_000, 44_100] {
        assert_done(&place.run(&["decode", path(&source), "--rate", &rate.to_string(), "-o", "other.wav"]));
        let (out_rate, _, pcm) = wav(&place.path("other.wav"));
        assert_eq!((out_rate, pcm.len() as u64), (rate, frames_at(101_146, 24_000, rate)));
    }
}

#[test]
fn channels_are_mixed_chosen_or_kept_side_by_side() {
    let place = Place::new();
    let decoded = |channels: &str| {
        let source = sample(STEREO);
        let rate = ["--rate", "44100", "-o", "out.wav", "--channels", channels];
        assert_done(&place.run(&[&["decode", path(&source)], &rate[..]].concat()));
        let (_, channels, pcm) = wav(&place.path("out.wav"));
        (channels, pcm)
    };
    let (_, _, both) = wav(&sample(STEREO));
    let one = |channel: usize| both.iter().skip(channel).step_by(2).copied().collect::<Vec<i16>>();
    let mean = both
        .as_chunks()
        .0
        .iter()
        .map(|&[left, right]| samples::to_s16((samples::to_f32(left) + samples::to_f32(right)) / 2.0));
    let mean: Vec<i16> = mean.collect();
    assert_ne!(one(0), one(1));
    for (channels, expected) in [
        ("mix", (1, &mean)),
        ("left", (1, &one(0))),
        ("1", (1, &one(0))),
        ("right", (1, &one(1))),
        ("2", (1, &one(1))),
        ("split", (2, &both)),
    ] {
        let (count, pcm) = decoded(channels);
        assert!((count, &pcm) == expected, "{channels}");
    }
    let third = place.run(&["decode", path(&sample(STEREO)), "--channels", "3", "-o", "third.wav"]);
    assert_fails(&third, 3, &[STEREO, "no channel 3, only 2"]);
    assert!(!place.path("third.wav").exists());
    let mono = place.run(&["decode", path(&sample(MULAW)), "--channels", "right"]);
    assert_fails(&mono, 3, &[MULAW, "no channel 2, only 1"]);
    assert_misused(&place.run(&["decode", "x.wav", "--channels", "both"]), "both");
}

#[test]
fn every_format_holds_the_same_audio_in_files_and_pipes() {
    let place = Place::new();
    let source = sample("speech-44k1-stereo-vorbis.ogg");
    for channels in ["mix", "split"] {
        let decode = ["decode", path(&source), "--channels", channels];
        let piped = |format: &str| {
            let output = place.run(&[&decode[..], &["--format", format]].concat());
            assert_done(&output);
            output.stdout
        };
        let filed = |format: &str| {
            assert_done(&place.run(&[&decode[..], &["--format", format, "-o", "out"]].concat()));
            fs::read(place.path("out")).unwrap()
        };
        let s16 = piped("s16le");
        let planes = if channels == "mix" { 1 } else { 2 };
        assert_eq!(s16.len() as u64, 2 * planes * frames_at(185_856, 44_100, 16_000), "{channels}");
        assert!(s16 == filed("s16le"), "{channels}");

        let f32s = piped("f32le");
        assert!(f32s == filed("f32le"), "{channels}");
        let floats = f32s.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
        assert!(s16 == s16le(&floats.map(samples::to_s16).collect::<Vec<_>>()), "{channels}");

        // A file's header states the length; a pipe's header means "up to the end".
        let (file, pipe) = (filed("wav"), piped("wav"));
        assert!(data(&file) == s16 && data(&pipe) == s16, "{channels}");
        let length = |wav: &[u8]| u32::from_le_bytes(wav[40..44].try_into().unwrap());
        assert_eq!((length(&file), length(&pipe)), (s16.len() as u32, u32::MAX));
    }
}

#[test]
fn a_pipe_decodes_like_a_file() {
    let place = Place::new();
    for (name, ..) in SAMPLES {
        let file = place.run(&["decode", path(&sample(name))]);
        let mut pipe = place.command(&["decode", "-"]);
        let pipe = pipe.stdin(fs::File::open(sample(name)).unwrap()).output().unwrap();
        assert_done(&pipe);
        assert!(pipe.stdout == file.stdout, "{name}");
    }
    // The output pipe of one program is the input of another. A stream of unknown length is read to its
    // end.
    let wav = place.run(&["decode", path(&sample(MULAW))]).stdout;
    let mut again =
        place.command(&["decode", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = again.stdin.take().unwrap();
    let writer = std::thread::spawn({
        let wav = wav.clone();
        move || input.write_all(&wav).unwrap()
    });
    let again = again.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(again.stdout == wav);
}

#[test]
fn headerless_audio_is_what_it_is_said_to_be() {
    let place = Place::new();
    let telephone = fs::read(sample(MULAW)).unwrap();
    place.file("call.raw", data(&telephone));
    let raw = place.run(&["decode", "call.raw", "--raw", "mulaw"]);
    assert_done(&raw);
    assert!(raw.stdout == place.run(&["decode", path(&sample(MULAW))]).stdout);

    let stereo = fs::read(sample(STEREO)).unwrap();
    let mut piped = place.command(&["decode", "-", "--raw", "s16le:44100:2", "--channels", "right"]);
    place.file("stereo.raw", data(&stereo));
    let piped = piped.stdin(fs::File::open(place.path("stereo.raw")).unwrap()).output().unwrap();
    assert_done(&piped);
    assert!(piped.stdout == place.run(&["decode", path(&sample(STEREO)), "--channels", "right"]).stdout);

    assert_fails(&place.run(&["decode", "call.raw"]), 3, &["call.raw", "not a known audio format"]);
    assert_misused(&place.run(&["decode", "call.raw", "--raw", "s16le"]), "it has no rate");
    assert_misused(
        &place.run(&["decode", "call.raw", "--raw", "mp3:8000"]),
        "expected ENCODING:RATE:CHANNELS",
    );
}

#[test]
fn what_came_before_a_cut_is_written() {
    let place = Place::new();
    let whole = fs::read(sample("source.wav")).unwrap();
    place.file("cut.wav", &whole[..whole.len() / 2]);
    let frames = (data(&whole[..whole.len() / 2]).len() / 2) as u64;
    let stated = format!("cut.wav: is cut short at {:.3} s (frame {frames})", frames as f64 / 24_000.0);
    let cut = place.run(&["decode", "cut.wav", "--rate", "24000", "-o", "out.wav"]);
    assert_fails(&cut, 3, &[&stated, "expected 101146 frames"]);
    let (.., pcm) = wav(&place.path("out.wav"));
    let (.., original) = wav(&sample("source.wav"));
    assert!(pcm == original[..frames as usize]);
    // At another rate, the resampler's last frames are also written.
    let cut = place.run(&["decode", "cut.wav", "-o", "slow.wav"]);
    assert_fails(&cut, 3, &[&stated]);
    assert_eq!(wav(&place.path("slow.wav")).2.len() as u64, frames_at(frames, 24_000, 16_000));
}

#[test]
fn a_rate_nobody_can_use_is_a_mistake_in_the_command() {
    let place = Place::new();
    for rate in ["0", "7999", "192001", "16k"] {
        assert_misused(&place.run(&["decode", path(&sample(STEREO)), "--rate", rate]), "--rate");
    }
}

#[test]
fn silence_is_left_out_when_asked() {
    let place = Place::new();
    let sentence = data(&fs::read(sample("speech-16k-mono-s16.wav")).unwrap()).to_vec();
    let silence = vec![0; 3 * 32_000];
    place.file("slow.raw", [&silence[..], &sentence, &silence].concat());
    let slow = ["decode", "slow.raw", "--raw", "s16le:16000", "--skip-silence", "--format", "s16le"];
    let spoken = place.run(&slow);
    assert_done(&spoken);
    // Silence is left out except around speech: a chunk before it, and 0.3 s and the rest of a chunk
    // after it.
    let kept = spoken.stdout.len() - sentence.len().min(spoken.stdout.len());
    assert!(kept <= 32_000 / 2, "{kept} bytes of silence");
    assert!(spoken.stdout.len() * 10 >= sentence.len() * 9, "{} bytes", spoken.stdout.len());
    let slice = &sentence[32_000..64_000];
    assert!(
        spoken.stdout.windows(slice.len()).step_by(2).any(|window| window == slice),
        "speech is as it was"
    );

    assert_fails(&place.run(&[&slow[..], &["--rate", "8000"]].concat()), 2, &["--skip-silence", "16000 Hz"]);
}

#[test]
fn decoding_onto_the_recording_itself_is_refused() {
    let place = Place::new();
    let recording = fs::read(sample("source.wav")).unwrap();
    place.file("in.wav", &recording);
    std::os::unix::fs::symlink("in.wav", place.path("link.wav")).unwrap();
    for output in ["in.wav", "./in.wav", "link.wav"] {
        for format in ["wav", "s16le"] {
            let refused = place.run(&["decode", "in.wav", "-o", output, "--format", format]);
            assert_fails(&refused, 2, &[output, "recording itself"]);
        }
    }
    assert!(fs::read(place.path("in.wav")).unwrap() == recording);
    let full = place.run(&["decode", "in.wav", "-o", "/dev/full", "--format", "s16le"]);
    assert_fails(&full, 7, &["/dev/full", "No space left"]);
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

/// Utterances of the call in order: channel (0 is the left one), clip, words.
const CALL: [(usize, &str, &str); 3] = [
    (0, "austen_0930", "he might even have been made amiable himself"),
    (1, "goforward", "go forward ten meters"),
    (0, "something", "go somewhere and do something"),
];

/// Writes a call to a file: the recordings of [`CALL`] one after the other, a second apart, each on its
/// channel. `swapped` exchanges the channels.
fn call(place: &Place, name: &str, swapped: bool) {
    let mut frames: Vec<[i16; 2]> = Vec::new();
    for (channel, clip, _) in CALL {
        frames.extend(clips::audio("en-16k", clip).into_iter().map(|value| {
            let mut frame = [0; 2];
            frame[channel ^ usize::from(swapped)] = value;
            frame
        }));
        frames.extend([[0; 2]; 16_000]);
    }
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut file = hound::WavWriter::create(place.path(name), spec).unwrap();
    frames.into_iter().flatten().for_each(|value| file.write_sample(value).unwrap());
    file.finalize().unwrap();
}

/// Returns the speaker and the words of each utterance in [`CALL`]. `speakers` are the names of the
/// channels.
fn said(speakers: [&str; 2]) -> Vec<(String, Vec<String>)> {
    CALL.iter().map(|(channel, _, words)| (speakers[*channel].to_owned(), normal(words))).collect()
}

/// Returns the speaker and the words of each line of a plain transcript.
fn labelled(output: &Output) -> Vec<(String, Vec<String>)> {
    let lines = text(&output.stdout).lines().map(|line| {
        let (speaker, words) = line.split_once(": ").expect("each line has a speaker");
        (speaker.to_owned(), normal(words))
    });
    lines.collect()
}

#[test]
fn both_ends_of_a_call_are_told_in_the_order_in_which_they_speak() {
    let place = Place::new();
    call(&place, "call.wav", false);
    let transcribe = ["transcribe", "call.wav", "--language", "en", "--channels", "split"];
    let told = place.run(&transcribe);
    assert_done(&told);
    assert_eq!(labelled(&told), said(["agent", "customer"]));

    let told = place.run(&[&transcribe[..], &["--speakers", "Anna,Bert", "--format", "jsonl"]].concat());
    assert_done(&told);
    let segments: Vec<Value> =
        text(&told.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let with_words = segments.iter().filter(|segment| !segment["text"].as_str().unwrap().is_empty());
    let spoken = with_words.map(|segment| {
        (segment["speaker"].as_str().unwrap().to_owned(), normal(segment["text"].as_str().unwrap()))
    });
    assert_eq!(spoken.collect::<Vec<_>>(), said(["Anna", "Bert"]));
    // The segments of each speaker cover the whole call, so nothing is missing between them.
    for speaker in ["Anna", "Bert"] {
        let mut position = 0;
        for segment in segments.iter().filter(|segment| segment["speaker"] == speaker) {
            assert_eq!(segment["start_frame"].as_u64(), Some(position));
            position = segment["end_frame"].as_u64().unwrap();
        }
        assert_eq!(position, u64::from(hound::WavReader::open(place.path("call.wav")).unwrap().duration()));
    }

    let told = place.run(&[&transcribe[..], &["--format", "vtt"]].concat());
    assert_done(&told);
    // A cue ends with an empty line. Its text may take two lines.
    let voices = text(&told.stdout).split("\n\n").filter_map(|cue| cue.split_once("<v ")?.1.split_once('>'));
    let voices = voices.map(|(speaker, words)| (speaker.to_owned(), normal(words)));
    assert_eq!(voices.collect::<Vec<_>>(), said(["agent", "customer"]));
}

#[test]
fn who_speaks_first_is_told_first_on_either_channel() {
    let place = Place::new();
    call(&place, "call.wav", true);
    let told = place.run(&["transcribe", "call.wav", "--language", "en", "--channels", "split"]);
    assert_done(&told);
    assert_eq!(labelled(&told), said(["customer", "agent"]));
}

#[test]
fn names_must_fit_the_channels() {
    let place = Place::new();
    let stereo = sample(STEREO);
    let split = ["transcribe", path(&stereo), "--channels", "split", "--speakers"];
    for names in ["one", "one,two,three"] {
        let refused = place.run(&[&split[..], &[names]].concat());
        let count = format!("{} names", names.split(',').count());
        assert_fails(&refused, 2, &["--speakers", &count, STEREO, "2 channels"]);
    }
    let unsplit = place.run(&["transcribe", path(&stereo), "--speakers", "Anna,Bert"]);
    assert_fails(&unsplit, 2, &["--speakers", "--channels split"]);
}

#[test]
fn a_headerless_telephone_recording_is_transcribed() {
    let place = Place::new();
    let telephone = fs::read(sample(MULAW)).unwrap();
    place.file("call.raw", data(&telephone));
    let told = place.run(&["transcribe", "call.raw", "--raw", "mulaw", "--language", "en"]);
    assert_said(&told, include_str!("../../../../samples/speech.txt"));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long the program takes is what is tested")]
fn a_pace_holds_audio_back() {
    let place = Place::new();
    // Recognition of silence takes no time, so only the pace takes time.
    place.file("silence.raw", vec![0; 12 * 16_000]);
    let start = Instant::now();
    let silent =
        place.run(&["transcribe", "silence.raw", "--raw", "s16le:8000", "--language", "en", "--pace", "4"]);
    let taken = start.elapsed();
    assert_fails(&silent, 1, &["silence.raw", "no speech"]);
    assert!(taken >= Duration::from_secs(12 / 4), "{taken:?}");
    // In real time the recording would take at least this long.
    assert!(taken < Duration::from_secs(12), "{taken:?}");
    for pace in ["0", "-1", "fast", "1001", "NaN"] {
        assert_misused(&place.run(&["transcribe", "silence.raw", &format!("--pace={pace}")]), pace);
    }
}

#[test]
fn a_recording_on_the_web_is_read_like_a_file() {
    let place = Place::new();
    let names = [MULAW, "speech-44k1-stereo.mp3", "speech-44k1-stereo-aac.m4a", "speech-16k-mono-voip.opus"];
    let files: Vec<_> =
        names.iter().map(|name| (format!("/a/{name}"), fs::read(sample(name)).unwrap())).collect();
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let hub = ModelHub::start(&files);
    for name in names {
        let url = format!("{}/a/{name}", hub.address);
        let (fetched, local) = (place.run(&["decode", &url]), place.run(&["decode", path(&sample(name))]));
        assert_done(&fetched);
        assert!(fetched.stdout == local.stdout, "{name}");
        let probe = |input: &str| {
            let told = place.run(&["probe", "--json", input]);
            assert_done(&told);
            let mut line: Value = serde_json::from_slice(&told.stdout).unwrap();
            assert_eq!(line["name"].take(), input);
            line
        };
        let (fetched, mut local) = (probe(&url), probe(path(&sample(name))));
        if local["container"] == "ogg" {
            // Only the last page states the length, and a stream is not read to its end to find it.
            (local["frames"], local["duration"]) = (Value::Null, Value::Null);
        }
        assert_eq!(fetched, local);
    }
    let url = format!("{}/a/{MULAW}", hub.address);
    let fetched = place.run(&["transcribe", &url, "--language", "en", "-o", "texts/"]);
    assert_done(&fetched);
    let told = fs::read_to_string(place.path("texts/speech-8k-mono-mulaw.txt")).unwrap();
    assert_eq!(normal(&told), normal(include_str!("../../../../samples/speech.txt")));
}

#[test]
fn a_recording_that_the_web_does_not_give_is_one_line() {
    let place = Place::new();
    let bytes = fs::read(sample("source.wav")).unwrap();
    let hub = ModelHub::start(&[("/a.wav", &bytes)]);
    // A port that was free a moment ago, so no server listens there.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = format!("http://{nobody}/a.wav");
    let missing = format!("{}/b.wav", hub.address);
    for command in ["decode", "probe", "transcribe"] {
        assert_fails(&place.run(&[command, &missing]), 3, &[&missing, "404"]);
        assert_fails(&place.run(&[command, &refused]), 3, &[&refused, "cannot be fetched", "refused"]);
        let plain = place.run(&[command, "http://example.invalid/x.wav"]);
        assert_fails(&plain, 3, &["http://example.invalid/x.wav", "expected https"]);
    }
    hub.fault(Fault::Unavailable);
    assert_fails(&place.run(&["decode", &format!("{}/a.wav", hub.address)]), 3, &["503"]);
}

#[test]
fn a_download_cut_short_keeps_what_came() {
    let place = Place::new();
    let bytes = fs::read(sample("source.wav")).unwrap();
    let hub = ModelHub::start(&[("/a.wav", &bytes)]);
    let url = format!("{}/a.wav", hub.address);
    hub.fault(Fault::CutAfter(100_000));
    let cut = place.run(&["decode", &url, "--rate", "24000", "-o", "out.wav"]);
    assert_fails(&cut, 3, &[&url, " s (frame "]);
    let (.., pcm) = wav(&place.path("out.wav"));
    let (.., original) = wav(&sample("source.wav"));
    assert!(pcm == original[..pcm.len()]);
    // All data that arrived except the header. The amount that was still inside the client at the cut is
    // not specified.
    assert!(pcm.len() <= (100_000 - 44) / 2 && pcm.len() > 50_000 / 2, "{}", pcm.len());
    assert!(text(&cut.stderr).contains(&format!("(frame {})", pcm.len())), "{}", text(&cut.stderr));
}

#[test]
fn secrets_in_a_url_are_told_to_nobody() {
    let place = Place::new();
    let bytes = fs::read(sample(MULAW)).unwrap();
    let hub = ModelHub::start(&[("/a.wav?key=hush.hush", &bytes), ("/b/a.wav?key=hush.hush", &bytes)]);
    let host = hub.address.strip_prefix("http://").unwrap();
    let with_secrets = |path: &str| format!("http://user:hush@{host}{path}?key=hush.hush#hush");
    let url = with_secrets("/a.wav");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let refused = format!("http://user:hush@{nobody}/a.wav?key=hush.hush");
    let untold = |output: &Output, code: i32| {
        let all = format!("{}{}", String::from_utf8_lossy(&output.stdout), text(&output.stderr));
        assert!(!all.contains("hush"), "{all}");
        assert_eq!(output.status.code(), Some(code), "{all}");
    };
    untold(&place.run(&["probe", &url]), 0);
    untold(&place.run(&["probe", "--json", &url]), 0);
    untold(&place.run(&["decode", &url, "--log", "trace"]), 0);
    untold(&place.run(&["transcribe", &url, "--language", "en", "--format", "jsonl"]), 0);
    for command in ["probe", "decode", "transcribe"] {
        untold(&place.run(&[command, &with_secrets("/missing.wav")]), 3);
        untold(&place.run(&[command, &refused, "--log", "trace"]), 3);
        untold(&place.run(&[command, &refused.replace("http:", "HTTP:")]), 3);
        untold(&place.run(&[command, "http://user:hush@example.invalid/a.wav?key=hush"]), 3);
        untold(&place.run(&[command, "https://user:hush@[bad/a.wav?key=hush"]), 3);
    }
    hub.fault(Fault::CutAfter(20_000));
    untold(&place.run(&["decode", &url]), 3);
    // Names of files contain no secrets either, neither names of written files nor names in a refusal.
    let text_of = |paths: &[&str]| {
        let urls: Vec<String> = paths.iter().map(|path| with_secrets(path)).collect();
        let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
        place.run(&[&["transcribe", "--language", "en", "-o", "texts/"], &urls[..]].concat())
    };
    untold(&text_of(&["/a.wav"]), 0);
    assert!(place.path("texts/a.txt").exists(), "{:?}", fs::read_dir(place.path("texts")).unwrap().next());
    let both = text_of(&["/a.wav", "/b/a.wav"]);
    assert_fails(&both, 2, &["texts/a.txt", "/b/a.wav"]);
    untold(&both, 2);
}

#[test]
fn an_interruption_while_a_server_is_silent_names_the_recording_without_secrets() {
    let place = Place::new();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let url = format!("http://user:hush@{address}/a.wav?key=hush");
    let mut transcribe = place.command(&["transcribe", &url]);
    let child = transcribe.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Once the program has connected, it also listens for signals. The connection stays open and carries
    // no data.
    let connection = server.accept().unwrap();
    signal(&child, "INT");
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130));
    assert_eq!(text(&ended.stderr), format!("voxline: http://{address}/a.wav: interrupted\n"));
    drop(connection);
}
