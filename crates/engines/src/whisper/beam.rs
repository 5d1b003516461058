//! Beam search: the likeliest texts grow side by side, and the best of those that end is chosen.
//!
//! The search is that of CTranslate2 (`src/decoding.cc`) with the settings of faster-whisper: it ends with as
//! many whole texts as there are beams (a patience of 1), of which the one with the greatest log-probability
//! per token is chosen (a length penalty of 1).
//!
//! A step reads one token of every beam at once, so the weights and the audio are read once for all.
//!
//! Texts within a keyword have places of their own beside the beams, so they displace no text without it, and
//! are not displaced before the keyword is complete.

use super::alignment;
use super::decoder::{KvCache, Row};
use super::keyword_progress::{Following, KeywordProgress};
use super::keywords::{Keywords, TRIES};
use super::model::Model;
use super::next_token::{LogSoftmax, allowed, highest, without_loop};
use super::ops::Kernels;
use super::tokens::Tokens;

/// A beam search in progress.
pub(super) struct BeamSearch {
    /// Number of beams.
    size: usize,
    /// Number of tokens of the prompt, which all texts begin with.
    prompt: usize,
    /// Largest number of tokens of a text.
    max_tokens: usize,
    /// Texts that may go on. The search begins with the empty one.
    beams: Vec<Beam>,
    ended: Vec<BeamText>,
    /// Logits of all tokens that may follow each beam.
    logits: Vec<f32>,
}

/// A text that may go on.
#[derive(Clone, Debug)]
struct Beam {
    tokens: Vec<u32>,
    log_probabilities: Vec<f32>,
    /// Sum of the log-probabilities.
    sum: f32,
    /// Slots of the prompt and the tokens in the cache.
    slots: Vec<u32>,
    keyword: KeywordProgress,
}

/// A text that has ended.
#[derive(Debug)]
pub(super) struct BeamText {
    pub(super) tokens: Vec<u32>,
    /// Log-probability of each token, and of the end if the text has one.
    pub(super) log_probabilities: Vec<f32>,
    /// Slots by whose attention each token, and the end, were decoded.
    pub(super) aligned: Vec<u32>,
    /// `true` if the text repeated itself, in which case the repetition is cut off, or had too many tokens.
    pub(super) runaway: bool,
    /// Cost of the keywords.
    pub(super) given_back: f32,
    /// Log-probability per token, with the credit of the keywords.
    score: f32,
}

/// A token that may follow a beam.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    beam: usize,
    token: u32,
    log_probability: f32,
    /// Sum of the log-probabilities of the text with the token.
    sum: f32,
    /// Progress of the text with the token.
    keyword: KeywordProgress,
}

impl Candidate {
    fn rank(&self) -> f32 {
        self.sum + self.keyword.credit()
    }
}

impl Beam {
    /// Returns the log-probability per token that the text has if its keyword comes to its end.
    fn promise(&self) -> f32 {
        (self.sum + self.keyword.promise()) / self.tokens.len().max(1) as f32
    }
}

impl BeamSearch {
    /// Creates a search for a text of at most `max_tokens` tokens after a prompt of `prompt` tokens, which
    /// has the first slots of the cache.
    pub(super) fn new(size: usize, prompt: usize, max_tokens: usize) -> BeamSearch {
        let slots = (0..).take(prompt).collect();
        let keyword = KeywordProgress::default();
        let empty = Beam { tokens: Vec::new(), log_probabilities: Vec::new(), sum: 0.0, slots, keyword };
        BeamSearch { size, prompt, max_tokens, beams: vec![empty], ended: Vec::new(), logits: Vec::new() }
    }

    /// Decodes the next token of each beam. `first` holds the logits after the prompt, and `language` is that
    /// of the text. Returns whether the search has ended.
    pub(super) fn extend(
        &mut self,
        model: &Model,
        kernels: &mut Kernels,
        cache: &mut KvCache,
        first: &mut [f32],
        language: Option<u32>,
        keywords: &Keywords,
    ) -> bool {
        let vocabulary = first.len();
        let is_first = self.logits.is_empty();
        let logits = if is_first { first } else { &mut self.logits[..] };
        let mut candidates = Vec::with_capacity(self.beams.len() * 2 * self.size);
        for ((number, beam), logits) in self.beams.iter().enumerate().zip(logits.chunks_exact_mut(vocabulary))
        {
            let logits = allowed(&model.tokens, language, &beam.tokens, logits);
            let probabilities = LogSoftmax::of(logits);
            let next = next_tokens(keywords, &model.tokens, beam, logits, 2 * self.size);
            candidates.extend(next.into_iter().map(|(token, logit, keyword)| {
                let log_probability = probabilities.at(logit);
                Candidate { beam: number, token, log_probability, sum: beam.sum + log_probability, keyword }
            }));
        }
        let is_spoken = |slots: &[u32], first: usize| {
            let attention = model.decoder.attention_of(cache, slots);
            alignment::are_spoken(&attention.weights, attention.heads, attention.states, first)
        };
        self.choose(candidates, model.tokens.end, is_spoken);
        if self.ended.len() >= self.size {
            self.keep_promising();
        }
        if self.beams.is_empty() {
            return true;
        }
        self.assign_slots();
        let rows = self.beams.iter().filter_map(|Beam { tokens, slots, .. }| {
            Some(Row { token: *tokens.last()?, slots, aligned: true })
        });
        model.decoder.forward_each(kernels, cache, &rows.collect::<Vec<_>>());
        self.logits.resize(self.beams.len() * vocabulary, 0.0);
        model.decoder.logits_of_each(kernels, cache, &mut self.logits);
        false
    }

    /// Replaces the beams by their best successors. A text that ends, or cannot go on, leaves its place to
    /// the best of the candidates that would have had none. The best texts within a keyword have places
    /// beside them. A repetition is no loop if it `is_spoken`, by the slots that its text was decoded by and
    /// its first token.
    fn choose(
        &mut self,
        mut candidates: Vec<Candidate>,
        end: u32,
        is_spoken: impl Fn(&[u32], usize) -> bool,
    ) {
        // The sort is stable: of equals, the earlier beam and the lower token come first.
        candidates.sort_by(|a, b| b.rank().total_cmp(&a.rank()));
        let mut rest = candidates.split_off(self.size.min(candidates.len()));
        let open = take_open(&mut rest);
        rest.truncate(self.size);
        let mut spares = rest.iter().filter(|candidate| candidate.token != end);
        let mut beams = Vec::with_capacity(self.size + open.len());
        for candidate in &candidates {
            let mut next = Some(candidate);
            while let Some(candidate) = next.take() {
                match self.successor(*candidate, end, &is_spoken) {
                    Ok(beam) => beams.push(beam),
                    Err(text) => {
                        self.ended.push(text);
                        next = spares.next();
                    }
                }
            }
        }
        let open = open.into_iter();
        beams.extend(open.filter_map(|candidate| self.successor(candidate, end, &is_spoken).ok()));
        self.beams = beams;
    }

    /// Keeps the beams with a keyword that may become better than all texts that have ended.
    fn keep_promising(&mut self) {
        let best = self.ended.iter().map(|text| text.score).fold(f32::NEG_INFINITY, f32::max);
        self.beams.retain(|beam| beam.keyword.has_cost() && beam.promise() > best);
    }

    /// Returns a beam with a token more, or the text that has thereby ended.
    fn successor(
        &self,
        candidate: Candidate,
        end: u32,
        is_spoken: impl Fn(&[u32], usize) -> bool,
    ) -> Result<Beam, BeamText> {
        let mut beam = self.beams[candidate.beam].clone();
        beam.log_probabilities.push(candidate.log_probability);
        beam.sum = candidate.sum;
        beam.keyword = candidate.keyword;
        if candidate.token == end {
            return Err(self.end(beam, false));
        }
        beam.tokens.push(candidate.token);
        let decoded_by = &beam.slots[self.prompt - 1..];
        let kept = without_loop(&beam.tokens).filter(|kept| !is_spoken(decoded_by, *kept));
        if kept.is_none() && beam.tokens.len() < self.max_tokens {
            return Ok(beam);
        }
        let mut text = self.end(beam, true);
        text.tokens.truncate(kept.unwrap_or(text.tokens.len()));
        Err(text)
    }

    fn end(&self, beam: Beam, runaway: bool) -> BeamText {
        let Beam { tokens, log_probabilities, sum, mut slots, keyword } = beam;
        BeamText {
            // The end does not count, as in CTranslate2.
            score: (sum + keyword.credit()) / tokens.len().max(1) as f32,
            given_back: keyword.spent(),
            aligned: slots.split_off(self.prompt - 1),
            tokens,
            log_probabilities,
            runaway,
        }
    }

    /// Gives the last token of each beam a slot that no text uses any more.
    fn assign_slots(&mut self) {
        let used = self.beams.iter().flat_map(|beam| &beam.slots);
        let used = used.chain(self.ended.iter().flat_map(|text| &text.aligned));
        let most = used.clone().max().map_or(0, |slot| *slot as usize);
        let mut is_free = vec![true; most + 1 + self.beams.len()];
        for slot in used {
            is_free[*slot as usize] = false;
        }
        let free = (0..).zip(is_free).filter_map(|(slot, is_free)| is_free.then_some(slot));
        for (beam, slot) in self.beams.iter_mut().zip(free) {
            beam.slots.push(slot);
        }
    }

    /// Returns the number of beams.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// Returns whether a keyword has cost the best text anything.
    pub(super) fn has_keyword_cost(&self) -> bool {
        self.best().is_some_and(|best| self.ended[best].given_back > 0.0)
    }

    /// Takes the best of the texts that have ended.
    pub(super) fn take_best(&mut self) -> Option<BeamText> {
        let best = self.best()?;
        Some(self.ended.swap_remove(best))
    }

    /// Returns the number of the best of the texts that have ended, the first of equals.
    fn best(&self) -> Option<usize> {
        let numbers = 0..self.ended.len();
        numbers.reduce(|best, text| if self.ended[text].score > self.ended[best].score { text } else { best })
    }
}

/// Returns the tokens by which a beam may go on, with their logits: the `count` likeliest ones, and those by
/// which a keyword begins or goes on.
fn next_tokens(
    keywords: &Keywords,
    tokens: &Tokens,
    beam: &Beam,
    logits: &[f32],
    count: usize,
) -> Vec<(u32, f32, KeywordProgress)> {
    let mut next = highest(logits, count);
    let Some((likeliest, _)) = next.first().copied() else { return Vec::new() };
    let following = Following { text: &beam.tokens, logits, likeliest };
    for token in beam.keyword.favoured(keywords, tokens, following) {
        if next.iter().all(|(other, _)| *other != token) {
            next.push((token, logits[token as usize]));
        }
    }
    let progress = |token| beam.keyword.after(keywords, tokens, following, token);
    next.into_iter().map(|(token, logit)| (token, logit, progress(token))).collect()
}

/// Takes the best candidates within a keyword out of those that have no place otherwise.
fn take_open(rest: &mut Vec<Candidate>) -> Vec<Candidate> {
    let mut open: Vec<Candidate> = rest.extract_if(.., |candidate| candidate.keyword.is_open()).collect();
    let prospect = |candidate: &Candidate| candidate.sum + candidate.keyword.prospect();
    open.sort_by(|a, b| prospect(b).total_cmp(&prospect(a)));
    open.truncate(TRIES);
    open
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models_dir::models_dir;
    use crate::whisper::decoded_text::DecodedText;
    use crate::whisper::decoding::Decoding;
    use crate::whisper::options::DecodingOptions;
    use crate::whisper::{Whisper, test_recording};
    use voxline::engine::{RecognitionRequest, Task};

    const END: u32 = 9;

    fn candidate(beam: usize, token: u32, log_probability: f32) -> Candidate {
        let keyword = KeywordProgress::default();
        Candidate { beam, token, log_probability, sum: log_probability, keyword }
    }

    /// Returns a search of a given size with beams of one token each, after a prompt of two.
    fn search(size: usize) -> BeamSearch {
        let mut search = BeamSearch::new(size, 2, 8);
        search.choose((0..size).map(|i| candidate(0, i as u32, -(i as f32))).collect(), END, |_, _| false);
        search.assign_slots();
        search
    }

    fn texts(search: &BeamSearch) -> Vec<&[u32]> {
        search.beams.iter().map(|beam| &beam.tokens[..]).collect()
    }

    #[test]
    fn a_text_that_ends_leaves_its_place() {
        let mut search = search(2);
        let ends = [candidate(0, END, -0.1), candidate(1, 5, -0.2), candidate(0, END, -0.3)];
        let spares = [candidate(1, 6, -0.4), candidate(0, 7, -0.5)];
        search.choose([&ends[..], &spares].concat(), END, |_, _| false);
        // Of four candidates, the end of the first beam comes first, and the spare end is of no use.
        assert_eq!(texts(&search), [&[1, 6], &[1, 5]] as [&[u32]; 2]);
        assert_eq!(search.ended.len(), 1);
        assert_eq!(search.ended[0].tokens, [0]);
        assert!(!search.ended[0].runaway);
    }

    #[test]
    fn texts_that_begin_alike_share_slots() {
        let mut search = search(3);
        assert_eq!(
            search.beams.iter().map(|beam| &beam.slots[..]).collect::<Vec<_>>(),
            [[0, 1, 2], [0, 1, 3], [0, 1, 4]]
        );
        // The second and third beam have no successors, so their slots are free.
        search.choose(
            vec![candidate(0, 5, -0.1), candidate(0, 6, -0.2), candidate(0, 7, -0.3)],
            END,
            |_, _| false,
        );
        search.assign_slots();
        assert_eq!(
            search.beams.iter().map(|beam| &beam.slots[..]).collect::<Vec<_>>(),
            [[0, 1, 2, 3], [0, 1, 2, 4], [0, 1, 2, 5]]
        );
    }

    #[test]
    fn a_loop_ends_its_text() {
        let mut search = BeamSearch::new(1, 2, 100);
        for _ in 0..7 {
            search.choose(vec![candidate(0, 4, -0.1)], END, |_, _| false);
            search.assign_slots();
            assert!(search.ended.is_empty());
        }
        search.choose(vec![candidate(0, 4, -0.1)], END, |_, _| false);
        assert!(search.beams.is_empty());
        let text = search.take_best().expect("the loop ended");
        assert!(text.runaway);
        assert_eq!(text.tokens, [4]);
    }

    #[test]
    fn a_text_has_no_more_tokens_than_there_is_time_for() {
        let mut search = BeamSearch::new(1, 2, 3);
        for token in 0..3 {
            search.choose(vec![candidate(0, token, -0.1)], END, |_, _| false);
            search.assign_slots();
        }
        assert!(search.beams.is_empty());
        assert!(search.take_best().expect("the text ended").runaway);
    }

    /// The sum of the longer text is lower, its mean higher.
    #[test]
    fn the_best_text_is_the_likeliest_per_token() {
        let mut search = BeamSearch::new(2, 1, 8);
        let beam = |tokens: &[u32], sum: f32| Beam {
            tokens: tokens.to_vec(),
            log_probabilities: vec![sum],
            sum,
            slots: (0..).take(tokens.len() + 1).collect(),
            keyword: KeywordProgress::default(),
        };
        search.beams = vec![beam(&[1], -0.9), beam(&[1, 2, 3], -1.1)];
        let end = |beam, sum| Candidate { sum, ..candidate(beam, END, -0.1) };
        search.choose(vec![end(0, -1.0), end(1, -1.2)], END, |_, _| false);
        let best = search.take_best().expect("both ended");
        assert_eq!(best.tokens, [1, 2, 3]);
        assert_eq!(best.aligned, [0, 1, 2, 3]);
    }

    #[test]
    fn texts_within_a_keyword_have_places_of_their_own() {
        let mut search = search(2);
        let open = |token, log_probability: f32, cost| Candidate {
            keyword: KeywordProgress::within_keyword(cost),
            ..candidate(0, token, log_probability)
        };
        let plain = [candidate(0, 5, -0.1), candidate(1, 6, -0.2), candidate(0, 7, -0.3)];
        let open = [open(1, -4.0, 3.9), open(2, -5.0, 4.9), open(3, -3.0, 2.9), open(4, -3.5, 3.4)];
        search.choose([&plain[..], &open].concat(), END, |_, _| false);
        search.assign_slots();
        // Two plain texts, and the likeliest of those within a keyword.
        assert_eq!(texts(&search), [&[0, 5], &[1, 6], &[0, 3], &[0, 4], &[0, 1]] as [&[u32]; 5]);
        let slots: Vec<u32> = search.beams.iter().filter_map(|beam| beam.slots.last().copied()).collect();
        assert!((1..slots.len()).all(|at| !slots[..at].contains(&slots[at])), "{slots:?}");
    }

    /// Texts with a keyword are searched for as long as one may be the best.
    #[test]
    fn a_keyword_may_end_after_the_other_texts() {
        let mut search = search(1);
        let open = Candidate { keyword: KeywordProgress::within_keyword(3.0), ..candidate(0, 5, -3.5) };
        search.choose(vec![candidate(0, END, -1.0), open], END, |_, _| false);
        search.keep_promising();
        assert_eq!(texts(&search), [[0, 5]]);
        search.ended[0].score = -0.1;
        search.beams[0].keyword = KeywordProgress::default();
        search.keep_promising();
        assert!(search.beams.is_empty());
    }

    /// Recording that was encoded, and the options to decode it by.
    struct Encoded {
        whisper: Whisper,
        kernels: Kernels,
        states: Vec<f32>,
        samples: usize,
    }

    impl Encoded {
        fn new() -> Encoded {
            let whisper = Whisper::load(&models_dir().join("whisper-base")).expect("the model is there");
            let (model, mut kernels) = (&whisper.shared.model, Kernels::default());
            let pcm = test_recording::pcm();
            let mut encoding = model.encoder.begin(&kernels, &model.mel.features(&pcm, 1_000));
            let states = std::iter::repeat_with(|| model.encoder.advance(&mut kernels, &mut encoding));
            let states = states.flatten().next().expect("the layers come to an end");
            Encoded { whisper, kernels, states, samples: pcm.len() }
        }

        /// Returns the text that a search of this many beams finds; of one beam, by the search, too.
        fn decode(&mut self, beam_size: usize, is_search: bool) -> DecodedText {
            let (model, kernels) = (&self.whisper.shared.model, &mut self.kernels);
            let request = RecognitionRequest::new().language("en");
            let mut options = DecodingOptions::new(&model.tokens, &request).expect("Whisper honours it");
            options.beam_size = beam_size;
            let cache = model.decoder.start(kernels, &self.states);
            let mut decoding = Decoding::begin(model, kernels, cache, self.samples, &options);
            if is_search {
                decoding.search(beam_size);
            }
            while !decoding.advance(model, kernels) {}
            decoding.take_attempt(model).text
        }
    }

    #[test]
    fn one_beam_is_greedy() {
        let mut encoded = Encoded::new();
        let (greedy, beam) = (encoded.decode(1, false), encoded.decode(1, true));
        assert_eq!(beam.tokens, greedy.tokens);
        assert_eq!(beam.log_probabilities, greedy.log_probabilities);
        assert_eq!(beam.attention.weights, greedy.attention.weights);
    }

    /// The chosen text, read token by token, has the probabilities and the attention that the search gave it:
    /// no beam saw another's tokens.
    #[test]
    fn a_text_is_as_likely_alone_as_among_others() {
        let mut encoded = Encoded::new();
        let found = encoded.decode(5, false);
        assert!(!found.tokens.is_empty() && !found.runaway);
        let Encoded { whisper, kernels, states, .. } = &mut encoded;
        let Model { decoder, tokens, .. } = &whisper.shared.model;
        let language = tokens.language("en").flatten();
        let mut cache = decoder.start(kernels, states);
        let mut logits = vec![0.0; decoder.vocabulary()];
        let mut next = tokens.prompt(language, Task::Transcribe);
        decoder.forward(kernels, &mut cache, &[tokens.start]);
        decoder.rewind(&mut cache, 1);
        let mut log_probabilities = Vec::new();
        for (read, token) in found.tokens.iter().chain([&tokens.end]).enumerate() {
            decoder.forward(kernels, &mut cache, &next);
            decoder.logits(kernels, &cache, next.len() - 1, &mut logits);
            let allowed = allowed(tokens, language, &found.tokens[..read], &mut logits);
            log_probabilities.push(LogSoftmax::of(allowed).at(allowed[*token as usize]));
            next = vec![*token];
        }
        assert_eq!(found.log_probabilities, log_probabilities);
        assert_eq!(found.attention.weights, decoder.take_attention(&mut cache).weights);
    }
}
