//! The WebSockets of Vonage's Voice API.
//!
//! The source is the page "WebSockets" of Vonage's documentation of the Voice API. Vonage opens the
//! connection. Its first message names the format and has the headers that the operator gave to the `connect`
//! action; audio follows in binary messages of 20 ms, linear, 16 bit, little-endian, one channel.
//!
//! Quirks that this codec answers to:
//!
//! - It does not fit the table of Twilio's relatives: audio is binary, events have names and fields of their own,
//!   and the headers stand among the fields of the first message.
//! - Vonage plays messages of 20 ms, of the size that it sends: long audio becomes several. It keeps a minute or
//!   so of audio, and [`Clear`](Command::Clear) drops it.
//! - Marks are `notify` commands, whose payload comes back when the audio before it was played.
//! - The key of a `websocket:dtmf` event is beside its name, and in older releases one level deeper.

use serde_json::{Map, Value};

use super::early::Early;
use super::json::{self, Writer};
use super::{
    Codec, Command, CommandError, MediaFormat, Message, Packet, PeerError, PeerEvent, Start, Track, key,
};

/// Length of the audio in a message, in milliseconds.
const FRAME_MS: u32 = 20;

/// The codec of a connection.
#[derive(Debug, Default)]
pub struct Vonage {
    early: Early,
    format: Option<MediaFormat>,
}

impl Vonage {
    /// Returns the codec of a new connection.
    #[must_use]
    pub fn new() -> Vonage {
        Vonage::default()
    }

    fn event(&mut self, mut event: Map<String, Value>, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        let name = match event.remove("event") {
            Some(Value::String(name)) => name,
            _ => return Err(wrong("event", "expected a name")),
        };
        match (name.as_str(), self.format) {
            ("websocket:connected", None) => self.start(event, events),
            ("websocket:connected", Some(_)) => {
                Err(wrong("websocket:connected", "expected one in a connection"))
            }
            (_, None) => Ok(()),
            ("websocket:dtmf", _) => {
                let digit = event.get("digit").or_else(|| event.get("dtmf")?.get("digit"));
                let digit = digit.and_then(Value::as_str).and_then(key);
                events.extend(digit.map(|digit| PeerEvent::Dtmf { track: Track::Inbound, digit }));
                Ok(())
            }
            ("websocket:notify", _) => {
                let mark =
                    event.get("payload").and_then(|payload| payload.get("mark")).and_then(Value::as_str);
                events.extend(mark.map(|name| PeerEvent::Mark(name.to_owned())));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn start(
        &mut self,
        mut headers: Map<String, Value>,
        events: &mut Vec<PeerEvent>,
    ) -> Result<(), PeerError> {
        let Some(Value::String(name)) = headers.remove("content-type") else {
            return Err(wrong("websocket:connected", "expected a content type"));
        };
        let rate = name.strip_prefix("audio/l16;").map(str::trim).and_then(|rest| rest.strip_prefix("rate="));
        let format = match rate.and_then(|rate| rate.parse().ok()) {
            Some(rate @ 8_000..=48_000) => MediaFormat::linear(rate),
            _ => return Err(PeerError::Format(json::printable(&name).into_owned())),
        };
        self.format = Some(format);
        events.push(PeerEvent::Started(Start {
            tracks: vec![Track::Inbound],
            receives: format,
            sends: Some(format),
            metadata: json::texts(headers),
            ..Start::default()
        }));
        let audio = self.early.take();
        events.extend(audio.into_iter().map(|piece| PeerEvent::Audio(Packet::bare(Track::Inbound, piece))));
        Ok(())
    }
}

impl Codec for Vonage {
    fn read(&mut self, message: Message, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        match message {
            Message::Text(text) => self.event(json::read("event", &text)?, events),
            Message::Binary(audio) if audio.is_empty() => Ok(()),
            Message::Binary(audio) if self.format.is_none() => self.early.push(&audio, "websocket:connected"),
            Message::Binary(audio) => {
                events.push(PeerEvent::Audio(Packet::bare(Track::Inbound, audio)));
                Ok(())
            }
        }
    }

    fn write(&mut self, command: Command, messages: &mut Vec<Message>) -> Result<(), CommandError> {
        let format = self.format.ok_or(CommandError::NotStarted)?;
        let message = match command {
            Command::Audio(mut audio) => {
                let most = format.bytes_in(FRAME_MS).expect("linear samples have a length");
                while !audio.is_empty() {
                    messages.push(Message::Binary(audio.split_to(most.min(audio.len()))));
                }
                return Ok(());
            }
            Command::Mark(name) => {
                Writer::new().raw("{\"action\":\"notify\",\"payload\":{\"mark\":").text(&name).raw("}}")
            }
            Command::Clear => Writer::new().raw("{\"action\":\"clear\"}"),
            Command::Answer | Command::Hangup => return Err(CommandError::Unsupported),
        };
        messages.push(message.message());
        Ok(())
    }
}

fn wrong(message: &'static str, reason: &str) -> PeerError {
    PeerError::Message { message, reason: reason.to_owned() }
}
