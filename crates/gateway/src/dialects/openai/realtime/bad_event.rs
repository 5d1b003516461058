//! Errors of events, and the event that tells an error.

use serde_json::{Value, json};

/// Longest part of a client's value that an error repeats, in characters.
const SHOWN: usize = 60;

/// Error of an event, which the session survives.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BadEvent {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) param: Option<String>,
}

impl BadEvent {
    /// Returns the error of a field whose value can't be used.
    pub(super) fn invalid(param: &str, message: String) -> BadEvent {
        BadEvent { code: "invalid_value", message, param: Some(param.to_owned()) }
    }

    /// Returns the error of a field whose value is not as `expected`.
    pub(super) fn value(param: &str, value: &Value, expected: &str) -> BadEvent {
        let shown = value.to_string();
        let shown: String = shown.chars().take(SHOWN).collect();
        BadEvent::invalid(param, format!("Invalid value for '{param}': {shown}. Expected {expected}."))
    }

    pub(super) fn missing(param: &str) -> BadEvent {
        let message = format!("Missing required parameter: '{param}'.");
        BadEvent { code: "missing_required_parameter", message, param: Some(param.to_owned()) }
    }

    /// Returns the error of settings that the recogniser doesn't support.
    pub(super) fn unsupported(message: String) -> BadEvent {
        BadEvent { code: "invalid_value", message, param: Some("session".to_owned()) }
    }

    /// Returns the error of a message that is no text.
    pub(super) fn binary() -> BadEvent {
        let message = "Binary messages are not supported: audio comes as base64.".to_owned();
        BadEvent { code: "invalid_value", message, param: None }
    }

    /// Returns the error of audio that is longer than this.
    pub(super) fn long_audio(seconds: usize) -> BadEvent {
        BadEvent::invalid("audio", format!("'audio' is longer than {seconds} seconds."))
    }

    /// Returns the error of a commit without audio.
    pub(super) fn empty_commit() -> BadEvent {
        let message = "Error committing input audio buffer: the buffer is empty.".to_owned();
        BadEvent { code: "input_audio_buffer_commit_empty", message, param: None }
    }
}

/// Returns the event of an error. `of` is the client's event that it concerns.
pub(super) fn error(
    kind: &str,
    code: Option<&str>,
    message: &str,
    param: Option<&str>,
    of: Option<&str>,
) -> Value {
    json!({
        "type": "error",
        "error": { "type": kind, "code": code, "message": message, "param": param, "event_id": of },
    })
}
