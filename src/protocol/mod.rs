//! Messages of the resumable speech protocol, version 1, on a WebSocket.
//!
//! Text frames are JSON objects with a `type`. A binary frame is audio, preceded by the position of its
//! first frame. docs/protocol.md specifies the whole protocol.

pub mod close;
mod request;
pub mod tts;
mod violation;
pub mod vosk;

use std::fmt;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize};

use crate::audio::{AudioChunk, FRAME_BYTES, FramePos, FrameRange};
use crate::transcript::Word;

pub use request::{
    Accuracy, HintError, Latency, MAX_KEYWORD_BYTES, MAX_KEYWORDS, MAX_PROMPT_BYTES, Start, Task,
    UnknownName, check_hints,
};
pub use violation::Violation;

/// The WebSocket subprotocol that both ends must name.
pub const SUBPROTOCOL: &str = "voxline.asr.v1";

/// Prefix of the token that a browser offers as a second subprotocol, since a browser can't set
/// `Authorization`.
pub const BEARER_PREFIX: &str = "voxline.bearer.";

/// Path of the streaming endpoint.
pub const PATH: &str = "/asr_stream/ws";
/// Query parameter of that path: the name of the session that the socket is to resume. The parameter is
/// optional, but a full gateway takes a socket without it for a new session.
pub const SESSION_PARAMETER: &str = "session";

/// Longest name of a session, in bytes. It is part of the address at which the session is resumed.
pub const MAX_SESSION_NAME: usize = 1_024;

/// Longest `context` of `start` and `final`, in bytes of UTF-8. Both ends keep a context for every
/// session, so it must stay small; a language and some hundred words of preceding text fit.
pub const MAX_CONTEXT_BYTES: usize = 4 * 1024;

/// Bytes before the PCM of an audio frame: the position, a little-endian `u64`.
pub(crate) const POSITION_BYTES: usize = 8;

/// A message from the client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ClientMessage {
    /// Request to open a session.
    Start(Start),
    /// Request to take over a session whose socket was lost or is about to be closed.
    Resume {
        /// Name of the session, from [`ServerMessage::Ready`].
        session: String,
        /// Proof that the session belongs to this client, from [`ServerMessage::Ready`].
        resume_key: Secret,
        /// Number of finals of this session that the client has; the server sends the later ones again.
        finals_seen: u64,
    },
    /// Notice that frames were dropped on purpose: the timeline continues after them.
    Gap {
        /// Next position that the server expects.
        from: FramePos,
        /// Position at which audio continues.
        to: FramePos,
    },
    /// A fresh token of the same project, which the socket uses from then on.
    Auth {
        /// The token, without an authentication scheme before it.
        access_token: Secret,
    },
    /// Request to end the utterance now.
    Flush {
        /// Position at which the utterance ends. A server that has audio beyond this position has
        /// received the flush before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<FramePos>,
    },
    /// Notice that no audio follows.
    Finish {
        /// Position after the last frame.
        through: FramePos,
    },
    /// A message of a later version, which a server of this version can safely ignore.
    #[serde(other)]
    Unknown,
}

/// Deserialises a value, reading `null` as absent.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A message from the server.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ServerMessage {
    /// Answer to `start` and `resume`.
    Ready(Ready),
    /// Progress of the server. Neither cursor ever decreases.
    Ack {
        /// Position up to which the live session holds the audio.
        received: FramePos,
        /// Position up to which the audio is covered by finals.
        #[serde(rename = "final")]
        final_: FramePos,
    },
    /// A partial result, which may still change.
    Partial {
        /// Index that the final of this segment will have.
        segment: u64,
        /// Revision of the partial result, increasing within a segment.
        revision: u64,
        /// Start of the segment.
        start: FramePos,
        /// End of the audio that the partial result covers.
        end: FramePos,
        /// Text of the partial result.
        text: String,
    },
    /// A final result, which will not change.
    Final(Final),
    /// Answer to `finish`, once everything is final.
    Done {
        /// Position after the last frame.
        frames: FramePos,
        /// Number of finals of the session.
        finals: u64,
    },
    /// Confirmation that the token from `auth` is in force.
    AuthOk {
        /// Remaining lifetime of the token in milliseconds; absent if the token doesn't expire.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        token_expires_in_ms: Option<u64>,
    },
    /// Notice that this socket will close, so the session should move to another.
    Goaway {
        /// Reason of the close.
        reason: GoawayReason,
        /// Time for which the socket still serves, in milliseconds.
        deadline_ms: u64,
        /// True if the session can't be resumed elsewhere: the client should start a new one at its
        /// `final` while this socket still works.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "is_false")]
        restart: bool,
        /// Base addresses of servers that take the session, in order of preference; empty for the service
        /// at the address that the client knows.
        #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
        endpoints: Vec<String>,
    },
    /// An error, followed by a close.
    Error {
        /// Code of the error: a code of the HTTP API or a close code.
        code: u32,
        /// Description of the error.
        message: String,
    },
    /// A message of a later version, which a client of this version can safely ignore.
    #[serde(other)]
    Unknown,
}

/// The reason why a socket will close.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GoawayReason {
    /// Shutdown of the server.
    Drain,
    /// End of the token.
    Token,
    /// A limit on the socket that is nearly reached.
    Limit,
    /// A reason of a later version.
    #[serde(other)]
    Other,
}

/// The state of a session when the server opens or resumes it.
///
/// ```
/// use std::time::Duration;
/// use voxline::audio::FramePos;
/// use voxline::protocol::Ready;
///
/// // A session of 16,000 frames per second: messages of 0.2 s, and two seconds on the way.
/// let ready = Ready::new(FramePos::ZERO, 3_200, 32_000);
/// assert!(ready.session.is_empty());
/// // The same, of a service that can resume the session within a minute.
/// let ready = ready.resumable("name", "key".to_owned().into(), Duration::from_secs(60));
/// assert_eq!(ready.resume_window_ms, 60_000);
/// ```
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ready {
    /// Name of the session.
    pub session: String,
    /// Key that, together with the token, authorises a later socket to take over the session.
    pub resume_key: Secret,
    /// Time for which the session outlives its socket, in milliseconds.
    pub resume_window_ms: u64,
    /// Next position that the server expects.
    pub received: FramePos,
    /// Position up to which the audio is covered by finals.
    #[serde(rename = "final")]
    pub final_: FramePos,
    /// Number of finals of the session.
    pub finals: u64,
    /// Remaining lifetime of the token in milliseconds; absent if the token doesn't expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_expires_in_ms: Option<u64>,
    /// Longest binary frame that the server takes, in bytes, position included.
    pub max_audio_bytes: usize,
    /// Number of frames by which `sent` may run ahead of `received`.
    pub window_frames: u64,
    /// True if this socket accepts `auth`. A proxy that checks tokens at the handshake doesn't see `auth`
    /// messages.
    #[serde(default, deserialize_with = "or_default")]
    pub auth: bool,
    /// Greatest amount of audio after `final` that the server may hold while it waits for more, in
    /// frames. With a client that can't keep so much, the client would wait for a final, and the server
    /// for audio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unfinal_frames: Option<u64>,
    /// Task of the session. A server of an earlier version, which knows no tasks, only transcribes.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Task::is_transcribe")]
    pub task: Task,
}

impl Ready {
    /// Creates the answer to a `start` with this `origin`, of a service whose sessions end with their
    /// connections. Its messages of audio have at most `message_frames` frames, and `window_frames` frames
    /// may be on the way. The token has no known end, and no other is taken on this connection.
    #[must_use]
    pub fn new(origin: FramePos, message_frames: usize, window_frames: u64) -> Ready {
        Ready {
            session: String::new(),
            resume_key: Secret::from(String::new()),
            resume_window_ms: 0,
            received: origin,
            final_: origin,
            finals: 0,
            token_expires_in_ms: None,
            max_audio_bytes: POSITION_BYTES.saturating_add(FRAME_BYTES.saturating_mul(message_frames)),
            window_frames,
            auth: false,
            max_unfinal_frames: None,
            task: Task::Transcribe,
        }
    }

    /// Names the session, and the key with which it can be resumed within `window` after its connection was
    /// lost.
    #[must_use]
    pub fn resumable(self, session: impl Into<String>, resume_key: Secret, window: Duration) -> Ready {
        let resume_window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        Ready { session: session.into(), resume_key, resume_window_ms, ..self }
    }

    /// Sets the progress of a session that is resumed: its cursors and its number of finals.
    #[must_use]
    pub fn resumed_at(self, received: FramePos, final_: FramePos, finals: u64) -> Ready {
        Ready { received, final_, finals, ..self }
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}

/// A final result on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Final {
    /// Index of the final, from 0 in each server session.
    pub index: u64,
    /// First frame of the segment: the `end` of the previous final, or of a gap after it.
    pub start: FramePos,
    /// The frame after the last one of the segment.
    pub end: FramePos,
    /// Text of the segment; may be empty.
    pub text: String,
    /// Language in which the segment was recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Confidence of the recogniser, 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<f32>,
    /// Words of the segment, if the recogniser reports them.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub words: Vec<Word>,
    /// State on which the text after `end` depends besides its audio, opaque to all but the recogniser,
    /// up to [`MAX_CONTEXT_BYTES`]. A client that starts a new session at `end` hands back the latest
    /// context with `start`. If absent, the previous context stays in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

impl Final {
    /// Creates a final result without language, confidence, words and context.
    #[must_use]
    pub fn new(index: u64, range: FrameRange, text: impl Into<String>) -> Final {
        Final {
            index,
            start: range.start,
            end: range.end,
            text: text.into(),
            language: None,
            confidence: None,
            words: Vec::new(),
            context: None,
        }
    }
}

/// A string that is serialised but never printed by `Debug`.
#[derive(Clone)]
pub struct Secret(SecretString);

impl Secret {
    /// Returns the string.
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

/// Encodes `chunk` as a binary frame.
#[must_use]
pub fn encode_audio(chunk: &AudioChunk) -> Bytes {
    let mut frame = BytesMut::with_capacity(POSITION_BYTES + chunk.payload().len());
    frame.put_u64_le(chunk.range().start.0);
    frame.put_slice(chunk.payload());
    frame.freeze()
}

/// Decodes a binary frame. The payload of the chunk shares the memory of the frame.
///
/// # Errors
/// Returns [`AudioFrameError`] if the frame is too short for its position, has no whole number of samples
/// or none at all, or goes past the last possible position.
pub fn decode_audio(frame: &Bytes) -> Result<AudioChunk, AudioFrameError> {
    let (position, payload) =
        frame.split_at_checked(POSITION_BYTES).ok_or(AudioFrameError::Short(frame.len()))?;
    if payload.is_empty() || !payload.len().is_multiple_of(FRAME_BYTES) {
        return Err(AudioFrameError::Payload(payload.len()));
    }
    let start = u64::from_le_bytes(position.try_into().expect("split at eight bytes"));
    let end =
        start.checked_add((payload.len() / FRAME_BYTES) as u64).ok_or(AudioFrameError::Position(start))?;
    Ok(AudioChunk::new(FramePos(start).to(FramePos(end)), frame.slice(POSITION_BYTES..)))
}

/// The reason why a binary frame is not audio. A server closes the session with
/// [`PROTOCOL`](close::PROTOCOL).
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AudioFrameError {
    /// A frame too short for the position.
    #[error("audio frame of {0} bytes has no position, which takes 8")]
    Short(usize),
    /// A payload that is empty or ends with half a sample.
    #[error("audio frame carries {0} bytes of PCM, which is not a positive number of 16-bit samples")]
    Payload(usize),
    /// A frame whose end exceeds the last possible position.
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
        assert_eq!(refused(&[0; 7]), AudioFrameError::Short(7));
        assert_eq!(refused(&[0; 8]), AudioFrameError::Payload(0));
        assert_eq!(refused(&[0; 11]), AudioFrameError::Payload(3));
        assert_eq!(refused(&[0xff; 12]), AudioFrameError::Position(u64::MAX));
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
        let start = r#"{"type":"start","sample_rate":16000,"task":"rhyme","accuracy":"finest"}"#;
        let ClientMessage::Start(start) = serde_json::from_str(start).unwrap() else { panic!("not a start") };
        assert_eq!((start.task, start.accuracy), (Task::Unknown, Accuracy::Balanced));
    }

    #[test]
    fn a_request_without_hints_is_that_of_the_first_version() {
        let message = |start| serde_json::to_string(&ClientMessage::Start(start)).unwrap();
        let plain = r#"{"type":"start","sample_rate":16000,"partials":true,"origin":0}"#;
        assert_eq!(message(Start::new(16_000)), plain);
        let hinted = Start {
            task: Task::Translate,
            prompt: Some("Dear Sir,".to_owned()),
            keywords: vec!["Voxline".to_owned()],
            accuracy: Accuracy::Best,
            ..Start::new(16_000)
        };
        let expected = r#"{"type":"start","sample_rate":16000,"partials":true,"task":"translate","prompt":"Dear Sir,","keywords":["Voxline"],"accuracy":"best","origin":0}"#;
        assert_eq!(message(hinted), expected);
    }

    #[test]
    fn null_means_absent() {
        let start = r#"{"type":"start","sample_rate":16000,"language":null,"partials":null,"latency":null,
            "task":null,"prompt":null,"keywords":null,"accuracy":null,"origin":null,"context":null}"#;
        let ClientMessage::Start(start) = serde_json::from_str(start).unwrap() else { panic!("not a start") };
        assert!(start.partials && start.origin == FramePos::ZERO && start.context.is_none());
        assert!(start.task == Task::Transcribe && start.prompt.is_none() && start.keywords.is_empty());
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
