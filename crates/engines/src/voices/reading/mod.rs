//! Text normalisation: numbers, dates, times, money and abbreviations as they are read aloud.
//!
//! A voice reads words; espeak-ng also reads English numbers, and little else of this. Most notations
//! have more than one reading, so these rules take the commonest, and look no further than at the words
//! beside a number.

mod english;
mod russian;
#[cfg(test)]
mod tests;

use regex::{Captures, Regex};

/// Returns `text` as a voice of `language` is to read it. Languages other than English and Russian are
/// left to espeak-ng.
pub(super) fn spelt_out(language: &str, text: &str) -> String {
    match language {
        "en" => read(english::rules(), text),
        "ru" => read(russian::rules(), text),
        _ => text.to_owned(),
    }
}

/// A pattern of written text, and its reading; the text is kept if the reading is `None`.
struct Rule {
    written: Regex,
    read: fn(&Captures) -> Option<String>,
}

impl Rule {
    /// Creates a rule. The patterns are constants, which tests cover.
    fn new(written: &str, read: fn(&Captures) -> Option<String>) -> Rule {
        Rule { written: Regex::new(written).expect("a rule's pattern is well formed"), read }
    }
}

/// Applies each rule in turn to the whole text.
fn read(rules: &[Rule], text: &str) -> String {
    rules.iter().fold(text.to_owned(), |text, rule| {
        let replace = |found: &Captures| (rule.read)(found).unwrap_or_else(|| found[0].to_owned());
        rule.written.replace_all(&text, replace).into_owned()
    })
}

/// Returns the number of a group, if the group has one that is not too large.
fn number(found: &Captures, group: &str) -> Option<u64> {
    let digits: String = found.name(group)?.as_str().chars().filter(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Returns the text of a group; empty if the group did not match.
fn text<'a>(found: &'a Captures, group: &str) -> &'a str {
    found.name(group).map_or("", |found| found.as_str())
}
