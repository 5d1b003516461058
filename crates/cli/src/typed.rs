//! Parsers of flag values that may be written in several ways, with readable error messages.

use std::fmt::Display;
use std::ops::RangeInclusive;

pub(crate) use crate::config::values::network;

/// Returns a parser of integers in `range`.
pub(crate) fn whole<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync
where
    T: TryFrom<u64> + PartialOrd + Display + Clone + Send + Sync,
{
    move |text| {
        let number = text.trim().parse::<u64>().ok().and_then(|number| T::try_from(number).ok());
        let (least, most) = (range.start(), range.end());
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("expected a whole number from {least} to {most}"))
    }
}

/// Parses a time in whole seconds: a number of seconds, or a number with units such as `30d` or `1h 30m`.
pub(crate) fn seconds(text: &str) -> Result<u64, String> {
    let expected = || "expected a number of seconds, or a time such as 12h or 30d".to_owned();
    if let Ok(seconds) = text.trim().parse() {
        return Ok(seconds);
    }
    let time = humantime::parse_duration(text).map_err(|_| expected())?;
    if time.subsec_nanos() == 0 { Ok(time.as_secs()) } else { Err(expected()) }
}

/// Parses a lifetime like [`seconds`]. A lifetime is at least one second.
pub(crate) fn lifetime(text: &str) -> Result<u64, String> {
    match seconds(text)? {
        0 => Err("expected one second at least".to_owned()),
        seconds => Ok(seconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_have_units() {
        for (given, expected) in [("90", 90), ("30d", 30 * 86_400), ("1h 30m", 5_400), ("0", 0)] {
            assert_eq!(seconds(given), Ok(expected), "{given}");
        }
        for given in ["", "-1", "1.5", "soon", "30x", "500ms", "99999999999999999999d"] {
            assert!(seconds(given).unwrap_err().contains("30d"), "{given}");
        }
        assert!(lifetime("0s").is_err());
    }

    #[test]
    fn a_network_may_be_an_address() {
        assert_eq!(network("10.0.0.1").unwrap().to_string(), "10.0.0.1/32");
        assert_eq!(network(" 2001:db8::/32").unwrap().to_string(), "2001:db8::/32");
        for given in ["", "10.0.0/8", "10.0.0.0/33", "example.com"] {
            assert!(network(given).unwrap_err().contains("10.0.0.0/8"), "{given}");
        }
    }

    #[test]
    fn numbers_are_refused_with_their_bounds() {
        let parse = whole(5_u16..=300);
        assert_eq!(parse("5"), Ok(5));
        for given in ["4", "301", "70000", "-5", "5.0", "five", ""] {
            assert_eq!(parse(given), Err("expected a whole number from 5 to 300".to_owned()), "{given}");
        }
    }
}
