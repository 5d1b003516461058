//! Twilio Media Streams and its relatives.

use bytes::Bytes;
use serde_json::json;
use voxline::audio::Encoding;
use voxline_calls::peers::twilio::{Provider, Replies, Twilio};
use voxline_calls::peers::{
    Codec as _, Command, CommandError, MediaEncoding, MediaFormat, Message, Packet, PeerEvent, Start, Track,
};
use voxline_fixtures::allocations::Meter;

use super::{audio, binary, heard, pcm, read, refused, started, text, unwritable, write, written};

const TWILIO: &str = r#"{"event":"start","sequenceNumber":"1","start":{"accountSid":"AC1","streamSid":"MZ1","callSid":"CA1",
    "tracks":["inbound","outbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},
    "customParameters":{"lang":"de","tenant":"7"}},"streamSid":"MZ1"}"#;
const TELNYX: &str = r#"{"event":"start","sequence_number":"1","stream_id":"32DE","start":{"user_id":"u","call_control_id":"v2:T0",
    "client_state":"aGF","custom_parameters":[{"name":"lang","value":"de"}],
    "media_format":{"encoding":"PCMA","sample_rate":8000,"channels":1}}}"#;
const SIGNALWIRE: &str = r#"{"event":"start","sequenceNumber":"1","streamSid":"MZ2","start":{"streamSid":"MZ2","callSid":"CA2",
    "tracks":["inbound"],"customParameters":{},"mediaFormat":{"encoding":"audio/x-L16","sampleRate":24000,"channels":1}}}"#;
const PLIVO: &str = r#"{"event":"start","sequenceNumber":1,"start":{"callId":"c-1","streamId":"s-1","accountId":"MA",
    "tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-l16","sampleRate":16000}},"extra_headers":"lang=de;tenant=7"}"#;
const EXOTEL: &str = r#"{"event":"start","sequence_number":"1","stream_sid":"e-1","start":{"stream_sid":"e-1","call_sid":"x-1",
    "account_sid":"A","from":"+910","to":"+911","custom_parameters":{"lang":"hi"},
    "media_format":{"encoding":"audio/x-raw","sample_rate":"8000","bit_rate":"16"}}}"#;

fn codec(provider: Provider) -> Twilio {
    Twilio::new(provider, Replies::AsReceived)
}

fn start_of(provider: Provider) -> &'static str {
    match provider {
        Provider::Telnyx => TELNYX,
        Provider::SignalWire => SIGNALWIRE,
        Provider::Plivo => PLIVO,
        Provider::Exotel => EXOTEL,
        _ => TWILIO,
    }
}

fn call(provider: Provider) -> Twilio {
    let mut codec = codec(provider);
    read(&mut codec, [text(start_of(provider))]);
    codec
}

fn opened(provider: Provider) -> Start {
    let connected = r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#;
    let events = read(&mut codec(provider), [text(connected), text(start_of(provider))]);
    assert_eq!(events.len(), 1);
    started(&events)
}

#[test]
fn each_provider_starts_a_call_with_its_names() {
    let expected = [
        (Provider::Twilio, "CA1", "MZ1", pcm(Encoding::MuLaw, 8_000)),
        (Provider::Telnyx, "v2:T0", "32DE", pcm(Encoding::ALaw, 8_000)),
        (Provider::SignalWire, "CA2", "MZ2", pcm(Encoding::S16Le, 24_000)),
        (Provider::Plivo, "c-1", "s-1", pcm(Encoding::S16Le, 16_000)),
        (Provider::Exotel, "x-1", "e-1", pcm(Encoding::S16Le, 8_000)),
    ];
    for (provider, call, stream, format) in expected {
        let start = opened(provider);
        assert_eq!(start.call.as_deref(), Some(call), "{provider:?}");
        assert_eq!(start.stream.as_deref(), Some(stream), "{provider:?}");
        assert_eq!((start.receives, start.sends), (format, Some(format)), "{provider:?}");
        let language = if provider == Provider::Exotel { "hi" } else { "de" };
        let known = start.metadata.get("lang").map(String::as_str);
        assert_eq!(known, (provider != Provider::SignalWire).then_some(language), "{provider:?}");
    }
    assert_eq!(opened(Provider::Twilio).tracks, [Track::Inbound, Track::Outbound]);
    assert_eq!(opened(Provider::Exotel).tracks, [Track::Inbound], "tracks are not named");
    assert_eq!(opened(Provider::Plivo).metadata["tenant"], "7");
}

#[test]
fn values_of_callers_are_not_in_debug_output() {
    let events = read(&mut codec(Provider::Twilio), [text(TWILIO)]);
    let shown = format!("{events:?}");
    assert!(shown.contains("tenant") && !shown.contains("\"7\""), "{shown}");
    let key = PeerEvent::Dtmf { track: Track::Inbound, digit: '7' };
    assert!(!format!("{key:?}").contains('7'));
}

#[test]
fn media_has_its_track_number_and_time_in_either_form() {
    let messages = [
        r#"{"event":"media","sequenceNumber":"3","media":{"track":"outbound","chunk":"2","timestamp":"25","payload":"//8AAQ=="},"streamSid":"MZ1"}"#,
        r#"{"event":"media","sequenceNumber":3,"media":{"track":"inbound","chunk":7,"timestamp":1704067200000,"payload":"\/\/8AAQ=="}}"#,
        r#"{"media":{"payload":"//8AAQ"},"event":"media"}"#,
    ];
    let payload = Bytes::from_static(&[0xFF, 0xFF, 0x00, 0x01]);
    let packet = |track, sequence, timestamp| {
        PeerEvent::Audio(Packet { track, sequence, timestamp, payload: payload.clone() })
    };
    let expected = [
        packet(Track::Outbound, Some(2), Some(25)),
        packet(Track::Inbound, Some(7), Some(1_704_067_200_000)),
        packet(Track::Inbound, None, None),
    ];
    for provider in Provider::ALL {
        assert_eq!(read(&mut call(provider), messages.map(text)), expected, "{provider:?}");
        assert_eq!(read(&mut codec(provider), messages.map(text)), [], "the format is not known yet");
    }
}

#[test]
fn keys_marks_and_the_end_are_read() {
    let messages = [
        r#"{"event":"dtmf","streamSid":"MZ1","sequenceNumber":"5","dtmf":{"track":"inbound_track","digit":"1"}}"#,
        r#"{"event":"dtmf","dtmf":{"digit":"d","duration":"100"}}"#,
        r#"{"event":"dtmf","dtmf":{"digit":"12"}}"#,
        r#"{"event":"mark","sequenceNumber":"4","streamSid":"MZ1","mark":{"name":"my \"label\""}}"#,
        r#"{"event":"error","payload":{"code":100002,"title":"unknown_error"}}"#,
        r#"{"event":"new","start":7,"media":8}"#,
        r#"{"event":"stop","sequenceNumber":"9","stop":{"accountSid":"AC1","callSid":"CA1"}}"#,
        r#"{"event":"media","media":{"payload":"AA=="}}"#,
        "not even JSON",
    ];
    let key = |digit| PeerEvent::Dtmf { track: Track::Inbound, digit };
    let expected = [key('1'), key('D'), PeerEvent::Mark("my \"label\"".to_owned()), PeerEvent::Ended];
    for provider in Provider::ALL {
        assert_eq!(read(&mut call(provider), messages.map(text)), expected, "{provider:?}");
    }
    let mut ended = codec(Provider::Twilio);
    assert_eq!(read(&mut ended, [text(messages[6]), text(TWILIO)]), [], "a call that never began");
}

#[test]
fn checkpoints_of_plivo_are_marks() {
    let messages = [
        r#"{"event":"playedStream","streamId":"s-1","name":"greeting"}"#,
        r#"{"event":"clearedAudio","streamId":"s-1"}"#,
        r#"{"event":"played","streamId":"s-1","name":"bye"}"#,
    ];
    let expected = ["greeting", "bye"].map(|name| PeerEvent::Mark(name.to_owned()));
    assert_eq!(read(&mut call(Provider::Plivo), messages.map(text)), expected);
    assert_eq!(read(&mut call(Provider::Twilio), messages.map(text)), []);
}

#[test]
fn audio_is_written_as_each_provider_takes_it() {
    let media =
        |provider| written(&mut call(provider), Command::Audio(Bytes::from_static(&[0xFF, 0xFF, 0, 1])));
    let twilio = json!({"event": "media", "streamSid": "MZ1", "media": {"payload": "//8AAQ=="}});
    assert_eq!(media(Provider::Twilio), twilio);
    assert_eq!(media(Provider::SignalWire)["streamSid"], "MZ2");
    assert_eq!(media(Provider::Telnyx), json!({"event": "media", "media": {"payload": "//8AAQ=="}}));
    let exotel = json!({"event": "media", "stream_sid": "e-1", "media": {"payload": "//8AAQ=="}});
    assert_eq!(media(Provider::Exotel), exotel);
    let audio = json!({"contentType": "audio/x-l16", "sampleRate": 16_000, "payload": "//8AAQ=="});
    assert_eq!(media(Provider::Plivo), json!({"event": "playAudio", "streamId": "s-1", "media": audio}));
}

#[test]
fn marks_and_clears_are_written_as_each_provider_takes_them() {
    let mark = |provider| written(&mut call(provider), Command::Mark("a \"b\"".to_owned()));
    let named = json!({"name": "a \"b\""});
    assert_eq!(mark(Provider::Twilio), json!({"event": "mark", "streamSid": "MZ1", "mark": named}));
    assert_eq!(mark(Provider::Telnyx), json!({"event": "mark", "mark": named}));
    assert_eq!(mark(Provider::Exotel), json!({"event": "mark", "stream_sid": "e-1", "mark": named}));
    let checkpoint = json!({"event": "checkpoint", "streamId": "s-1", "name": "a \"b\""});
    assert_eq!(mark(Provider::Plivo), checkpoint);
    let clear = |provider| written(&mut call(provider), Command::Clear);
    assert_eq!(clear(Provider::SignalWire), json!({"event": "clear", "streamSid": "MZ2"}));
    assert_eq!(clear(Provider::Telnyx), json!({"event": "clear"}));
    assert_eq!(clear(Provider::Plivo), json!({"event": "clearAudio", "streamId": "s-1"}));
    assert_eq!(clear(Provider::Exotel), json!({"event": "clear", "stream_sid": "e-1"}));
}

#[test]
fn what_is_written_reads_as_the_same_audio() {
    for provider in [Provider::Twilio, Provider::Telnyx, Provider::SignalWire, Provider::Exotel] {
        for length in (0..700).chain([99_840, 99_841, 300_000]) {
            let voice = audio(length);
            let messages = write(&mut call(provider), Command::Audio(Bytes::from(voice.clone())));
            assert!(heard(&read(&mut call(provider), messages), Track::Inbound) == voice, "{length}");
        }
    }
}

#[test]
fn long_audio_is_cut_where_the_provider_has_a_limit() {
    let count = |provider| write(&mut call(provider), Command::Audio(Bytes::from(audio(500_000)))).len();
    assert_eq!(count(Provider::Twilio), 1);
    assert_eq!(count(Provider::Telnyx), 3, "30 s of A-law are 240,000 bytes");
    assert_eq!(count(Provider::Exotel), 6);
    let opus = Replies::In(MediaFormat { encoding: MediaEncoding::Opus, sample_rate: 48_000 });
    let mut codec = Twilio::new(Provider::Telnyx, opus);
    read(&mut codec, [text(TELNYX)]);
    assert_eq!(write(&mut codec, Command::Audio(Bytes::from(audio(500_000)))).len(), 1, "packets are whole");
}

#[test]
fn one_way_streams_take_nothing() {
    let mut one_way = Twilio::new(Provider::Twilio, Replies::None);
    let events = read(&mut one_way, [text(TWILIO)]);
    assert_eq!(started(&events).sends, None);
    for command in [Command::Clear, Command::Mark("a".to_owned()), Command::Audio(Bytes::from_static(&[0]))] {
        assert_eq!(unwritable(&mut one_way, command.clone()), CommandError::Unsupported);
        assert_eq!(unwritable(&mut codec(Provider::Twilio), command), CommandError::NotStarted);
    }
    for provider in Provider::ALL {
        assert_eq!(unwritable(&mut call(provider), Command::Hangup), CommandError::Unsupported);
        assert_eq!(unwritable(&mut call(provider), Command::Answer), CommandError::Unsupported);
    }
}

#[test]
fn replies_may_have_a_format_of_their_own() {
    let format = pcm(Encoding::MuLaw, 8_000);
    let mut codec = Twilio::new(Provider::Plivo, Replies::In(format));
    assert_eq!(started(&read(&mut codec, [text(PLIVO)])).sends, Some(format));
    let message = written(&mut codec, Command::Audio(Bytes::from_static(&[0])));
    assert_eq!(message["media"]["contentType"], "audio/x-mulaw");
    assert_eq!(message["media"]["sampleRate"], 8_000);
}

#[test]
fn formats_that_are_not_decoded_are_named() {
    for (encoding, channels) in [("G722", "1"), ("AMR-WB", "1"), ("PCMU", "2"), ("PCMU", "\"0\"")] {
        let start = format!(
            r#"{{"event":"start","stream_id":"s","start":{{"media_format":{{"encoding":"{encoding}","sample_rate":8000,"channels":{channels}}}}}}}"#
        );
        let error = refused(&mut codec(Provider::Telnyx), text(start));
        assert!(error.starts_with(&format!("audio of the peer is in {encoding}")), "{error}");
    }
    let plain = r#"{"event":"start","streamSid":"MZ","start":{"callSid":"CA"}}"#;
    assert_eq!(started(&read(&mut codec(Provider::Twilio), [text(plain)])).receives, MediaFormat::default());
}

#[test]
fn broken_messages_are_named_without_their_values() {
    let errors = [
        (
            r#"{"event":"media","media":{"payload":"+4930-123"}}"#,
            "media of the peer: expected a payload in base64, got 9 other characters",
        ),
        (
            r#"{"event":"media","media":{"payload":4930123}}"#,
            "media of the peer is JSON of an unexpected shape at column 43",
        ),
        (
            r#"{"event":"media","media":{"payload":"","track":"+4930123"}}"#,
            "media of the peer: expected the track to be inbound or outbound",
        ),
        (
            r#"{"event":"media","media":{"payload":"","chunk":"+4930x"}}"#,
            "media of the peer is JSON of an unexpected shape at column 55",
        ),
        (r#"{"event":"media"}"#, "media of the peer: expected its contents"),
        (
            r#"{"event":"dtmf","dtmf":"4930123"}"#,
            "dtmf of the peer is JSON of an unexpected shape at column 32",
        ),
        (r#"{"event":"mark","mark":{}}"#, "mark of the peer is JSON of an unexpected shape at column 25"),
        (r#"{"event":7}"#, "message of the peer is JSON of an unexpected shape at column 10"),
        ("4930123", "message of the peer is JSON of an unexpected shape at column 7"),
        ("", "message of the peer is JSON that ends too early at column 0"),
        ("x", "message of the peer is no JSON at column 1"),
    ];
    for (message, error) in errors {
        assert_eq!(refused(&mut call(Provider::Twilio), text(message)), error, "{message}");
    }
    let again = refused(&mut call(Provider::Twilio), text(TWILIO));
    assert_eq!(again, "start of the peer: expected one in a connection");
    let empty = refused(&mut codec(Provider::Twilio), text(r#"{"event":"start"}"#));
    assert_eq!(empty, "start of the peer: expected its contents");
    let bytes = refused(&mut call(Provider::Twilio), binary([0]));
    assert_eq!(bytes, "binary message of the peer: expected JSON in text messages");
    let deep = format!("{{\"event\":\"start\",\"start\":{}{}}}", "[".repeat(500), "]".repeat(500));
    assert!(refused(&mut codec(Provider::Twilio), text(deep)).starts_with("start of the peer is no JSON"));
}

#[test]
fn a_media_message_costs_its_payload_and_its_reply_one_text() {
    static METER: Meter = Meter::new();
    let message = r#"{"event":"media","sequenceNumber":"3","media":{"track":"inbound","chunk":"2","timestamp":"25","payload":"@"},"streamSid":"MZ1"}"#;
    for length in [160, 320, 640] {
        let Message::Text(sent) = write(&mut call(Provider::Twilio), audio_command(length)).remove(0) else {
            panic!("a text")
        };
        let payload = serde_json::from_str::<serde_json::Value>(&sent).unwrap();
        let message = message.replace('@', payload["media"]["payload"].as_str().unwrap());
        let mut codec = call(Provider::Twilio);
        let mut events = Vec::with_capacity(1);
        let message = text(message);
        let joined = METER.join();
        METER.reset();
        codec.read(message, &mut events).unwrap();
        assert_eq!(METER.allocations(), 1, "{length} bytes");
        drop(joined);

        let (mut messages, command) = (Vec::with_capacity(1), audio_command(length));
        let joined = METER.join();
        METER.reset();
        codec.write(command, &mut messages).unwrap();
        assert_eq!(METER.allocations(), 1, "{length} bytes");
        drop(joined);
    }
}

fn audio_command(length: usize) -> Command {
    Command::Audio(Bytes::from(audio(length)))
}
