//! Codecs of telephone systems, against messages that were written by hand from the documentation of each. The
//! tests share no constants with the codecs.

mod audiosocket;
mod chan_websocket;
mod fork;
mod mutations;
mod twilio;
mod vonage;

use bytes::Bytes;
use voxline::audio::Encoding;
use voxline_calls::peers::{
    Codec, Command, CommandError, MediaEncoding, MediaFormat, Message, PeerError, PeerEvent, Start, Track,
};

const fn pcm(encoding: Encoding, sample_rate: u32) -> MediaFormat {
    MediaFormat { encoding: MediaEncoding::Pcm(encoding), sample_rate }
}

fn text(text: impl Into<String>) -> Message {
    Message::Text(text.into())
}

fn binary(bytes: impl AsRef<[u8]>) -> Message {
    Message::Binary(Bytes::copy_from_slice(bytes.as_ref()))
}

/// Reads messages, each of which must be valid.
#[track_caller]
fn read(codec: &mut impl Codec, messages: impl IntoIterator<Item = Message>) -> Vec<PeerEvent> {
    let mut events = Vec::new();
    for message in messages {
        codec.read(message.clone(), &mut events).unwrap_or_else(|error| panic!("{message:?}: {error}"));
    }
    events
}

/// Reads a message that breaks the protocol, and returns the text of the error.
#[track_caller]
fn refused(codec: &mut impl Codec, message: Message) -> String {
    let mut events = Vec::new();
    let error: PeerError = codec.read(message, &mut events).expect_err("a broken message");
    assert!(events.is_empty(), "{events:?}");
    let text = voxline::error::chain(&error).to_string();
    assert!(!text.contains('\n') && text.len() < 200, "{text}");
    text
}

#[track_caller]
fn write(codec: &mut impl Codec, command: Command) -> Vec<Message> {
    let mut messages = Vec::new();
    codec.write(command, &mut messages).unwrap();
    messages
}

/// Writes a command that the peer can't carry out.
#[track_caller]
fn unwritable(codec: &mut impl Codec, command: Command) -> CommandError {
    let mut messages = Vec::new();
    let error = codec.write(command, &mut messages).unwrap_err();
    assert!(messages.is_empty());
    error
}

/// Writes a command that takes one text message, and returns it as JSON.
#[track_caller]
fn written(codec: &mut impl Codec, command: Command) -> serde_json::Value {
    let messages = write(codec, command);
    let [Message::Text(text)] = &messages[..] else { panic!("{messages:?}") };
    serde_json::from_str(text).unwrap()
}

/// Returns the start, which has to be the first event.
#[track_caller]
fn started(events: &[PeerEvent]) -> Start {
    match events.first() {
        Some(PeerEvent::Started(start)) => start.clone(),
        other => panic!("{other:?}"),
    }
}

/// Returns the audio of a track, joined.
fn heard(events: &[PeerEvent], track: Track) -> Vec<u8> {
    let payload = |event: &PeerEvent| match event {
        PeerEvent::Audio(packet) if packet.track == track => packet.payload.to_vec(),
        _ => Vec::new(),
    };
    events.iter().flat_map(payload).collect()
}

/// Returns bytes that differ from each other and from text.
fn audio(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 131 + index / 256) as u8).collect()
}
