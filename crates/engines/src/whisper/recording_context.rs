//! The context of a recording: all that the text after a segment depends on besides its audio.
//!
//! These are the state of the language detection, and the segments that were told along with the segment,
//! from the same window. A stream that continues within a window tells these again, and hears the audio
//! after them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::fallback::compression_ratio;
use super::options::Language;
use super::tokens::Tokens;
use voxline::audio::FrameRange;
use voxline::engine::Segment;
use voxline::protocol::MAX_CONTEXT_BYTES;
use voxline::transcript::Word;

/// The context after a segment.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Context {
    /// State of the language detection.
    #[serde(flatten)]
    detection: Map<String, Value>,
    /// Segments that were told from the same window.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) ahead: Vec<Ahead>,
}

/// A segment that is told again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ahead {
    pub(super) frames: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tokens: Vec<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    said: Option<Said>,
    /// Probability that there was no speech.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    silence: Option<f32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    words: Vec<AheadWord>,
}

/// Properties of a text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Said {
    language: Option<String>,
    confidence: Option<f32>,
    log_probability: Option<f32>,
}

/// A word: its start within the segment, its length, its confidence, and its text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct AheadWord(u64, u64, f32, String);

impl Context {
    /// Parses a context, which may be of another version or model, or of a hostile client. It is empty if it
    /// is unreadable, or if its segments are longer than `longest` frames, as those of one window never are.
    pub(super) fn parse(context: Option<&str>, tokens: &Tokens, longest: u64) -> Context {
        let context = context.and_then(|context| serde_json::from_str(context).ok());
        let is_text = |text: &[u32]| text.iter().all(|token| *token < tokens.end);
        let is_sound = |context: &Context| {
            let frames = context.ahead.iter().try_fold(0_u64, |sum, ahead| sum.checked_add(ahead.frames));
            frames.is_some_and(|frames| frames <= longest)
                && context.ahead.iter().all(|ahead| is_text(&ahead.tokens) && ahead.is_sound())
        };
        context.filter(is_sound).unwrap_or_default()
    }

    pub(super) fn new(tokens: &Tokens, language: &Language, ahead: &[Ahead]) -> Context {
        let detection = match language {
            Language::Detect(detection) => detection.context(tokens),
            Language::Known(_) => None,
        };
        let detection = detection.and_then(|detection| serde_json::from_str(&detection).ok());
        Context { detection: detection.unwrap_or_default(), ahead: ahead.to_vec() }
    }

    /// Returns the context as text. If it would be too long, the words ahead are left out, and their segments
    /// are told without them.
    pub(super) fn text(mut self) -> Option<String> {
        let text = serde_json::to_string(&self).ok()?;
        if text.len() <= MAX_CONTEXT_BYTES {
            return Some(text);
        }
        for ahead in &mut self.ahead {
            ahead.words.clear();
        }
        serde_json::to_string(&self).ok()
    }
}

impl Ahead {
    /// Returns whether the words lie within the segment, which has a frame or more.
    fn is_sound(&self) -> bool {
        let is_within = |word: &AheadWord| word.0.checked_add(word.1).is_some_and(|end| end <= self.frames);
        self.frames > 0 && self.words.iter().all(is_within) && self.words.is_sorted_by_key(|word| word.0)
    }

    pub(super) fn of(segment: &Segment) -> Ahead {
        let start = segment.range.start;
        let word = |Word { range, text, confidence }: &Word| {
            AheadWord(range.start - start, range.end - range.start, *confidence, text.clone())
        };
        let said = (!segment.text.is_empty()).then(|| Said {
            language: segment.language.clone(),
            confidence: segment.confidence,
            log_probability: segment.avg_log_probability,
        });
        Ahead {
            frames: segment.range.len(),
            tokens: segment.tokens.clone(),
            said,
            silence: segment.no_speech_probability,
            words: segment.words.iter().map(word).collect(),
        }
    }

    /// Returns the segment, which is cut to `range`.
    pub(super) fn segment(self, tokens: &Tokens, range: FrameRange) -> Segment {
        let text = tokens.text(&self.tokens);
        let at = |frames: u64| (range.start + frames).min(range.end);
        let word = |AheadWord(start, length, confidence, text)| Word {
            range: at(start).to(at(start + length)),
            text,
            confidence,
        };
        let said = self.said.filter(|_| !text.is_empty());
        Segment {
            words: self.words.into_iter().map(word).collect(),
            compression_ratio: said.as_ref().map(|_| compression_ratio(&text)),
            language: said.as_ref().and_then(|said| said.language.clone()),
            confidence: said.as_ref().and_then(|said| said.confidence),
            avg_log_probability: said.and_then(|said| said.log_probability),
            no_speech_probability: self.silence,
            tokens: self.tokens,
            text,
            ..Segment::silence(range)
        }
    }
}
