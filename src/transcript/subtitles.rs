//! Cutting of segments into readable subtitle cues.
//!
//! A cue is cut at sentence ends and pauses if possible, else at commas, and between other words only if
//! it would grow too large. The cuts of a segment are chosen together, for the least total cost, so that
//! no single word is left over at the end.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{FinalSegment, Word};
use crate::audio::FramePos;

/// The limits of subtitle cues. The defaults are those of the Netflix Timed Text Style Guide for English:
/// two lines of 42 characters, at most seven seconds, 20 characters per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subtitles {
    /// Most lines of a cue, 1 to 10.
    pub lines: u16,
    /// Most characters of a line, 10 to 200.
    pub width: u16,
    /// Longest time for which a cue is shown, 1 to 60 seconds.
    pub duration: Duration,
    /// Fastest readable text, in characters per second, 1 to 100. A cue stays as long as its text takes
    /// to read, if the next cue allows that: speech may be faster.
    pub speed: u16,
    /// Shortest pause between words that always ends a cue, up to 60 seconds.
    pub pause: Duration,
}

impl Subtitles {
    /// Range of `lines`.
    pub const LINES: RangeInclusive<u16> = 1..=10;
    /// Range of `width`.
    pub const WIDTH: RangeInclusive<u16> = 10..=200;
    /// Range of `duration`, in seconds.
    pub const SECONDS: RangeInclusive<u16> = 1..=60;
    /// Range of `speed`, in characters per second.
    pub const SPEED: RangeInclusive<u16> = 1..=100;

    /// Returns these limits, clamped to the ranges above; `pause` is not clamped.
    fn settled(self) -> Subtitles {
        let Subtitles { lines, width, duration, speed, pause } = self;
        let seconds = |seconds: u16| Duration::from_secs(seconds.into());
        Subtitles {
            lines: lines.clamp(*Self::LINES.start(), *Self::LINES.end()),
            width: width.clamp(*Self::WIDTH.start(), *Self::WIDTH.end()),
            duration: duration.clamp(seconds(*Self::SECONDS.start()), seconds(*Self::SECONDS.end())),
            speed: speed.clamp(*Self::SPEED.start(), *Self::SPEED.end()),
            pause,
        }
    }
}

impl Default for Subtitles {
    fn default() -> Subtitles {
        Subtitles {
            lines: 2,
            width: 42,
            duration: Duration::from_secs(7),
            speed: 20,
            // A long pause is a turn of thought; shorter ones are only good places to cut.
            pause: Duration::from_millis(1_500),
        }
    }
}

/// Shortest time for which a cue is shown, if the next cue allows that, in milliseconds: five sixths of a
/// second (same guide).
const SHORTEST: u64 = 833;
/// Shortest pause that is as good a place to cut as the end of a sentence, in milliseconds.
const BREATH: u64 = 300;

/// Costs of a cut, in a unit of their own: each cue has a cost, so that there are few, and each bad cut
/// costs more.
const A_CUE: u32 = 10;
const CUT_AT_CLAUSE: u32 = 4;
const CUT_ELSEWHERE: u32 = 24;
const SENTENCE_END_INSIDE: u32 = 12;
const TOO_SHORT: u32 = 15;
/// Cost of each tenth of `speed` by which a cue is too fast, for up to ten tenths.
const TOO_FAST: u32 = 2;

/// A subtitle cue: text on the screen from `start` to `end`, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cue {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) lines: Vec<String>,
}

/// A piece of text without spaces, and the time at which it is spoken, in milliseconds.
#[derive(Clone, Debug)]
struct Token {
    text: String,
    length: usize,
    start: u64,
    end: u64,
}

/// Cuts a segment into cues that begin at `earliest` or later. `text` is the segment's text in one line,
/// and `label` precedes the first line of each cue. Times are in milliseconds, converted from positions
/// by `millis`.
pub(super) fn cut(
    segment: &FinalSegment,
    text: &str,
    label: Option<&str>,
    earliest: u64,
    limits: Subtitles,
    millis: impl Fn(FramePos) -> u64,
) -> Vec<Cue> {
    let limits = limits.settled();
    let width = usize::from(limits.width);
    // The label leaves half a line for words.
    let label: Option<String> = label.map(|label| label.chars().take(width / 2).collect());
    let taken = label.as_ref().map_or(0, |label| label.chars().count() + 1);
    let range = millis(segment.range.start)..millis(segment.range.end);
    let tokens = tokens(text, &segment.words, (range.start, range.end), &millis);
    let tokens = split_long(tokens, width - taken);
    let ends = best_cuts(&tokens, taken, limits);
    let mut cues = Vec::with_capacity(ends.len());
    let (mut first, mut earliest) = (0, earliest);
    for end in ends {
        let (words, next) = (&tokens[first..end], tokens.get(end));
        let letters = length(words) as u64;
        let start = words[0].start.max(earliest);
        let said = words[words.len() - 1].end;
        let wanted = start + SHORTEST.max(letters * 1_000 / u64::from(limits.speed));
        let room = next.map_or(range.end, |next| next.start).min(start + duration(limits));
        // WebVTT requires that a cue ends after it starts (WebVTT, 4.1, "WebVTT cue timings").
        let shown = said.max(wanted).min(room).max(start + 1);
        cues.push(Cue { start, end: shown, lines: laid_out(words, label.as_deref(), width) });
        (first, earliest) = (end, shown);
    }
    cues
}

fn duration(limits: Subtitles) -> u64 {
    limits.duration.as_millis() as u64
}

/// Returns the number of characters of `words` in one line.
fn length(words: &[Token]) -> usize {
    words.iter().map(|word| word.length + 1).sum::<usize>().saturating_sub(1)
}

/// Returns the tokens of `text` with their times. The times are those of the recogniser's words if those
/// are the words of the text, else shares of the segment in proportion to length.
fn tokens(
    text: &str,
    words: &[Word],
    (start, end): (u64, u64),
    millis: &impl Fn(FramePos) -> u64,
) -> Vec<Token> {
    let is_letter = |c: &char| !c.is_whitespace() && *c != '\0';
    let spoken_letters =
        || words.iter().flat_map(|word| word.text.chars().filter(is_letter).map(move |c| (c, word)));
    let letters = text.chars().filter(is_letter).count();
    let times: Option<Vec<(u64, u64)>> =
        spoken_letters().map(|(c, _)| c).eq(text.chars().filter(is_letter)).then(|| {
            let time = |position| millis(position).clamp(start, end.max(start));
            spoken_letters().map(|(_, word)| (time(word.range.start), time(word.range.end))).collect()
        });
    let share = |letter: usize| start + (end - start) * letter as u64 / letters.max(1) as u64;
    let (mut at, mut reached) = (0, start);
    text.split_whitespace()
        .map(|text| {
            let length = text.chars().count();
            let (from, to) = match &times {
                Some(times) => (times[at].0, times[at + length - 1].1),
                None => (share(at), share(at + length)),
            };
            at += length;
            // Words may overlap a little, but tokens follow one another.
            let from = from.max(reached);
            reached = to.max(from);
            Token { text: text.to_owned(), length, start: from, end: reached }
        })
        .collect()
}

/// Splits tokens of more than `room` characters, such as a web address, or a sentence of a language
/// written without spaces.
fn split_long(tokens: Vec<Token>, room: usize) -> Vec<Token> {
    let mut split = Vec::with_capacity(tokens.len());
    for token in tokens {
        if token.length <= room {
            split.push(token);
            continue;
        }
        let letters: Vec<char> = token.text.chars().collect();
        let time =
            |letter: usize| token.start + (token.end - token.start) * letter as u64 / letters.len() as u64;
        for (number, piece) in letters.chunks(room).enumerate() {
            let from = number * room;
            split.push(Token {
                text: piece.iter().collect(),
                length: piece.len(),
                start: time(from),
                end: time(from + piece.len()),
            });
        }
    }
    split
}

/// Returns the ends of the cues with the least total cost. The label takes `taken` characters of the
/// first line of each cue.
fn best_cuts(tokens: &[Token], taken: usize, limits: Subtitles) -> Vec<usize> {
    let pause = (limits.pause.as_millis() as u64).max(1);
    // The least cost of the cues up to each token, and the start of the last of those cues.
    let mut best: Vec<(u32, usize)> = vec![(u32::MAX, 0); tokens.len() + 1];
    best[0] = (0, 0);
    for first in 0..tokens.len() {
        let (before, start) = (best[first].0, tokens[first].start);
        let (mut lines, mut column, mut letters, mut inside) = (1, taken.saturating_sub(1), 0, 0_u32);
        for (last, token) in tokens.iter().enumerate().skip(first) {
            if column > 0 && column + 1 + token.length > usize::from(limits.width) {
                lines += 1;
                column = token.length;
            } else {
                column += token.length + usize::from(column > 0);
            }
            let is_too_long = token.end - start > duration(limits);
            // A single token always makes a cue: it has been split to fit.
            if last > first && (lines > limits.lines || is_too_long) {
                break;
            }
            letters += token.length + usize::from(last > first);
            let next = tokens.get(last + 1);
            let silence = next.map_or(u64::MAX, |next| next.start - token.end);
            let cost =
                cost_of_cut(token, silence, next.is_none()) + cost_of_time(start, letters, next, limits);
            let cost = A_CUE + inside + cost;
            let total = before.saturating_add(cost);
            if total < best[last + 1].0 {
                best[last + 1] = (total, first);
            }
            if silence >= pause {
                break;
            }
            if ends_sentence(&token.text) || silence >= BREATH {
                inside += SENTENCE_END_INSIDE;
            }
        }
    }
    let mut ends = Vec::new();
    let mut end = tokens.len();
    while end > 0 {
        ends.push(end);
        end = best[end].1;
    }
    ends.reverse();
    ends
}

fn cost_of_cut(token: &Token, silence: u64, is_last: bool) -> u32 {
    if is_last || silence >= BREATH || ends_sentence(&token.text) {
        0
    } else if ends_clause(&token.text) {
        CUT_AT_CLAUSE
    } else {
        CUT_ELSEWHERE
    }
}

/// Returns the cost of the time for which a cue of `letters` characters can be shown from `start` on: a
/// cue may be too short to notice, or too fast to read to its end.
fn cost_of_time(start: u64, letters: usize, next: Option<&Token>, limits: Subtitles) -> u32 {
    let until = next.map_or(u64::MAX, |next| next.start).min(start + duration(limits));
    let shown = (until - start).max(1);
    let short = if shown < SHORTEST { TOO_SHORT } else { 0 };
    let tenths = 10_000 * letters as u64 / (shown * u64::from(limits.speed));
    short + TOO_FAST * tenths.saturating_sub(10).min(10) as u32
}

fn ends_sentence(word: &str) -> bool {
    ends_with(word, &['.', '!', '?', '…', '。', '！', '？'])
}

fn ends_clause(word: &str) -> bool {
    ends_with(word, &[',', ';', ':', '—', '–', '、', '，', '；', '：'])
}

/// Returns whether the word ends with one of `marks`, ignoring quotes and brackets after it.
fn ends_with(word: &str, marks: &[char]) -> bool {
    word.trim_end_matches(['"', '\'', '”', '’', '»', ')', ']']).ends_with(marks)
}

/// Lays out words in the fewest lines of at most `width` characters, of about equal length.
fn laid_out(words: &[Token], label: Option<&str>, width: usize) -> Vec<String> {
    let words: Vec<(&str, usize)> = label
        .map(|label| (label, label.chars().count()))
        .into_iter()
        .chain(words.iter().map(|word| (&*word.text, word.length)))
        .collect();
    let wrapped = |width: usize| {
        let mut lines: Vec<(String, usize)> = Vec::new();
        for (word, length) in &words {
            match lines.last_mut() {
                Some((line, column)) if *column + 1 + length <= width => {
                    line.push(' ');
                    line.push_str(word);
                    *column += 1 + length;
                }
                _ => lines.push(((*word).to_owned(), *length)),
            }
        }
        lines.into_iter().map(|(line, _)| line).collect::<Vec<_>>()
    };
    let lines = wrapped(width);
    let longest = words.iter().map(|(_, length)| *length).max().unwrap_or_default();
    // The narrowest block with the same number of lines.
    let narrow = (longest..width).map(wrapped).find(|narrow| narrow.len() == lines.len());
    narrow.unwrap_or(lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::FrameRange;

    /// Cuts a segment whose words have the given times, in hundredths of a second.
    fn cues(words: &[(u64, u64, &str)], limits: Subtitles) -> Vec<(u64, u64, String)> {
        let range = |start: u64, end: u64| FrameRange::new(FramePos(start * 160), FramePos(end * 160));
        let text: Vec<&str> = words.iter().map(|word| word.2).collect();
        let end = words.last().unwrap().1 + 200;
        let segment = FinalSegment {
            index: 0,
            range: range(0, end),
            text: text.join(" "),
            language: None,
            confidence: None,
            context: None,
            words: words
                .iter()
                .map(|&(start, end, text)| Word {
                    range: range(start, end),
                    text: text.to_owned(),
                    confidence: 1.0,
                })
                .collect(),
        };
        let millis = |position: FramePos| position.0 / 16;
        let cues = cut(&segment, &segment.text, None, 0, limits, millis);
        cues.into_iter().map(|cue| (cue.start, cue.end, cue.lines.join("|"))).collect()
    }

    /// Returns words of 0.4 s each, one after another from `start` on.
    fn spoken(start: u64, text: &str) -> Vec<(u64, u64, &str)> {
        let times = (0_u64..).map(|number| start + 40 * number);
        times.zip(text.split(' ')).map(|(start, word)| (start, start + 40, word)).collect()
    }

    #[test]
    fn a_cue_ends_with_its_sentence_though_more_would_fit() {
        let words = spoken(50, "It rained all night. Nobody came to see us, and we slept.");
        let cues = cues(&words, Subtitles::default());
        assert_eq!(
            cues,
            [
                (500, 2_100, "It rained all night.".to_owned()),
                // The cue stays a moment longer for slow readers.
                (2_100, 5_300, "Nobody came to see us, and we slept.".to_owned()),
            ]
        );
    }

    #[test]
    fn a_long_sentence_is_cut_at_its_commas() {
        let text = "When the rain had stopped at last and the light came back, \
                    the two of them walked down to the harbour, where no one was waiting for them any more";
        let cues = cues(&spoken(0, text), Subtitles::default());
        let texts: Vec<&str> = cues.iter().map(|cue| &*cue.2).collect();
        assert_eq!(
            texts,
            [
                "When the rain had stopped at|last and the light came back,",
                "the two of them walked|down to the harbour,",
                "where no one was waiting for them any more"
            ]
        );
    }

    #[test]
    fn a_long_pause_ends_a_cue_and_is_left_empty() {
        let words = [spoken(0, "one two"), spoken(500, "three four")].concat();
        let cues = cues(&words, Subtitles::default());
        assert_eq!(cues[0], (0, 833, "one two".to_owned()));
        assert_eq!(cues[1].0, 5_000);
    }

    #[test]
    fn a_pause_as_short_as_asked_for_ends_a_cue() {
        // A fifth of a second, a pause that doesn't end a cue by default.
        let words = [spoken(0, "one two"), spoken(100, "three four")].concat();
        assert_eq!(cues(&words, Subtitles::default()).len(), 1);
        let limits = Subtitles { pause: Duration::from_millis(200), ..Subtitles::default() };
        let texts: Vec<String> = cues(&words, limits).into_iter().map(|cue| cue.2).collect();
        assert_eq!(texts, ["one two", "three four"]);
    }

    #[test]
    fn slow_speech_is_cut_so_that_each_word_is_shown_when_it_is_said() {
        let words: Vec<_> = (0..8).map(|word| (150 * word, 150 * (word + 1), "slow")).collect();
        let times: Vec<_> = cues(&words, Subtitles::default()).iter().map(|cue| (cue.0, cue.1)).collect();
        assert_eq!(times, [(0, 6_000), (6_000, 12_000)]);
    }

    #[test]
    fn bounds_are_those_asked_for() {
        let narrow =
            Subtitles { lines: 1, width: 10, duration: Duration::from_secs(1), ..Subtitles::default() };
        for (start, end, text) in cues(&spoken(0, "antidisestablishmentarianism is a long word"), narrow) {
            assert!(end - start <= 1_000 && text.chars().count() <= 10 && !text.contains('|'), "{text}");
        }
        let tall = Subtitles { lines: 3, width: 12, ..Subtitles::default() };
        let cues = cues(&spoken(0, "one two three four five six"), tall);
        assert_eq!(cues.len(), 1);
        assert_eq!(cues[0].2, "one two|three four|five six");
    }
}
