//! The FreeSWITCH modules that fork audio, and jambonz.

use bytes::Bytes;
use serde_json::json;
use voxline::audio::Encoding;
use voxline_calls::peers::fork::{Channels, Flavor, Fork, ForkOptions};
use voxline_calls::peers::{Command, CommandError, PeerEvent, Track};

use super::{audio, binary, heard, pcm, read, refused, started, text, unwritable, write, written};

const JAMBONZ: &str =
    r#"{"callSid":"8e3a","direction":"inbound","sampleRate":16000,"mixType":"stereo","customer":{"id":7}}"#;

fn fork(flavor: Flavor, channels: Channels, replies: Option<u32>) -> Fork {
    Fork::new(ForkOptions { flavor, sample_rate: 8_000, channels, replies })
}

fn call(flavor: Flavor, replies: Option<u32>) -> Fork {
    let mut codec = fork(flavor, Channels::One, replies);
    read(&mut codec, [text("{}")]);
    codec
}

#[test]
fn metadata_says_the_rate_and_the_channels() {
    let mut codec = fork(Flavor::Jambonz, Channels::One, Some(8_000));
    let events = read(&mut codec, [text(JAMBONZ), binary([1, 2, 3, 4, 5, 6, 7, 8])]);
    let start = started(&events);
    assert_eq!(start.call.as_deref(), Some("8e3a"));
    assert_eq!(start.tracks, [Track::Inbound, Track::Outbound]);
    assert_eq!(
        (start.receives, start.sends),
        (pcm(Encoding::S16Le, 16_000), Some(pcm(Encoding::S16Le, 8_000)))
    );
    assert_eq!(start.metadata["customer"], r#"{"id":7}"#);
    assert_eq!(heard(&events, Track::Inbound), [1, 2, 5, 6]);
    assert_eq!(heard(&events, Track::Outbound), [3, 4, 7, 8]);
}

#[test]
fn a_call_without_metadata_is_as_configured() {
    let mut codec = fork(Flavor::AudioStream, Channels::Two, None);
    let events = read(&mut codec, [binary([1, 2, 3, 4]), text("bye")]);
    let start = started(&events);
    assert_eq!((start.receives, start.sends), (pcm(Encoding::S16Le, 8_000), None));
    assert_eq!((start.tracks.len(), start.metadata.len()), (2, 0));
    assert_eq!(heard(&events, Track::Outbound), [3, 4]);
    let values = [("text".to_owned(), "bye".to_owned())];
    assert_eq!(events.last(), Some(&PeerEvent::Metadata(values.into())));
}

#[test]
fn unknown_texts_are_metadata() {
    for message in ["", "hello", "[1]", "{\"a\":", "null", "{\"type\":\"new\"}", "{\"event\":7}"] {
        for flavor in [Flavor::AudioFork, Flavor::Jambonz, Flavor::AudioStream] {
            let mut codec = fork(flavor, Channels::One, None);
            let events = read(&mut codec, [text(message), text(message)]);
            assert_eq!(started(&events).metadata.len(), 1, "{message}");
            assert!(matches!(&events[1..], [PeerEvent::Metadata(values)] if values.len() == 1), "{message}");
        }
    }
}

#[test]
fn pieces_of_every_length_give_the_same_audio() {
    let voice = audio(400);
    for length in 1..voice.len() {
        for channels in [Channels::One, Channels::Two] {
            let mut codec = fork(Flavor::AudioFork, channels, None);
            let events = read(&mut codec, voice.chunks(length).map(binary));
            let [inbound, outbound] = [Track::Inbound, Track::Outbound].map(|track| heard(&events, track));
            if channels == Channels::One {
                assert!(inbound == voice && outbound.is_empty(), "{length}");
            } else {
                let joined =
                    inbound.chunks(2).zip(outbound.chunks(2)).flat_map(|(one, other)| [one, other].concat());
                assert!(joined.eq(voice.iter().copied()), "{length}");
            }
        }
    }
}

#[test]
fn keys_and_marks_are_read_even_before_all_else() {
    let key = text(r#"{"event":"dtmf","dtmf":"2","duration":"1600"}"#);
    let mark = text(r#"{"type":"mark","data":{"name":"m","event":"playout"}}"#);
    let mut codec = fork(Flavor::Jambonz, Channels::One, None);
    let events = read(&mut codec, [key, mark.clone()]);
    started(&events);
    let pressed = PeerEvent::Dtmf { track: Track::Inbound, digit: '2' };
    assert_eq!(events[1..], [pressed, PeerEvent::Mark("m".to_owned())]);
    let events = read(&mut call(Flavor::AudioFork, None), [mark]);
    assert!(matches!(events[..], [PeerEvent::Metadata(_)]), "mod_audio_fork has no marks");
}

#[test]
fn jambonz_takes_binary_audio_and_marks() {
    let mut codec = call(Flavor::Jambonz, Some(8_000));
    let voice = audio(320);
    assert_eq!(write(&mut codec, Command::Audio(Bytes::from(voice.clone()))), [binary(voice)]);
    let mark = written(&mut codec, Command::Mark("m".to_owned()));
    assert_eq!(mark, json!({"type": "mark", "data": {"name": "m"}}));
    let clear = [text(r#"{"type":"killAudio"}"#), text(r#"{"type":"clearMarks"}"#)];
    assert_eq!(write(&mut codec, Command::Clear), clear);
    assert_eq!(written(&mut codec, Command::Hangup), json!({"type": "disconnect", "data": {}}));
}

#[test]
fn the_modules_take_files() {
    let command = || Command::Audio(Bytes::from_static(&[0xFF, 0xFE, 0x00, 0x01]));
    let mut fork = call(Flavor::AudioFork, Some(16_000));
    let data = json!({"audioContentType": "raw", "sampleRate": 16_000, "audioContent": "//4AAQ=="});
    assert_eq!(written(&mut fork, command()), json!({"type": "playAudio", "data": data}));
    assert_eq!(written(&mut fork, Command::Clear), json!({"type": "killAudio"}));
    assert_eq!(unwritable(&mut fork, Command::Mark("m".to_owned())), CommandError::Unsupported);

    let mut stream = call(Flavor::AudioStream, Some(8_000));
    let data = json!({"audioDataType": "raw", "sampleRate": 8_000, "audioData": "//4AAQ=="});
    assert_eq!(written(&mut stream, command()), json!({"type": "streamAudio", "data": data}));
    for command in [Command::Clear, Command::Mark("m".to_owned()), Command::Hangup, Command::Answer] {
        assert_eq!(unwritable(&mut stream, command), CommandError::Unsupported);
    }
}

#[test]
fn a_peer_that_takes_no_audio_gets_none() {
    for flavor in [Flavor::AudioFork, Flavor::Jambonz, Flavor::AudioStream] {
        let audio = Command::Audio(Bytes::from_static(&[0, 0]));
        assert_eq!(unwritable(&mut call(flavor, None), audio), CommandError::Unsupported);
        assert_eq!(
            unwritable(&mut fork(flavor, Channels::One, None), Command::Hangup),
            CommandError::NotStarted
        );
    }
    written(&mut call(Flavor::AudioFork, None), Command::Hangup);
}

#[test]
fn rates_that_no_telephone_has_are_refused() {
    for rate in ["7", "0", "4294967296", "18446744073709551615"] {
        let metadata = format!(r#"{{"sampleRate":{rate}}}"#);
        let error = refused(&mut fork(Flavor::Jambonz, Channels::One, None), text(metadata));
        assert!(error.starts_with(&format!("audio of the peer is in L16 at {rate} Hz")), "{error}");
    }
}
