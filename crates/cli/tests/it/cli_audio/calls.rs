//! Calls with a speaker on each channel.

use std::process::Output;

use serde_json::Value;

use super::{STEREO, assert_done};
use crate::cli::{Place, assert_fails, path, text};
use voxline_engines::wer::normal;
use voxline_fixtures::clips;
use voxline_fixtures::samples::sample;

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
