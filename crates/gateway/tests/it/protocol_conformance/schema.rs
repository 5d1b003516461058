//! A validator of the part of JSON Schema 2020-12 that docs/voxline.asr.v1.schema.json uses. It refuses
//! keywords that it does not know, so that no part of the schema is ignored.

use std::sync::LazyLock;

use serde_json::Value;

/// Schema of every message.
static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../../../../docs/voxline.asr.v1.schema.json"))
        .expect("the schema is JSON")
});

/// Checks `message` against `#/$defs/NAME`, where NAME is `client` or `server`.
pub(super) fn check(name: &str, message: &Value) -> Result<(), String> {
    fits(&SCHEMA["$defs"][name], message, &SCHEMA)
}

fn fits(schema: &Value, value: &Value, root: &Value) -> Result<(), String> {
    let rules = schema.as_object().expect("a schema is an object");
    for (keyword, rule) in rules {
        let holds = match keyword.as_str() {
            "$ref" => {
                let path = rule
                    .as_str()
                    .and_then(|path| path.strip_prefix("#"))
                    .expect("a reference within the schema");
                fits(root.pointer(path).expect("a definition"), value, root)?;
                true
            }
            "oneOf" => {
                let choices = rule.as_array().expect("a list");
                let fitting: Vec<Result<(), String>> =
                    choices.iter().map(|choice| fits(choice, value, root)).collect();
                fitting.iter().filter(|choice| choice.is_ok()).count() == 1
            }
            "type" => match rule {
                Value::Array(types) => types.iter().any(|one| has_type(value, one)),
                one => has_type(value, one),
            },
            "const" => value == rule,
            "enum" => rule.as_array().expect("a list").contains(value),
            "required" => {
                let present = |name: &Value| value.get(name.as_str().expect("a name")).is_some();
                !value.is_object() || rule.as_array().expect("a list").iter().all(present)
            }
            "properties" => {
                for (name, rule) in rule.as_object().expect("an object") {
                    if let Some(field) = value.get(name) {
                        fits(rule, field, root).map_err(|error| format!("{name}: {error}"))?;
                    }
                }
                true
            }
            "items" => {
                for item in value.as_array().into_iter().flatten() {
                    fits(rule, item, root)?;
                }
                true
            }
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().expect("a number")),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().expect("a number")),
            "minLength" => {
                value.as_str().is_none_or(|text| text.chars().count() as u64 >= rule.as_u64().unwrap())
            }
            "maxLength" => {
                value.as_str().is_none_or(|text| text.chars().count() as u64 <= rule.as_u64().unwrap())
            }
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap()),
            "$schema" | "$id" | "$defs" | "title" | "description" | "default" => true,
            other => panic!("the validator doesn't know the keyword {other}"),
        };
        if !holds {
            return Err(format!("{value} breaks {keyword}: {rule}"));
        }
    }
    Ok(())
}

fn has_type(value: &Value, name: &Value) -> bool {
    match name.as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        other => panic!("no type {other}"),
    }
}
