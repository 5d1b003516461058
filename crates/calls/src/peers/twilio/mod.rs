//! Twilio Media Streams and its relatives.
//!
//! The sources are the pages "Media Streams: WebSocket messages" of Twilio, "Media streaming over WebSockets"
//! of Telnyx, "Stream" of SignalWire's compatibility API, "Stream event protocol" of Plivo, and "WebSocket
//! protocol" of Exotel. The provider opens the connection and sends JSON alone, with the audio in base64. The
//! relatives differ in names, formats and commands: `provider` has the table.
//!
//! Quirks that this codec answers to:
//!
//! - Numbers are texts at Twilio, Telnyx and Exotel, and numbers at Plivo: each may be either, everywhere.
//! - Nothing in the messages says whether audio is taken back, or in which format Telnyx takes it: [`Replies`]
//!   says so. Twilio ends a one-way stream at the first message to it.
//! - A slash may come as `\/`, which JSON allows. The audio is read without copies where it does not.
//! - Telnyx and Exotel don't name their tracks: a start without them has the inbound one, and another track
//!   may appear with its first audio.
//! - Telnyx does not keep messages in order: packets have their numbers.
//! - Media before the start has no known format, and is left out. The numbers of its packets show the gap.
//! - Plivo never tells of marks that it cleared. Twilio sends them all at once.
//! - No provider has a message that ends the call: the connection is closed.
//! - Events and fields that are not known are ignored, and so is all that comes after `stop`.

mod provider;
pub mod signature;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use voxline::audio::Encoding;

use super::json::{self, Number, Writer};
use super::{
    Codec, Command, CommandError, MediaEncoding, MediaFormat, Message, Packet, PeerError, PeerEvent, Start,
    Track, key,
};

pub use self::provider::Provider;

/// The audio that a provider takes, which its operator has chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Replies {
    /// None: the stream is one-way.
    #[default]
    None,
    /// The format in which it sends.
    AsReceived,
    /// A format of its own, as Telnyx and Plivo may have.
    In(MediaFormat),
}

/// The codec of a connection.
#[derive(Debug)]
pub struct Twilio {
    provider: Provider,
    replies: Replies,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Opening,
    Started(Stream),
    Ended,
}

/// A stream that has started.
#[derive(Debug)]
struct Stream {
    sends: Option<MediaFormat>,
    /// The member that names the stream in messages to the provider, with a comma before it; empty if it
    /// wants none.
    member: String,
    /// A message with audio, up to its payload.
    media: String,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
}

/// A text that is borrowed where it has no escapes. An `Option<Cow>` never is.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct MediaMessage<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow)]
    media: Option<Media<'a>>,
}

#[derive(Deserialize)]
struct Media<'a> {
    #[serde(borrow)]
    track: Option<Text<'a>>,
    chunk: Option<Number>,
    timestamp: Option<Number>,
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

#[derive(Deserialize)]
struct DtmfMessage<'a> {
    #[serde(borrow)]
    dtmf: Dtmf<'a>,
}

#[derive(Deserialize)]
struct Dtmf<'a> {
    #[serde(borrow)]
    track: Option<Text<'a>>,
    #[serde(borrow)]
    digit: Cow<'a, str>,
}

#[derive(Deserialize)]
struct MarkMessage {
    mark: Mark,
}

#[derive(Deserialize)]
struct Mark {
    name: String,
}

impl Twilio {
    /// Returns the codec of a new connection.
    #[must_use]
    pub fn new(provider: Provider, replies: Replies) -> Twilio {
        Twilio { provider, replies, phase: Phase::Opening }
    }

    fn text(&mut self, text: &str, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        // Fifty of these a second, and few others: they are parsed once, and the others twice.
        if let Ok(MediaMessage { event, media: Some(media) }) = serde_json::from_str(text)
            && event == "media"
        {
            return self.media(&media, events);
        }
        let Head { event } = json::read("message", text)?;
        match (&*event, &self.phase) {
            ("start", _) => self.start(json::read("start", text)?, events),
            ("stop", phase) => {
                events.extend(matches!(phase, Phase::Started(_)).then_some(PeerEvent::Ended));
                self.phase = Phase::Ended;
                Ok(())
            }
            ("media", _) => {
                json::read::<MediaMessage<'_>>("media", text)?;
                Err(wrong("media", "expected its contents"))
            }
            (_, Phase::Opening | Phase::Ended) => Ok(()),
            ("dtmf", _) => {
                let DtmfMessage { dtmf } = json::read("dtmf", text)?;
                let track = track("dtmf", dtmf.track.as_ref())?;
                events.extend(key(&dtmf.digit).map(|digit| PeerEvent::Dtmf { track, digit }));
                Ok(())
            }
            ("mark", _) => {
                let MarkMessage { mark } = json::read("mark", text)?;
                events.push(PeerEvent::Mark(mark.name));
                Ok(())
            }
            ("playedStream" | "played", _) if self.provider == Provider::Plivo => {
                let Mark { name } = json::read("playedStream", text)?;
                events.push(PeerEvent::Mark(name));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn media(&self, media: &Media<'_>, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        if let Phase::Started(_) = self.phase {
            let packet = Packet {
                track: track("media", media.track.as_ref())?,
                sequence: media.chunk.map(|Number(chunk)| chunk),
                timestamp: media.timestamp.map(|Number(timestamp)| timestamp),
                payload: json::payload("media", &media.payload)?,
            };
            events.push(PeerEvent::Audio(packet));
        }
        Ok(())
    }

    fn start(
        &mut self,
        mut message: Map<String, Value>,
        events: &mut Vec<PeerEvent>,
    ) -> Result<(), PeerError> {
        if !matches!(self.phase, Phase::Opening) {
            return Err(wrong("start", "expected one in a connection"));
        }
        let Some(Value::Object(mut start)) = message.remove("start") else {
            return Err(wrong("start", "expected its contents"));
        };
        let names = self.provider.differences();
        let receives = self.format(start.get(names.format))?;
        let sends = match self.replies {
            Replies::None => None,
            Replies::AsReceived => Some(receives),
            Replies::In(format) => Some(format),
        };
        let stream = [&mut message, &mut start].into_iter().find_map(|object| text(object, names.stream));
        let parameters = start.remove(names.parameters).or_else(|| message.remove(names.parameters));
        let tracks = tracks(start.get("tracks"))?;
        self.phase = Phase::Started(Stream::new(self.provider, stream.as_deref(), sends));
        events.push(PeerEvent::Started(Start {
            call: text(&mut start, names.call),
            stream,
            tracks,
            receives,
            sends,
            metadata: parameters.map(metadata).unwrap_or_default(),
        }));
        Ok(())
    }

    /// Reads the format of a start.
    fn format(&self, format: Option<&Value>) -> Result<MediaFormat, PeerError> {
        let names = self.provider.differences();
        let Some(format) = format.and_then(Value::as_object) else { return Ok(names.unnamed) };
        let name = format.get("encoding").and_then(Value::as_str).unwrap_or("");
        match format.get("channels").and_then(json::number) {
            None | Some(1) => self.provider.format(name, format.get(names.rate).and_then(json::number)),
            Some(channels) => {
                Err(PeerError::Format(format!("{} of {channels} channels", json::printable(name))))
            }
        }
    }
}

impl Stream {
    fn new(provider: Provider, stream: Option<&str>, sends: Option<MediaFormat>) -> Stream {
        let member = match stream {
            // Telnyx knows the stream by its connection.
            Some(stream) if provider != Provider::Telnyx => {
                format!(",\"{}\":{}", provider.differences().stream, json::quoted(stream))
            }
            _ => String::new(),
        };
        let media = match (provider, sends) {
            (Provider::Plivo, Some(MediaFormat { encoding, sample_rate })) => {
                let linear = encoding == MediaEncoding::Pcm(Encoding::S16Le);
                let name = if linear { "audio/x-l16" } else { "audio/x-mulaw" };
                format!(
                    "{{\"event\":\"playAudio\"{member},\"media\":{{\"contentType\":\"{name}\",\
                     \"sampleRate\":{sample_rate},\"payload\":"
                )
            }
            _ => format!("{{\"event\":\"media\"{member},\"media\":{{\"payload\":"),
        };
        Stream { sends, member, media }
    }

    fn write(
        &self,
        provider: Provider,
        command: Command,
        messages: &mut Vec<Message>,
    ) -> Result<(), CommandError> {
        let format = self.sends.ok_or(CommandError::Unsupported)?;
        let plivo = provider == Provider::Plivo;
        let message = match command {
            Command::Audio(audio) => {
                let whole = format.encoding == MediaEncoding::Opus;
                let most = if whole { usize::MAX } else { provider.most(format) };
                messages.extend(audio.chunks(most).map(|piece| self.audio(piece)));
                return Ok(());
            }
            Command::Mark(name) if plivo => self.event("checkpoint").raw(",\"name\":").text(&name).raw("}"),
            Command::Mark(name) => self.event("mark").raw(",\"mark\":{\"name\":").text(&name).raw("}}"),
            Command::Clear if plivo => self.event("clearAudio").raw("}"),
            Command::Clear => self.event("clear").raw("}"),
            Command::Answer | Command::Hangup => return Err(CommandError::Unsupported),
        };
        messages.push(message.message());
        Ok(())
    }

    fn audio(&self, audio: &[u8]) -> Message {
        Writer::with_payload(audio.len()).raw(&self.media).base64(audio).raw("}}").message()
    }

    /// Begins a message.
    fn event(&self, name: &str) -> Writer {
        Writer::new().raw("{\"event\":").text(name).raw(&self.member)
    }
}

impl Codec for Twilio {
    fn read(&mut self, message: Message, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        match message {
            _ if matches!(self.phase, Phase::Ended) => Ok(()),
            Message::Text(text) => self.text(&text, events),
            Message::Binary(_) => Err(wrong("binary message", "expected JSON in text messages")),
        }
    }

    fn write(&mut self, command: Command, messages: &mut Vec<Message>) -> Result<(), CommandError> {
        match &self.phase {
            Phase::Opening => Err(CommandError::NotStarted),
            Phase::Started(stream) => stream.write(self.provider, command, messages),
            // The provider takes nothing any more, which is no mistake of the caller.
            Phase::Ended => Ok(()),
        }
    }
}

fn track(message: &'static str, name: Option<&Text<'_>>) -> Result<Track, PeerError> {
    match name {
        None => Ok(Track::Inbound),
        Some(Text(name)) => {
            Track::named(name).ok_or_else(|| wrong(message, "expected the track to be inbound or outbound"))
        }
    }
}

fn tracks(names: Option<&Value>) -> Result<Vec<Track>, PeerError> {
    let named = |name: &Value| {
        let track = name.as_str().and_then(Track::named);
        track.ok_or_else(|| wrong("start", "expected tracks to be inbound or outbound"))
    };
    let mut tracks = match names.and_then(Value::as_array) {
        Some(names) => names.iter().map(named).collect::<Result<Vec<_>, _>>()?,
        None => Vec::new(),
    };
    tracks.sort_unstable();
    tracks.dedup();
    if tracks.is_empty() {
        tracks.push(Track::Inbound);
    }
    Ok(tracks)
}

/// Removes a text from an object.
fn text(object: &mut Map<String, Value>, name: &str) -> Option<String> {
    match object.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    }
}

/// Returns the operator's own values: an object, a list of names and values, or Plivo's text of pairs.
fn metadata(parameters: Value) -> BTreeMap<String, String> {
    match parameters {
        Value::Object(object) => json::texts(object),
        Value::String(pairs) => {
            let separator = if pairs.contains(';') { ';' } else { ',' };
            let pairs = pairs.split(separator).filter_map(|pair| pair.trim().split_once('='));
            pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        }
        Value::Array(list) => list
            .into_iter()
            .filter_map(|item| match item {
                Value::Object(mut pair) => Some((text(&mut pair, "name")?, text(&mut pair, "value")?)),
                _ => None,
            })
            .collect(),
        _ => BTreeMap::new(),
    }
}

fn wrong(message: &'static str, reason: &str) -> PeerError {
    PeerError::Message { message, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn texts_of_media_are_borrowed() {
        let json =
            r#"{"event":"media","media":{"track":"inbound","chunk":"1","timestamp":"5","payload":"AAA="}}"#;
        let message: MediaMessage<'_> = serde_json::from_str(json).expect("a media message");
        let media = message.media.expect("media");
        assert!(matches!(message.event, Cow::Borrowed(_)));
        assert!(matches!(media.track, Some(Text(Cow::Borrowed(_)))));
        assert!(matches!(media.payload, Cow::Borrowed(_)));
    }

    #[test]
    fn the_room_for_a_message_with_audio_is_enough() {
        let stream = Stream::new(Provider::Plivo, Some(&"x".repeat(36)), Some(MediaFormat::linear(16_000)));
        for length in [0, 1, 160, 640, 3_200] {
            let room = Writer::with_payload(length).capacity();
            let Message::Text(text) = stream.audio(&vec![0; length]) else { unreachable!("text") };
            assert!(text.len() <= room, "{} of {room}", text.len());
        }
    }

    #[test]
    fn values_of_the_operator_come_in_three_forms() {
        let expected = BTreeMap::from([("a".to_owned(), "1".to_owned()), ("b".to_owned(), "x=y".to_owned())]);
        for json in [
            r#"{"a":1,"b":"x=y"}"#,
            r#""a=1; b=x=y""#,
            r#""a=1,b=x=y""#,
            r#"[{"name":"a","value":"1"},{"name":"b","value":"x=y"},7,{"name":"c"}]"#,
        ] {
            assert_eq!(metadata(serde_json::from_str(json).expect(json)), expected, "{json}");
        }
        assert_eq!(metadata(Value::Null), BTreeMap::new());
    }

    #[test]
    fn audio_is_cut_where_the_provider_says_so() {
        let stream = Stream::new(Provider::Exotel, Some("s"), Some(MediaFormat::linear(8_000)));
        let mut messages = Vec::new();
        let audio = Command::Audio(Bytes::from(vec![0; 200_000]));
        stream.write(Provider::Exotel, audio, &mut messages).expect("a stream that takes audio");
        assert_eq!(messages.len(), 3);
    }
}
