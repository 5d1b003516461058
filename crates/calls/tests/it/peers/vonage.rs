//! Vonage's WebSockets.

use bytes::Bytes;
use serde_json::json;
use voxline::audio::Encoding;
use voxline_calls::peers::vonage::Vonage;
use voxline_calls::peers::{Command, CommandError, PeerEvent, Track};

use super::{audio, binary, heard, pcm, read, refused, started, text, unwritable, write, written};

const CONNECTED: &str =
    r#"{"event":"websocket:connected","content-type":"audio/l16;rate=16000","customer":"c-1","vip":true}"#;

fn call() -> Vonage {
    let mut codec = Vonage::new();
    read(&mut codec, [text(CONNECTED)]);
    codec
}

#[test]
fn a_call_starts_with_its_format_and_headers() {
    let events = read(&mut Vonage::new(), [binary([1, 2]), text(CONNECTED), binary([3, 4])]);
    let start = started(&events);
    assert_eq!(
        (start.receives, start.sends),
        (pcm(Encoding::S16Le, 16_000), Some(pcm(Encoding::S16Le, 16_000)))
    );
    assert_eq!(start.metadata["customer"], "c-1");
    assert_eq!((start.metadata["vip"].as_str(), start.metadata.len()), ("true", 2));
    assert_eq!(heard(&events, Track::Inbound), [1, 2, 3, 4]);
}

#[test]
fn keys_and_marks_are_read() {
    let messages = [
        r##"{"event":"websocket:dtmf","digit":"#","duration":260}"##,
        r#"{"event":"websocket:dtmf","dtmf":{"digit":"5"}}"#,
        r#"{"event":"websocket:notify","payload":{"mark":"m"}}"#,
        r#"{"event":"websocket:notify","payload":7}"#,
        r#"{"event":"websocket:cleared"}"#,
        r#"{"event":"websocket:new"}"#,
    ];
    let key = |digit| PeerEvent::Dtmf { track: Track::Inbound, digit };
    let expected = [key('#'), key('5'), PeerEvent::Mark("m".to_owned())];
    assert_eq!(read(&mut call(), messages.map(text)), expected);
    assert_eq!(read(&mut Vonage::new(), messages.map(text)), []);
}

#[test]
fn audio_is_written_in_messages_of_20_ms() {
    let voice = audio(1_500);
    let messages = write(&mut call(), Command::Audio(Bytes::from(voice.clone())));
    assert_eq!(messages, [binary(&voice[..640]), binary(&voice[640..1_280]), binary(&voice[1_280..])]);
}

#[test]
fn commands_are_actions() {
    let mark = Command::Mark("say \"a\"".to_owned());
    assert_eq!(written(&mut call(), mark), json!({"action": "notify", "payload": {"mark": "say \"a\""}}));
    assert_eq!(written(&mut call(), Command::Clear), json!({"action": "clear"}));
    assert_eq!(unwritable(&mut call(), Command::Hangup), CommandError::Unsupported);
    assert_eq!(unwritable(&mut Vonage::new(), Command::Clear), CommandError::NotStarted);
}

#[test]
fn broken_messages_are_named() {
    let errors = [
        ("hello", "event of the peer is no JSON at column 1"),
        ("{}", "event of the peer: expected a name"),
        (r#"{"event":"websocket:connected"}"#, "websocket:connected of the peer: expected a content type"),
    ];
    for (message, error) in errors {
        assert_eq!(refused(&mut Vonage::new(), text(message)), error);
    }
    for content in
        ["audio/l16", "audio/l16;rate=", "audio/l16;rate=7", "audio/l16;rate=4294967296", "audio/opus"]
    {
        let message = format!(r#"{{"event":"websocket:connected","content-type":"{content}"}}"#);
        let error = refused(&mut Vonage::new(), text(message));
        assert!(error.starts_with(&format!("audio of the peer is in {content}, which")), "{error}");
    }
    let again = refused(&mut call(), text(CONNECTED));
    assert_eq!(again, "websocket:connected of the peer: expected one in a connection");
}
