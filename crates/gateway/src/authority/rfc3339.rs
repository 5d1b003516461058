//! Times in JSON: RFC 3339 in UTC, to the millisecond. In memory and in the store they are milliseconds since
//! the Unix epoch.

use std::time::{Duration, UNIX_EPOCH};

use humantime::{format_rfc3339_millis, parse_rfc3339};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// Last moment that RFC 3339 has a form for, the end of the year 9999. Any later time is written as this one.
const LAST: u64 = 253_402_300_799_999;

/// Formats a time, such as `2023-11-14T22:13:20.000Z`.
pub(crate) fn to_rfc3339(unix_ms: u64) -> String {
    format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(unix_ms.min(LAST))).to_string()
}

fn parse<E: Error>(text: &str) -> Result<u64, E> {
    let time = parse_rfc3339(text).map_err(E::custom)?;
    let since_epoch = time.duration_since(UNIX_EPOCH).map_err(E::custom)?;
    u64::try_from(since_epoch.as_millis()).map_err(E::custom)
}

pub(super) fn serialize<S: Serializer>(unix_ms: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&to_rfc3339(*unix_ms))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    parse(&String::deserialize(deserializer)?)
}

/// The same for times that may be unknown.
pub(super) mod optional {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{parse, to_rfc3339};

    pub(in super::super) fn serialize<S: Serializer>(
        unix_ms: &Option<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        unix_ms.map(to_rfc3339).serialize(serializer)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<u64>, D::Error> {
        Option::<String>::deserialize(deserializer)?.map(|text| parse(&text)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    use serde_json::{Value, from_value, json, to_value};

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Times {
        #[serde(with = "super")]
        created: u64,
        #[serde(with = "super::optional")]
        expires: Option<u64>,
    }

    #[test]
    fn times_are_written_in_utc_and_read_again() {
        for (unix_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_868_799_001, "2000-02-29T23:59:59.001Z"),
            (1_700_000_000_120, "2023-11-14T22:13:20.120Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
            (LAST, "9999-12-31T23:59:59.999Z"),
        ] {
            for times in [
                Times { created: unix_ms, expires: Some(unix_ms) },
                Times { created: unix_ms, expires: None },
            ] {
                let written = to_value(&times).unwrap();
                assert_eq!(written, json!({ "created": text, "expires": times.expires.map(|_| text) }));
                assert_eq!(from_value::<Times>(written).unwrap(), times);
            }
        }
        // A token may be valid for longer than RFC 3339 can say.
        assert_eq!(to_rfc3339(u64::MAX), to_rfc3339(LAST));
    }

    #[test]
    fn other_forms_are_no_times() {
        for bad in [json!(0), json!("0"), json!("2023-11-14"), json!("1969-12-31T23:59:59Z"), Value::Null] {
            let written = json!({ "created": bad, "expires": null });
            assert!(from_value::<Times>(written.clone()).is_err(), "{written}");
        }
    }
}
