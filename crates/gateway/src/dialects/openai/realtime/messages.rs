//! Events of the client.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::bad_event::BadEvent;
use super::settings::Generation;

/// Base64 as clients write it, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Longest event with settings, in bytes: they are kept as long as the connection.
const MAX_UPDATE: usize = 64 * 1024;

/// An event of the client.
#[derive(Debug, PartialEq)]
pub(crate) struct ClientEvent {
    /// Id that the client gave the event, which an error repeats.
    pub(super) id: Option<String>,
    pub(super) request: Result<Request, BadEvent>,
}

/// A request of the client.
#[derive(Debug, PartialEq)]
pub(crate) enum Request {
    Update(Generation, Value),
    Append(Bytes),
    Commit,
    Clear,
}

/// Any event of a client. Fields that an event doesn't have are ignored.
#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: Option<Value>,
    event_id: Option<Value>,
    audio: Option<Value>,
    session: Option<Value>,
}

/// Parses a message.
pub(crate) fn parse(text: &str) -> ClientEvent {
    let Envelope { kind, event_id, audio, session } = match serde_json::from_str(text) {
        Ok(envelope) => envelope,
        Err(error) => {
            let message = format!("The event is no JSON object: {error}.");
            let bad = BadEvent { code: "invalid_json", message, param: None };
            return ClientEvent { id: None, request: Err(bad) };
        }
    };
    // A client must not decide how long answers are.
    let id = event_id.as_ref().and_then(Value::as_str).filter(|id| id.len() <= 512).map(str::to_owned);
    let request = match kind.as_ref().and_then(Value::as_str) {
        Some("session.update" | "transcription_session.update") if text.len() > MAX_UPDATE => {
            Err(BadEvent::invalid("session", format!("'session' is longer than {MAX_UPDATE} bytes.")))
        }
        Some("session.update") => update(Generation::Current, session),
        Some("transcription_session.update") => update(Generation::Beta, session),
        Some("input_audio_buffer.append") => append(audio),
        Some("input_audio_buffer.commit") => Ok(Request::Commit),
        Some("input_audio_buffer.clear") => Ok(Request::Clear),
        _ => Err(match &kind {
            Some(kind) => BadEvent::value(
                "type",
                kind,
                "session.update, transcription_session.update, input_audio_buffer.append, \
                 input_audio_buffer.commit or input_audio_buffer.clear",
            ),
            None => BadEvent::missing("type"),
        }),
    };
    ClientEvent { id, request }
}

fn update(generation: Generation, session: Option<Value>) -> Result<Request, BadEvent> {
    session.map(|session| Request::Update(generation, session)).ok_or_else(|| BadEvent::missing("session"))
}

fn append(audio: Option<Value>) -> Result<Request, BadEvent> {
    let audio = audio.ok_or_else(|| BadEvent::missing("audio"))?;
    let Value::String(audio) = audio else { return Err(BadEvent::value("audio", &audio, "base64")) };
    let decoded = BASE64.decode(audio.as_bytes());
    let decoded =
        decoded.map_err(|error| BadEvent::invalid("audio", format!("'audio' is no base64: {error}.")))?;
    Ok(Request::Append(decoded.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(text: &str) -> Result<Request, BadEvent> {
        parse(text).request
    }

    #[test]
    fn events_are_read_as_clients_write_them() {
        let update = parse(r#"{"type":"session.update","event_id":"e1","session":{"type":"transcription"}}"#);
        assert_eq!(update.id.as_deref(), Some("e1"));
        let session = json!({ "type": "transcription" });
        assert_eq!(update.request, Ok(Request::Update(Generation::Current, session)));
        let beta = r#"{"type":"transcription_session.update","session":{}}"#;
        assert_eq!(request(beta), Ok(Request::Update(Generation::Beta, json!({}))));
        // With padding, without, and with a slash that is escaped.
        for audio in ["AAH/", r"AAH\/"] {
            let append = format!(r#"{{"type":"input_audio_buffer.append","audio":"{audio}"}}"#);
            assert_eq!(request(&append), Ok(Request::Append(Bytes::from_static(&[0, 1, 0xFF]))));
        }
        for audio in ["AAE=", "AAE"] {
            let append = format!(r#"{{"type":"input_audio_buffer.append","audio":"{audio}"}}"#);
            assert_eq!(request(&append), Ok(Request::Append(Bytes::from_static(&[0, 1]))));
        }
        assert_eq!(request(r#"{"type":"input_audio_buffer.commit"}"#), Ok(Request::Commit));
        assert_eq!(request(r#"{"type":"input_audio_buffer.clear","event_id":7}"#), Ok(Request::Clear));
    }

    #[test]
    fn what_makes_no_sense_is_told_with_its_field() {
        for (text, code, param) in [
            ("", "invalid_json", None),
            ("[]", "invalid_json", None),
            ("{}", "missing_required_parameter", Some("type")),
            (r#"{"type":7}"#, "invalid_value", Some("type")),
            (r#"{"type":"response.create"}"#, "invalid_value", Some("type")),
            (r#"{"type":"session.update"}"#, "missing_required_parameter", Some("session")),
            (r#"{"type":"input_audio_buffer.append"}"#, "missing_required_parameter", Some("audio")),
            (r#"{"type":"input_audio_buffer.append","audio":[1]}"#, "invalid_value", Some("audio")),
            (r#"{"type":"input_audio_buffer.append","audio":"no base64"}"#, "invalid_value", Some("audio")),
        ] {
            let bad = request(text).expect_err(text);
            assert_eq!((bad.code, bad.param.as_deref()), (code, param), "{text}");
        }
        let large = format!(r#"{{"type":"session.update","session":"{}"}}"#, "x".repeat(MAX_UPDATE));
        assert_eq!(request(&large).unwrap_err().param.as_deref(), Some("session"));
        let long = format!(r#"{{"type":"{}","event_id":"{}"}}"#, "x".repeat(10_000), "y".repeat(10_000));
        let event = parse(&long);
        assert!(event.id.is_none() && event.request.unwrap_err().message.len() < 400);
    }
}
