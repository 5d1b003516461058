//! Protocols by which telephone systems send the audio of calls, a room for each.
//!
//! A [`Codec`] translates one connection of a peer. It has neither a socket nor a clock: a driver hands it
//! the peer's messages, and sends what it writes.
//!
//! # Rooms
//!
//! - [`twilio`]: Twilio Media Streams and its relatives at Telnyx, SignalWire, Plivo and Exotel.
//! - [`vonage`]: the WebSockets of Vonage's Voice API.
//! - [`audiosocket`]: Asterisk's AudioSocket.
//! - [`chan_websocket`]: Asterisk's channel driver for WebSockets.
//! - [`fork`]: the FreeSWITCH modules that fork audio, and jambonz's `listen`.
//! - `peer`: the list of them.
//! - `early`, `json`: what several of them need.

pub mod audiosocket;
pub mod chan_websocket;
mod early;
pub mod fork;
mod json;
mod peer;
pub mod twilio;
pub mod vonage;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;

pub use self::peer::Peer;
use voxline::audio::Encoding;

/// A translator between the messages of one connection and the events of a call.
pub trait Codec: Send + fmt::Debug {
    /// Reads a message of the peer, and appends the events that it completes. For a protocol on a plain TCP
    /// connection a message is a [binary](Message::Binary) piece of any length.
    ///
    /// # Errors
    /// Returns [`PeerError`] if the message breaks the protocol. The events before it are valid, and the
    /// connection is of no more use.
    fn read(&mut self, message: Message, events: &mut Vec<PeerEvent>) -> Result<(), PeerError>;

    /// Writes a command for the peer, and appends the messages that carry it.
    ///
    /// # Errors
    /// Returns [`CommandError`] if the peer can't do this, or can't do it yet. Nothing was appended.
    fn write(&mut self, command: Command, messages: &mut Vec<Message>) -> Result<(), CommandError>;
}

/// A message of a WebSocket, or a piece of a TCP stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// A text message.
    Text(String),
    /// A binary message, or a piece of a stream.
    Binary(Bytes),
}

/// Something that a peer tells about its call. Keys and values may concern callers, so `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerEvent {
    /// The call begins. It comes before all other events, once.
    Started(Start),
    /// Audio of a track.
    Audio(Packet),
    /// The audio that follows has another format than that of the start, in both directions. It comes before
    /// all audio, at most once.
    Format(MediaFormat),
    /// A key was pressed. Keys that no telephone has are left out.
    Dtmf {
        /// Track on which the key was heard.
        track: Track,
        /// The key: `0` to `9`, `*`, `#` or `A` to `D`.
        digit: char,
    },
    /// The peer has played all audio before the mark of this name. Some peers tell of marks that they
    /// cleared, too; others never do.
    Mark(String),
    /// The peer has no room for more audio until it says [`Resumed`](PeerEvent::Resumed).
    Paused,
    /// The peer has room for audio again.
    Resumed,
    /// Values that the peer sends along, or changes, during the call.
    Metadata(BTreeMap<String, String>),
    /// The peer ends the call. Nothing follows.
    Ended,
}

impl fmt::Debug for PeerEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PeerEvent::Started(start) => f.debug_tuple("Started").field(start).finish(),
            PeerEvent::Audio(packet) => f.debug_tuple("Audio").field(packet).finish(),
            PeerEvent::Format(format) => f.debug_tuple("Format").field(format).finish(),
            PeerEvent::Dtmf { track, .. } => {
                f.debug_struct("Dtmf").field("track", track).finish_non_exhaustive()
            }
            PeerEvent::Mark(name) => f.debug_tuple("Mark").field(name).finish(),
            PeerEvent::Paused => f.write_str("Paused"),
            PeerEvent::Resumed => f.write_str("Resumed"),
            PeerEvent::Metadata(values) => f.debug_tuple("Metadata").field(&values.keys()).finish(),
            PeerEvent::Ended => f.write_str("Ended"),
        }
    }
}

/// The beginning of a call.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// Identifier that the peer's system gives the call, if it names one.
    pub call: Option<String>,
    /// Identifier of this stream of the call, if the peer names one.
    pub stream: Option<String>,
    /// Tracks that the peer sends.
    pub tracks: Vec<Track>,
    /// Format of the audio that the peer sends.
    pub receives: MediaFormat,
    /// Format of the audio that the peer takes, or `None` if it takes none.
    pub sends: Option<MediaFormat>,
    /// Values that the operator's system sends along. They may concern callers, so `Debug` shows only their
    /// names.
    pub metadata: BTreeMap<String, String>,
}

impl fmt::Debug for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Start")
            .field("call", &self.call)
            .field("stream", &self.stream)
            .field("tracks", &self.tracks)
            .field("receives", &self.receives)
            .field("sends", &self.sends)
            .field("metadata", &self.metadata.keys())
            .finish()
    }
}

/// A direction of a call, as the peer names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Track {
    /// Audio that the telephone system hears from the far end: usually the customer.
    Inbound,
    /// Audio that the telephone system plays to the far end: usually the agent.
    Outbound,
}

impl Track {
    /// Returns the track that Twilio and its relatives call by this name.
    fn named(name: &str) -> Option<Track> {
        match name {
            "inbound" | "inbound_track" => Some(Track::Inbound),
            "outbound" | "outbound_track" => Some(Track::Outbound),
            _ => None,
        }
    }
}

/// Returns the key that a text names, or `None` if telephones have no such key.
fn key(text: &str) -> Option<char> {
    let mut letters = text.chars();
    let letter = letters.next()?.to_ascii_uppercase();
    (letters.next().is_none() && matches!(letter, '0'..='9' | '*' | '#' | 'A'..='D')).then_some(letter)
}

/// Format of the audio of one track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MediaFormat {
    /// Encoding of the payloads.
    pub encoding: MediaEncoding,
    /// Frames per second.
    pub sample_rate: u32,
}

impl MediaFormat {
    /// Linear samples as most peers send them: 16 bit, little-endian.
    const fn linear(sample_rate: u32) -> MediaFormat {
        MediaFormat { encoding: MediaEncoding::Pcm(Encoding::S16Le), sample_rate }
    }

    /// Returns the number of bytes of so many milliseconds, in whole samples; `None` for Opus, whose packets
    /// tell it by themselves.
    fn bytes_in(self, milliseconds: u32) -> Option<usize> {
        let MediaEncoding::Pcm(encoding) = self.encoding else { return None };
        let samples = u64::from(self.sample_rate) * u64::from(milliseconds) / 1_000;
        Some(samples as usize * encoding.bytes())
    }
}

/// G.711 mu-law at 8 kHz, the format of most telephone systems.
impl Default for MediaFormat {
    fn default() -> MediaFormat {
        MediaFormat { encoding: MediaEncoding::Pcm(Encoding::MuLaw), sample_rate: 8_000 }
    }
}

/// Encoding of the payloads of a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaEncoding {
    /// Samples by themselves: G.711 or linear.
    Pcm(Encoding),
    /// Opus, a packet per payload (RFC 7587).
    Opus,
}

/// Audio of a track with what the peer says about its place. `Debug` shows the length of the audio.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    /// Track that the audio belongs to.
    pub track: Track,
    /// Number of the packet in its track, counted by one, if the peer numbers them. The first may have any
    /// number.
    pub sequence: Option<u64>,
    /// Time of the first frame since some beginning, in milliseconds, if the peer tells it.
    pub timestamp: Option<u64>,
    /// Audio in the format of the [start](Start::receives), or of the [event](PeerEvent::Format) after it.
    pub payload: Bytes,
}

impl Packet {
    /// Returns audio without a number and a time, as protocols on a stream of bytes send it.
    fn bare(track: Track, payload: Bytes) -> Packet {
        Packet { track, sequence: None, timestamp: None, payload }
    }
}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packet")
            .field("track", &self.track)
            .field("sequence", &self.sequence)
            .field("timestamp", &self.timestamp)
            .field("bytes", &self.payload.len())
            .finish()
    }
}

/// A command for the peer of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Command {
    /// Plays audio, in the format that the peer [takes](Start::sends), after the audio sent before.
    Audio(Bytes),
    /// Asks for a [mark](PeerEvent::Mark) of this name when all audio before it has been played.
    Mark(String),
    /// Drops audio that has not been played.
    Clear,
    /// Takes the call, where the peer was told to leave that to us.
    Answer,
    /// Ends the call.
    Hangup,
}

/// A message that breaks its protocol.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// A text that is no JSON, or not that of the message. The parser's own description is left out, because
    /// it has values of the message.
    #[error("{message} of the peer is {problem} at column {column}")]
    Json {
        /// Name of the message.
        message: &'static str,
        /// Kind of the problem.
        problem: &'static str,
        /// Column at which the parser stopped, counted from one.
        column: usize,
    },
    /// A message that makes no sense: which, and why.
    #[error("{message} of the peer: {reason}")]
    Message {
        /// Name of the message.
        message: &'static str,
        /// The expected and the actual value.
        reason: String,
    },
    /// A format of audio that voxline does not decode.
    #[error("audio of the peer is in {0}, which is not supported: expected {SUPPORTED}")]
    Format(String),
}

/// Formats that [`PeerError::Format`] names.
const SUPPORTED: &str = "mu-law, A-law, linear 16 bit or Opus";

/// A command that can't be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// The protocol has no message for it.
    #[error("the peer of this call can't do that")]
    Unsupported,
    /// The call has not started.
    #[error("the call has not started")]
    NotStarted,
    /// The peer takes no mark of this name.
    #[error("the peer of this call takes no mark of this name: expected a shorter one, on one line")]
    Name,
}
