//! Text cut into parts, each of which one request has spoken.

use std::ops::Range;

use crate::sentences::{is_closing, is_terminator, sentences};

/// The longest part, in characters: the smaller of the two limits that the service's documentation has.
const LONGEST: usize = 2_000;
/// How long a part gets that is to be heard at once: some 40 seconds. What is asked for ahead of a listener who stops is
/// paid for, and what broke off is made again from the start of its part; a sentence alone would be a request each.
const HEARD: usize = 600;
/// How long the first part is at least, if the text is: five seconds, in which the second can be asked for. Each may then
/// be twice as long as the one before: so there is no gap, even where a service makes all of an answer before it begins.
const FIRST: usize = 80;
/// The shortest clause that is spoken by itself: shorter ones sound cut off.
const CLAUSE: usize = 40;

/// A text that may still be coming, of which parts are taken off the front. A part ends where a sentence or a line does,
/// or at a clause or a word in sentences of more than 200 characters, and never inside the service's marks of
/// pronunciation (`{shown}{spoken}`), as far as the longest part allows.
#[derive(Debug)]
pub(super) struct Script {
    /// What has come and is in no part yet.
    text: String,
    /// No more comes.
    ended: bool,
    /// Nothing has come for a while: what looks whole is.
    settled: bool,
    /// From how many characters on a part is long enough.
    enough: usize,
    /// What `enough` grows to.
    most: usize,
}

impl Script {
    /// A text that is heard while it comes: parts of whole sentences as early as possible, longer as it goes on.
    pub(super) fn spoken() -> Script {
        Script { text: String::new(), ended: false, settled: false, enough: FIRST, most: HEARD }
    }

    /// A text for a file: parts as long as may be.
    pub(super) fn filed() -> Script {
        Script { enough: LONGEST, most: LONGEST, ..Script::spoken() }
    }

    /// The text goes on.
    pub(super) fn push(&mut self, text: &str) {
        let text = if self.text.is_empty() { text.trim_start() } else { text };
        self.text.push_str(text);
        self.settled = false;
    }

    /// Nothing has come for a while.
    pub(super) fn settle(&mut self) {
        self.settled = true;
    }

    /// Whether waiting could make something whole.
    pub(super) fn is_unsettled(&self) -> bool {
        !self.settled && !self.text.is_empty()
    }

    /// Whether there is enough for any part.
    pub(super) fn is_full(&self) -> bool {
        self.text.len() > 8 * LONGEST
    }

    /// The text is at its end.
    pub(super) fn end(&mut self) {
        self.ended = true;
    }

    /// The next part, if one is whole. Where the listener `waits`, half a sentence will do.
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

    /// Where the next part ends, in bytes.
    fn end_of_part(&self, waits: bool) -> Option<usize> {
        // Where the last sentence ends, and the last that ends outside of a mark.
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

    /// The sentences of all lines: for the service a line break is a pause, too.
    fn pieces(&self) -> impl Iterator<Item = Range<usize>> {
        let start = self.text.as_ptr() as usize;
        self.text.split_inclusive('\n').flat_map(sentences).map(move |sentence| {
            let begins = sentence.as_ptr() as usize - start;
            begins..begins + sentence.len()
        })
    }

    /// Whether a piece stays as it is, whatever comes.
    fn is_whole(&self, piece: &Range<usize>, next: Option<&Range<usize>>) -> bool {
        let rest = &self.text[piece.end..];
        let line_ends = rest.trim_start_matches([' ', '\t', '\r']).starts_with('\n');
        // A quotation mark or a dash alone doesn't tell whether the sentence goes on behind it.
        let begun = next.is_some_and(|next| is_speakable(&self.text[next.clone()]));
        let looks_whole = || self.text[piece.clone()].trim_end_matches(is_closing).ends_with(is_terminator);
        self.ended || line_ends || begun || rest.len() > LONGEST || (self.settled && looks_whole())
    }

    /// Where the last clause of an unfinished sentence ends, if what comes before is long enough.
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

    /// Whether this place is inside of a mark of pronunciation, which is within a line.
    fn is_marked(&self, at: usize) -> bool {
        let (before, after) = self.text.split_at(at);
        let opened = before.rfind('{').is_some_and(|open| !before[open..].contains(['}', '\n']));
        opened || (before.ends_with('}') && after.starts_with('{'))
    }
}

/// Whether there is anything to say: all but space, marks and signs of ASCII, and Unicode's general punctuation.
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

    /// The parts of a text that comes in bites, each asked for as soon as it is there.
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
