//! Messages of the Vosk protocol.

use serde_json::{Value, json};

use crate::sessions::plain_text::plain;
use voxline::protocol::Final;

/// Default sample rate of the protocol, in Hz.
const SAMPLE_RATE: u32 = 8_000;

/// A text message of the client.
#[derive(Debug, PartialEq)]
pub(crate) enum Request {
    /// The configuration of the recogniser, which is not answered.
    Config(Config),
    /// The end of the audio.
    Eof,
    /// The end of an utterance.
    Reset,
    /// A text that means nothing. The original server takes it for audio, and answers it.
    Other,
}

/// A configuration of the recogniser. Fields that are absent, or have no sense, have their defaults.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Config {
    pub(super) sample_rate: u32,
    /// True if results have words with times.
    pub(super) words: bool,
    /// True if results are lists of alternatives, of which there is one.
    pub(super) alternatives: bool,
    /// Phrases that are likely to be spoken. The original server recognises nothing else.
    pub(super) phrases: Vec<String>,
}

impl Default for Config {
    fn default() -> Config {
        Config { sample_rate: SAMPLE_RATE, words: true, alternatives: false, phrases: Vec::new() }
    }
}

/// Parses a text message.
pub(crate) fn parse(text: &str) -> Request {
    let Ok(Value::Object(message)) = serde_json::from_str(text) else { return Request::Other };
    if let Some(config) = message.get("config") {
        return Request::Config(config_of(config));
    }
    let is_set = |name: &str| message.get(name).is_some_and(is_true);
    if is_set("eof") {
        Request::Eof
    } else if is_set("reset") {
        Request::Reset
    } else {
        Request::Other
    }
}

fn config_of(config: &Value) -> Config {
    let default = Config::default();
    let phrases = config["phrase_list"].as_array().into_iter().flatten();
    Config {
        // Some clients write a rate as 16000.000000. The cast saturates, and a session refuses what is
        // no rate.
        sample_rate: config["sample_rate"].as_f64().map_or(default.sample_rate, |rate| rate as u32),
        words: config.get("words").map_or(default.words, is_true),
        alternatives: config.get("max_alternatives").is_some_and(is_true),
        phrases: phrases
            .filter_map(Value::as_str)
            .filter(|phrase| *phrase != "[unk]")
            .map(str::to_owned)
            .collect(),
    }
}

/// Returns whether a value counts as true: clients write switches as booleans and as numbers.
fn is_true(value: &Value) -> bool {
    value.as_bool().unwrap_or_else(|| value.as_f64().is_some_and(|number| number != 0.0))
}

/// Returns the reply of an utterance that is not over.
pub(super) fn partial(text: &str) -> Value {
    json!({ "partial": plain(text) })
}

/// Returns the reply of an utterance that is over: the finals since the last result, whose positions are at
/// `sample_rate`.
pub(super) fn result(finals: &[Final], sample_rate: u32, config: &Config) -> Value {
    let text = plain(&finals.iter().map(|segment| segment.text.as_str()).collect::<Vec<_>>().join(" "));
    let seconds = |frames: u64| (frames as f64 / f64::from(sample_rate) * 1e6).round() / 1e6;
    let words = finals.iter().flat_map(|segment| &segment.words).filter_map(|word| {
        let text = plain(&word.text);
        let (start, end) = (seconds(word.range.start.0), seconds(word.range.end.0));
        let conf = rounded(word.confidence);
        (!text.is_empty()).then(|| json!({ "conf": conf, "start": start, "end": end, "word": text }))
    });
    let words: Vec<Value> = if config.words { words.collect() } else { Vec::new() };
    let mut result =
        if words.is_empty() { json!({ "text": text }) } else { json!({ "result": words, "text": text }) };
    if !config.alternatives {
        return result;
    }
    let confidences =
        finals.iter().filter(|segment| !segment.text.is_empty()).filter_map(|segment| segment.confidence);
    result["confidence"] = json!(rounded(confidences.fold(1.0, f32::min)));
    json!({ "alternatives": [result] })
}

/// Returns a confidence to four digits.
fn rounded(confidence: f32) -> f64 {
    (f64::from(confidence) * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;
    use voxline::audio::FramePos;
    use voxline::transcript::Word;

    #[test]
    fn texts_are_read_in_any_spacing() {
        for (text, request) in [
            (r#"{"eof" : 1}"#, Request::Eof),
            (r#"{"eof":1}"#, Request::Eof),
            (r#"{"eof":true}"#, Request::Eof),
            (r#"{"reset" : 1}"#, Request::Reset),
            (r#"{"eof":0}"#, Request::Other),
            ("", Request::Other),
            ("hello", Request::Other),
            ("[1]", Request::Other),
        ] {
            assert_eq!(parse(text), request, "{text}");
        }
    }

    #[test]
    fn a_configuration_is_read_as_clients_write_it() {
        let config = |text: &str| match parse(text) {
            Request::Config(config) => config,
            other => panic!("{text}: {other:?}"),
        };
        let rate = config(r#"{ "config" : { "sample_rate" : 16000.000000 } }"#);
        assert_eq!(rate, Config { sample_rate: 16_000, ..Config::default() });
        let all = r#"{"config":{"sample_rate":8000,"words":0,"max_alternatives":3,"phrase_list":["да","[unk]",7],"model":"x"}}"#;
        let phrases = vec!["да".to_owned()];
        assert_eq!(config(all), Config { words: false, alternatives: true, phrases, ..Config::default() });
        for odd in [r#"{"config":7}"#, r#"{"config":{"sample_rate":"x","words":1,"phrase_list":{}}}"#] {
            assert_eq!(config(odd), Config::default(), "{odd}");
        }
    }

    #[test]
    fn results_are_plain_and_in_seconds() {
        let range = |start, end| FramePos(start).to(FramePos(end));
        let mut segment = Final::new(0, range(0, 16_000), "Hello, you - there!");
        segment.confidence = Some(0.5);
        let word = |text: &str, start, end| Word {
            range: range(start, end),
            text: text.to_owned(),
            confidence: 0.9,
        };
        segment.words = vec![word(" Hello,", 800, 4_000), word("-", 4_000, 4_000)];
        let silence = Final::new(1, range(16_000, 20_000), "");
        let finals = [segment, silence];
        let words = json!([{ "conf": 0.9, "start": 0.1, "end": 0.5, "word": "hello" }]);
        let expected = json!({ "result": words, "text": "hello you there" });
        assert_eq!(result(&finals, 8_000, &Config::default()), expected);
        let bare = Config { words: false, alternatives: true, ..Config::default() };
        let expected = json!({ "alternatives": [{ "text": "hello you there", "confidence": 0.5 }] });
        assert_eq!(result(&finals, 8_000, &bare), expected);
        assert_eq!(result(&[], 8_000, &Config::default()), json!({ "text": "" }));
    }
}
