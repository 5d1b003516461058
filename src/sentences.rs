//! Splitting of text into sentences, and of sentences into clauses.
//!
//! A voice synthesises one sentence at a time, so a listener hears the first while the second is being
//! made. The rules are for English and Russian. They examine the characters around a dot, and use no
//! dictionary except for abbreviations.

/// Maximum length of a piece that [`sentences`] returns, in characters. 200 characters are about 12
/// seconds of speech, so a listener waits for one synthesis of bounded length, whatever the text is.
pub const MAX_SENTENCE_CHARS: usize = 200;

/// Abbreviations that never end a sentence, because something always follows. Lower case, without the
/// last dot.
const NEVER_LAST: &[&str] = &[
    "mr",
    "mrs",
    "ms",
    "dr",
    "prof",
    "st",
    "rev",
    "gen",
    "sen",
    "rep",
    "gov",
    "capt",
    "lt",
    "col",
    "sgt",
    "vs",
    "e.g",
    "i.e",
    "cf",
    "viz",
    "fig",
    "vol",
    "pp",
    "approx",
    "т.е",
    "т.к",
    "т.н",
    "т.о",
    "ул",
    "просп",
    "пер",
    "наб",
    "пл",
    "кв",
    "корп",
    "стр",
    "рис",
    "табл",
    "им",
    "проф",
    "акад",
    "доц",
    "напр",
    "см",
    "ср",
    "тов",
    "гр",
    "обл",
    "пос",
    "св",
    "о",
    "д",
    "п",
    "гл",
    "ст",
];

/// Abbreviations that stand inside a sentence or at its end. A capital after the abbreviation marks the
/// end.
const MAYBE_LAST: &[&str] = &[
    "etc", "inc", "ltd", "co", "corp", "jr", "sr", "a.m", "p.m", "u.s", "u.k", "no", "т.д", "т.п", "др",
    "пр", "гг", "в", "вв", "руб", "коп", "тыс", "млн", "млрд", "трлн", "кг", "км", "м", "мин", "сек", "ч",
    "н.э",
];

/// Returns the sentences of `text`, in order: trimmed, never empty, each at most [`MAX_SENTENCE_CHARS`]
/// characters. A longer sentence is split after its last clause that fits, else between words, else
/// between characters. Only white space is left out.
///
/// A sentence ends with `.`, `!`, `?` or `…` (and closing quotes or brackets after the mark) before white
/// space and anything but a small letter, and at an empty line. Dots of abbreviations, initials and
/// decimals end no sentence.
pub fn sentences(text: &str) -> Sentences<'_> {
    Sentences { rest: text }
}

/// Iterator returned by [`sentences`].
#[derive(Clone, Debug)]
pub struct Sentences<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Sentences<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.rest.trim_start();
        if text.is_empty() {
            self.rest = text;
            return None;
        }
        let (sentence, rest) = text.split_at(sentence_end(text));
        self.rest = rest;
        Some(sentence.trim_end())
    }
}

/// Returns the end of the first sentence of `text`, in bytes, including its closing quotes. `text` starts
/// with a character that is not white space, so the result is never zero.
fn sentence_end(text: &str) -> usize {
    let (mut last_clause, mut last_word) = (None, None);
    let mut skip_to = 0;
    for (count, (at, c)) in text.char_indices().enumerate() {
        if count == MAX_SENTENCE_CHARS {
            return last_clause.or(last_word).unwrap_or(at);
        }
        if at < skip_to {
            continue;
        }
        if is_terminator(c) {
            let stop = Stop::read(text, at);
            skip_to = stop.marks_end;
            if stop.ends_sentence(text) {
                // Marks and closing quotes may exceed the limit, but the returned piece never does.
                let bound = || text.char_indices().nth(MAX_SENTENCE_CHARS).map_or(text.len(), |(at, _)| at);
                return if fits(count, &text[at..stop.end]) { stop.end } else { bound() };
            }
            if stop.before_space(text) && fits(count, &text[at..stop.end]) {
                last_clause = Some(stop.end);
            }
        } else if c == '\n' && is_blank_line(&text[at..]) {
            return at;
        } else if c.is_whitespace() {
            last_word = Some(at);
        } else if is_clause_mark(c) && text[at + c.len_utf8()..].starts_with(char::is_whitespace) {
            last_clause = Some(at + c.len_utf8());
        }
    }
    text.len()
}

/// Returns whether `more` after `count` characters stays within the limit.
fn fits(count: usize, more: &str) -> bool {
    more.chars().take(MAX_SENTENCE_CHARS + 1).count() + count <= MAX_SENTENCE_CHARS
}

/// A run of terminators (`.`, `?!`, `...`) and the quotes that close after it.
struct Stop {
    /// Start of the run.
    start: usize,
    /// End of the marks.
    marks_end: usize,
    /// End of the closing quotes and brackets.
    end: usize,
}

impl Stop {
    fn read(text: &str, start: usize) -> Stop {
        let past = |from: usize, wanted: fn(char) -> bool| {
            text[from..].find(|c: char| !wanted(c)).map_or(text.len(), |length| from + length)
        };
        let marks_end = past(start, is_terminator);
        Stop { start, marks_end, end: past(marks_end, is_closing) }
    }

    fn before_space(&self, text: &str) -> bool {
        text[self.end..].chars().next().is_none_or(char::is_whitespace)
    }

    fn ends_sentence(&self, text: &str) -> bool {
        let rest = &text[self.end..];
        let following = rest.trim_start();
        if following.is_empty() {
            return true;
        }
        if following.len() == rest.len() {
            return false; // 3.5, example.com, т.е.
        }
        if rest.starts_with('\n') && is_blank_line(rest) {
            return true;
        }
        let next = following.chars().find(|&c| !is_opening(c) && !c.is_whitespace());
        if next.is_some_and(char::is_lowercase) {
            return false; // “Really?” she asked. Он ушёл в 5 ч. утра.
        }
        &text[self.start..self.marks_end] != "." || !is_abbreviation(&text[..self.start])
    }
}

/// Returns whether `before` ends in an abbreviation after which the sentence continues. `before` is the
/// text before a single dot that a capital, a digit or a sign follows.
fn is_abbreviation(before: &str) -> bool {
    let word_at = before
        .rfind(|c: char| c.is_whitespace() || is_opening(c))
        .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
    let word = &before[word_at..];
    let mut letters = word.chars();
    if let (Some(letter), None) = (letters.next(), letters.next()) {
        if letter.is_uppercase() {
            return letter != 'I'; // A. S. Pushkin, but: so do I.
        }
        if letter == 'г' {
            // г. Москва goes on, 2024 г. may end.
            return !before[..word_at].trim_end().ends_with(|c: char| c.is_ascii_digit());
        }
    }
    let word = word.to_lowercase();
    if MAYBE_LAST.contains(&word.as_str()) {
        return false;
    }
    NEVER_LAST.contains(&word.as_str()) || is_initials(&word)
}

/// Returns whether `word` is initials, such as `а.с` of `А.С. Пушкин`: two or three single letters,
/// separated by dots.
fn is_initials(word: &str) -> bool {
    let letters = word.split('.').count();
    (2..=3).contains(&letters)
        && word.split('.').all(|part| part.chars().count() == 1 && part.chars().all(char::is_alphabetic))
}

/// A part of a sentence and the mark after it, which determines the intonation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clause<'a> {
    /// Words, including the quotes and brackets among them.
    pub text: &'a str,
    /// One of `. , ? ! ; :`, or `None` if the sentence ends without a mark.
    pub mark: Option<char>,
}

/// Splits a sentence into clauses: at `, ; :`, at dashes between words, and at terminators inside the
/// sentence. Marks that no white space follows (`3,5`, `10:30`) and the dots of abbreviations do not
/// split.
pub fn clauses(sentence: &str) -> Vec<Clause<'_>> {
    let mut clauses = Vec::new();
    let (mut start, mut skip_to) = (0, 0);
    for (at, c) in sentence.char_indices() {
        if at < skip_to {
            continue;
        }
        let (mark, end) = if is_terminator(c) {
            let stop = Stop::read(sentence, at);
            skip_to = stop.marks_end;
            let marks = &sentence[at..stop.marks_end];
            let rest = &sentence[stop.end..];
            let cuts = stop.before_space(sentence)
                && (rest.trim().is_empty() || marks != "." || !stands_in_abbreviation(&sentence[..at]));
            if !cuts {
                continue;
            }
            (spoken_mark(marks), stop.end)
        } else if is_clause_mark(c) {
            let end = at + c.len_utf8();
            let spaced_dash = !is_dash(c) || sentence[..at].ends_with(char::is_whitespace);
            if !spaced_dash || !sentence[end..].starts_with(|c: char| c.is_whitespace() || is_closing(c)) {
                continue;
            }
            (if is_dash(c) { ',' } else { c }, end)
        } else {
            continue;
        };
        clauses.push(Clause { text: sentence[start..at].trim(), mark: Some(mark) });
        start = end;
        skip_to = end;
    }
    let rest = sentence[start..].trim();
    if !rest.is_empty() {
        // A comma at the end of the text has no white space after it, but is a pause all the same.
        let text = rest.trim_end_matches(is_clause_mark);
        let mark = rest[text.len()..].chars().next().map(|c| if is_dash(c) { ',' } else { c });
        clauses.push(Clause { text, mark });
    }
    clauses
}

/// Returns whether a dot after `before` belongs to an abbreviation, whatever follows.
fn stands_in_abbreviation(before: &str) -> bool {
    let word =
        before.rsplit(|c: char| c.is_whitespace() || is_opening(c)).next().unwrap_or("").to_lowercase();
    word == "г"
        || NEVER_LAST.contains(&word.as_str())
        || MAYBE_LAST.contains(&word.as_str())
        || is_initials(&word)
        || is_abbreviation(before)
}

/// Returns the mark that represents a run of marks: a question stays a question.
fn spoken_mark(marks: &str) -> char {
    ['?', '!'].into_iter().find(|&mark| marks.contains(mark)).unwrap_or('.')
}

/// Returns whether a character can end a sentence.
pub fn is_terminator(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…')
}

fn is_clause_mark(c: char) -> bool {
    matches!(c, ',' | ';' | ':') || is_dash(c)
}

fn is_dash(c: char) -> bool {
    matches!(c, '—' | '–' | '-')
}

/// Returns whether a character can close a quotation or a bracket after a terminator.
pub fn is_closing(c: char) -> bool {
    matches!(c, '"' | '\'' | '”' | '’' | '»' | ')' | ']' | '}')
}

/// Returns whether a character can stand between a terminator and the first letter of the next sentence.
fn is_opening(c: char) -> bool {
    matches!(c, '"' | '\'' | '“' | '„' | '‘' | '«' | '(' | '[' | '{') || is_dash(c)
}

/// Returns whether an empty line follows `rest`'s first line break, with which `rest` starts.
fn is_blank_line(rest: &str) -> bool {
    let spaces = &rest[..rest.len() - rest.trim_start().len()];
    spaces.bytes().filter(|&byte| byte == b'\n').count() > 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(sentence: &str) -> Vec<(&str, Option<char>)> {
        clauses(sentence).into_iter().map(|clause| (clause.text, clause.mark)).collect()
    }

    #[test]
    fn clauses_keep_the_marks_that_drive_intonation() {
        assert_eq!(marked("Well, are you coming?"), [("Well", Some(',')), ("are you coming", Some('?'))]);
        assert_eq!(marked("It is 3,5 at 10:30"), [("It is 3,5 at 10:30", None)]);
        assert_eq!(marked("Wait... what?!"), [("Wait", Some('.')), ("what", Some('?'))]);
        assert_eq!(marked("Mr. Smith, e.g. Joe."), [("Mr. Smith", Some(',')), ("e.g. Joe", Some('.'))]);
        assert_eq!(marked("Он — врач."), [("Он", Some(',')), ("врач", Some('.'))]);
        assert_eq!(marked("well-known facts:"), [("well-known facts", Some(':'))]);
        assert_eq!(marked("\"Yes,\" he said."), [("\"Yes", Some(',')), ("\" he said", Some('.'))]);
    }

    #[test]
    fn clauses_of_nothing_but_marks_have_no_words() {
        for sentence in ["...", "?!", ", ; :", "—"] {
            assert!(clauses(sentence).iter().all(|clause| clause.text.is_empty()), "{sentence}");
        }
        assert!(clauses("").is_empty());
    }
}
