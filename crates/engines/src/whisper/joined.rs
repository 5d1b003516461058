//! Utterances that are heard together, in one window, and the division of its text among them.
//!
//! The samples of the utterances follow each other without the silence between them, beyond the little that
//! each has at its ends. So no window has a long silence, in which Whisper invents words.

use std::cmp::Reverse;
use std::ops::Range;

use super::alignment::{self, Word, WordTokens};
use super::attempt::{Attempt, SLOWEST, Transcript};
use super::decoded_text::DecodedText;
use super::decoder::Attention;
use super::detection::Detected;
use super::model::Model;
use super::options::DecodingOptions;
use super::untold;
use crate::endpoint::PRE_ROLL;
use voxline::engine::RECOGNIZER_RATE;

/// Samples at both ends of an utterance that hold no voice, but for soft consonants.
const MARGIN: usize = PRE_ROLL as usize;

/// Length in samples up to which an utterance may have any number of words: 1.5 s.
const SHORT: usize = RECOGNIZER_RATE as usize * 3 / 2;

/// Utterances of one window.
#[derive(Default)]
pub(super) struct Joined {
    pub(super) pcm: Vec<i16>,
    /// Number of samples whose spectrum changes as that of speech does.
    pub(super) lively: u64,
    parts: Vec<Part>,
}

/// An utterance of a window.
struct Part {
    /// Its place among the samples of the window.
    place: Range<usize>,
    /// Number of its samples whose spectrum changes as that of speech does.
    lively: usize,
}

/// The text of a window, divided among its utterances.
pub(super) struct Division {
    /// Transcript of each utterance; `None` for one that is to be heard by itself.
    pub(super) transcripts: Vec<Option<Transcript>>,
    /// `true` if the text as a whole was rejected.
    pub(super) is_rejected: bool,
}

impl Joined {
    /// Adds an utterance.
    pub(super) fn push(&mut self, pcm: &[i16], lively: u64) {
        let start = self.pcm.len();
        self.pcm.extend_from_slice(pcm);
        self.lively += lively;
        let lively = usize::try_from(lively).unwrap_or(usize::MAX);
        self.parts.push(Part { place: start..self.pcm.len(), lively });
    }

    /// Returns the number of utterances.
    pub(super) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Returns the places of the utterances among the samples.
    pub(super) fn places(&self) -> Vec<Range<usize>> {
        self.parts.iter().map(|part| part.place.clone()).collect()
    }

    /// Divides the text of the window. `languages` are those detected in each utterance, if any were.
    pub(super) fn divide(
        &self,
        model: &Model,
        attempt: &Attempt,
        languages: &[Option<Detected>],
        options: &DecodingOptions,
    ) -> Division {
        let (samples, lively) = (self.pcm.len(), usize::try_from(self.lively).unwrap_or(usize::MAX));
        let is_rejected = attempt.is_silent(lively) || attempt.rejection(model, samples, lively).is_some();
        let pieces = attempt.pieces(model);
        let words = alignment::align(&attempt.text, pieces.clone(), samples);
        if is_rejected || words.is_empty() {
            let transcripts = self.parts.iter().map(|_| None).collect();
            return Division { transcripts, is_rejected };
        }
        let told = places(&words, &self.parts);
        // Of a sentence that is said again, Whisper may tell one time only.
        let count = |at| told.iter().filter(|place| **place == at).count();
        let is_short =
            |(at, part): (usize, &Part)| matches!(count(at), words @ 1.. if part.is_too_long_for(words));
        if self.parts.iter().enumerate().any(is_short) {
            return Division { transcripts: self.parts.iter().map(|_| None).collect(), is_rejected };
        }
        let mut words = words.into_iter().zip(pieces).zip(told).peekable();
        let transcripts = self.parts.iter().enumerate().map(|(at, part)| {
            let theirs = std::iter::from_fn(|| words.next_if(|(_, place)| *place == at));
            let words = theirs.map(|(word, _)| word).collect();
            let detected = languages.get(at).copied().flatten();
            let is_in_language = detected.is_none_or(|detected| {
                options.language.choose(detected, part.place.len()) == attempt.language
            });
            let is_told = |transcript: &Transcript| {
                untold::cut(&transcript.words, &self.pcm[part.place.clone()]).is_none()
            };
            let transcript = part.transcript(model, attempt, words);
            let transcript = transcript.filter(|transcript| is_in_language && is_told(transcript));
            transcript.map(|transcript| Transcript { detected, ..transcript })
        });
        Division { transcripts: transcripts.collect(), is_rejected }
    }
}

impl Part {
    /// Returns whether nobody speaks so slowly as to say no more than these words.
    fn is_too_long_for(&self, words: usize) -> bool {
        let samples = self.lively.min(self.place.len());
        samples > SHORT && words as f32 * (RECOGNIZER_RATE as f32) < SLOWEST * samples as f32
    }

    /// Returns the place of the voice.
    fn voice(&self) -> Range<usize> {
        let Range { start, end } = self.place;
        let margin = MARGIN.min((end - start) / 3);
        start + margin..end - margin
    }

    /// Returns the transcript of the utterance, of these words; `None` if the words are doubtful, or if there
    /// are none.
    fn transcript(
        &self,
        model: &Model,
        attempt: &Attempt,
        words: Vec<(Word, WordTokens)>,
    ) -> Option<Transcript> {
        let (first, last) = (&words.first()?.1, &words.last()?.1);
        let range = first.tokens.start..last.tokens.end;
        let tokens = attempt.text.tokens[range.clone()].to_vec();
        let log_probabilities = attempt.text.log_probabilities[range].to_vec();
        let text = DecodedText {
            log_probability: log_probabilities.iter().sum::<f32>() / tokens.len() as f32,
            tokens,
            log_probabilities,
            runaway: false,
            sampled: false,
            attention: Attention { weights: Vec::new(), heads: 0, states: 0 },
        };
        let Attempt { language, detected, task, no_speech, .. } = *attempt;
        let theirs = Attempt { language, detected, task, no_speech, text };
        let samples = self.place.len();
        if theirs.rejection(model, samples, self.lively).is_some() {
            return None;
        }
        let transcript = theirs.transcript(model, samples, self.lively, false);
        let within = |sample: usize| sample.clamp(self.place.start, self.place.end) - self.place.start;
        let words = words
            .into_iter()
            .map(|(word, _)| Word { range: within(word.range.start)..within(word.range.end), ..word });
        (!transcript.text.is_empty()).then(|| Transcript { words: words.collect(), ..transcript })
    }
}

/// Returns the utterance of each word, by its index: the one whose voice overlaps the word the longest, or
/// else the nearest.
fn places(words: &[Word], parts: &[Part]) -> Vec<usize> {
    let mut least = 0;
    let place = |word: &Word| {
        let fit = |part: &Part| {
            let (voice, range) = (part.voice(), &word.range);
            let overlap = voice.end.min(range.end).saturating_sub(voice.start.max(range.start));
            let before = voice.start.saturating_sub(range.end);
            let distance = before.max(range.start.saturating_sub(voice.end));
            (overlap, Reverse(distance))
        };
        let fits = parts.iter().enumerate().skip(least).map(|(at, part)| (fit(part), Reverse(at)));
        least = fits.max().map_or(least, |(_, Reverse(at))| at);
        least
    };
    words.iter().map(place).collect()
}
