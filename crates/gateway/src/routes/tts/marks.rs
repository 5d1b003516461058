//! Markup of a text, which tells how to speak it where the spelling doesn't.

use std::iter::Peekable;
use std::str::Chars;

/// Returns `text` without its markup (text-to-speech.md of the documentation, "Разметка текста"), as a
/// voice must read it:
///
/// - `{shown}{spoken}`: the spoken form replaces both.
/// - A line break is a pause, expressed here as the end of a sentence.
/// - `` ` `` before a stressed vowel and `^` around an emphasised word are left out: no available voice
///   accepts either. espeak-ng and festvox-ru read a text with U+0301 or `+` with their own stress, or
///   spell the mark.
///
/// An unpaired brace is left out, too, and separates its neighbours, as does a `^` inside a word: `2^3`.
pub(super) fn spoken(text: &str) -> String {
    let mut spoken = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        push(&mut spoken, &rest[..at]);
        rest = &rest[at..];
        match braced(rest) {
            Some((shown, after)) => {
                let (said, after) = braced(after).unwrap_or((shown, after));
                push(&mut spoken, if said.trim().is_empty() { shown } else { said });
                rest = after;
            }
            None => {
                spoken.push(' ');
                rest = &rest[1..];
            }
        }
    }
    push(&mut spoken, rest);
    spoken
}

/// Returns the content of the braces at the start of `text`, and the text after them.
fn braced(text: &str) -> Option<(&str, &str)> {
    let (held, after) = text.strip_prefix('{')?.split_once('}')?;
    (!held.contains('{')).then_some((held, after))
}

/// Appends a part without braces, and applies the other marks.
fn push(spoken: &mut String, part: &str) {
    let mut letters = part.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '`' => {}
            '^' if spoken.ends_with(char::is_alphanumeric) && is_word(&mut letters) => spoken.push(' '),
            '^' => {}
            '\r' if letters.peek() == Some(&'\n') => {}
            '\n' | '\r' => spoken.push_str("\n\n"),
            other => spoken.push(other),
        }
    }
}

fn is_word(letters: &mut Peekable<Chars>) -> bool {
    letters.peek().is_some_and(|letter| letter.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_heeded_or_left_out() {
        for (text, expected) in [
            ("Толст`ой и ^сильный^ ветер.", "Толстой и сильный ветер."),
            ("Это {BMW}{Бээмв`э}, а не {Audi}.", "Это Бээмвэ, а не Audi."),
            ("{a}{b}{c}{d}", "bd"),
            ("{a} {b}", "a b"),
            ("{a}{}", "a"),
            ("{a}{ }", "a"),
            ("одна\nдве\r\nтри\rчетыре", "одна\n\nдве\n\nтри\n\nчетыре"),
            ("2^3 = 8, ^so^ ^", "2 3 = 8, so "),
            ("`", ""),
            ("{", " "),
            ("a}b{c", "a b c"),
            ("{{BMW}{Бээмвэ}}", " Бээмвэ "),
            ("{a{b}{c}", " ac"),
            ("{shown}{", "shown "),
            ("", ""),
        ] {
            assert_eq!(spoken(text), expected, "{text}");
        }
    }

    #[test]
    fn no_mark_is_left_at_any_place() {
        let signs = ['{', '}', '`', '^', 'a', '\n', 'я'];
        for number in 0..signs.len().pow(6) {
            let sign = |place| signs[number / signs.len().pow(place) % signs.len()];
            let text: String = (0..6).map(sign).collect();
            assert!(!spoken(&text).contains(['{', '}', '`', '^']), "{text}");
        }
    }
}
