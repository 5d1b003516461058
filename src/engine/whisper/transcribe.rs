//! From an utterance to its text: greedy decoding, and what guards it.

use rten_simd::SimdOp;
use rten_vecmath::{MaxNum, SumExpSub};

use super::decoder::{Decoder, Memory};
use super::encoder::Encoder;
use super::linear::Kernels;
use super::mel::{HOP, Mel};
use super::tokens::Tokens;
use crate::engine::RECOGNIZER_RATE;

/// Feature frames in a second.
const FRAMES_PER_SECOND: usize = RECOGNIZER_RATE as usize / HOP;
/// The window Whisper was trained on.
const FULL_WINDOW: usize = 30 * FRAMES_PER_SECOND;
/// Silence appended to an utterance in a shorter window. With 2 s Whisper loops and loses words; with 6 s its word
/// error rate is that of the full window.
const PADDING: usize = 6 * FRAMES_PER_SECOND;
/// The shortest window.
const LEAST_WINDOW: usize = 8 * FRAMES_PER_SECOND;

/// Whisper's own thresholds: below this mean log-probability a text is doubtful, and where the model also believes
/// that nobody spoke, it is dropped.
const DOUBTFUL: f32 = -1.0;
const NOBODY_SPOKE: f32 = 0.6;
/// Below this one (a confidence of 0.2) a text is invented: that is what music and machines give.
const INVENTED: f32 = -1.6;

/// More tokens a second than anyone speaks, in any script.
const TOKENS_PER_SECOND: usize = 16;

/// As many as people speak in a second: three words, of one token in English and two in Russian.
const SPOKEN_TOKENS: usize = 5;

/// A detected language below this probability is uncertain ...
const CERTAIN: f32 = 0.7;
/// ... and in an utterance shorter than this, the one heard before in the stream is likelier.
const SHORT: usize = 5 * RECOGNIZER_RATE as usize;

/// A loaded model. Immutable, so all sessions share it.
pub(super) struct Model {
    pub(super) mel: Mel,
    pub(super) encoder: Encoder,
    pub(super) decoder: Decoder,
    pub(super) tokens: Tokens,
}

/// Which language to write.
#[derive(Clone, Copy)]
pub(super) enum Language {
    /// This one, as the model's token; an English-only model has none.
    Known(Option<u32>),
    /// Whichever is heard; in doubt the one heard earlier in the stream.
    Detect { earlier: Option<u32> },
}

/// What was heard.
pub(super) struct Transcript {
    /// Empty if nothing was said.
    pub(super) text: String,
    /// The language's token.
    pub(super) language: Option<u32>,
    /// The geometric mean of the tokens' probabilities.
    pub(super) confidence: f32,
}

/// What one window gave.
struct Attempt {
    language: Option<u32>,
    /// The probability that nobody spoke.
    silence: f32,
    text: Written,
}

/// What the decoder wrote.
struct Written {
    tokens: Vec<u32>,
    /// The mean log-probability of the tokens and the end.
    log_probability: f32,
    /// Whether it went round in a loop, which is cut off, or babbled on.
    runaway: bool,
}

impl Model {
    /// The text of an utterance of at most 30 s.
    ///
    /// The window is cut to the utterance and some silence, which costs a fraction of the full one. A text that
    /// loops or that the model itself doubts is decoded again in the full window, and the better one counts.
    pub(super) fn transcribe(&self, kernels: &mut Kernels, pcm: &[i16], language: Language) -> Transcript {
        let window = window(pcm);
        let mut best = self.attempt(kernels, pcm, window, language);
        if best.is_doubtful() && !best.is_silent() && window < FULL_WINDOW {
            let full = self.attempt(kernels, pcm, FULL_WINDOW, language);
            if full.text.rank() > best.text.rank() {
                best = full;
            }
        }
        self.transcript(&best)
    }

    /// As [`transcribe`](Model::transcribe), but without a second look at what is doubtful.
    pub(super) fn guess(&self, kernels: &mut Kernels, pcm: &[i16], language: Language) -> Transcript {
        self.transcript(&self.attempt(kernels, pcm, window(pcm), language))
    }

    /// Does all the work that an utterance of so many seconds makes, without one: the steps are those of
    /// [`transcribe`](Model::transcribe), and what they cost doesn't depend on what is heard.
    pub(super) fn exercise(&self, kernels: &mut Kernels, seconds: usize) {
        let pcm = vec![0; seconds * RECOGNIZER_RATE as usize];
        let features = self.mel.features(&pcm, window(&pcm).next_multiple_of(2));
        let states = self.encoder.encode(kernels, &features);
        let mut memory = self.decoder.listen(kernels, &states);
        let mut scores = vec![0.0; self.decoder.vocabulary()];
        let tokens = (SPOKEN_TOKENS * seconds).min(self.decoder.places() - 1);
        for _ in 0..tokens {
            self.decoder.read(kernels, &mut memory, &[self.tokens.start]);
            self.decoder.score(kernels, &memory, 0, &mut scores);
            log_probability(&scores, self.tokens.end);
        }
    }

    fn transcript(&self, attempt: &Attempt) -> Transcript {
        let Written { tokens, log_probability, .. } = &attempt.text;
        let invented = *log_probability < INVENTED;
        let text = if attempt.is_silent() || invented { String::new() } else { self.tokens.text(tokens) };
        Transcript { text, language: attempt.language, confidence: log_probability.exp().clamp(0.0, 1.0) }
    }

    fn attempt(&self, kernels: &mut Kernels, pcm: &[i16], window: usize, language: Language) -> Attempt {
        let features = self.mel.features(pcm, window.next_multiple_of(2));
        let states = self.encoder.encode(kernels, &features);
        let mut memory = self.decoder.listen(kernels, &states);
        let mut scores = vec![0.0; self.decoder.vocabulary()];

        // The scores after the first token tell the language and whether anybody spoke.
        self.decoder.read(kernels, &mut memory, &[self.tokens.start]);
        self.decoder.score(kernels, &memory, 0, &mut scores);
        let silence = log_probability(&scores, self.tokens.no_speech).exp();
        let language = match language {
            Language::Known(language) => language,
            Language::Detect { earlier } => self.detect(&scores, earlier.filter(|_| pcm.len() < SHORT)),
        };
        let task = self.tokens.task(language);
        self.decoder.read(kernels, &mut memory, &task);
        self.decoder.score(kernels, &memory, task.len() - 1, &mut scores);

        let seconds = pcm.len().div_ceil(RECOGNIZER_RATE as usize);
        let room = self.decoder.places() - 1 - task.len();
        let most = (TOKENS_PER_SECOND * (seconds + 1)).min(room);
        let text = self.write(kernels, &mut memory, &mut scores, most);
        Attempt { language, silence, text }
    }

    /// The likeliest language of those the scores are about, or `earlier` where that is uncertain.
    fn detect(&self, scores: &[f32], earlier: Option<u32>) -> Option<u32> {
        let languages = self.tokens.languages();
        let heard: Vec<f32> = languages.iter().map(|(_, id)| scores[*id as usize]).collect();
        let best = likeliest(&heard)?;
        let probability = log_probability(&heard, u32::try_from(best).ok()?).exp();
        let best = languages[best].1;
        Some(if probability < CERTAIN { earlier.unwrap_or(best) } else { best })
    }

    /// Writes the text that follows what was read, always with the likeliest token, until it ends, loops, or has
    /// `most` tokens. `scores` holds those of its first token.
    fn write(&self, kernels: &mut Kernels, memory: &mut Memory, scores: &mut [f32], most: usize) -> Written {
        let Tokens { end, suppressed, suppressed_first, .. } = &self.tokens;
        let mut tokens = Vec::new();
        let mut runaway = false;
        let mut sum = 0.0f32;
        let mut steps = 0;
        loop {
            // Of the tokens from `end` on only that one may be written; the others steer.
            let written = &mut scores[..=*end as usize];
            let first: &[u32] = if tokens.is_empty() { suppressed_first } else { &[] };
            for id in suppressed.iter().chain(first) {
                if let Some(score) = written.get_mut(*id as usize) {
                    *score = f32::NEG_INFINITY;
                }
            }
            let Some(next) = likeliest(written).and_then(|best| u32::try_from(best).ok()) else { break };
            sum += log_probability(written, next);
            steps += 1;
            if next == *end {
                break;
            }
            tokens.push(next);
            if let Some(kept) = without_loop(&tokens) {
                tokens.truncate(kept);
                runaway = true;
                break;
            }
            if tokens.len() == most {
                runaway = true;
                break;
            }
            self.decoder.read(kernels, memory, &[next]);
            self.decoder.score(kernels, memory, 0, scores);
        }
        Written { tokens, log_probability: sum / steps.max(1) as f32, runaway }
    }
}

impl Attempt {
    fn is_doubtful(&self) -> bool {
        self.text.runaway || self.text.log_probability < DOUBTFUL
    }

    fn is_silent(&self) -> bool {
        self.silence > NOBODY_SPOKE && self.text.log_probability < DOUBTFUL
    }
}

impl Written {
    /// What compares greater is the better text.
    fn rank(&self) -> (bool, f32) {
        (!self.runaway, self.log_probability)
    }
}

/// The feature frames of an utterance and its padding.
fn window(pcm: &[i16]) -> usize {
    (pcm.len().div_ceil(HOP) + PADDING).clamp(LEAST_WINDOW, FULL_WINDOW)
}

/// The place of the highest score; the first of equals.
fn likeliest(scores: &[f32]) -> Option<usize> {
    let highest = MaxNum::new(scores).dispatch();
    scores.iter().position(|score| *score == highest)
}

/// The logarithm of the softmax at one place.
fn log_probability(scores: &[f32], at: u32) -> f32 {
    let highest = MaxNum::new(scores).dispatch();
    scores[at as usize] - highest - SumExpSub::new(scores, highest).dispatch().ln()
}

/// Where a text that ends in a loop should be cut: after the phrase's first round. People do repeat themselves, so
/// the shorter the phrase the more rounds it takes.
fn without_loop(tokens: &[u32]) -> Option<usize> {
    (1..=tokens.len() / 3).find_map(|phrase| {
        let rounds = match phrase {
            1 => 8,
            2..=3 => 5,
            4..=5 => 4,
            _ => 3,
        };
        let start = tokens.len().checked_sub(phrase * rounds)?;
        let looped = &tokens[start..];
        let repeats = looped.iter().zip(&looped[phrase..]).all(|(token, next)| token == next);
        repeats.then_some(start + phrase)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_are_cut_after_the_first_round() {
        let phrase = [10, 11, 12, 13, 14, 15];
        let looped = [&[1, 2][..], &phrase, &phrase, &phrase].concat();
        assert_eq!(without_loop(&looped[..19]), None);
        assert_eq!(without_loop(&looped), Some(8));
        assert_eq!(without_loop(&[7; 7]), None);
        assert_eq!(without_loop(&[7; 8]), Some(1));
        assert_eq!(without_loop(&[]), None);
    }

    #[test]
    fn probabilities_sum_to_one() {
        let scores = [1.0, 3.0, f32::NEG_INFINITY, 2.0];
        let sum: f32 = (0..4).map(|at| log_probability(&scores, at).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(likeliest(&scores), Some(1));
        assert_eq!(likeliest(&[f32::NAN]), None);
    }
}
