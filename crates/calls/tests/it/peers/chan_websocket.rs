//! Asterisk's channel driver for WebSockets.

use bytes::Bytes;
use serde_json::json;
use voxline::audio::Encoding;
use voxline_calls::peers::chan_websocket::ChanWebSocket;
use voxline_calls::peers::{Command, CommandError, MediaEncoding, MediaFormat, Message, PeerEvent, Track};

use super::{audio, binary, heard, pcm, read, refused, started, text, unwritable, write, written};

const PLAIN: &str = "MEDIA_START connection_id:media_connection1 channel:WebSocket/media_connection1/0x1 \
     channel_id:1764578000.7 format:ulaw optimal_frame_size:160 ptime:20";
const JSON: &str = r#"{"event":"MEDIA_START","connection_id":"c-1","channel":"WebSocket/c-1","channel_id":"1764578000.8",
    "format":"slin16","optimal_frame_size":640,"ptime":20,"channel_variables":{"QUEUE":"sales","N":7}}"#;

fn call(start: &str) -> ChanWebSocket {
    let mut codec = ChanWebSocket::new();
    read(&mut codec, [text(start)]);
    codec
}

#[test]
fn a_call_starts_in_either_syntax() {
    let plain = started(&read(&mut ChanWebSocket::new(), [text(PLAIN)]));
    assert_eq!(plain.call.as_deref(), Some("1764578000.7"));
    assert_eq!(plain.stream.as_deref(), Some("media_connection1"));
    assert_eq!(
        (plain.receives, plain.sends),
        (pcm(Encoding::MuLaw, 8_000), Some(pcm(Encoding::MuLaw, 8_000)))
    );
    assert!(plain.metadata.is_empty());

    let json = started(&read(&mut ChanWebSocket::new(), [text(JSON)]));
    assert_eq!(json.call.as_deref(), Some("1764578000.8"));
    assert_eq!(json.receives, pcm(Encoding::S16Le, 16_000));
    assert_eq!(json.metadata["QUEUE"], "sales");
    assert_eq!(json.metadata["N"], "7");
}

#[test]
fn all_formats_of_asterisk_that_are_decoded_have_their_rate() {
    let linear = [
        ("slin", 8_000),
        ("slin12", 12_000),
        ("slin16", 16_000),
        ("slin24", 24_000),
        ("slin32", 32_000),
        ("slin44", 44_100),
        ("slin48", 48_000),
        ("slin96", 96_000),
        ("slin192", 192_000),
    ];
    let format = |name: &str| {
        let start = format!("MEDIA_START connection_id:a channel_id:b format:{name} optimal_frame_size:2");
        started(&read(&mut ChanWebSocket::new(), [text(start)])).receives
    };
    for (name, rate) in linear {
        assert_eq!(format(name), pcm(Encoding::S16Le, rate), "{name}");
    }
    assert_eq!(format("alaw"), pcm(Encoding::ALaw, 8_000));
    assert_eq!(format("opus"), MediaFormat { encoding: MediaEncoding::Opus, sample_rate: 48_000 });
    let error = refused(&mut ChanWebSocket::new(), text("MEDIA_START format:g722"));
    assert!(error.starts_with("audio of the peer is in g722, which is not supported"), "{error}");
}

#[test]
fn audio_before_the_start_comes_after_it() {
    for start in [PLAIN, JSON] {
        let messages = [binary([1, 2]), binary([]), binary([3]), text(start), binary([4, 5])];
        let events = read(&mut ChanWebSocket::new(), messages);
        started(&events);
        assert_eq!((events.len(), heard(&events, Track::Inbound)), (4, vec![1, 2, 3, 4, 5]));
    }
    let mut codec = ChanWebSocket::new();
    read(&mut codec, (0..292).map(|_| binary(audio(160))));
    let error = refused(&mut codec, binary(audio(160)));
    assert_eq!(error, "MEDIA_START of the peer: expected it within 65536 bytes of audio");
}

#[test]
fn events_are_read_in_either_syntax() {
    let key = PeerEvent::Dtmf { track: Track::Inbound, digit: '5' };
    let mark = |name: &str| PeerEvent::Mark(name.to_owned());
    let expected = [PeerEvent::Paused, PeerEvent::Resumed, key, mark("a b:c")];
    let plain = [
        "MEDIA_XOFF",
        "MEDIA_XON",
        "DTMF_END digit:5 channel_id:1764578000.7",
        "MEDIA_MARK_PROCESSED a b:c",
        "MEDIA_MARK_PROCESSED",
        "QUEUE_DRAINED",
        "STATUS channel_id:1 queue_length:43 xon_level:800 queue_full:false",
        "MEDIA_BUFFERING_COMPLETED",
        "ERROR channel_id:1 error_text:MARK_MEDIA not supported in passthrough mode",
        "DTMF_END digit:f",
        "A_LATER_EVENT a:b",
        "",
    ];
    assert_eq!(read(&mut call(PLAIN), plain.map(text)), expected);
    let json = [
        r#"{"event":"MEDIA_XOFF","channel_id":"1"}"#,
        r#"{"event":"MEDIA_XON","channel_id":"1"}"#,
        r#"{"event":"DTMF_END","channel_id":"1","digit":"5"}"#,
        r#" {"event":"MEDIA_MARK_PROCESSED","channel_id":"1","correlation_id":"a b:c"}"#,
        r#"{"event":"MEDIA_MARK_PROCESSED","channel_id":"1","correlation_id":""}"#,
        r#"{"event":"STATUS","queue_full":false,"queue_length":1}"#,
        r#"{"event":"A_LATER_EVENT"}"#,
    ];
    assert_eq!(read(&mut call(JSON), json.map(text)), expected);
    assert_eq!(read(&mut call(PLAIN), [text("MEDIA_MARK_PROCESSED correlation_id:m 1")]), [mark("m 1")]);
    assert_eq!(read(&mut ChanWebSocket::new(), plain.map(text)), [], "there are no events before the start");
}

#[test]
fn commands_are_written_in_the_syntax_of_the_start() {
    let mut plain = call(PLAIN);
    let mark = || Command::Mark("greeting 1".to_owned());
    assert_eq!(write(&mut plain, Command::Answer), [text("ANSWER")]);
    assert_eq!(write(&mut plain, mark()), [text("MARK_MEDIA greeting 1")]);
    assert_eq!(write(&mut plain, Command::Clear), [text("FLUSH_MEDIA")]);
    assert_eq!(write(&mut plain, Command::Hangup), [text("HANGUP")]);
    let mut other = call(JSON);
    assert_eq!(written(&mut other, Command::Answer), json!({"command": "ANSWER"}));
    let expected = json!({"command": "MARK_MEDIA", "correlation_id": "greeting 1"});
    assert_eq!(written(&mut other, mark()), expected);
    assert_eq!(written(&mut other, Command::Clear), json!({"command": "FLUSH_MEDIA"}));
    assert_eq!(written(&mut other, Command::Hangup), json!({"command": "HANGUP"}));
}

#[test]
fn marks_that_asterisk_would_not_return_are_refused() {
    for name in ["a\nHANGUP", " a", "a ", &"x".repeat(118)] {
        assert_eq!(
            unwritable(&mut call(PLAIN), Command::Mark(name.to_owned())),
            CommandError::Name,
            "{name}"
        );
    }
    assert_eq!(write(&mut call(PLAIN), Command::Mark("x".repeat(117))).len(), 1);
    assert_eq!(unwritable(&mut call(JSON), Command::Mark("\n".repeat(50))), CommandError::Name);
    written(&mut call(JSON), Command::Mark("a\nb".to_owned()));
    assert_eq!(unwritable(&mut ChanWebSocket::new(), Command::Clear), CommandError::NotStarted);
}

#[test]
fn long_audio_is_cut_into_messages_of_whole_frames() {
    let voice = audio(160 * 1_000);
    let messages = write(&mut call(PLAIN), Command::Audio(Bytes::from(voice.clone())));
    let lengths: Vec<usize> = messages.iter().map(|message| bytes_of(message).unwrap().len()).collect();
    assert_eq!(lengths, [65_440, 65_440, 29_120]);
    assert!(messages.iter().flat_map(|message| bytes_of(message).unwrap()).eq(&voice));
}

#[test]
fn audio_of_an_odd_length_is_buffered_so_that_none_is_dropped() {
    let voice = audio(161);
    let expected = [text("START_MEDIA_BUFFERING"), binary(&voice), text("STOP_MEDIA_BUFFERING")];
    assert_eq!(write(&mut call(PLAIN), Command::Audio(Bytes::from(voice))), expected);
    let messages = write(&mut call(JSON), Command::Audio(Bytes::from(audio(2))));
    assert_eq!(messages[0], text(r#"{"command":"START_MEDIA_BUFFERING"}"#));
    assert_eq!(write(&mut call(JSON), Command::Audio(Bytes::new())), []);
}

#[test]
fn all_bytes_of_audio_are_written_whatever_its_length() {
    for length in (0..150_000).step_by(997) {
        let voice = audio(length);
        let messages = write(&mut call(JSON), Command::Audio(Bytes::from(voice.clone())));
        let sent: Vec<&Bytes> = messages.iter().filter_map(bytes_of).collect();
        assert!(sent.iter().all(|bytes| bytes.len() <= 65_500));
        assert!(sent.into_iter().flatten().eq(&voice), "{length}");
    }
}

#[test]
fn packets_of_opus_are_neither_joined_nor_cut() {
    let start = "MEDIA_START connection_id:a channel_id:b format:opus optimal_frame_size:10 ptime:20";
    let mut codec = ChanWebSocket::new();
    let events = read(&mut codec, [binary(audio(7)), binary(audio(9)), text(start)]);
    assert_eq!(events.len(), 3);
    let voice = audio(123);
    assert_eq!(write(&mut codec, Command::Audio(Bytes::from(voice.clone()))), [binary(voice)]);
    for command in [Command::Clear, Command::Mark("m".to_owned())] {
        assert_eq!(unwritable(&mut codec, command), CommandError::Unsupported, "Asterisk has no queue");
    }
    let passthrough = JSON.replace("\"ptime\"", "\"passthrough\":true,\"ptime\"");
    assert_eq!(unwritable(&mut call(&passthrough), Command::Clear), CommandError::Unsupported);
}

#[test]
fn broken_starts_are_named() {
    let mut codec = call(PLAIN);
    assert_eq!(refused(&mut codec, text(PLAIN)), "MEDIA_START of the peer: expected one in a call");
    let errors = [
        ("MEDIA_START", "MEDIA_START of the peer: expected a format"),
        (r#"{"event":"MEDIA_START","format":8}"#, "MEDIA_START of the peer: expected a format"),
        (r#"{"format":"ulaw"}"#, "event of the peer: expected a name"),
        (r#"{"event":"MEDIA_START""#, "event of the peer is JSON that ends too early at column 22"),
        ("{", "event of the peer is JSON that ends too early at column 1"),
        ("{event}", "event of the peer is no JSON at column 2"),
    ];
    for (message, error) in errors {
        assert_eq!(refused(&mut ChanWebSocket::new(), text(message)), error);
    }
}

#[test]
fn sizes_of_frames_that_lie_are_harmless() {
    for size in ["0", "1", "-1", "65500", "65501", "18446744073709551615", "99999999999999999999", "x"] {
        let start = format!("MEDIA_START channel_id:b format:ulaw optimal_frame_size:{size}");
        let messages = write(&mut call(&start), Command::Audio(Bytes::from(audio(70_000))));
        let sent = messages.iter().filter_map(bytes_of);
        assert_eq!(sent.map(Bytes::len).sum::<usize>(), 70_000, "{size}");
    }
}

fn bytes_of(message: &Message) -> Option<&Bytes> {
    match message {
        Message::Binary(bytes) => Some(bytes),
        Message::Text(_) => None,
    }
}
