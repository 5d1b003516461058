//! Decoding: a text grows token by token, by the likeliest one or by a sampled one.

use rten_simd::SimdOp;
use rten_vecmath::{MaxNum, SumExpSub};

use super::decoder::{Attention, KvCache};
use super::detection::{Detected, Detection};
use super::model::Model;
use super::ops::Kernels;
use super::options::{DecodingOptions, Language};
use super::sampler::Sampler;
use super::tokens::Tokens;
use voxline::engine::{RECOGNIZER_RATE, Task};

/// Largest number of tokens per second: more than a person speaks, in any script.
const TOKENS_PER_SECOND: usize = 16;

/// Number of tokens decoded in one step.
const TOKENS_PER_STEP: usize = 4;

/// Decoding in progress. The same audio can be decoded several times, one text after the other.
pub(super) struct Decoding {
    cache: KvCache,
    /// Logits of all tokens that may come next.
    logits: Vec<f32>,
    language: Option<u32>,
    detected: Option<Detected>,
    task: Task,
    no_speech: f32,
    /// Sampler of the tokens; `None` to take the likeliest.
    sampler: Option<Sampler>,
    tokens: Vec<u32>,
    /// Log-probabilities of the tokens, and of the end.
    log_probabilities: Vec<f32>,
    /// Largest number of tokens.
    max_tokens: usize,
    runaway: bool,
}

/// The result of one window.
pub(super) struct Attempt {
    /// Spoken language, as the model's token.
    pub(super) language: Option<u32>,
    /// Detected language, if detection was asked for.
    pub(super) detected: Option<Detected>,
    pub(super) task: Task,
    /// Probability that there was no speech.
    pub(super) no_speech: f32,
    pub(super) text: DecodedText,
}

/// A decoded text.
pub(super) struct DecodedText {
    pub(super) tokens: Vec<u32>,
    /// Log-probability of each token, and of the end if it was decoded, at a temperature of 1.
    pub(super) log_probabilities: Vec<f32>,
    /// Mean of the log-probabilities.
    pub(super) log_probability: f32,
    /// `true` if the text repeated itself, in which case the repetition is cut off, or had too many
    /// tokens.
    pub(super) runaway: bool,
    /// `true` if the tokens were sampled.
    pub(super) sampled: bool,
    /// Attention by which each token, and the end, were decoded.
    pub(super) attention: Attention,
}

impl Decoding {
    /// Begins to decode the likeliest text of `samples` samples, whose encoder states are in `cache`.
    pub(super) fn begin(
        model: &Model,
        kernels: &mut Kernels,
        mut cache: KvCache,
        samples: usize,
        options: &DecodingOptions,
    ) -> Decoding {
        let Model { decoder, tokens, .. } = model;
        let mut logits = vec![0.0; decoder.vocabulary()];
        // The logits after the first token give the language and the probability of silence.
        decoder.forward(kernels, &mut cache, &[tokens.start]);
        decoder.logits(kernels, &cache, 0, &mut logits);
        let no_speech = log_probability(&logits, tokens.no_speech).exp();
        let (language, detected) = match &options.language {
            Language::Known(language) => (*language, None),
            Language::Detect(detection) => {
                let detected = detect(tokens, &logits, detection);
                (detected.map(|detected| detection.choose(detected, samples)), detected)
            }
        };
        let seconds = samples.div_ceil(RECOGNIZER_RATE as usize);
        let room = decoder.context_length() - 1 - tokens.prompt(language, options.task).len();
        let mut decoding = Decoding {
            cache,
            logits,
            language,
            detected,
            task: options.task,
            no_speech,
            sampler: None,
            tokens: Vec::new(),
            log_probabilities: Vec::new(),
            max_tokens: (TOKENS_PER_SECOND * (seconds + 1)).min(room),
            runaway: false,
        };
        decoding.read_prompt(model, kernels);
        decoding
    }

    /// Begins another text of the same audio, of sampled tokens.
    pub(super) fn restart(&mut self, model: &Model, kernels: &mut Kernels, sampler: Sampler) {
        self.sampler = Some(sampler);
        self.tokens.clear();
        self.log_probabilities.clear();
        self.runaway = false;
        self.read_prompt(model, kernels);
    }

    /// Reads the prompt after the first token.
    fn read_prompt(&mut self, model: &Model, kernels: &mut Kernels) {
        let Model { decoder, tokens, .. } = model;
        let prompt = tokens.prompt(self.language, self.task);
        decoder.rewind(&mut self.cache, 1);
        decoder.forward(kernels, &mut self.cache, &prompt);
        decoder.logits(kernels, &self.cache, prompt.len() - 1, &mut self.logits);
    }

    /// Decodes further tokens. Returns whether the text has ended, repeats itself, or has its largest
    /// number of tokens.
    pub(super) fn advance(&mut self, model: &Model, kernels: &mut Kernels) -> bool {
        (0..TOKENS_PER_STEP).any(|_| self.decode_token(model, kernels))
    }

    fn decode_token(&mut self, model: &Model, kernels: &mut Kernels) -> bool {
        let Tokens { end, suppressed, suppressed_first, .. } = &model.tokens;
        // Of the tokens from `end` on, only `end` may be decoded; the others steer.
        let allowed = &mut self.logits[..=*end as usize];
        let first: &[u32] = if self.tokens.is_empty() { suppressed_first } else { &[] };
        let language = model.tokens.text_language(self.language, self.task);
        for id in suppressed.iter().chain(first).chain(model.tokens.foreign(language)) {
            if let Some(logit) = allowed.get_mut(*id as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        let next = match &mut self.sampler {
            None => likeliest(allowed),
            Some(sampler) => sampler.sample(allowed),
        };
        let Some(next) = next.and_then(|next| u32::try_from(next).ok()) else { return true };
        self.log_probabilities.push(log_probability(allowed, next));
        if next == *end {
            return true;
        }
        self.tokens.push(next);
        if let Some(kept) = without_loop(&self.tokens) {
            self.tokens.truncate(kept);
            self.runaway = true;
        }
        self.runaway |= self.tokens.len() == self.max_tokens;
        if !self.runaway {
            model.decoder.forward(kernels, &mut self.cache, &[next]);
            model.decoder.logits(kernels, &self.cache, 0, &mut self.logits);
        }
        self.runaway
    }

    /// Takes the text out of the decoding.
    pub(super) fn take_attempt(&mut self, model: &Model) -> Attempt {
        let log_probabilities = std::mem::take(&mut self.log_probabilities);
        let sum: f32 = log_probabilities.iter().sum();
        let log_probability = sum / log_probabilities.len().max(1) as f32;
        Attempt {
            language: self.language,
            detected: self.detected,
            task: self.task,
            no_speech: self.no_speech,
            text: DecodedText {
                tokens: std::mem::take(&mut self.tokens),
                log_probabilities,
                log_probability,
                runaway: self.runaway,
                sampled: self.sampler.is_some(),
                attention: model.decoder.take_attention(&mut self.cache),
            },
        }
    }
}

/// Returns the likeliest of the allowed languages, by the logits.
fn detect(tokens: &Tokens, logits: &[f32], detection: &Detection) -> Option<Detected> {
    let known = tokens.languages().iter().map(|(_, id)| *id);
    let languages: Vec<u32> = known.filter(|id| detection.allows(*id)).collect();
    let heard: Vec<f32> = languages.iter().map(|id| logits[*id as usize]).collect();
    let best = likeliest(&heard)?;
    let probability = log_probability(&heard, u32::try_from(best).ok()?).exp();
    Some(Detected { language: languages[best], probability })
}

/// Returns the index of the highest logit, the first of equals.
fn likeliest(logits: &[f32]) -> Option<usize> {
    let highest = MaxNum::new(logits).dispatch();
    logits.iter().position(|logit| *logit == highest)
}

/// Returns the logarithm of the softmax at one index.
fn log_probability(logits: &[f32], at: u32) -> f32 {
    let highest = MaxNum::new(logits).dispatch();
    logits[at as usize] - highest - SumExpSub::new(logits, highest).dispatch().ln()
}

/// Returns the length to which a text that ends in a loop should be cut: after the first occurrence of
/// the phrase. People do repeat themselves, so a shorter phrase needs more rounds to count as a loop.
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
        let logits = [1.0, 3.0, f32::NEG_INFINITY, 2.0];
        let sum: f32 = (0..4).map(|at| log_probability(&logits, at).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(likeliest(&logits), Some(1));
        assert_eq!(likeliest(&[f32::NAN]), None);
    }
}
