//! JSON messages: read without copies where that can be, written without a tree of values.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::alphabet::STANDARD as ALPHABET;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::engine::{DecodePaddingMode, Engine as _};
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde_json::error::Category;
use serde_json::{Map, Value};

use super::{Message, PeerError};

/// Standard base64. Some peers leave the padding away.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &ALPHABET,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads a message as `T`, which may borrow from the text.
pub(super) fn read<'a, T: Deserialize<'a>>(message: &'static str, text: &'a str) -> Result<T, PeerError> {
    serde_json::from_str(text).map_err(|error| {
        let problem = match error.classify() {
            Category::Syntax | Category::Io => "no JSON",
            Category::Eof => "JSON that ends too early",
            Category::Data => "JSON of an unexpected shape",
        };
        PeerError::Json { message, problem, column: error.column() }
    })
}

/// Reads the payload of a media message. The bytes are the one allocation.
pub(super) fn payload(message: &'static str, text: &str) -> Result<Bytes, PeerError> {
    let digits = text.trim_end_matches('=').len();
    let mut bytes = vec![0; digits / 4 * 3 + digits % 4 * 3 / 4];
    let length = BASE64.decode_slice(text, &mut bytes);
    match length {
        Ok(length) if length == bytes.len() => Ok(Bytes::from(bytes)),
        _ => Err(PeerError::Message {
            message,
            reason: format!("expected a payload in base64, got {} other characters", text.len()),
        }),
    }
}

/// An unsigned number, which some peers write as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number(pub(super) u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Number, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number, or its digits")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
        Ok(Number(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Number, E> {
        let whole = number >= 0.0 && number.fract() == 0.0 && number < u64::MAX as f64;
        if whole {
            Ok(Number(number as u64))
        } else {
            Err(E::invalid_value(Unexpected::Float(number), &self))
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Number, E> {
        digits(text).map(Number).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Returns the number of a value that is one, or has the digits of one.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => digits(text),
        _ => None,
    }
}

/// Returns the number that a text has the digits of. A sign is none: `parse` alone would take a plus.
fn digits(text: &str) -> Option<u64> {
    let text = text.trim();
    text.starts_with(|letter: char| letter.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Returns the values of an object as text: texts as they are, others as JSON. Nulls are left out.
pub(super) fn texts(object: Map<String, Value>) -> BTreeMap<String, String> {
    let text = |value| match value {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(other.to_string()),
    };
    object.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect()
}

/// Writes texts and JSON strings one after the other, as one text message.
pub(super) struct Writer(String);

impl Writer {
    /// Returns a writer with room for so many bytes of payload in base64, and a message around them.
    pub(super) fn with_payload(bytes: usize) -> Writer {
        Writer(String::with_capacity(bytes.div_ceil(3) * 4 + 192))
    }

    pub(super) fn new() -> Writer {
        Writer(String::new())
    }

    /// Appends JSON as it is.
    pub(super) fn raw(mut self, json: impl AsRef<str>) -> Writer {
        self.0.push_str(json.as_ref());
        self
    }

    /// Appends a text as a JSON string.
    pub(super) fn text(mut self, text: &str) -> Writer {
        self.0.push_str(&quoted(text));
        self
    }

    pub(super) fn number(mut self, number: u32) -> Writer {
        use fmt::Write as _;
        write!(self.0, "{number}").expect("strings take all that is written");
        self
    }

    /// Appends bytes as a JSON string in base64.
    pub(super) fn base64(mut self, bytes: &[u8]) -> Writer {
        self.0.push('"');
        BASE64.encode_string(bytes, &mut self.0);
        self.0.push('"');
        self
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    pub(super) fn message(self) -> Message {
        Message::Text(self.0)
    }
}

/// Returns a text as a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a text can be written as JSON")
}

/// Returns the beginning of a peer's text that may stand in an error: letters, digits and signs on one line.
pub(super) fn printable(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 40;
    if text.len() <= LONGEST && text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Cow::Borrowed(text);
    }
    let plain = text.chars().map(|letter| if (' '..='~').contains(&letter) { letter } else { '?' });
    Cow::Owned(plain.take(LONGEST).chain("...".chars()).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_read_from_digits_too() {
        for (json, expected) in [("7", 7), ("\"7\"", 7), ("\" 18446744073709551615 \"", u64::MAX), ("3.0", 3)]
        {
            assert_eq!(serde_json::from_str::<Number>(json).expect(json), Number(expected));
        }
        for wrong in ["-1", "\"-1\"", "\"+1\"", "1.5", "1e99", "\"\"", "\"1a\"", "null", "[1]", "true"] {
            assert!(serde_json::from_str::<Number>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn payloads_of_all_lengths_are_read_with_and_without_padding() {
        for length in 0..50 {
            let bytes: Vec<u8> = (0..length).map(|byte: u8| byte.wrapping_mul(37)).collect();
            let Message::Text(text) = Writer::with_payload(bytes.len()).base64(&bytes).message() else {
                unreachable!("writers write texts");
            };
            let text = text.trim_matches('"');
            assert_eq!(payload("media", text).expect("base64"), bytes);
            assert_eq!(payload("media", text.trim_end_matches('=')).expect("base64"), bytes);
        }
        for wrong in ["A", "AB=C", "AA\n==", "AA-_", "=", "====", "AAAAA"] {
            let error = payload("media", wrong).expect_err(wrong).to_string();
            assert!(!error.contains(wrong) || wrong == "A" || wrong == "=", "{error}");
        }
    }

    #[test]
    fn errors_have_no_values_of_the_message() {
        let error = read::<Number>("start", "\"+4930123456\"").expect_err("no number");
        assert_eq!(error.to_string(), "start of the peer is JSON of an unexpected shape at column 13");
        assert!(!voxline::error::chain(&error).to_string().contains("4930"));
    }

    #[test]
    fn objects_become_texts() {
        let Value::Object(object) = json!({"a": "x", "b": 1, "c": null, "d": {"e": [true]}}) else {
            unreachable!("an object");
        };
        let expected = [("a", "x"), ("b", "1"), ("d", "{\"e\":[true]}")];
        assert_eq!(texts(object), expected.map(|(name, text)| (name.to_owned(), text.to_owned())).into());
    }

    #[test]
    fn names_of_formats_stay_on_one_short_line() {
        assert_eq!(printable("audio/x-gsm"), "audio/x-gsm");
        assert_eq!(printable("a\nb"), "a?b...");
        assert_eq!(printable(&"x".repeat(1_000)).len(), 43);
    }
}
