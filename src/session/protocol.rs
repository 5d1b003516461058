//! The resumable speech stream, version 1: what travels on the WebSocket.
//!
//! Text frames are JSON objects with a `type`; a binary frame is audio, with the position of its first frame in front.
//! docs/protocol.md tells the whole protocol.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};

use crate::audio::{AudioChunk, FRAME_BYTES, FramePos};
use crate::transcript::Word;

/// The WebSocket subprotocol both ends must name.
pub const SUBPROTOCOL: &str = "voxline.asr.v1";

/// What a browser puts in front of its token, and offers as a second subprotocol: it can't set `Authorization`.
pub const BEARER_PREFIX: &str = "voxline.bearer.";

/// The path of the endpoint.
pub const PATH: &str = "/asr_stream/ws";
/// In the query of that path: the name of the session that the socket is to resume. It may be left out, but a full gateway
/// then takes it for a new one.
pub const SESSION_PARAMETER: &str = "session";

/// The longest `context` of `start` and `final`, in bytes of UTF-8: it is kept by both ends for every
/// session, so it must stay small, and a language with some hundred words of text before fits.
pub const MAX_CONTEXT_BYTES: usize = 4 * 1024;

/// Bytes in front of the PCM of an audio frame: the position, `u64` little-endian.
pub(super) const POSITION_BYTES: usize = 8;

/// What a client says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// Opens a session.
    Start(Start),
    /// Takes over a session whose socket died, or is about to be retired.
    Resume {
        /// The session's name, from [`ServerMessage::Ready`].
        session: String,
        /// The proof that it is ours, from the same.
        resume_key: Secret,
        /// How many finals of this session arrived; the server sends the later ones again.
        finals_seen: u64,
    },
    /// These frames were dropped on purpose: the timeline goes on behind them.
    Gap {
        /// The next position that the server expects.
        from: FramePos,
        /// Where audio goes on.
        to: FramePos,
    },
    /// A fresh token of the same project: the socket lives on under it.
    Auth {
        /// The token, without a scheme in front.
        access_token: Secret,
    },
    /// Ends the utterance now.
    Flush {
        /// Behind which frame. A server that has more than that has heard this flush before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<FramePos>,
    },
    /// No audio follows.
    Finish {
        /// The position after the last frame.
        through: FramePos,
    },
    /// A message of a later version: it says nothing that this one must know.
    #[serde(other)]
    Unknown,
}

/// How soon a client wants its results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Latency {
    /// Somebody may wait for the text: live speech goes first where there is not enough computing time for
    /// all.
    Relaxed,
    /// Somebody does. What a later version says is taken for this.
    #[default]
    #[serde(other)]
    Live,
}

impl Latency {
    fn is_live(&self) -> bool {
        *self == Latency::Live
    }
}

/// What opens a session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// Frames per second of the session stream.
    pub sample_rate: u32,
    /// The language spoken, as a BCP 47 code; detected where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Whether partial results are wanted.
    #[serde(default = "yes", deserialize_with = "or_yes")]
    pub partials: bool,
    /// How soon results are wanted.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Latency::is_live")]
    pub latency: Latency,
    /// Where the session's timeline starts.
    #[serde(default, deserialize_with = "or_default")]
    pub origin: FramePos,
    /// The context in force at `origin`, as an earlier session's finals brought it: see [`Final::context`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

fn yes() -> bool {
    true
}

/// Reads a value whose `null` means that it is absent.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

fn or_yes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::deserialize(deserializer).map(|value| value.unwrap_or(true))
}

/// What a server says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// The answer to `start` and `resume`.
    Ready(Ready),
    /// How far the server is; both cursors only grow.
    Ack {
        /// Held by the live session.
        received: FramePos,
        /// Covered by finals.
        #[serde(rename = "final")]
        final_: FramePos,
    },
    /// A guess that may still change.
    Partial {
        /// The index its final will have.
        segment: u64,
        /// Counts the guesses at this segment.
        revision: u64,
        /// Where it begins.
        start: FramePos,
        /// Where it ends.
        end: FramePos,
        /// The guess.
        text: String,
    },
    /// Committed.
    Final(Final),
    /// After `finish`: everything is final.
    Done {
        /// The position after the last frame.
        frames: FramePos,
        /// How many finals the session has.
        finals: u64,
    },
    /// The token from `auth` is in force.
    AuthOk {
        /// How long it lives; absent where it doesn't end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_expires_in_ms: Option<u64>,
    },
    /// This socket will close: the session should move to another.
    Goaway {
        /// Why.
        reason: GoawayReason,
        /// How long the socket still serves.
        deadline_ms: u64,
        /// Whether the session can't be resumed elsewhere: the client should start one at its `final`, while
        /// this socket still works.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_false")]
        restart: bool,
        /// Base addresses of servers that take it, in order of preference; none: the service as the client
        /// knows it.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        endpoints: Vec<String>,
    },
    /// Something is wrong; a close follows.
    Error {
        /// What, as a number of the HTTP API or a close code.
        code: u32,
        /// What, in words.
        message: String,
    },
    /// A message of a later version: it says nothing that this one must know.
    #[serde(other)]
    Unknown,
}

/// Why a socket will close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GoawayReason {
    /// The server stops.
    Drain,
    /// The token ends.
    Token,
    /// A limit on the socket is near.
    Limit,
    /// A reason of a later version.
    #[serde(other)]
    Other,
}

/// The state of a session, as the server opens or resumes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The session's name.
    pub session: String,
    /// What proves, together with the token, that a later socket may take it over.
    pub resume_key: Secret,
    /// How long the session outlives its socket.
    pub resume_window_ms: u64,
    /// The next position the server expects.
    pub received: FramePos,
    /// Covered by finals.
    #[serde(rename = "final")]
    pub final_: FramePos,
    /// How many finals there are.
    pub finals: u64,
    /// How long the token lives; absent where it doesn't end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_expires_in_ms: Option<u64>,
    /// The longest binary frame the server takes, position included.
    pub max_audio_bytes: usize,
    /// How far `sent` may run ahead of `received`.
    pub window_frames: u64,
    /// Whether `auth` is understood on this socket. A proxy that checks tokens at the handshake doesn't see it.
    #[serde(default, deserialize_with = "or_default")]
    pub auth: bool,
    /// The most audio behind `final` that the server may hold while it waits for more: a client that can't
    /// keep so much would wait for a final, and the server for audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unfinal_frames: Option<u64>,
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// A committed segment on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Final {
    /// Counts from 0 in each server session.
    pub index: u64,
    /// Equals the previous `end`.
    pub start: FramePos,
    /// The frame after its last.
    pub end: FramePos,
    /// What was said; may be empty.
    pub text: String,
    /// The language it was recognised in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// How sure the recogniser is, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// Its words, where the recogniser tells them apart.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
    /// Whatever the text behind `end` depends on besides its audio, in a form that only the recogniser knows,
    /// up to [`MAX_CONTEXT_BYTES`]. The client hands the latest back with `start` when it begins anew at
    /// `end`. Where there is none, the one before stays in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// A string that travels but never prints itself.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// The string.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.expose())
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::from)
    }
}

/// The binary frame that carries `chunk`.
#[must_use]
pub fn encode_audio(chunk: &AudioChunk) -> Bytes {
    let mut frame = BytesMut::with_capacity(POSITION_BYTES + chunk.payload().len());
    frame.put_u64_le(chunk.range().start.0);
    frame.put_slice(chunk.payload());
    frame.freeze()
}

/// The chunk in a binary frame; the payload shares the frame's memory.
///
/// # Errors
/// For a frame too short for its position, with half a sample, or past the end of all positions.
pub fn decode_audio(frame: &Bytes) -> Result<AudioChunk, BadAudioFrame> {
    let (position, payload) =
        frame.split_at_checked(POSITION_BYTES).ok_or(BadAudioFrame::Short(frame.len()))?;
    if payload.is_empty() || !payload.len().is_multiple_of(FRAME_BYTES) {
        return Err(BadAudioFrame::Payload(payload.len()));
    }
    let start = u64::from_le_bytes(position.try_into().expect("split at eight bytes"));
    let end =
        start.checked_add((payload.len() / FRAME_BYTES) as u64).ok_or(BadAudioFrame::Position(start))?;
    Ok(AudioChunk::new(FramePos(start).to(FramePos(end)), frame.slice(POSITION_BYTES..)))
}

/// Why a binary frame is not audio.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadAudioFrame {
    /// No room for the position.
    #[error("audio frame of {0} bytes has no position, which takes 8")]
    Short(usize),
    /// Nothing, or half a sample.
    #[error("audio frame carries {0} bytes of PCM, which is not a positive number of 16-bit samples")]
    Payload(usize),
    /// The last frame has no position.
    #[error("audio frame starts at {0}, too near the end of all positions")]
    Position(u64),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_survives_the_wire() {
        let chunk = AudioChunk::new(FramePos(7).to(FramePos(9)), Bytes::from_static(&[1, 2, 3, 4]));
        assert_eq!(decode_audio(&encode_audio(&chunk)), Ok(chunk));
    }

    #[test]
    fn malformed_audio_is_refused() {
        let refused = |bytes: &[u8]| decode_audio(&Bytes::copy_from_slice(bytes)).unwrap_err();
        assert_eq!(refused(&[0; 7]), BadAudioFrame::Short(7));
        assert_eq!(refused(&[0; 8]), BadAudioFrame::Payload(0));
        assert_eq!(refused(&[0; 11]), BadAudioFrame::Payload(3));
        assert_eq!(refused(&[0xff; 12]), BadAudioFrame::Position(u64::MAX));
    }

    #[test]
    fn messages_have_the_documented_shape() {
        let start = r#"{"type":"start","sample_rate":16000}"#;
        let ClientMessage::Start(start) = serde_json::from_str(start).unwrap() else { panic!("not a start") };
        assert!(start.partials && start.origin == FramePos::ZERO && start.language.is_none());
        let ack = ServerMessage::Ack { received: FramePos(5), final_: FramePos(3) };
        assert_eq!(serde_json::to_string(&ack).unwrap(), r#"{"type":"ack","received":5,"final":3}"#);
    }

    #[test]
    fn a_message_of_a_later_version_is_no_error() {
        let message = r#"{"type":"weather","deadline_ms":5}"#;
        assert!(matches!(serde_json::from_str(message), Ok(ServerMessage::Unknown)));
        assert!(matches!(serde_json::from_str(message), Ok(ClientMessage::Unknown)));
        let start = r#"{"type":"start","sample_rate":16000,"latency":"yesterday","mood":[1,{"a":2}]}"#;
        let ClientMessage::Start(start) = serde_json::from_str(start).unwrap() else { panic!("not a start") };
        assert_eq!(start.latency, Latency::Live);
    }

    #[test]
    fn null_means_absent() {
        let start = r#"{"type":"start","sample_rate":16000,"language":null,"partials":null,"latency":null,
            "origin":null,"context":null}"#;
        let ClientMessage::Start(start) = serde_json::from_str(start).unwrap() else { panic!("not a start") };
        assert!(start.partials && start.origin == FramePos::ZERO && start.context.is_none());
        let goaway = r#"{"type":"goaway","reason":"drain","deadline_ms":1,"restart":null,"endpoints":null}"#;
        let goaway = serde_json::from_str(goaway).unwrap();
        assert!(
            matches!(goaway, ServerMessage::Goaway { restart: false, endpoints, .. } if endpoints.is_empty())
        );
    }

    #[test]
    fn secrets_do_not_print() {
        let resume_key = Secret::from("canary".to_owned());
        let message = ClientMessage::Resume { session: "s".to_owned(), resume_key, finals_seen: 0 };
        assert!(!format!("{message:?}").contains("canary"));
        assert!(serde_json::to_string(&message).unwrap().contains("canary"));
    }
}
