//! Asterisk's channel driver for WebSockets, `chan_websocket`.
//!
//! The source is the page "WebSocket" of Asterisk's documentation of channel drivers, and the module itself.
//! Asterisk opens the connection, or accepts ours, with the subprotocol [`SUBPROTOCOL`]. Binary messages are
//! audio in the codec of the channel, without headers. Text messages are events of Asterisk and commands for
//! it: plain words, or JSON from the releases 20.18, 22.8 and 23.2 if it is configured so.
//!
//! Quirks that this codec answers to:
//!
//! - Audio may come before `MEDIA_START`, which names its format: it is kept, up to 64 KiB, until then.
//! - Commands have to be in the syntax of the events, or Asterisk ends the call: that of `MEDIA_START` counts.
//! - Asterisk ends the call at a message of more than 65,500 bytes, and takes no command of more than 128: long
//!   audio becomes several messages, and a mark with a long name is refused.
//! - Asterisk cuts a message into frames of its optimal size, and drops what is left. Audio of another length is
//!   put between the commands `START_MEDIA_BUFFERING` and `STOP_MEDIA_BUFFERING`, with which it drops nothing.
//! - `FLUSH_MEDIA` drops marks with the audio before them: they never come back.
//! - Opus is passed on as it is, a packet per message: Asterisk has no queue for it, so there are neither marks
//!   nor anything to flush, and the driver sends at the pace of the audio.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value};

use voxline::audio::Encoding;

use super::early::Early;
use super::json::{self, Writer};
use super::{
    Codec, Command, CommandError, MediaEncoding, MediaFormat, Message, Packet, PeerError, PeerEvent, Start,
    Track, key,
};

/// Subprotocol that Asterisk asks for.
pub const SUBPROTOCOL: &str = "media";

/// Largest message that Asterisk takes, in bytes.
const MESSAGE_MAX: usize = 65_500;
/// Largest command that Asterisk takes, in bytes.
const COMMAND_MAX: usize = 128;

/// The codec of a connection.
#[derive(Debug, Default)]
pub struct ChanWebSocket {
    early: Early,
    call: Option<Call>,
}

/// A call that has started.
#[derive(Clone, Copy, Debug)]
struct Call {
    syntax: Syntax,
    format: MediaFormat,
    /// Size of the frames that Asterisk plays, in bytes; zero if it is of no interest.
    frame: usize,
    /// True if Asterisk passes messages on as they are, without a queue.
    passthrough: bool,
}

/// Syntax of events and commands.
#[derive(Clone, Copy, Debug)]
enum Syntax {
    Plain,
    Json,
}

/// An event of Asterisk in either syntax.
struct Event {
    name: String,
    values: Map<String, Value>,
    syntax: Syntax,
}

impl ChanWebSocket {
    /// Returns the codec of a new connection.
    #[must_use]
    pub fn new() -> ChanWebSocket {
        ChanWebSocket::default()
    }

    fn event(&mut self, event: Event, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        if event.name == "MEDIA_START" {
            return self.start(event, events);
        }
        if self.call.is_none() {
            return Ok(());
        }
        match event.name.as_str() {
            "MEDIA_XOFF" => events.push(PeerEvent::Paused),
            "MEDIA_XON" => events.push(PeerEvent::Resumed),
            "DTMF_END" => {
                let digit = event.text("digit").and_then(key);
                events.extend(digit.map(|digit| PeerEvent::Dtmf { track: Track::Inbound, digit }));
            }
            "MEDIA_MARK_PROCESSED" => {
                let name = event.text("correlation_id").filter(|name| !name.is_empty());
                events.extend(name.map(|name| PeerEvent::Mark(name.to_owned())));
            }
            // Of no use: the state of the queue, completed buffering, errors about commands.
            _ => (),
        }
        Ok(())
    }

    fn start(&mut self, event: Event, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        if self.call.is_some() {
            return Err(wrong("MEDIA_START", "expected one in a call"));
        }
        let name = event.text("format").ok_or_else(|| wrong("MEDIA_START", "expected a format"))?;
        let format = format(name).ok_or_else(|| PeerError::Format(json::printable(name).into_owned()))?;
        let passthrough = format.encoding == MediaEncoding::Opus || event.text("passthrough") == Some("true");
        let frame = event.values.get("optimal_frame_size").and_then(json::number).unwrap_or(0);
        let frame = usize::try_from(frame).ok().filter(|&frame| frame <= MESSAGE_MAX && !passthrough);
        self.call = Some(Call { syntax: event.syntax, format, frame: frame.unwrap_or(0), passthrough });
        events.push(PeerEvent::Started(event.into_start(format)));
        let audio = self.early.take();
        events.extend(audio.into_iter().map(|piece| PeerEvent::Audio(Packet::bare(Track::Inbound, piece))));
        Ok(())
    }
}

impl Event {
    fn read(text: &str) -> Result<Event, PeerError> {
        let text = text.trim();
        if text.starts_with('{') {
            let mut values: Map<String, Value> = json::read("event", text)?;
            let Some(Value::String(name)) = values.remove("event") else {
                return Err(wrong("event", "expected a name"));
            };
            // Booleans as in plain events.
            for value in values.values_mut().filter(|value| value.is_boolean()) {
                *value = Value::String(value.to_string());
            }
            return Ok(Event { name, values, syntax: Syntax::Json });
        }
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut values: Map<String, Value> = rest
            .split_whitespace()
            .filter_map(|word| word.split_once(':'))
            .map(|(name, value)| (name.to_owned(), Value::String(value.to_owned())))
            .collect();
        if name == "MEDIA_MARK_PROCESSED" {
            // The rest of the line is the name that the mark was given, whatever it has.
            let id = rest.strip_prefix("correlation_id:").unwrap_or(rest);
            values = Map::from_iter([("correlation_id".to_owned(), Value::String(id.to_owned()))]);
        }
        Ok(Event { name: name.to_owned(), values, syntax: Syntax::Plain })
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.values.get(name)?.as_str()
    }

    fn into_start(mut self, format: MediaFormat) -> Start {
        let mut take = |name| match self.values.remove(name) {
            Some(Value::String(text)) => Some(text),
            _ => None,
        };
        let (call, stream) = (take("channel_id"), take("connection_id"));
        let variables = match self.values.remove("channel_variables") {
            Some(Value::Object(variables)) => json::texts(variables),
            _ => BTreeMap::new(),
        };
        Start {
            call,
            stream,
            tracks: vec![Track::Inbound],
            receives: format,
            sends: Some(format),
            metadata: variables,
        }
    }
}

impl Call {
    fn command(self, name: &str, id: Option<&str>) -> Result<Message, CommandError> {
        let text = match (self.syntax, id) {
            (Syntax::Plain, None) => Writer::new().raw(name),
            (Syntax::Plain, Some(id)) if id.trim() == id && !id.contains(char::is_control) => {
                Writer::new().raw(name).raw(" ").raw(id)
            }
            (Syntax::Plain, Some(_)) => return Err(CommandError::Name),
            (Syntax::Json, id) => {
                let command = Writer::new().raw("{\"command\":").text(name);
                let command = match id {
                    Some(id) => command.raw(",\"correlation_id\":").text(id),
                    None => command,
                };
                command.raw("}")
            }
        };
        match text.message() {
            Message::Text(text) if text.len() > COMMAND_MAX => Err(CommandError::Name),
            message => Ok(message),
        }
    }

    fn audio(self, mut audio: Bytes, messages: &mut Vec<Message>) -> Result<(), CommandError> {
        if self.format.encoding == MediaEncoding::Opus {
            messages.push(Message::Binary(audio));
            return Ok(());
        }
        let frame = self.frame.max(1);
        let buffered = !audio.len().is_multiple_of(frame);
        if buffered {
            messages.push(self.command("START_MEDIA_BUFFERING", None)?);
        }
        let most = MESSAGE_MAX / frame * frame;
        while !audio.is_empty() {
            messages.push(Message::Binary(audio.split_to(most.min(audio.len()))));
        }
        if buffered {
            messages.push(self.command("STOP_MEDIA_BUFFERING", None)?);
        }
        Ok(())
    }
}

impl Codec for ChanWebSocket {
    fn read(&mut self, message: Message, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        match message {
            Message::Text(text) => self.event(Event::read(&text)?, events),
            Message::Binary(audio) if audio.is_empty() => Ok(()),
            Message::Binary(audio) if self.call.is_none() => self.early.push(&audio, "MEDIA_START"),
            Message::Binary(audio) => {
                events.push(PeerEvent::Audio(Packet::bare(Track::Inbound, audio)));
                Ok(())
            }
        }
    }

    fn write(&mut self, command: Command, messages: &mut Vec<Message>) -> Result<(), CommandError> {
        let call = self.call.ok_or(CommandError::NotStarted)?;
        let message = match command {
            Command::Audio(audio) if audio.is_empty() => return Ok(()),
            Command::Audio(audio) => return call.audio(audio, messages),
            Command::Mark(_) | Command::Clear if call.passthrough => return Err(CommandError::Unsupported),
            Command::Mark(name) => call.command("MARK_MEDIA", Some(&name))?,
            Command::Clear => call.command("FLUSH_MEDIA", None)?,
            Command::Answer => call.command("ANSWER", None)?,
            Command::Hangup => call.command("HANGUP", None)?,
        };
        messages.push(message);
        Ok(())
    }
}

/// Returns the format that Asterisk calls by this name.
fn format(name: &str) -> Option<MediaFormat> {
    let pcm = |encoding, sample_rate| MediaFormat { encoding: MediaEncoding::Pcm(encoding), sample_rate };
    Some(match name {
        "ulaw" => pcm(Encoding::MuLaw, 8_000),
        "alaw" => pcm(Encoding::ALaw, 8_000),
        "opus" => MediaFormat { encoding: MediaEncoding::Opus, sample_rate: 48_000 },
        "slin" => MediaFormat::linear(8_000),
        "slin12" => MediaFormat::linear(12_000),
        "slin16" => MediaFormat::linear(16_000),
        "slin24" => MediaFormat::linear(24_000),
        "slin32" => MediaFormat::linear(32_000),
        "slin44" => MediaFormat::linear(44_100),
        "slin48" => MediaFormat::linear(48_000),
        "slin96" => MediaFormat::linear(96_000),
        "slin192" => MediaFormat::linear(192_000),
        _ => return None,
    })
}

fn wrong(message: &'static str, reason: &str) -> PeerError {
    PeerError::Message { message, reason: reason.to_owned() }
}
