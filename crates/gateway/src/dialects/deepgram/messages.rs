//! Messages of the live protocol.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::authority::new_id;
use crate::sessions::plain_text::plain;
use voxline::audio::FramePos;
use voxline::protocol::Final;
use voxline::transcript::Word;
use voxline_support::hex;

/// Most characters of a message that an error repeats.
const MAX_SHOWN: usize = 200;

/// A text message of the client.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "type")]
pub(crate) enum Request {
    /// A sign of life.
    KeepAlive,
    /// A request for final results of all audio so far.
    Finalize {
        /// The channel that is meant; all if absent.
        #[serde(default)]
        channel: Option<usize>,
    },
    /// The end of the audio.
    CloseStream,
    /// Other settings from here on.
    Configure {
        #[serde(default)]
        keyterms: Option<Vec<String>>,
    },
}

/// Parses a text message.
///
/// # Errors
/// Returns the message about a text that is none.
pub(crate) fn parse(text: &str) -> Result<Request, Value> {
    serde_json::from_str(text).map_err(|error| {
        let shown: String = text.chars().take(MAX_SHOWN).collect();
        json!({
            "type": "Error",
            "variant": "SchemaError",
            "description": format!("message can't be read: {error}"),
            "message": shown,
        })
    })
}

/// Returns a new request id.
pub(crate) fn request_id() -> String {
    hyphened(&new_id())
}

/// Returns 32 hexadecimal digits as a UUID is written.
fn hyphened(digits: &str) -> String {
    [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..32]].join("-")
}

/// Facts about a stream that its messages repeat.
pub(super) struct StreamInfo {
    pub(super) request_id: String,
    /// Name of the recogniser.
    pub(super) model: String,
}

impl StreamInfo {
    /// Returns an id of the recogniser that is always the same: the start of a hash of its name, in the form
    /// of a version 8 UUID (RFC 9562, section 5.8).
    pub(super) fn model_uuid(&self) -> String {
        use sha2::{Digest, Sha256};
        let mut bytes: [u8; 16] = Sha256::digest(&self.model)[..16].try_into().expect("a hash has 32 bytes");
        bytes[6] = bytes[6] & 0x0f | 0x80;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        hyphened(&hex(&bytes))
    }

    fn model_info(&self) -> Value {
        json!({ "name": self.model, "version": env!("CARGO_PKG_VERSION"), "arch": self.model })
    }

    /// Returns the metadata that each result has.
    pub(super) fn of_result(&self) -> Value {
        json!({
            "request_id": self.request_id,
            "model_info": self.model_info(),
            "model_uuid": self.model_uuid(),
        })
    }

    /// Returns the last message of a stream of `seconds` and `channels`, which began at `created`.
    pub(super) fn at_end(&self, sha256: &[u8], created: &str, seconds: f64, channels: usize) -> Value {
        let mut message = self.of_audio(sha256, created, seconds, channels);
        message["type"] = json!("Metadata");
        message
    }

    /// Returns the metadata of audio of `seconds` and `channels` that was received from `created` on.
    pub(super) fn of_audio(&self, sha256: &[u8], created: &str, seconds: f64, channels: usize) -> Value {
        let model = self.model_uuid();
        json!({
            "transaction_key": "deprecated",
            "request_id": self.request_id,
            "sha256": hex(sha256),
            "created": created,
            "duration": seconds,
            "channels": channels,
            "models": [model],
            "model_info": { model: self.model_info() },
        })
    }

    /// Returns the answer to a change of settings: of the words to favour there is none, since a recogniser
    /// takes them at its start.
    pub(super) fn configured(&self, keyterms: Option<&[String]>) -> Value {
        if keyterms.is_some_and(|terms| !terms.is_empty()) {
            return json!({
                "type": "ConfigureFailure",
                "request_id": self.request_id,
                "code": "CONFIGURE_KEYTERMS_NOT_SUPPORTED",
                "description": "keyterms are taken in the query alone",
            });
        }
        json!({ "type": "ConfigureSuccess", "request_id": self.request_id })
    }
}

/// Form of the texts in results.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TextForm {
    pub(super) punctuate: bool,
    /// True if results name the languages.
    pub(super) multilingual: bool,
}

impl TextForm {
    pub(super) fn text(self, text: &str) -> String {
        if self.punctuate { text.trim().to_owned() } else { plain(text) }
    }

    /// Returns the alternative of a partial result, whose words have no times yet.
    pub(super) fn of_partial(self, text: &str, confidence: Option<f32>) -> Value {
        json!({ "transcript": self.text(text), "confidence": rounded(confidence), "words": [] })
    }

    /// Returns the alternative of a final, whose positions are at `sample_rate`.
    pub(super) fn of_final(self, segment: &Final, sample_rate: u32) -> Value {
        let language = segment.language.as_deref();
        let words: Vec<Value> =
            segment.words.iter().filter_map(|word| self.word(word, language, sample_rate)).collect();
        let confidence = if segment.text.is_empty() { None } else { segment.confidence };
        let mut alternative = json!({
            "transcript": self.text(&segment.text),
            "confidence": rounded(confidence),
            "words": words,
        });
        if self.multilingual {
            alternative["languages"] = json!(segment.language.iter().collect::<Vec<_>>());
        }
        alternative
    }

    /// Returns a word that was spoken in `language`, and whose positions are at `sample_rate`. A word of
    /// punctuation alone is none.
    pub(super) fn word(self, word: &Word, language: Option<&str>, sample_rate: u32) -> Option<Value> {
        let text = plain(&word.text);
        if text.is_empty() {
            return None;
        }
        let mut shown = json!({
            "word": text,
            "start": seconds(word.range.start, sample_rate),
            "end": seconds(word.range.end, sample_rate),
            "confidence": rounded(Some(word.confidence)),
        });
        if self.punctuate {
            shown["punctuated_word"] = json!(word.text.trim());
        }
        if self.multilingual {
            shown["language"] = json!(language);
        }
        Some(shown)
    }

    /// Returns the alternative of a stretch in which nothing was said.
    pub(super) fn of_silence(self) -> Value {
        json!({ "transcript": "", "confidence": 0.0, "words": [] })
    }
}

/// Returns a position at `sample_rate` in seconds.
pub(super) fn seconds(position: FramePos, sample_rate: u32) -> f64 {
    position.0 as f64 / f64::from(sample_rate)
}

/// Returns a confidence to four digits; 0 if there is none, as clients expect a number.
pub(super) fn rounded(confidence: Option<f32>) -> f64 {
    (f64::from(confidence.unwrap_or(0.0)) * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_and_anything_else_is_told() {
        assert_eq!(parse(r#"{"type":"KeepAlive"}"#), Ok(Request::KeepAlive));
        assert_eq!(
            parse(r#"{"type": "Finalize", "channel": 1}"#),
            Ok(Request::Finalize { channel: Some(1) })
        );
        assert_eq!(parse(r#"{"type":"Finalize","x":[]}"#), Ok(Request::Finalize { channel: None }));
        assert_eq!(parse(r#"{"type":"CloseStream"}"#), Ok(Request::CloseStream));
        let configure = r#"{"type":"Configure","keyterms":["a"],"features":{"numerals":true}}"#;
        assert_eq!(parse(configure), Ok(Request::Configure { keyterms: Some(vec!["a".to_owned()]) }));
        for bad in
            ["", "no JSON", "{}", r#"{"type":"Nonsense"}"#, r#"{"type":"Finalize","channel":-1}"#, "[1]"]
        {
            let error = parse(bad).unwrap_err();
            assert_eq!(
                (&error["type"], &error["variant"]),
                (&json!("Error"), &json!("SchemaError")),
                "{bad}"
            );
            assert_eq!(error["message"], bad);
        }
        assert_eq!(parse(&"x".repeat(9_999)).unwrap_err()["message"].as_str().unwrap().len(), MAX_SHOWN);
    }

    #[test]
    fn ids_are_uuids() {
        let is_uuid = |id: &str, version: char| {
            id.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && id.chars().nth(14) == Some(version)
        };
        assert!(is_uuid(&request_id(), '4'));
        let info = StreamInfo { request_id: request_id(), model: "whisper".to_owned() };
        assert!(is_uuid(&info.model_uuid(), '8') && info.model_uuid() == info.model_uuid());
    }
}
