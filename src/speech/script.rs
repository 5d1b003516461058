//! Splitting of text into parts, one for each request.

use std::ops::Range;

use crate::sentences::{is_closing, is_terminator, sentences};

/// Longest part, in characters: the smaller of the two limits in the service's documentation.
const LONGEST: usize = 2_000;
/// Length that parts grow to in live playback, in characters: some 40 seconds. Audio requested ahead of a
/// listener who stops is paid for, and a part that breaks off is synthesised again from its start. Single
/// sentences would need a request each.
const HEARD: usize = 600;
/// Minimum length of the first part, in characters, if the text is as long: five seconds, in which the
/// second part can be requested. Each later part may be twice as long as the one before, which leaves no
/// gap even if the service synthesises a whole response before it sends any.
const FIRST: usize = 80;
/// Shortest clause that is spoken by itself, in characters: shorter ones sound cut off.
const CLAUSE: usize = 40;

/// A text that may still be arriving, from whose front parts are taken. A part ends at the end of a
/// sentence or a line, or at a clause or a word in sentences of more than 200 characters. A part never
/// ends inside the service's pronunciation marks (`{shown}{spoken}`), as far as the maximum length
/// allows.
#[derive(Debug)]
pub(super) struct Script {
    /// Text that has arrived and is in no part yet.
    text: String,
    /// True once the text is complete.
    ended: bool,
    /// True if the text has paused, so that a sentence that looks complete counts as complete.
    settled: bool,
    /// Length from which on a part is long enough, in characters.
    enough: usize,
    /// Upper limit of `enough`.
    most: usize,
}

impl Script {
    /// Creates a script for live playback: parts of whole sentences as early as possible, longer as the
    /// text continues.
    pub(super) fn spoken() -> Script {
        Script { text: String::new(), ended: false, settled: false, enough: FIRST, most: HEARD }
    }

    /// Creates a script for a file: parts as long as possible.
    pub(super) fn filed() -> Script {
        Script { enough: LONGEST, most: LONGEST, ..Script::spoken() }
    }

    /// Appends text.
    pub(super) fn push(&mut self, text: &str) {
        let text = if self.text.is_empty() { text.trim_start() } else { text };
        self.text.push_str(text);
        self.settled = false;
    }

    /// Records that the text has paused.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    /// Returns whether a pause could complete a sentence.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.settled && !self.text.is_empty()
    }

    /// Returns whether there is enough text for a part of any length.
    pub(super) fn is_full(&self) -> bool {
        self.text.len() > 8 * LONGEST
    }

    /// Marks the text as complete.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// Returns the next part, if one is complete. If the listener `waits`, part of a sentence is enough.
    pub(super) fn next(&mut self, waits: bool) -> Option<String> {
        loop {
            let end = self.end_of_part(waits)?;
            let part: String = self.text.drain(..end).collect();
            self.text.drain(..self.text.len() - self.text.trim_start().len());
            if is_speakable(&part) {
                self.enough = (2 * self.enough).min(self.most);
                return Some(part.trim().to_owned());
            }
        }
    }

    /// Returns the end of the next part, in bytes.
    fn end_of_part(&self, waits: bool) -> Option<usize> {
        // End of the last sentence, and of the last sentence that ends outside of a pronunciation mark.
        let (mut end, mut unmarked, mut length) = (0, 0, 0);
        let mut unfinished = None;
        let mut pieces = self.pieces().peekable();
        while let Some(piece) = pieces.next() {
            if !self.is_whole(&piece, pieces.peek()) {
                unfinished = Some(piece);
                break;
            }
            let longer = length + self.text[end..piece.end].chars().count();
            if longer > LONGEST && end > 0 {
                return Some(if unmarked > 0 { unmarked } else { end });
            }
            (end, length) = (piece.end, longer);
            if !self.is_marked(end) {
                unmarked = end;
                if length >= self.enough {
                    return Some(end);
                }
            }
        }
        let clause = || unfinished.filter(|_| waits).and_then(|piece| self.clause(piece));
        match end {
            _ if self.most == LONGEST && !self.ended => None,
            0 => clause(),
            end if self.ended => Some(end),
            _ => (unmarked > 0).then_some(unmarked),
        }
    }

    /// Returns the sentences of all lines: the service treats a line break as a pause, too.
    fn pieces(&self) -> impl Iterator<Item = Range<usize>> {
        let start = self.text.as_ptr() as usize;
        self.text.split_inclusive('\n').flat_map(sentences).map(move |sentence| {
            let begins = sentence.as_ptr() as usize - start;
            begins..begins + sentence.len()
        })
    }

    /// Returns whether a piece stays the same, whatever text follows.
    fn is_whole(&self, piece: &Range<usize>, next: Option<&Range<usize>>) -> bool {
        let rest = &self.text[piece.end..];
        let line_ends = rest.trim_start_matches([' ', '\t', '\r']).starts_with('\n');
        // A quotation mark or a dash alone does not tell whether the sentence continues after it.
        let begun = next.is_some_and(|next| is_speakable(&self.text[next.clone()]));
        let looks_whole = || self.text[piece.clone()].trim_end_matches(is_closing).ends_with(is_terminator);
        self.ended || line_ends || begun || rest.len() > LONGEST || (self.settled && looks_whole())
    }

    /// Returns the end of the last clause of an unfinished sentence, if the text before it is long
    /// enough.
    fn clause(&self, sentence: Range<usize>) -> Option<usize> {
        let text = &self.text[sentence.clone()];
        let mut before = ' ';
        let mut found = None;
        for (count, (at, letter)) in text.char_indices().enumerate() {
            let rest = &text[at + letter.len_utf8()..];
            let ends = match letter {
                ',' | ';' | ':' => true,
                '—' | '–' | '-' => before == ' ',
                _ => false,
            };
            let end = sentence.start + at + letter.len_utf8();
            if ends && count >= CLAUSE && rest.starts_with(' ') && !self.is_marked(end) {
                found = Some(end);
            }
            before = letter;
        }
        found
    }

    /// Returns whether a position is inside a pronunciation mark, which never spans lines.
    fn is_marked(&self, at: usize) -> bool {
        let (before, after) = self.text.split_at(at);
        let opened = before.rfind('{').is_some_and(|open| !before[open..].contains(['}', '\n']));
        opened || (before.ends_with('}') && after.starts_with('{'))
    }
}

/// Returns whether there is anything to pronounce: any character but white space, ASCII marks and
/// symbols, and Unicode's general punctuation.
fn is_speakable(text: &str) -> bool {
    let is_silent = |letter: char| {
        letter.is_ascii()
            || letter.is_whitespace()
            || letter.is_control()
            || matches!(letter, '«' | '»' | '\u{2000}'..='\u{206f}')
    };
    text.chars().any(|letter| letter.is_alphanumeric() || !is_silent(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the parts of a text that arrives in `bites`, each taken as soon as it is available.
    fn parts(mut script: Script, bites: &[&str], waits: bool) -> Vec<String> {
        let mut parts = Vec::new();
        for bite in bites {
            script.push(bite);
            parts.extend(std::iter::from_fn(|| script.next(waits)));
        }
        script.end();
        parts.extend(std::iter::from_fn(|| script.next(waits)));
        assert!(script.text.trim().is_empty() || !is_speakable(&script.text));
        parts
    }

    fn solid(text: &str) -> String {
        text.split_whitespace().collect()
    }

    const PROSE: &str = "It was a cold day, and the train was late. \"Really?\" she asked. Mr. Smith, who had waited \
        since 5 p.m. in the hall, said nothing at all. Nobody did.\nНа станции никого не было, т.е. почти никого. — \
        Куда? — спросил он. Это {BMW}{Бээмв`э}, {a. B}{c. D e} 3,5 млн руб. и т.д.\n\nThe end. ";

    #[test]
    fn parts_begin_short_and_grow_and_lose_nothing() {
        let text = PROSE.repeat(20);
        let spoken = parts(Script::spoken(), &[&text], false);
        let lengths: Vec<usize> = spoken.iter().map(|part| part.chars().count()).collect();
        assert!(lengths[0] >= FIRST && lengths[0] < FIRST + 200, "{lengths:?}");
        assert!(lengths[1] < 2 * FIRST + 200 && lengths[2] < 4 * FIRST + 200, "{lengths:?}");
        assert!(lengths.iter().all(|&length| length < HEARD + 200), "{lengths:?}");
        assert_eq!(solid(&spoken.concat()), solid(&text));

        let filed = parts(Script::filed(), &[&text], false);
        let lengths: Vec<usize> = filed.iter().map(|part| part.chars().count()).collect();
        let (last, full) = lengths.split_last().unwrap();
        assert!(full.iter().all(|length| (LONGEST - 200..=LONGEST).contains(length)), "{lengths:?}");
        assert!(*last <= LONGEST);
        assert_eq!(solid(&filed.concat()), solid(&text));
    }

    #[test]
    fn a_full_part_ends_before_a_mark_that_it_cannot_hold() {
        let before = "Hello there. ".repeat((LONGEST - 20) / 13);
        let parts = parts(Script::filed(), &[&before, "See {Really? Yes}{reelly yes}. The end."], false);
        assert_eq!(parts.len(), 2);
        assert!(
            parts[0].ends_with("Hello there.") && parts[1].starts_with("See {Really? Yes}{"),
            "{parts:?}"
        );
    }

    #[test]
    fn a_text_that_comes_letter_by_letter_is_cut_at_its_sentences() {
        let letters: Vec<String> = PROSE.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        let parts = parts(Script::spoken(), &letters, false);
        assert_eq!(
            parts,
            [
                "It was a cold day, and the train was late.",
                "\"Really?\" she asked.",
                "Mr. Smith, who had waited since 5 p.m. in the hall, said nothing at all.",
                "Nobody did.",
                "На станции никого не было, т.е. почти никого.",
                "— Куда? — спросил он.",
                "Это {BMW}{Бээмв`э}, {a. B}{c. D e} 3,5 млн руб. и т.д.",
                "The end.",
            ]
        );
    }

    #[test]
    fn who_waits_gets_a_clause() {
        let text = "The train to the coast, which was late, as it is on most days of the year - or so they say - left";
        let letters: Vec<String> = text.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        let waiting = parts(Script::spoken(), &letters, true);
        assert_eq!(
            waiting,
            [
                "The train to the coast, which was late, as it is on most days of the year -",
                "or so they say - left"
            ]
        );
        assert_eq!(parts(Script::spoken(), &letters, false), [text]);
    }

    #[test]
    fn a_pause_ends_what_looks_like_a_sentence() {
        let mut script = Script::spoken();
        script.push("Well (yes.)");
        assert_eq!(script.next(true), None);
        script.settle();
        assert_eq!(script.next(true).unwrap(), "Well (yes.)");
        script.push(" And then");
        script.settle();
        assert_eq!(script.next(true), None);
    }

    #[test]
    fn texts_without_words_or_without_end() {
        for silent in ["", " ", "\n\n", "?! ... —", "«»", "\u{200b}", "{}", "***"] {
            assert_eq!(parts(Script::spoken(), &[silent], true), [""; 0], "{silent:?}");
            assert_eq!(parts(Script::filed(), &[silent], true), [""; 0], "{silent:?}");
        }
        for loud in ["7", "я", "№", "😀", "%1"] {
            assert_eq!(parts(Script::spoken(), &[loud], true), [loud]);
        }
        for endless in ["ы", ".", " ", "{", "a. ", "-\n", "{a}"] {
            let mut script = Script::spoken();
            let mut longest = 0;
            for _ in 0..30_000 {
                script.push(endless);
                while let Some(part) = script.next(false) {
                    assert!(part.chars().count() <= LONGEST, "{endless:?}");
                }
                longest = longest.max(script.text.len());
            }
            assert!(longest < 4 * LONGEST, "{endless:?}: {longest} bytes wait");
        }
    }
}
