//! The results of a recording.

use std::time::Duration;

use serde_json::{Value, json};

use super::messages::{TextForm, request_id, rounded, seconds};
use voxline::audio::FrameRange;
use voxline::engine::{RECOGNIZER_RATE, Segment};
use voxline::transcript::Word;

/// Pause between sentences at which a paragraph ends, and most sentences of one.
const PARAGRAPH_PAUSE: Duration = Duration::from_secs(2);
const PARAGRAPH_SENTENCES: usize = 5;

/// Parts of a transcript that a client may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) paragraphs: bool,
    /// Pause that ends an utterance; `None` without utterances.
    pub(super) utterances: Option<Duration>,
}

/// A recognised recording.
pub(super) struct Transcript {
    /// Segments of each channel.
    pub(super) channels: Vec<Vec<Segment>>,
    pub(super) form: TextForm,
}

impl Transcript {
    /// Returns the results, with the `parts` that were asked for.
    pub(super) fn results(&self, parts: Parts) -> Value {
        let channels: Vec<Value> =
            self.channels.iter().map(|segments| self.channel(segments, parts.paragraphs)).collect();
        let mut results = json!({ "channels": channels });
        if let Some(pause) = parts.utterances {
            results["utterances"] = self.utterances(pause).into();
        }
        results
    }

    fn channel(&self, segments: &[Segment], has_paragraphs: bool) -> Value {
        let pieces: Vec<Piece> = segments.iter().flat_map(Piece::of).collect();
        let mut alternative = self.text_of(&pieces);
        if has_paragraphs {
            alternative["paragraphs"] = self.paragraphs(&pieces);
        }
        let mut languages: Vec<&str> = Vec::new();
        for language in pieces.iter().filter_map(|piece| piece.language) {
            if !languages.contains(&language) {
                languages.push(language);
            }
        }
        let mut channel = json!({});
        if self.form.multilingual {
            if let Some(language) = languages.first() {
                channel["detected_language"] = json!(language);
            }
            alternative["languages"] = json!(languages);
        }
        channel["alternatives"] = json!([alternative]);
        channel
    }

    /// Returns the text, confidence and words of `pieces`.
    fn text_of(&self, pieces: &[Piece]) -> Value {
        let words: Vec<Value> = pieces.iter().filter_map(|piece| self.word(piece)).collect();
        let confidences: Vec<f32> = pieces.iter().filter_map(|piece| piece.confidence).collect();
        let mean = confidences.iter().sum::<f32>() / confidences.len().max(1) as f32;
        json!({ "transcript": self.form.text(&joined(pieces)), "confidence": rounded(Some(mean)), "words": words })
    }

    fn word(&self, piece: &Piece) -> Option<Value> {
        self.form.word(piece.word?, piece.language, RECOGNIZER_RATE)
    }

    fn paragraphs(&self, pieces: &[Piece]) -> Value {
        let sentences: Vec<&[Piece]> = pieces.split_inclusive(Piece::ends_sentence).collect();
        let mut paragraphs: Vec<Vec<&[Piece]>> = Vec::new();
        for sentence in sentences {
            let goes_on = paragraphs.last().is_some_and(|paragraph| {
                let before = paragraph.last().and_then(|sentence| sentence.last());
                paragraph.len() < PARAGRAPH_SENTENCES
                    && before.zip(sentence.first()).is_some_and(|(a, b)| a.pause_before(b) < PARAGRAPH_PAUSE)
            });
            match paragraphs.last_mut() {
                Some(paragraph) if goes_on => paragraph.push(sentence),
                _ => paragraphs.push(vec![sentence]),
            }
        }
        let texts = paragraphs.iter().map(|paragraph| self.form.text(&joined(&paragraph.concat())));
        let texts: Vec<String> = texts.collect();
        json!({
            "transcript": format!("\n{}", texts.join("\n\n")),
            "paragraphs": paragraphs.iter().map(|paragraph| self.paragraph(paragraph)).collect::<Vec<_>>(),
        })
    }

    fn paragraph(&self, sentences: &[&[Piece]]) -> Value {
        let shown = sentences.iter().map(|sentence| {
            let (start, end) = span(sentence);
            json!({ "text": self.form.text(&joined(sentence)), "start": start, "end": end })
        });
        let shown: Vec<Value> = shown.collect();
        let pieces = sentences.concat();
        let (start, end) = span(&pieces);
        let words = joined(&pieces).split_whitespace().count();
        json!({ "sentences": shown, "start": start, "end": end, "num_words": words })
    }

    /// Returns the stretches of speech between pauses of all channels, by their start.
    fn utterances(&self, pause: Duration) -> Vec<Value> {
        let mut utterances = Vec::new();
        for (channel, segments) in self.channels.iter().enumerate() {
            let pieces: Vec<Piece> = segments.iter().flat_map(Piece::of).collect();
            for utterance in pieces.chunk_by(|before, after| before.pause_before(after) < pause) {
                let (start, end) = span(utterance);
                let mut shown = self.text_of(utterance);
                shown["start"] = json!(start);
                shown["end"] = json!(end);
                shown["channel"] = json!(channel);
                shown["id"] = json!(request_id());
                utterances.push((utterance[0].range.start, shown));
            }
        }
        utterances.sort_by_key(|(start, _)| *start);
        utterances.into_iter().map(|(_, utterance)| utterance).collect()
    }
}

/// A word, or a segment whose words the recogniser doesn't report.
#[derive(Clone, Copy)]
struct Piece<'a> {
    text: &'a str,
    range: FrameRange,
    confidence: Option<f32>,
    language: Option<&'a str>,
    word: Option<&'a Word>,
}

impl<'a> Piece<'a> {
    /// Returns the pieces of a segment; none if nothing was said.
    fn of(segment: &'a Segment) -> Vec<Piece<'a>> {
        let language = segment.language.as_deref();
        if segment.text.trim().is_empty() {
            return Vec::new();
        }
        if segment.words.is_empty() {
            let (text, range, confidence) = (segment.text.trim(), segment.range, segment.confidence);
            return vec![Piece { text, range, confidence, language, word: None }];
        }
        let piece = |word: &'a Word| Piece {
            text: word.text.trim(),
            range: word.range,
            confidence: Some(word.confidence),
            language,
            word: Some(word),
        };
        segment.words.iter().map(piece).collect()
    }

    fn ends_sentence(&self) -> bool {
        self.text.trim_end_matches(['"', '\'', '»', '”', ')']).ends_with(['.', '?', '!', '…'])
    }

    /// Returns the time between this piece and the next one.
    fn pause_before(&self, next: &Piece) -> Duration {
        let frames = next.range.start.0.saturating_sub(self.range.end.0);
        Duration::from_micros(frames * 1_000_000 / u64::from(RECOGNIZER_RATE))
    }
}

fn joined(pieces: &[Piece]) -> String {
    pieces.iter().map(|piece| piece.text).collect::<Vec<_>>().join(" ")
}

/// Returns the start and the end of `pieces` in seconds.
fn span(pieces: &[Piece]) -> (f64, f64) {
    let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return (0.0, 0.0) };
    (seconds(first.range.start, RECOGNIZER_RATE), seconds(last.range.end, RECOGNIZER_RATE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use voxline::audio::FramePos;

    const SECOND: u64 = RECOGNIZER_RATE as u64;

    /// Returns a segment whose words take half a second each, from `start` seconds on.
    fn said(text: &str, start: u64) -> Segment {
        let word = |(index, text): (u64, &str)| {
            let start = start * SECOND + index * SECOND / 2;
            let range = FrameRange::new(FramePos(start), FramePos(start + SECOND / 2));
            Word { range, text: text.to_owned(), confidence: 0.5 }
        };
        let words: Vec<Word> = (0..).zip(text.split(' ')).map(word).collect();
        let range = FrameRange::new(words[0].range.start, words.last().unwrap().range.end);
        let language = Some("en".to_owned());
        Segment { text: text.to_owned(), language, words, ..Segment::silence(range) }
    }

    fn form(punctuate: bool) -> TextForm {
        TextForm { punctuate, multilingual: false }
    }

    #[test]
    fn a_channel_has_one_alternative_with_all_its_words() {
        let silence = Segment::silence(FrameRange::new(FramePos(0), FramePos(SECOND)));
        let channels = vec![vec![silence.clone(), said("Hello, there.", 1)], vec![silence]];
        let parts = Parts { paragraphs: false, utterances: None };
        let plain = Transcript { channels: channels.clone(), form: form(false) }.results(parts);
        assert_eq!(plain["channels"][0]["alternatives"][0]["transcript"], "hello there");
        assert_eq!(plain.get("utterances"), None);
        let results = Transcript { channels, form: form(true) }.results(parts);
        let words = json!([
            { "word": "hello", "punctuated_word": "Hello,", "start": 1.0, "end": 1.5, "confidence": 0.5 },
            { "word": "there", "punctuated_word": "there.", "start": 1.5, "end": 2.0, "confidence": 0.5 },
        ]);
        let spoken = json!({ "transcript": "Hello, there.", "confidence": 0.5, "words": words });
        let silent = json!({ "transcript": "", "confidence": 0.0, "words": [] });
        assert_eq!(results["channels"], json!([{ "alternatives": [spoken] }, { "alternatives": [silent] }]));
    }

    #[test]
    fn languages_are_told_if_asked_for() {
        let form = TextForm { punctuate: false, multilingual: true };
        let parts = Parts { paragraphs: false, utterances: None };
        let results = Transcript { channels: vec![vec![said("Hello", 0)]], form }.results(parts);
        assert_eq!(results["channels"][0]["detected_language"], "en");
        assert_eq!(results["channels"][0]["alternatives"][0]["languages"], json!(["en"]));
    }

    #[test]
    fn utterances_end_with_a_pause_and_are_in_order_of_time() {
        let channels =
            vec![vec![said("One two", 0), said("Three", 1), said("Four", 4)], vec![said("Five", 2)]];
        let parts = Parts { paragraphs: false, utterances: Some(Duration::from_millis(800)) };
        let results = Transcript { channels, form: form(false) }.results(parts);
        let shown: Vec<(&Value, &Value)> = results["utterances"]
            .as_array()
            .unwrap()
            .iter()
            .map(|utterance| (&utterance["channel"], &utterance["transcript"]))
            .collect();
        let expected =
            [(json!(0), json!("one two three")), (json!(1), json!("five")), (json!(0), json!("four"))];
        assert_eq!(shown, expected.iter().map(|(a, b)| (a, b)).collect::<Vec<_>>());
        assert_eq!(
            (&results["utterances"][0]["start"], &results["utterances"][0]["end"]),
            (&json!(0.0), &json!(1.5))
        );
    }

    #[test]
    fn paragraphs_end_with_long_pauses_and_after_five_sentences() {
        let talk = vec![said("A b. C? D! E. F. G.", 0), said("H i.", 9)];
        let parts = Parts { paragraphs: true, utterances: None };
        let results = Transcript { channels: vec![talk], form: form(true) }.results(parts);
        let paragraphs = &results["channels"][0]["alternatives"][0]["paragraphs"];
        assert_eq!(paragraphs["transcript"], "\nA b. C? D! E. F.\n\nG.\n\nH i.");
        let sentence = json!({ "text": "H i.", "start": 9.0, "end": 10.0 });
        let last = json!({ "sentences": [sentence], "start": 9.0, "end": 10.0, "num_words": 2 });
        assert_eq!(paragraphs["paragraphs"][2], last);
    }

    #[test]
    fn a_segment_without_words_is_a_piece_of_its_own() {
        let range = FrameRange::new(FramePos(0), FramePos(SECOND));
        let segment =
            Segment { text: "Hello there.".to_owned(), confidence: Some(0.25), ..Segment::silence(range) };
        let parts = Parts { paragraphs: false, utterances: Some(Duration::ZERO) };
        let results = Transcript { channels: vec![vec![segment]], form: form(true) }.results(parts);
        let utterance = &results["utterances"][0];
        assert_eq!(
            (&utterance["transcript"], &utterance["confidence"]),
            (&json!("Hello there."), &json!(0.25))
        );
        assert_eq!(utterance["words"], json!([]));
    }
}
