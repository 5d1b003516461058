//! Hostile peers: conversations that are nearly right. Each codec must answer with events in their order, or
//! with an error, and keep its promises about commands.

use bytes::Bytes;
use voxline_calls::peers::audiosocket::AudioSocket;
use voxline_calls::peers::chan_websocket::ChanWebSocket;
use voxline_calls::peers::fork::{Channels, Flavor, Fork, ForkOptions};
use voxline_calls::peers::twilio::{Provider, Replies, Twilio};
use voxline_calls::peers::vonage::Vonage;
use voxline_calls::peers::{Codec, Command, Message, PeerEvent};
use voxline_fixtures::knob::knob;
use voxline_fixtures::random::Random;

use super::{binary, text};

/// Number of conversations with each codec in an ordinary run.
const MUTATIONS: usize = 20_000;

const TWILIO: [&str; 8] = [
    r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#,
    r#"{"event":"start","streamSid":"MZ1","stream_id":"MZ1","start":{"callSid":"CA1","tracks":["inbound","outbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,"channels":1},"media_format":{"encoding":"L16","sample_rate":"16000"},"customParameters":{"a":"b"}},"extra_headers":"a=b;c=d"}"#,
    r#"{"event":"media","media":{"track":"inbound","chunk":"1","timestamp":"5","payload":"//8AAQ=="}}"#,
    r#"{"event":"media","media":{"track":"outbound","chunk":2,"timestamp":25,"payload":"\/\/8AAQ=="}}"#,
    r#"{"event":"dtmf","dtmf":{"track":"inbound_track","digit":"1"}}"#,
    r#"{"event":"mark","mark":{"name":"m"}}"#,
    r#"{"event":"playedStream","name":"m"}"#,
    r#"{"event":"stop","stop":{"callSid":"CA1"}}"#,
];
const AUDIOSOCKET: [&[u8]; 6] = [
    &[1, 0, 16, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
    &[0x10, 0, 4, 1, 2, 3, 4],
    &[3, 0, 1, b'5'],
    &[0x10, 0, 2, 1, 2],
    &[0xFF, 0, 1, 2],
    &[0, 0, 0],
];
const PLAIN: [&str; 6] = [
    "MEDIA_START connection_id:a channel:b channel_id:c format:ulaw optimal_frame_size:160 ptime:20",
    "MEDIA_XOFF",
    "MEDIA_XON",
    "DTMF_END digit:5 channel_id:c",
    "MEDIA_MARK_PROCESSED m",
    "ERROR channel_id:c error_text:a b",
];
const JSON: [&str; 5] = [
    r#"{"event":"MEDIA_START","connection_id":"a","channel_id":"c","format":"slin16","optimal_frame_size":640,"channel_variables":{"a":"b"}}"#,
    r#"{"event":"MEDIA_XOFF"}"#,
    r#"{"event":"DTMF_END","digit":"5"}"#,
    r#"{"event":"MEDIA_MARK_PROCESSED","correlation_id":"m"}"#,
    r#"{"event":"STATUS","queue_full":false}"#,
];
const VONAGE: [&str; 4] = [
    r#"{"event":"websocket:connected","content-type":"audio/l16;rate=16000","a":"b"}"#,
    r#"{"event":"websocket:dtmf","digit":"5","duration":260}"#,
    r#"{"event":"websocket:notify","payload":{"mark":"m"}}"#,
    r#"{"event":"websocket:cleared"}"#,
];
const FORK: [&str; 4] = [
    r#"{"callSid":"a","sampleRate":16000,"mixType":"stereo","b":{"c":1}}"#,
    r#"{"event":"dtmf","dtmf":"2","duration":"1600"}"#,
    r#"{"type":"mark","data":{"name":"m","event":"playout"}}"#,
    "bye",
];

#[test]
fn mutated_calls_of_twilio_and_relatives() {
    play("twilio_and_relatives", |dice| {
        let provider = Provider::ALL[dice.below(Provider::ALL.len())];
        let replies = [Replies::None, Replies::AsReceived][dice.below(2)];
        (Box::new(Twilio::new(provider, replies)), TWILIO.map(text).into())
    });
}

#[test]
fn mutated_calls_of_audiosocket() {
    play("audiosocket", |_| (Box::new(AudioSocket::new()), AUDIOSOCKET.map(binary).into()));
}

#[test]
fn mutated_calls_of_chan_websocket() {
    play("chan_websocket", |dice| {
        let mut script: Vec<Message> =
            if dice.below(2) == 0 { PLAIN.map(text).into() } else { JSON.map(text).into() };
        script.insert(dice.below(2), binary([1, 2, 3, 4]));
        (Box::new(ChanWebSocket::new()), script)
    });
}

#[test]
fn mutated_calls_of_vonage() {
    play("vonage", |dice| {
        let mut script: Vec<Message> = VONAGE.map(text).into();
        script.insert(dice.below(2), binary([1, 2, 3, 4]));
        (Box::new(Vonage::new()), script)
    });
}

#[test]
fn mutated_calls_of_forks() {
    play("forks", |dice| {
        let mut script: Vec<Message> = FORK.map(text).into();
        script.insert(dice.below(2), binary([1, 2, 3, 4]));
        let options = ForkOptions {
            flavor: [Flavor::AudioFork, Flavor::Jambonz, Flavor::AudioStream][dice.below(3)],
            sample_rate: 8_000,
            channels: [Channels::One, Channels::Two][dice.below(2)],
            replies: [None, Some(8_000)][dice.below(2)],
        };
        (Box::new(Fork::new(options)), script)
    });
}

/// Plays mutated conversations. `VOXLINE_CALLS_MUTATIONS` is their number.
#[allow(clippy::print_stdout, reason = "the figures are what a long run is for")]
fn play(name: &str, begin: impl Fn(&mut Random) -> (Box<dyn Codec>, Vec<Message>)) {
    let mut dice = Random::for_test(&format!("peers::mutations::mutated_calls_of_{name}"));
    let (mut refused, mut started) = (0, 0);
    let count = knob("VOXLINE_CALLS_MUTATIONS").unwrap_or(MUTATIONS);
    for number in 0..count {
        let (mut codec, mut script) = begin(&mut dice);
        mutate(&mut script, &mut dice);
        let outcome =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| converse(&mut *codec, &script)));
        let Ok((failed, began)) = outcome else { panic!("conversation {number}: {script:?}") };
        refused += usize::from(failed);
        started += usize::from(began);
    }
    println!("{name}: {count} conversations, {started} started, {refused} refused");
    // Both happen often: what nearly always fails at once, or never fails, would test nothing.
    assert!(started * 4 > count, "{started} of {count} started");
    assert!(refused * 50 > count || name == "forks", "{refused} of {count} were refused");
}

/// Plays a conversation, and returns whether it was refused, and whether a call started.
fn converse(codec: &mut dyn Codec, script: &[Message]) -> (bool, bool) {
    let mut events = Vec::new();
    let mut refused = false;
    for message in script {
        command(codec);
        if let Err(error) = codec.read(message.clone(), &mut events) {
            let error = voxline::error::chain(&error).to_string();
            assert!(error.len() < 250 && !error.contains(char::is_control), "{error}");
            refused = true;
            break;
        }
    }
    command(codec);
    let is_start = |event: &PeerEvent| matches!(event, PeerEvent::Started(_));
    assert!(!events.iter().skip(1).any(is_start), "one start, before all else: {events:?}");
    assert!(events.first().is_none_or(is_start), "{events:?}");
    let end = events.iter().position(|event| *event == PeerEvent::Ended);
    assert!(end.is_none_or(|end| end + 1 == events.len()), "nothing follows the end: {events:?}");
    let heard: usize = events
        .iter()
        .map(|event| if let PeerEvent::Audio(packet) = event { packet.payload.len() } else { 0 })
        .sum();
    let told: usize = script.iter().map(length).sum();
    assert!(heard <= told, "{heard} bytes of audio from {told}");
    (refused, !events.is_empty())
}

/// Writes each command: a command that is refused has written nothing.
fn command(codec: &mut dyn Codec) {
    let mark = || Command::Mark("m".to_owned());
    let audio = Command::Audio(Bytes::from_static(&[1, 2, 3, 4, 5, 6]));
    for command in [audio, mark(), Command::Clear, Command::Answer] {
        let mut messages = Vec::new();
        let written = codec.write(command, &mut messages);
        assert!(written.is_ok() || messages.is_empty());
    }
}

fn length(message: &Message) -> usize {
    match message {
        Message::Text(text) => text.len(),
        Message::Binary(bytes) => bytes.len(),
    }
}

/// Changes a conversation here and there: its order, its messages, their kind and their bytes.
fn mutate(script: &mut Vec<Message>, dice: &mut Random) {
    for _ in 0..1 + dice.below(3) {
        let (one, other) = (dice.below(script.len()), dice.below(script.len()));
        match dice.below(12) {
            0 => script.swap(one, other),
            1 => script.insert(one, script[other].clone()),
            2 if script.len() > 1 => drop(script.remove(one)),
            3 => script[one] = flipped(&script[one]),
            4 => {
                let (head, tail) = halves(&script[one], dice);
                script[one] = head;
                script.insert(one + 1, tail);
            }
            _ => script[one] = damaged(&script[one], dice),
        }
    }
}

fn bytes(message: &Message) -> Vec<u8> {
    match message {
        Message::Text(text) => text.clone().into_bytes(),
        Message::Binary(bytes) => bytes.to_vec(),
    }
}

/// Returns bytes as a message of the kind of another.
fn like(message: &Message, bytes: &[u8]) -> Message {
    match message {
        Message::Text(_) => text(String::from_utf8_lossy(bytes)),
        Message::Binary(_) => binary(bytes),
    }
}

fn flipped(message: &Message) -> Message {
    match message {
        Message::Text(text) => binary(text),
        Message::Binary(bytes) => text(String::from_utf8_lossy(bytes)),
    }
}

fn halves(message: &Message, dice: &mut Random) -> (Message, Message) {
    let bytes = bytes(message);
    let (head, tail) = bytes.split_at(dice.below(bytes.len() + 1));
    (like(message, head), like(message, tail))
}

fn damaged(message: &Message, dice: &mut Random) -> Message {
    const PIECES: [&[u8]; 10] = [
        b"\0",
        b"\"",
        b"{\"a\":[",
        b"\\u0000",
        b"\xF0\x9F\x98\x80",
        b"18446744073709551616",
        b"-1",
        b"null",
        b" ",
        b"\r\n",
    ];
    let mut bytes = bytes(message);
    let place = dice.below(bytes.len() + 1);
    let block = place..(place + 1 + dice.below(16)).min(bytes.len());
    match dice.below(6) {
        0 if place < bytes.len() => bytes[place] = dice.next() as u8,
        1 if place < bytes.len() => bytes[place] ^= 1 << dice.below(8),
        2 if place < bytes.len() => drop(bytes.drain(block)),
        3 if place < bytes.len() => bytes.extend_from_within(block),
        4 => bytes.truncate(place),
        _ => drop(bytes.splice(place..place, PIECES[dice.below(PIECES.len())].iter().copied())),
    }
    like(message, &bytes)
}
