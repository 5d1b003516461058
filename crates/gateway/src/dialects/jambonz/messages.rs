//! Messages of jambonz' custom speech recognition.

use serde::Deserialize;
use serde_json::{Value, json};

use voxline::protocol::Final;

/// Sample rate of calls, in Hz.
const SAMPLE_RATE: u32 = 8_000;

/// A text message of jambonz.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(crate) enum Request {
    Start(Start),
    /// The end of the audio.
    Stop,
    /// A message of a later version.
    #[serde(other)]
    Unknown,
}

/// Parameters of a recognition.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Start {
    /// Language spoken; that of the project if absent.
    #[serde(default)]
    pub(super) language: Option<String>,
    #[serde(default)]
    encoding: Option<String>,
    #[serde(default)]
    pub(super) interim_results: bool,
    #[serde(default)]
    sample_rate_hz: Option<u32>,
    /// Options of the application, of which the favoured words are understood.
    #[serde(default)]
    options: Value,
}

impl Start {
    /// Returns the sample rate.
    ///
    /// # Errors
    /// Returns a description, for the client, of an encoding that jambonz doesn't document.
    pub(super) fn sample_rate(&self) -> Result<u32, String> {
        match self.encoding.as_deref() {
            Some(encoding) if !encoding.eq_ignore_ascii_case("LINEAR16") => {
                let shown: String = encoding.chars().take(20).collect();
                Err(format!("encoding '{shown}' is not supported, expected LINEAR16"))
            }
            _ => Ok(self.sample_rate_hz.unwrap_or(SAMPLE_RATE)),
        }
    }

    /// Returns the words that are likely to be spoken: texts, or objects with a `phrase`.
    pub(super) fn hints(&self) -> impl Iterator<Item = String> {
        let hints = self.options["hints"].as_array().into_iter().flatten();
        hints.filter_map(|hint| hint.as_str().or_else(|| hint["phrase"].as_str())).map(str::to_owned)
    }
}

/// Parses a text message.
///
/// # Errors
/// Returns a description, for the client, of what is wrong.
pub(crate) fn parse(text: &str) -> Result<Request, String> {
    serde_json::from_str(text).map_err(|error| format!("message can't be read: {error}"))
}

/// Returns the message of a final. Without a language that was recognised, it is the one that was asked for.
pub(super) fn of_final(segment: &Final, asked: Option<&str>) -> Value {
    transcription(true, &segment.text, segment.confidence, segment.language.as_deref().or(asked))
}

/// Returns the message of a partial result.
pub(super) fn of_partial(text: &str, confidence: Option<f32>, asked: Option<&str>) -> Value {
    transcription(false, text, confidence, asked)
}

fn transcription(is_final: bool, text: &str, confidence: Option<f32>, language: Option<&str>) -> Value {
    let confidence = (f64::from(confidence.unwrap_or(0.0)) * 1e4).round() / 1e4;
    json!({
        "type": "transcription",
        "is_final": is_final,
        "alternatives": [{ "transcript": text.trim(), "confidence": confidence }],
        "channel": 1,
        "language": language,
    })
}

/// Returns the message about a failure.
pub(super) fn error(reason: &str) -> Value {
    json!({ "type": "error", "error": reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use voxline::audio::FramePos;

    #[test]
    fn a_start_is_read_as_jambonz_writes_it() {
        let text = r#"{"type":"start","language":"en-US","format":"raw","encoding":"LINEAR16","interimResults":true,
            "sampleRateHz":16000,"options":{"hints":["one",{"phrase":"two","boost":3},7]}}"#;
        let Ok(Request::Start(start)) = parse(text) else { panic!("{:?}", parse(text)) };
        assert_eq!((start.language.as_deref(), start.interim_results), (Some("en-US"), true));
        assert_eq!(start.sample_rate(), Ok(16_000));
        assert_eq!(start.hints().collect::<Vec<_>>(), ["one", "two"]);
        let Ok(Request::Start(bare)) = parse(r#"{"type":"start"}"#) else {
            panic!("a bare start is refused")
        };
        assert_eq!((bare.sample_rate(), bare.hints().count()), (Ok(8_000), 0));
        let Ok(Request::Start(odd)) = parse(r#"{"type":"start","encoding":"MULAW"}"#) else { panic!() };
        assert!(odd.sample_rate().is_err());
        assert_eq!(parse(r#"{"type":"stop"}"#), Ok(Request::Stop));
        assert_eq!(parse(r#"{"type":"weather"}"#), Ok(Request::Unknown));
        for bad in ["", "no JSON", "{}", r#"{"type":"start","sampleRateHz":-1}"#] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn transcriptions_name_their_language() {
        let mut segment = Final::new(0, FramePos(0).to(FramePos(9)), " Hello.");
        segment.confidence = Some(0.5);
        let expected = |language: &str| {
            json!({
                "type": "transcription",
                "is_final": true,
                "alternatives": [{ "transcript": "Hello.", "confidence": 0.5 }],
                "channel": 1,
                "language": language,
            })
        };
        assert_eq!(of_final(&segment, Some("en-US")), expected("en-US"));
        segment.language = Some("de".to_owned());
        assert_eq!(of_final(&segment, Some("en-US")), expected("de"));
    }
}
