//! Fields of settings: values of JSON that must have a type.

use serde_json::{Map, Value};

use super::bad_event::BadEvent;

/// Returns an object.
pub(super) fn object<'a>(param: &str, value: &'a Value) -> Result<&'a Map<String, Value>, BadEvent> {
    value.as_object().ok_or_else(|| BadEvent::value(param, value, "an object"))
}

/// Returns an object that may be absent or `null`.
pub(super) fn optional<'a>(
    param: &str,
    value: Option<&'a Value>,
) -> Result<Option<&'a Map<String, Value>>, BadEvent> {
    value.filter(|value| !value.is_null()).map(|value| object(param, value)).transpose()
}

/// Returns a text, or `None` for `null`.
pub(super) fn text(param: &str, value: &Value) -> Result<Option<String>, BadEvent> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        other => Err(BadEvent::value(param, other, "a string")),
    }
}

/// Returns a list of texts, of which `null` is an empty one.
pub(super) fn texts(param: &str, value: &Value, most: usize) -> Result<Vec<String>, BadEvent> {
    let list = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(list) if list.len() <= most => list,
        other => return Err(BadEvent::value(param, other, "a list of strings")),
    };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    list.iter()
        .map(text)
        .collect::<Option<_>>()
        .ok_or_else(|| BadEvent::value(param, value, "a list of strings"))
}

/// Returns one of the known values, or `None` if it is absent or `null`.
pub(super) fn one_of(param: &str, value: Option<&Value>, known: &[&str]) -> Result<Option<String>, BadEvent> {
    match value {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if known.contains(&text.as_str()) => Ok(Some(text.clone())),
        Some(other) => Err(BadEvent::value(param, other, &known.join(", "))),
    }
}
