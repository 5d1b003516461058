//! Decoding: a text grows token by token, by the likeliest one, by a sampled one, or in a beam search.

use std::ops::Range;
use std::sync::Arc;

use rten_simd::SimdOp;
use rten_vecmath::MaxNum;

use super::alignment;
use super::attempt::Attempt;
use super::beam::BeamSearch;
use super::decoded_text::{DecodedText, mean};
use super::decoder::{KvCache, StepBuffers};
use super::detection::{Detected, Detection};
use super::int8;
use super::keyword_check::replaced_only;
use super::keywords::{Keywords, Spotting, Step};
use super::model::Model;
use super::next_token::{LogSoftmax, allowed, without_loop};
use super::ops::Kernels;
use super::options::{DecodingOptions, Language};
use super::sampler::Sampler;
use super::tokens::Tokens;
use voxline::engine::{RECOGNIZER_RATE, Task};

/// Largest number of tokens per second: more than a person speaks, in any script.
const TOKENS_PER_SECOND: usize = 16;

/// Number of tokens decoded in one step, and in one step of a beam search, whose tokens take longer.
const TOKENS_PER_STEP: usize = 4;
const BEAM_TOKENS_PER_STEP: usize = 2;

/// Number of tokens of each text decoded in one step of several texts.
const TOKENS_PER_STEP_TOGETHER: usize = 2;

/// Number of tokens of a prompt read in one step: as many as are multiplied together.
const PROMPT_TOKENS_PER_STEP: usize = int8::ROWS;

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
    /// Search for the likeliest text; `None` if the text grows by the likeliest or a sampled token.
    beams: Option<BeamSearch>,
    /// All that the decoder reads before the text.
    prompt: Vec<u32>,
    /// Number of tokens of the prompt that were read.
    prompt_read: usize,
    /// Keywords that the text favours; none while it is decoded without them.
    keywords: Arc<Keywords>,
    spotting: Spotting,
    /// Text that keywords have changed, with the keywords, while the text without them is decoded.
    favoured: Option<(DecodedText, Arc<Keywords>)>,
    tokens: Vec<u32>,
    /// Log-probabilities of the tokens, and of the end.
    log_probabilities: Vec<f32>,
    /// Largest number of tokens.
    max_tokens: usize,
    runaway: bool,
}

/// Result of choosing the next token.
enum Chosen {
    /// A token that was added to the text.
    Token(u32),
    /// The text returns to an earlier length, from where it goes on.
    Return,
    /// The text has ended.
    End,
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
        let prompt = prompt(model, language, options);
        let seconds = samples.div_ceil(RECOGNIZER_RATE as usize);
        let room = decoder.context_length() - prompt.len();
        let mut decoding = Decoding {
            cache,
            logits,
            language,
            detected,
            task: options.task,
            no_speech,
            sampler: None,
            beams: None,
            prompt,
            prompt_read: 0,
            keywords: Arc::clone(&options.keywords),
            spotting: Spotting::default(),
            favoured: None,
            tokens: Vec::new(),
            log_probabilities: Vec::new(),
            max_tokens: (TOKENS_PER_SECOND * (seconds + 1)).min(room),
            runaway: false,
        };
        decoding.begin_prompt(model, kernels);
        if options.beam_size > 1 {
            decoding.search(options.beam_size);
        }
        decoding
    }

    /// Makes a beam search of a decoding that has just begun.
    pub(super) fn search(&mut self, beam_size: usize) {
        self.beams = Some(BeamSearch::new(beam_size, self.prompt.len(), self.max_tokens));
    }

    /// Begins another text of the same audio, of sampled tokens. It has no keywords: sampling makes words of
    /// anything, and a keyword would be one of them.
    pub(super) fn restart(&mut self, model: &Model, kernels: &mut Kernels, sampler: Sampler) {
        self.sampler = Some(sampler);
        self.beams = None;
        self.begin_anew(model, kernels);
    }

    /// Begins another text of the same audio, without keywords.
    fn begin_anew(&mut self, model: &Model, kernels: &mut Kernels) {
        self.keywords = Arc::default();
        self.spotting = Spotting::default();
        self.tokens.clear();
        self.log_probabilities.clear();
        self.runaway = false;
        self.begin_prompt(model, kernels);
    }

    /// Begins to read the prompt, of whose tokens the first may have been read.
    fn begin_prompt(&mut self, model: &Model, kernels: &mut Kernels) {
        let is_read = self.prompt.first() == Some(&model.tokens.start);
        self.prompt_read = usize::from(is_read);
        model.decoder.rewind(&mut self.cache, self.prompt_read);
        self.read_prompt(model, kernels);
    }

    /// Reads the next part of the prompt.
    fn read_prompt(&mut self, model: &Model, kernels: &mut Kernels) {
        let Model { decoder, .. } = model;
        let rest = &self.prompt[self.prompt_read..];
        let part = &rest[..rest.len().min(PROMPT_TOKENS_PER_STEP)];
        // Attention to the audio counts from the end of the prompt on.
        decoder.rewind(&mut self.cache, self.prompt_read);
        decoder.forward(kernels, &mut self.cache, part);
        self.prompt_read += part.len();
        if self.prompt_read == self.prompt.len() {
            decoder.logits(kernels, &self.cache, part.len() - 1, &mut self.logits);
        }
    }

    /// Decodes further tokens. Returns whether the text has ended, repeats itself, or has its largest
    /// number of tokens.
    pub(super) fn advance(&mut self, model: &Model, kernels: &mut Kernels) -> bool {
        if self.prompt_read < self.prompt.len() {
            self.read_prompt(model, kernels);
            return false;
        }
        let ended = if self.beams.is_some() {
            (0..BEAM_TOKENS_PER_STEP).any(|_| self.extend_beams(model, kernels))
        } else {
            (0..TOKENS_PER_STEP).any(|_| self.decode_token(model, kernels))
        };
        ended && self.is_final(model, kernels)
    }

    /// Returns whether the text of a decoding that has ended is the last one: one that keywords have changed
    /// is decoded without them, too.
    fn is_final(&mut self, model: &Model, kernels: &mut Kernels) -> bool {
        let is_final = !self.has_keyword_cost();
        if !is_final {
            self.begin_without_keywords(model, kernels);
        }
        is_final
    }

    /// Returns whether the decoding can [`advance_together`](Decoding::advance_together) with others: the
    /// prompt is read, and one token comes after the other.
    pub(super) fn is_token_by_token(&self) -> bool {
        self.beams.is_none() && self.prompt_read == self.prompt.len()
    }

    /// Decodes further tokens of each text, as [`advance`](Decoding::advance) does of one, and returns the
    /// same of each. A step reads a token of every text at once, so the weights are read once for all.
    pub(super) fn advance_together(
        model: &Model,
        kernels: &mut Kernels,
        buffers: &mut StepBuffers,
        decodings: &mut [&mut Decoding],
    ) -> Vec<bool> {
        let mut ended = vec![false; decodings.len()];
        for _ in 0..TOKENS_PER_STEP_TOGETHER {
            let open = decodings.iter_mut().zip(&mut ended).filter(|(_, ended)| !**ended);
            let mut texts = Vec::new();
            let mut logits_of_each = Vec::new();
            for (decoding, ended) in open {
                match decoding.next_token(model) {
                    Some(token) => {
                        let Decoding { cache, logits, .. } = &mut **decoding;
                        texts.push((cache, token));
                        logits_of_each.push(logits);
                    }
                    None => *ended = true,
                }
            }
            if texts.is_empty() {
                break;
            }
            let logits = model.decoder.logits_after_each(kernels, buffers, texts);
            for (own, logits) in logits_of_each.into_iter().zip(logits) {
                own.copy_from_slice(logits);
            }
        }
        for (ended, decoding) in ended.iter_mut().zip(decodings) {
            *ended = *ended && decoding.is_final(model, kernels);
        }
        ended
    }

    /// Returns whether the text differs from the one without keywords.
    fn has_keyword_cost(&self) -> bool {
        self.beams.as_ref().map_or(self.spotting.has_cost(), BeamSearch::has_keyword_cost)
    }

    /// Begins to decode the text without keywords, with which the text that they have changed is compared.
    fn begin_without_keywords(&mut self, model: &Model, kernels: &mut Kernels) {
        let keywords = Arc::clone(&self.keywords);
        self.favoured = Some((self.take_text(model), keywords));
        if let Some(beams) = &self.beams {
            self.search(beams.size());
        }
        self.begin_anew(model, kernels);
    }

    /// Decodes a token of each beam. Returns whether the search has ended.
    fn extend_beams(&mut self, model: &Model, kernels: &mut Kernels) -> bool {
        let Decoding { beams: Some(beams), cache, logits, language, task, keywords, .. } = self else {
            return true;
        };
        let language = model.tokens.text_language(*language, *task);
        beams.extend(model, kernels, cache, logits, language, keywords)
    }

    /// Decodes a token. Returns whether the text has ended.
    fn decode_token(&mut self, model: &Model, kernels: &mut Kernels) -> bool {
        let Some(next) = self.next_token(model) else { return true };
        model.decoder.forward(kernels, &mut self.cache, &[next]);
        model.decoder.logits(kernels, &self.cache, 0, &mut self.logits);
        false
    }

    /// Adds the next token to the text and returns it, to be read; `None` if the text has ended.
    fn next_token(&mut self, model: &Model) -> Option<u32> {
        loop {
            match self.choose_token(model) {
                Chosen::Token(token) => return Some(token),
                Chosen::End => return None,
                Chosen::Return => {}
            }
        }
    }

    fn choose_token(&mut self, model: &Model) -> Chosen {
        let end = &model.tokens.end;
        let language = model.tokens.text_language(self.language, self.task);
        let allowed = allowed(&model.tokens, language, &self.tokens, &mut self.logits);
        let favoured = match likeliest(allowed).and_then(|likeliest| u32::try_from(likeliest).ok()) {
            Some(likeliest) if !self.keywords.is_empty() => {
                self.spotting.step(&self.keywords, &model.tokens, &self.tokens, allowed, likeliest)
            }
            _ => Step::Free,
        };
        let next = match (favoured, &mut self.sampler) {
            (Step::Take(token), _) => Some(token as usize),
            (Step::Free, None) => likeliest(allowed),
            (Step::Free, Some(sampler)) => sampler.sample(allowed),
            (Step::Return(length, logits), _) => {
                self.return_to(model, length, &logits);
                return Chosen::Return;
            }
        };
        let Some(next) = next.and_then(|next| u32::try_from(next).ok()) else { return Chosen::End };
        self.log_probabilities.push(log_probability(allowed, next));
        if next == *end {
            return Chosen::End;
        }
        self.spotting.read(&self.keywords, &model.tokens, &self.tokens, next);
        self.tokens.push(next);
        if let Some(kept) = without_loop(&self.tokens).filter(|kept| !self.is_spoken(model, *kept)) {
            self.tokens.truncate(kept);
            self.runaway = true;
        }
        self.runaway |= self.tokens.len() == self.max_tokens;
        if self.runaway { Chosen::End } else { Chosen::Token(next) }
    }

    /// Takes back all but the first `length` tokens of the text, after which these logits were in force.
    fn return_to(&mut self, model: &Model, length: usize, logits: &[f32]) {
        model.decoder.forget(&mut self.cache, self.tokens.len() - length);
        self.tokens.truncate(length);
        self.log_probabilities.truncate(length);
        self.logits[..logits.len()].copy_from_slice(logits);
    }

    /// Returns whether the tokens from the `first` on, which repeat those before, are a repetition that was
    /// spoken.
    fn is_spoken(&self, model: &Model, first: usize) -> bool {
        let (weights, heads, states) = model.decoder.attention_so_far(&self.cache);
        alignment::are_spoken(weights, heads, states, first)
    }

    /// Takes the text out of the decoding.
    pub(super) fn take_attempt(&mut self, model: &Model) -> Attempt {
        Attempt {
            language: self.language,
            detected: self.detected,
            task: self.task,
            no_speech: self.no_speech,
            text: self.take_checked_text(model),
        }
    }

    /// Takes the text that keywords have changed if it keeps all other words, otherwise that without them.
    fn take_checked_text(&mut self, model: &Model) -> DecodedText {
        let text = self.take_text(model);
        let Some((favoured, keywords)) = self.favoured.take() else { return text };
        let written = |text: &DecodedText| model.tokens.text(&text.tokens);
        let is_kept = replaced_only(keywords.words(), &written(&text), &written(&favoured));
        if is_kept { favoured } else { text }
    }

    fn take_text(&mut self, model: &Model) -> DecodedText {
        if let Some(best) = self.beams.as_mut().and_then(BeamSearch::take_best) {
            return DecodedText {
                log_probability: mean(&best.log_probabilities, best.given_back),
                attention: model.decoder.attention_of(&self.cache, &best.aligned),
                tokens: best.tokens,
                log_probabilities: best.log_probabilities,
                runaway: best.runaway,
                sampled: false,
            };
        }
        let log_probabilities = std::mem::take(&mut self.log_probabilities);
        DecodedText {
            tokens: std::mem::take(&mut self.tokens),
            log_probability: mean(&log_probabilities, self.spotting.spent()),
            log_probabilities,
            runaway: self.runaway,
            sampled: self.sampler.is_some(),
            attention: model.decoder.take_attention(&mut self.cache),
        }
    }
}

/// Returns all that the decoder reads before the text: the end of the text before, as much as OpenAI's
/// Whisper takes, and what steers.
fn prompt(model: &Model, language: Option<u32>, options: &DecodingOptions) -> Vec<u32> {
    let Model { decoder, tokens, .. } = model;
    let longest = (decoder.context_length() / 2).saturating_sub(1);
    let before = &options.prompt[options.prompt.len().saturating_sub(longest)..];
    let previous = tokens.previous().filter(|_| !before.is_empty());
    let mut prompt: Vec<u32> = previous.into_iter().chain(before.iter().copied()).collect();
    prompt.push(tokens.start);
    prompt.extend(tokens.prompt(language, options.task));
    prompt
}

/// Detects the language that is spoken in a part of the audio, by its samples.
pub(super) fn detect_in_part(
    model: &Model,
    kernels: &mut Kernels,
    states: &[f32],
    samples: &Range<usize>,
    detection: &Detection,
) -> Option<Detected> {
    let Model { decoder, encoder, tokens, .. } = model;
    let width = encoder.width();
    let states = &states[samples.start / alignment::STATE * width..];
    let part = samples.len().div_ceil(alignment::STATE) * width;
    let mut part = decoder.start(kernels, &states[..part.min(states.len())]);
    let mut logits = vec![0.0; decoder.vocabulary()];
    decoder.forward(kernels, &mut part, &[tokens.start]);
    decoder.logits(kernels, &part, 0, &mut logits);
    detect(tokens, &logits, detection)
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
    LogSoftmax::of(logits).at(logits[at as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one() {
        let logits = [1.0, 3.0, f32::NEG_INFINITY, 2.0];
        let sum: f32 = (0..4).map(|at| log_probability(&logits, at).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6, "{sum}");
        assert_eq!(likeliest(&logits), Some(1));
        assert_eq!(likeliest(&[f32::NAN]), None);
    }
}
