//! The FreeSWITCH modules that fork the audio of a channel, and the `listen` verb of jambonz.
//!
//! The sources are the documentation of `mod_audio_fork` and `mod_audio_stream`, and the pages "listen" and
//! "Bidirectional audio" of jambonz. The peer opens the connection. Its first text message, if there is one,
//! has the metadata of the call; audio is binary, linear, 16 bit, little-endian, of one channel or two; later
//! texts are metadata again, keys, and marks of jambonz.
//!
//! Quirks that this codec answers to:
//!
//! - Only jambonz says the rate and the number of channels, as `sampleRate` and `mixType`. The modules send what
//!   their command line asked for, so the operator configures it here, too.
//! - Metadata is whatever the dialplan wrote, and need not be JSON: unknown texts are metadata, never an error.
//! - Audio may come first: the call starts with the first message of any kind.
//! - Two channels are the caller and the callee, sample by sample: the [inbound](Track::Inbound) and the
//!   [outbound](Track::Outbound) track. A mixture of both is inbound.
//! - A message may end inside a sample: the rest is kept for the next one.
//! - Each takes audio back in its own way, and only jambonz has marks: see [`Flavor`].

use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Map, Value};

use super::json::{self, Writer};
use super::{
    Codec, Command, CommandError, MediaFormat, Message, Packet, PeerError, PeerEvent, Start, Track, key,
};

/// Bytes of a sample.
const SAMPLE: usize = 2;

/// A module or verb that sends audio so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Flavor {
    /// `mod_audio_fork`: takes files of audio, stops them, and ends.
    AudioFork,
    /// The `listen` verb of jambonz, with streaming: takes binary audio and marks.
    Jambonz,
    /// `mod_audio_stream`: takes files of audio.
    AudioStream,
}

impl Flavor {
    /// Returns the subprotocol that the peer asks for, if it asks for one.
    #[must_use]
    pub const fn subprotocol(self) -> Option<&'static str> {
        match self {
            Flavor::AudioFork => Some("audio.drachtio.org"),
            Flavor::Jambonz => Some("audio.jambonz.org"),
            Flavor::AudioStream => None,
        }
    }
}

/// Options of the peer, as its operator has chosen them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForkOptions {
    /// Module or verb.
    pub flavor: Flavor,
    /// Rate of the audio, in hertz, unless the metadata has one.
    pub sample_rate: u32,
    /// Number of channels: two for the mix type `stereo`, otherwise one. Metadata may have another mix type.
    pub channels: Channels,
    /// Rate of the audio that the peer takes, in hertz, or `None` if it takes none.
    pub replies: Option<u32>,
}

/// Channels of the audio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Channels {
    /// One channel: the caller alone, or mixed with the callee.
    #[default]
    One,
    /// The caller and the callee.
    Two,
}

/// The codec of a connection.
#[derive(Debug)]
pub struct Fork {
    options: ForkOptions,
    /// Channels of the call, once it has started.
    started: Option<Channels>,
    /// The beginning of a sample of all channels, of which the rest is to come.
    rest: BytesMut,
}

impl Fork {
    /// Returns the codec of a new connection.
    #[must_use]
    pub fn new(options: ForkOptions) -> Fork {
        Fork { options, started: None, rest: BytesMut::new() }
    }

    fn text(&mut self, text: String, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        let values = match serde_json::from_str(&text) {
            Ok(Value::Object(values)) => values,
            _ => Map::from_iter([("text".to_owned(), Value::String(text))]),
        };
        let name = values.get("event").or_else(|| values.get("type")).and_then(Value::as_str);
        match name {
            Some("dtmf") => {
                self.start(Map::new(), events)?;
                let digit = values.get("dtmf").or_else(|| values.get("digit"));
                let digit = digit.and_then(Value::as_str).and_then(key);
                events.extend(digit.map(|digit| PeerEvent::Dtmf { track: Track::Inbound, digit }));
            }
            Some("mark") if self.options.flavor == Flavor::Jambonz => {
                self.start(Map::new(), events)?;
                let name = values.get("data").and_then(|data| data.get("name")).and_then(Value::as_str);
                events.extend(name.map(|name| PeerEvent::Mark(name.to_owned())));
            }
            _ if self.started.is_none() => self.start(values, events)?,
            _ => events.push(PeerEvent::Metadata(json::texts(values))),
        }
        Ok(())
    }

    /// Starts the call, if it has not started.
    fn start(&mut self, values: Map<String, Value>, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        if self.started.is_some() {
            return Ok(());
        }
        let rate = values.get("sampleRate").and_then(json::number);
        let rate = rate.unwrap_or(u64::from(self.options.sample_rate));
        let Some(rate) = u32::try_from(rate).ok().filter(|rate| (8_000..=192_000).contains(rate)) else {
            return Err(PeerError::Format(format!("L16 at {rate} Hz")));
        };
        let channels = match values.get("mixType").and_then(Value::as_str) {
            Some("stereo") => Channels::Two,
            Some("mono" | "mixed") => Channels::One,
            _ => self.options.channels,
        };
        self.started = Some(channels);
        let tracks = match channels {
            Channels::One => vec![Track::Inbound],
            Channels::Two => vec![Track::Inbound, Track::Outbound],
        };
        let call = ["callSid", "callId", "uuid"].into_iter().find_map(|name| values.get(name)?.as_str());
        events.push(PeerEvent::Started(Start {
            call: call.map(str::to_owned),
            stream: None,
            tracks,
            receives: MediaFormat::linear(rate),
            sends: self.options.replies.map(MediaFormat::linear),
            metadata: json::texts(values),
        }));
        Ok(())
    }

    fn audio(&mut self, audio: Bytes, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        self.start(Map::new(), events)?;
        let channels = self.started.unwrap_or_default();
        let frame = match channels {
            Channels::One => SAMPLE,
            Channels::Two => 2 * SAMPLE,
        };
        let whole = self.whole_frames(audio, frame);
        if whole.is_empty() {
            return Ok(());
        }
        match channels {
            Channels::One => events.push(PeerEvent::Audio(Packet::bare(Track::Inbound, whole))),
            Channels::Two => {
                let mut tracks = [Track::Inbound, Track::Outbound]
                    .map(|track| (track, BytesMut::with_capacity(whole.len() / 2)));
                for (index, sample) in whole.chunks_exact(SAMPLE).enumerate() {
                    tracks[index % 2].1.put_slice(sample);
                }
                let packet = |(track, samples): (_, BytesMut)| Packet::bare(track, samples.freeze());
                events.extend(tracks.map(packet).map(PeerEvent::Audio));
            }
        }
        Ok(())
    }

    /// Returns the audio in whole samples of all channels, after what was kept of the last message, and keeps
    /// what is left. Audio that is whole is not copied.
    fn whole_frames(&mut self, audio: Bytes, frame: usize) -> Bytes {
        let mut whole = if self.rest.is_empty() {
            audio
        } else {
            self.rest.extend_from_slice(&audio);
            self.rest.split().freeze()
        };
        let rest = whole.split_off(whole.len() - whole.len() % frame);
        self.rest = BytesMut::from(&rest[..]);
        whole
    }

    /// Writes audio as a file, which two of the three take it as.
    fn file(&self, audio: &[u8], rate: u32) -> Message {
        let message = Writer::with_payload(audio.len());
        let message = if self.options.flavor == Flavor::AudioStream {
            message
                .raw("{\"type\":\"streamAudio\",\"data\":{\"audioDataType\":\"raw\",\"sampleRate\":")
                .number(rate)
                .raw(",\"audioData\":")
        } else {
            message
                .raw("{\"type\":\"playAudio\",\"data\":{\"audioContentType\":\"raw\",\"sampleRate\":")
                .number(rate)
                .raw(",\"audioContent\":")
        };
        message.base64(audio).raw("}}").message()
    }
}

impl Codec for Fork {
    fn read(&mut self, message: Message, events: &mut Vec<PeerEvent>) -> Result<(), PeerError> {
        match message {
            Message::Text(text) => self.text(text, events),
            Message::Binary(audio) => self.audio(audio, events),
        }
    }

    fn write(&mut self, command: Command, messages: &mut Vec<Message>) -> Result<(), CommandError> {
        let flavor = self.options.flavor;
        if self.started.is_none() {
            return Err(CommandError::NotStarted);
        }
        let text = |json: &str| Writer::new().raw(json).message();
        match (command, flavor, self.options.replies) {
            (Command::Hangup, Flavor::AudioFork | Flavor::Jambonz, _) => {
                messages.push(text(r#"{"type":"disconnect","data":{}}"#));
            }
            (Command::Audio(audio), _, Some(_)) if audio.is_empty() => (),
            (Command::Audio(audio), Flavor::Jambonz, Some(_)) => messages.push(Message::Binary(audio)),
            (Command::Audio(audio), _, Some(rate)) => messages.push(self.file(&audio, rate)),
            (Command::Mark(name), Flavor::Jambonz, Some(_)) => {
                let mark = Writer::new().raw("{\"type\":\"mark\",\"data\":{\"name\":").text(&name).raw("}}");
                messages.push(mark.message());
            }
            (Command::Clear, Flavor::AudioFork, Some(_)) => messages.push(text(r#"{"type":"killAudio"}"#)),
            (Command::Clear, Flavor::Jambonz, Some(_)) => {
                messages.extend([text(r#"{"type":"killAudio"}"#), text(r#"{"type":"clearMarks"}"#)]);
            }
            _ => return Err(CommandError::Unsupported),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEREO: ForkOptions = ForkOptions {
        flavor: Flavor::AudioStream,
        sample_rate: 8_000,
        channels: Channels::Two,
        replies: None,
    };

    #[test]
    fn audio_that_is_whole_is_not_copied() {
        let mut fork = Fork::new(ForkOptions { channels: Channels::One, ..STEREO });
        let audio = Bytes::from(vec![1, 2, 3, 4]);
        let mut events = Vec::new();
        fork.read(Message::Binary(audio.clone()), &mut events).expect("audio");
        let Some(PeerEvent::Audio(packet)) = events.pop() else { panic!("audio expected") };
        assert_eq!(packet.payload.as_ptr(), audio.as_ptr());
    }

    #[test]
    fn what_is_kept_of_a_message_is_less_than_a_sample() {
        let mut fork = Fork::new(STEREO);
        for length in 1..50 {
            fork.read(Message::Binary(Bytes::from(vec![0; length])), &mut Vec::new()).expect("audio");
            assert!(fork.rest.len() < 4);
        }
    }
}
