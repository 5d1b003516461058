//! A text being written: token by token, always the likeliest.

use rten_simd::SimdOp;
use rten_vecmath::{MaxNum, SumExpSub};

use super::decoder::Memory;
use super::detection::{Detected, Detection};
use super::linear::Kernels;
use super::tokens::Tokens;
use super::transcribe::{Attempt, Language, Model};
use voxline::engine::RECOGNIZER_RATE;

/// More tokens a second than anyone speaks, in any script.
const TOKENS_PER_SECOND: usize = 16;

/// Tokens written in one go.
const AT_ONCE: usize = 4;

/// A text that isn't finished.
pub(super) struct Writing {
    memory: Memory,
    /// Those of every token that may come next.
    scores: Vec<f32>,
    language: Option<u32>,
    detected: Option<Detected>,
    silence: f32,
    tokens: Vec<u32>,
    /// Of the tokens, and the end.
    log_probabilities: Vec<f32>,
    /// Tokens it may have.
    most: usize,
    runaway: bool,
}

/// What the decoder wrote.
pub(super) struct Written {
    pub(super) tokens: Vec<u32>,
    /// Of each of them, and of the end where it was written.
    pub(super) log_probabilities: Vec<f32>,
    /// Their mean.
    pub(super) log_probability: f32,
    /// Whether it went round in a loop, which is cut off, or babbled on.
    pub(super) runaway: bool,
    /// Where in the audio it looked.
    pub(super) memory: Memory,
}

impl Writing {
    /// Begins the text of so many samples, which `memory` has heard.
    pub(super) fn begin(
        model: &Model,
        kernels: &mut Kernels,
        mut memory: Memory,
        samples: usize,
        language: &Language,
    ) -> Writing {
        let Model { decoder, tokens, .. } = model;
        let mut scores = vec![0.0; decoder.vocabulary()];
        // The scores after the first token tell the language and whether anybody spoke.
        decoder.read(kernels, &mut memory, &[tokens.start]);
        decoder.score(kernels, &memory, 0, &mut scores);
        let silence = log_probability(&scores, tokens.no_speech).exp();
        let (language, detected) = match language {
            Language::Known(language) => (*language, None),
            Language::Detect(detection) => {
                let detected = detect(tokens, &scores, detection);
                (detected.map(|detected| detection.choose(detected, samples)), detected)
            }
        };
        let task = tokens.task(language);
        decoder.read(kernels, &mut memory, &task);
        decoder.score(kernels, &memory, task.len() - 1, &mut scores);

        let seconds = samples.div_ceil(RECOGNIZER_RATE as usize);
        let room = decoder.places() - 1 - task.len();
        let most = (TOKENS_PER_SECOND * (seconds + 1)).min(room);
        let (tokens, log_probabilities) = (Vec::new(), Vec::new());
        Writing {
            memory,
            scores,
            language,
            detected,
            silence,
            tokens,
            log_probabilities,
            most,
            runaway: false,
        }
    }

    /// Writes on. Whether the text has ended, went round in a loop, or has all the tokens it may have.
    pub(super) fn advance(&mut self, model: &Model, kernels: &mut Kernels) -> bool {
        (0..AT_ONCE).any(|_| self.write(model, kernels))
    }

    fn write(&mut self, model: &Model, kernels: &mut Kernels) -> bool {
        let Tokens { end, suppressed, suppressed_first, .. } = &model.tokens;
        // Of the tokens from `end` on only that one may be written; the others steer.
        let written = &mut self.scores[..=*end as usize];
        let first: &[u32] = if self.tokens.is_empty() { suppressed_first } else { &[] };
        for id in suppressed.iter().chain(first).chain(model.tokens.foreign(self.language)) {
            if let Some(score) = written.get_mut(*id as usize) {
                *score = f32::NEG_INFINITY;
            }
        }
        let Some(next) = likeliest(written).and_then(|best| u32::try_from(best).ok()) else { return true };
        self.log_probabilities.push(log_probability(written, next));
        if next == *end {
            return true;
        }
        self.tokens.push(next);
        if let Some(kept) = without_loop(&self.tokens) {
            self.tokens.truncate(kept);
            self.runaway = true;
        }
        self.runaway |= self.tokens.len() == self.most;
        if !self.runaway {
            model.decoder.read(kernels, &mut self.memory, &[next]);
            model.decoder.score(kernels, &self.memory, 0, &mut self.scores);
        }
        self.runaway
    }

    /// What came of it.
    pub(super) fn attempt(self) -> Attempt {
        let Writing { memory, language, detected, silence, tokens, log_probabilities, runaway, .. } = self;
        let sum: f32 = log_probabilities.iter().sum();
        let log_probability = sum / log_probabilities.len().max(1) as f32;
        Attempt {
            language,
            detected,
            silence,
            text: Written { tokens, log_probabilities, log_probability, runaway, memory },
        }
    }
}

/// The likeliest of the languages that may be spoken, of those the scores are about.
fn detect(tokens: &Tokens, scores: &[f32], detection: &Detection) -> Option<Detected> {
    let known = tokens.languages().iter().map(|(_, id)| *id);
    let languages: Vec<u32> = known.filter(|id| detection.allows(*id)).collect();
    let heard: Vec<f32> = languages.iter().map(|id| scores[*id as usize]).collect();
    let best = likeliest(&heard)?;
    let probability = log_probability(&heard, u32::try_from(best).ok()?).exp();
    Some(Detected { language: languages[best], probability })
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
