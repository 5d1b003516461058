//! Numbers, dates, times, money and abbreviations as they are read aloud.
//!
//! A voice reads words; espeak-ng reads English numbers, too, and little else of this. What is written has more than
//! one reading, so these rules take the commonest, and look no further than at the words beside a number.

mod english;
mod russian;
#[cfg(test)]
mod tests;

use regex::{Captures, Regex};

/// `text` as a voice of `language` is to read it. Other languages than English and Russian are left to espeak-ng.
pub(super) fn spelt_out(language: &str, text: &str) -> String {
    match language {
        "en" => read(english::rules(), text),
        "ru" => read(russian::rules(), text),
        _ => text.to_owned(),
    }
}

/// What is written, and what is read instead: the text between `None`s stays.
struct Rule {
    written: Regex,
    read: fn(&Captures) -> Option<String>,
}

impl Rule {
    /// The patterns are constants, which tests read.
    fn new(written: &str, read: fn(&Captures) -> Option<String>) -> Rule {
        Rule { written: Regex::new(written).expect("a rule's pattern is well formed"), read }
    }
}

/// Each rule in turn, over all of the text.
fn read(rules: &[Rule], text: &str) -> String {
    rules.iter().fold(text.to_owned(), |text, rule| {
        let replace = |found: &Captures| (rule.read)(found).unwrap_or_else(|| found[0].to_owned());
        rule.written.replace_all(&text, replace).into_owned()
    })
}

/// A group's number, where it has one that is not too large.
fn number(found: &Captures, group: &str) -> Option<u64> {
    let digits: String = found.name(group)?.as_str().chars().filter(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// A group's text; empty where it has none.
fn text<'a>(found: &'a Captures, group: &str) -> &'a str {
    found.name(group).map_or("", |found| found.as_str())
}
