//! Texts sent as `application/x-www-form-urlencoded`, the form in which HTML forms and many HTTP libraries
//! send fields.
//!
//! The content type alone says little, since curl uses it for any data. A body of this type is a form if
//! its first field is a known one and one of its fields is `text`. Any other body of this type is a plain
//! text.

use http::{HeaderMap, header};

use super::{ApiError, Parameters, bad};

/// Bytes of a form apart from its text: names, separators, and the other values.
const OTHER_FIELDS: usize = 1_024;
/// Bytes that percent-encoding makes of one byte.
const ENCODED: usize = 3;
/// Fields that are read. Any other field is ignored, as it is in the query.
const FIELDS: [&str; 4] = ["text", "model_name", "encoder", "tempo"];

/// Returns whether the content type, with any parameters, announces a form.
pub(super) fn is_announced(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

/// Returns the longest body of a form whose text has up to `bytes` bytes.
pub(super) const fn longest(bytes: usize) -> usize {
    ENCODED * bytes + OTHER_FIELDS
}

/// Reads the text from `body`, and fills `parameters` with fields that the query doesn't give. Returns
/// `None` if the body is not a form of ours.
///
/// # Errors
/// Returns [`ApiError`] if a known field is repeated, or is not UTF-8.
pub(super) fn read(body: &[u8], parameters: &mut Parameters) -> Result<Option<String>, ApiError> {
    let mut values: [Option<String>; FIELDS.len()] = Default::default();
    for (number, field) in body.split(|byte| *byte == b'&').enumerate() {
        let (name, value) = match field.iter().position(|byte| *byte == b'=') {
            Some(at) => (&field[..at], &field[at + 1..]),
            None => (field, &[][..]),
        };
        let Some(place) = FIELDS.iter().position(|known| known.as_bytes() == name) else {
            if number == 0 {
                return Ok(None);
            }
            continue;
        };
        let value = String::from_utf8(decoded(value))
            .map_err(|_| bad(format!("field {} of the form is not UTF-8", FIELDS[place])))?;
        if values[place].replace(value).is_some() {
            return Err(bad(format!("field {} is in the form twice", FIELDS[place])));
        }
    }
    let [text, model_name, encoder, tempo] = values;
    let Some(text) = text else { return Ok(None) };
    let Parameters { model_name: model, encoder: format, tempo: speed, .. } = parameters;
    for (said, field) in [(model, model_name), (format, encoder), (speed, tempo)] {
        *said = said.take().or(field);
    }
    Ok(Some(text))
}

/// Returns the value with `+` decoded to a space and `%` with two hexadecimal digits to the byte that they
/// name. Any other `%` stays (URL Standard, section 5.1).
fn decoded(value: &[u8]) -> Vec<u8> {
    let digit = |at: usize| value.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut bytes = Vec::with_capacity(value.len());
    let mut at = 0;
    while let Some(byte) = value.get(at) {
        match (byte, digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((16 * high + low) as u8);
                at += 3;
                continue;
            }
            (b'+', ..) => bytes.push(b' '),
            _ => bytes.push(*byte),
        }
        at += 1;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(body: &str) -> Option<String> {
        read(body.as_bytes(), &mut Parameters::default()).unwrap()
    }

    #[test]
    fn a_form_is_recognised_by_its_fields() {
        assert_eq!(text("text=%D0%94%D0%B0%2C+1%2B1").as_deref(), Some("Да, 1+1"));
        // The way that `curl -d` sends it: nothing is encoded.
        assert_eq!(text("text=Да, так").as_deref(), Some("Да, так"));
        assert_eq!(text("tempo=1&x=y&text=a%&more").as_deref(), Some("a%"));
        assert_eq!(text("text").as_deref(), Some(""));
        for no_form in ["", "Hello, world.", "a=b&text=c", "E=mc2", "tempo=1", "1+1 is 2 %41"] {
            assert_eq!(text(no_form), None, "{no_form}");
        }
    }

    #[test]
    fn query_parameters_win_over_form_fields() {
        let mut parameters = Parameters { tempo: Some("1.5".to_owned()), ..Parameters::default() };
        read(b"text=a&tempo=1&model_name=pavel", &mut parameters).unwrap();
        assert_eq!(
            (parameters.tempo.as_deref(), parameters.model_name.as_deref()),
            (Some("1.5"), Some("pavel"))
        );
    }

    #[test]
    fn an_unreadable_form_is_refused() {
        for bad in [&b"text=%FF"[..], b"text=\xff", b"text=a&text=b", b"tempo=1&text=a&tempo=1"] {
            assert!(read(bad, &mut Parameters::default()).is_err(), "{bad:?}");
        }
    }
}
