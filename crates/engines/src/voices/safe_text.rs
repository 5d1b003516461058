//! Preparation of text for external programs: broken up so that no program is known to crash on it, and
//! simplified if one does.
//!
//! espeak-ng 1.51 smashes its stack at words of some 170 bytes with dots between their letters, for
//! example `A.` 85 times, and takes words that begin with a dot for parts of the word before. It also does
//! so at words of many letters of foreign scripts, for example `d한` 20 times: it spells each by its name
//! and has room for 200 phonemes in a word (`N_WORD_PHONEMES`). Mutated texts (`mutated_texts`) found no
//! other way to end it, nor any to end festival.

use crate::program::ProgramError;

/// Longest word, in bytes: half of the 160 that espeak-ng has room for (`N_WORD_BYTES`). Russian words of
/// forty letters are that long.
const MAX_WORD: usize = 80;

/// Largest number of characters in a word that are neither Latin nor Cyrillic. Each is spelt out in up to
/// 20 phonemes, with the change of language before and after it.
const MAX_SPELT: usize = 8;

/// Largest number of dots inside a word: `www.example.co.uk/a.html` has four. A word with more is read
/// without any.
const MAX_DOTS: usize = 4;

/// Largest number of dots that are kept at the end of a word: three dots are an ellipsis, and more add
/// nothing.
const MAX_END_DOTS: usize = 3;

/// Asks a program about a text that is broken up. If the program crashes, asks about the letters and
/// digits alone; if that crashes it too, gives up the text, and returns `None`. The crash is logged
/// without the text.
pub(super) fn ask<T>(
    program: &'static str,
    text: &str,
    ask: impl Fn(&str) -> Result<T, ProgramError>,
) -> Result<Option<T>, ProgramError> {
    for (form, next) in [(broken_up as fn(&str) -> String, "its letters and digits alone"), (bare, "nothing")]
    {
        match ask(&form(text)) {
            Err(ProgramError::Crashed { status, .. }) => {
                tracing::warn!(program, %status, "program crashed at a text; of that text it is given {next}");
            }
            answer => return answer.map(Some),
        }
    }
    Ok(None)
}

/// Returns `text` without control characters, and without the dots and the long words that end programs.
/// Only marks are left out.
pub(super) fn broken_up(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    let words: String = text.split_whitespace().map(|word| without_dots(word) + " ").collect();
    short_words(&words)
}

/// Returns the letters and digits of `text`.
fn bare(text: &str) -> String {
    short_words(&text.replace(|c: char| !c.is_alphanumeric(), " "))
}

/// Returns a word without the dots that belong to no number, abbreviation or name; without all dots
/// inside it if there are many.
fn without_dots(word: &str) -> String {
    let inside = word.trim_end_matches('.');
    let end = &word[inside.len()..];
    let few = inside.matches('.').count() <= MAX_DOTS;
    let mut before = None;
    let mut kept = String::with_capacity(word.len());
    let mut characters = inside.chars().peekable();
    while let Some(c) = characters.next() {
        let after = characters.peek();
        let joins = before.is_some_and(char::is_alphanumeric) && after.is_some_and(|c| c.is_alphanumeric());
        let begins_number = before.is_none() && after.is_some_and(char::is_ascii_digit);
        kept.push(if c != '.' || few && (joins || begins_number) { c } else { ' ' });
        before = Some(c);
    }
    if !inside.is_empty() {
        kept.push_str(&end[..end.len().min(MAX_END_DOTS)]);
    }
    kept
}

/// Returns whether `c` is none of the characters that the voices' own languages are written in: it is
/// beyond Latin Extended-B, and not Cyrillic.
fn is_spelt_out(c: char) -> bool {
    c > '\u{24f}' && !('\u{400}'..='\u{4ff}').contains(&c)
}

/// Returns the words of `text`, with long words split into several, and those with many characters that
/// are spelt out.
fn short_words(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        let (mut length, mut spelt) = (0, 0);
        for letter in word.chars() {
            length += letter.len_utf8();
            spelt += usize::from(is_spelt_out(letter));
            if length > MAX_WORD || spelt > MAX_SPELT {
                words.push(' ');
                (length, spelt) = (letter.len_utf8(), usize::from(is_spelt_out(letter)));
            }
            words.push(letter);
        }
        words.push(' ');
    }
    words.truncate(words.trim_end().len());
    words
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::process::Command;

    use super::*;

    #[test]
    fn texts_as_people_write_them_stay_as_they_are() {
        for text in [
            "Wait... what? U.S.A. is 3.14, .5 and 1,000.",
            "т.е. А.С. Пушкин, 2024 г. и т.д.",
            "See www.example.co.uk/a.html, or mail a.b@c.de!",
            "достопримечательностями Rindfleischetikettierungsüberwachungsaufgabenübertragungsgesetz",
        ] {
            assert_eq!(broken_up(text), text);
        }
    }

    #[test]
    fn what_crashes_programs_is_broken_up() {
        for (text, expected) in [
            ("A.B.C.D.E.F. G", "A B C D E F. G"),
            (".э.э ..x a..b", "э.э x a b"),
            ("... . word.....", "word..."),
            ("a\u{0}b\u{1b}c\nd", "a b c d"),
            ("e\u{301}.\u{302}.x", "e\u{301} \u{302} x"),
        ] {
            assert_eq!(broken_up(text), expected, "{text:?}");
        }
        assert_eq!(broken_up(&"ы".repeat(85)), format!("{} {0} {}", "ы".repeat(40), "ы".repeat(5)));
        assert_eq!(broken_up(&"d한".repeat(10)), format!("{}d {}", "d한".repeat(8), "한d한"));
    }

    fn crashed() -> ProgramError {
        let status = Command::new("sh").args(["-c", "kill -ABRT $$"]).status().unwrap();
        ProgramError::Crashed { status, said: String::new() }
    }

    #[test]
    fn a_crash_costs_marks_first_and_then_the_text_and_other_errors_nothing_of_it() {
        let asked = RefCell::new(Vec::new());
        let with = |fails: fn(&str) -> bool, error: fn() -> ProgramError| {
            asked.borrow_mut().clear();
            ask("test", "Oh, no: A.B!", |text| {
                asked.borrow_mut().push(text.to_owned());
                if fails(text) { Err(error()) } else { Ok(text.len()) }
            })
        };
        assert_eq!(with(|_| false, crashed).unwrap(), Some(12));
        assert_eq!(with(|text| text.contains('!'), crashed).unwrap(), Some(9));
        assert_eq!(*asked.borrow(), ["Oh, no: A.B!", "Oh no A B"]);
        assert_eq!(with(|_| true, crashed).unwrap(), None);
        assert_eq!(asked.borrow().len(), 2);
        assert!(with(|_| true, || ProgramError::TooMuch).is_err());
        assert_eq!(asked.borrow().len(), 1);
    }
}
