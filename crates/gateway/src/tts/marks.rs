//! The marks that a text may carry: how it is spoken where that is not how it is written.

use std::iter::Peekable;
use std::str::Chars;

/// `text` without its marks (text-to-speech.md of the documentation, "Разметка текста"), as a voice is to read it:
///
/// - `{shown}{spoken}`: what is spoken takes the place of both.
/// - A line break is a pause, which here is the end of a sentence.
/// - `` ` `` before a stressed vowel and `^` around an emphasised word are left out: no voice at hand can be told either.
///   espeak-ng and festvox-ru read a text with U+0301 or `+` by their own stress, or spell the mark.
///
/// A brace without its pair is left out, too, and parts what it stood between, as does a `^` inside a word: `2^3`.
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

/// What the braces at the start of `text` hold, and what follows them.
fn braced(text: &str) -> Option<(&str, &str)> {
    let (held, after) = text.strip_prefix('{')?.split_once('}')?;
    (!held.contains('{')).then_some((held, after))
}

/// Appends a part without braces.
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
    fn no_mark_is_left_whatever_its_place() {
        let signs = ['{', '}', '`', '^', 'a', '\n', 'я'];
        for number in 0..signs.len().pow(6) {
            let sign = |place| signs[number / signs.len().pow(place) % signs.len()];
            let text: String = (0..6).map(sign).collect();
            assert!(!spoken(&text).contains(['{', '}', '`', '^']), "{text}");
        }
    }
}
