//! Transcription of an utterance, step by step: decoding, and its safeguards.

use std::ops::Range;

use super::alignment::Word;
use super::attempt::{Attempt, Transcript};
use super::decoding::{Decoding, detect_in_part};
use super::detection::Detected;
use super::encoder::Encoding;
use super::fallback::Rejection;
use super::mel::HOP;
use super::model::Model;
use super::ops::Kernels;
use super::options::{DecodingOptions, Language};
use super::untold;
use voxline::engine::RECOGNIZER_RATE;

/// Number of feature frames per second.
const FRAMES_PER_SECOND: usize = RECOGNIZER_RATE as usize / HOP;
/// Window that Whisper was trained on, in feature frames.
pub(super) const FULL_WINDOW: usize = 30 * FRAMES_PER_SECOND;
/// Silence appended to an utterance in a shorter window, in feature frames. With 2 s Whisper loops and
/// loses words; with 6 s its word error rate is that of the full window.
const PADDING: usize = 6 * FRAMES_PER_SECOND;
/// Shortest window, in feature frames.
const LEAST_WINDOW: usize = 8 * FRAMES_PER_SECOND;

/// Typical number of tokens spoken per second: three words, of one token in English and two in Russian.
const SPOKEN_TOKENS: usize = 5;

/// Mean log-probability that the text of each half needs: a confidence of 0.5, and hardly less than that of
/// the whole. A half of a sentence that is said again is likelier than the whole, and one of music is not.
const LIKELY: f32 = -0.7;
const LESS_LIKELY: f32 = 0.2;

/// Number of times that an utterance, and then its halves, may be cut: enough for a sentence that is said
/// four times.
const MOST_CUTS: usize = 2;

/// A transcription in progress, of an utterance of at most 30 s.
///
/// The window is cut to the utterance and some silence, which costs a fraction of the full one. A rejected
/// text is decoded again: first in the full window, then, of the same encoder states, by the fallback's
/// samplers. The first text that is not rejected ends that, and the best one counts.
pub(super) struct Transcription {
    pcm: Vec<i16>,
    /// Number of samples whose spectrum changes as that of speech does.
    lively: usize,
    options: DecodingOptions,
    /// `true` if a rejected text is worth decoding again.
    careful: bool,
    /// `true` if the words of the text are wanted.
    with_words: bool,
    window: usize,
    /// Places of the utterances whose languages are to be detected, if there are several.
    parts: Vec<Range<usize>>,
    /// Languages detected in them.
    languages: Vec<Option<Detected>>,
    /// Best of the rejected texts.
    best: Option<Attempt>,
    stage: Stage,
    /// The utterance in two halves, if its text leaves out some of its speech.
    halves: Option<Box<Halves>>,
    /// Number of times that the utterance, and then its halves, may be cut in two.
    cuts: usize,
}

enum Stage {
    Features,
    Encode(Encoding),
    Decode(Box<Decoding>),
}

impl Transcription {
    /// Begins to transcribe an utterance, of which `lively` samples change as speech does.
    pub(super) fn new(pcm: Vec<i16>, lively: u64, options: DecodingOptions) -> Transcription {
        let window = window(&pcm);
        let lively = usize::try_from(lively).unwrap_or(usize::MAX);
        Transcription {
            pcm,
            lively,
            options,
            careful: true,
            with_words: true,
            window,
            parts: Vec::new(),
            languages: Vec::new(),
            best: None,
            stage: Stage::Features,
            halves: None,
            cuts: MOST_CUTS,
        }
    }

    /// Begins to transcribe several utterances together, which lie in these parts of the samples.
    pub(super) fn together(
        pcm: Vec<i16>,
        lively: u64,
        options: DecodingOptions,
        parts: Vec<Range<usize>>,
    ) -> Transcription {
        Transcription { careful: false, parts, ..Transcription::new(pcm, lively, options) }
    }

    /// Returns the language detected in each utterance of those transcribed together, if detection was asked
    /// for.
    pub(super) fn languages(&self) -> &[Option<Detected>] {
        &self.languages
    }

    /// Begins to transcribe for a partial result: without a beam search, and a rejected text is not decoded
    /// again.
    pub(super) fn partial(pcm: Vec<i16>, lively: u64, options: DecodingOptions) -> Transcription {
        let options = DecodingOptions { beam_size: 1, ..options };
        Transcription { careful: false, with_words: false, ..Transcription::new(pcm, lively, options) }
    }

    /// Does a bounded piece of the work, some ten milliseconds: a layer of the encoder, or a few words.
    /// The last step returns the transcript, after which there is no more to do.
    pub(super) fn step(&mut self, model: &Model, kernels: &mut Kernels) -> Option<Transcript> {
        let attempt = self.attempt(model, kernels)?;
        self.conclude(model, kernels, attempt)
    }

    /// Does a piece of the work as [`step`](Transcription::step) does. Returns a text as it was decoded.
    pub(super) fn attempt(&mut self, model: &Model, kernels: &mut Kernels) -> Option<Attempt> {
        if let Some(halves) = &mut self.halves {
            return halves.current_mut().attempt(model, kernels);
        }
        match &mut self.stage {
            Stage::Features => {
                let features = model.mel.features(&self.pcm, self.window.next_multiple_of(2));
                self.stage = Stage::Encode(model.encoder.begin(kernels, &features));
            }
            Stage::Encode(encoding) => {
                if let Some(states) = model.encoder.advance(kernels, encoding) {
                    let cache = model.decoder.start(kernels, &states);
                    if let Language::Detect(detection) = &self.options.language {
                        let detect = |part| detect_in_part(model, kernels, &states, part, detection);
                        self.languages = self.parts.iter().map(detect).collect();
                    }
                    let decoding = Decoding::begin(model, kernels, cache, self.pcm.len(), &self.options);
                    self.stage = Stage::Decode(Box::new(decoding));
                }
            }
            Stage::Decode(decoding) => {
                if decoding.advance(model, kernels) {
                    return Some(decoding.take_attempt(model));
                }
            }
        }
        None
    }

    /// Returns whether the next steps decode one token after the other, which can be done along with those of
    /// other transcriptions.
    pub(super) fn is_token_by_token(&self) -> bool {
        match (&self.halves, &self.stage) {
            (Some(halves), _) => halves.current().is_token_by_token(),
            (None, Stage::Decode(decoding)) => decoding.is_token_by_token(),
            (None, Stage::Features | Stage::Encode(_)) => false,
        }
    }

    /// Returns the decoding, if it has begun.
    pub(super) fn decoding(&mut self) -> Option<&mut Decoding> {
        match (&mut self.halves, &mut self.stage) {
            (Some(halves), _) => halves.current_mut().decoding(),
            (None, Stage::Decode(decoding)) => Some(decoding),
            (None, Stage::Features | Stage::Encode(_)) => None,
        }
    }

    /// Takes the text of a decoding that has ended.
    pub(super) fn take_attempt(&mut self, model: &Model) -> Option<Attempt> {
        self.decoding().map(|decoding| decoding.take_attempt(model))
    }

    /// Ends an attempt: returns the transcript, or begins the next attempt, or the first half.
    pub(super) fn conclude(
        &mut self,
        model: &Model,
        kernels: &mut Kernels,
        attempt: Attempt,
    ) -> Option<Transcript> {
        if let Some(halves) = &mut self.halves {
            return halves.conclude(model, kernels, attempt);
        }
        let (samples, lively) = (self.pcm.len(), self.lively);
        let rejection = attempt.rejection(model, samples, lively);
        let rank = |attempt: &Attempt| attempt.rank(model, samples, lively);
        let best = match self.best.take() {
            Some(best) if rank(&best) >= rank(&attempt) => best,
            _ => attempt,
        };
        let begun = rejection.is_some_and(|rejection| self.begin_again(model, kernels, rejection));
        if begun {
            self.best = Some(best);
            return None;
        }
        let transcript = best.transcript(model, samples, lively, self.with_words);
        let cut = untold::cut(&transcript.words, &self.pcm).filter(|_| self.cuts > 0);
        let Some(cut) = cut else { return Some(transcript) };
        let halves = [0..cut, cut..samples].map(|part| self.half(part, transcript.language));
        let halves = Halves::new(transcript, cut, halves);
        // The keys and values of the whole are not needed any more.
        self.stage = Stage::Features;
        self.halves = Some(Box::new(halves));
        None
    }

    /// Returns whether the text of an attempt is doubtful, which the text of a half must not be.
    pub(super) fn rejects(&self, model: &Model, attempt: &Attempt) -> bool {
        self.halves.is_none() && attempt.rejection(model, self.pcm.len(), self.lively).is_some()
    }

    /// Begins to transcribe a part of the utterance in a known language. A doubtful text of it is not worth
    /// decoding again.
    fn half(&self, part: Range<usize>, language: Option<u32>) -> Transcription {
        let options = DecodingOptions { language: Language::Known(language), ..self.options.clone() };
        let samples = self.pcm.len();
        let lively = (self.lively.min(samples) * part.len()).div_ceil(samples.max(1));
        Transcription {
            careful: false,
            cuts: self.cuts - 1,
            ..Transcription::new(self.pcm[part].to_vec(), lively as u64, options)
        }
    }

    /// Begins to decode the utterance once more. Returns `false` if that is not worth its cost.
    fn begin_again(&mut self, model: &Model, kernels: &mut Kernels, rejection: Rejection) -> bool {
        let may_sample = self.lively > 0 && !self.options.fallback.is_exhausted();
        // In the full window the likeliest text is as slow; a sampled one may have more words.
        if !self.careful || rejection == Rejection::TooSlow && !may_sample {
            return false;
        }
        if self.window < FULL_WINDOW {
            self.window = FULL_WINDOW;
            self.stage = Stage::Features;
            return true;
        }
        let Stage::Decode(decoding) = &mut self.stage else { unreachable!("a text was just decoded") };
        let Some(sampler) = self.options.fallback.next(&self.pcm).filter(|_| may_sample) else {
            return false;
        };
        decoding.restart(model, kernels, sampler);
        true
    }
}

/// An utterance that is heard once more in two halves, since its text [leaves out](untold) some of its
/// speech. The text of both counts if it has more words.
struct Halves {
    /// Transcript of the utterance as a whole.
    whole: Transcript,
    /// Sample at which the second half begins.
    cut: usize,
    halves: [Transcription; 2],
    /// Index of the half that is being heard.
    current: usize,
    /// Transcript of the half that was heard first.
    heard: Option<Transcript>,
}

impl Halves {
    /// Begins to hear an utterance in two halves, of which the second begins at the sample `cut`. The one
    /// with fewer words of the whole comes first: if there is nothing to tell, the other need not be heard.
    fn new(whole: Transcript, cut: usize, halves: [Transcription; 2]) -> Halves {
        let told = whole.words.iter().filter(|word| word.range.start < cut).count();
        let current = usize::from(told > whole.words.len() / 2);
        Halves { whole, cut, halves, current, heard: None }
    }

    /// Returns the half that is being heard.
    fn current(&self) -> &Transcription {
        &self.halves[self.current]
    }

    /// Returns the half that is being heard.
    fn current_mut(&mut self) -> &mut Transcription {
        &mut self.halves[self.current]
    }

    /// Ends an attempt of a half. The last one returns the transcript of the utterance.
    fn conclude(&mut self, model: &Model, kernels: &mut Kernels, attempt: Attempt) -> Option<Transcript> {
        if self.current().rejects(model, &attempt) {
            return Some(std::mem::take(&mut self.whole));
        }
        let half = self.current_mut().conclude(model, kernels, attempt)?;
        if !self.is_likely(&half) {
            return Some(std::mem::take(&mut self.whole));
        }
        let Some(other) = self.heard.take() else {
            self.heard = Some(half);
            self.current = 1 - self.current;
            return None;
        };
        let whole = std::mem::take(&mut self.whole);
        if half.words.len() + other.words.len() <= whole.words.len() {
            return Some(whole);
        }
        let halves = if self.current == 0 { [half, other] } else { [other, half] };
        Some(joined(model, whole, halves, self.cut))
    }

    /// Returns whether a half tells something likely.
    fn is_likely(&self, half: &Transcript) -> bool {
        let least = LIKELY.max(self.whole.log_probability - LESS_LIKELY);
        !half.text.is_empty() && half.log_probability >= least
    }
}

/// Joins the transcripts of two halves, of which the second begins at the sample `cut`.
fn joined(model: &Model, whole: Transcript, [first, second]: [Transcript; 2], cut: usize) -> Transcript {
    let weighted = |half: &Transcript| half.log_probability * half.tokens.len() as f32;
    let count = (first.tokens.len() + second.tokens.len()).max(1) as f32;
    let tokens = [&first.tokens[..], &second.tokens].concat();
    let moved = |Word { text, range, confidence }: Word| Word {
        text,
        range: range.start + cut..range.end + cut,
        confidence,
    };
    Transcript {
        text: model.tokens.text(&tokens),
        log_probability: (weighted(&first) + weighted(&second)) / count,
        tokens,
        words: first.words.into_iter().chain(second.words.into_iter().map(moved)).collect(),
        ..whole
    }
}

impl Model {
    /// Does the work of an utterance of `seconds` seconds without one: the steps are those of a
    /// [`Transcription`] by greedy decoding whose text is accepted at once, and their cost does not depend on
    /// the content. Beam search, keywords and the fallback cost more.
    pub(super) fn exercise(&self, kernels: &mut Kernels, seconds: usize) {
        let pcm = vec![0; seconds * RECOGNIZER_RATE as usize];
        let features = self.mel.features(&pcm, window(&pcm).next_multiple_of(2));
        let mut encoding = self.encoder.begin(kernels, &features);
        let states = loop {
            if let Some(states) = self.encoder.advance(kernels, &mut encoding) {
                break states;
            }
        };
        let mut cache = self.decoder.start(kernels, &states);
        let mut scores = vec![0.0; self.decoder.vocabulary()];
        let tokens = (SPOKEN_TOKENS * seconds).min(self.decoder.context_length() - 1);
        for _ in 0..tokens {
            self.decoder.forward(kernels, &mut cache, &[self.tokens.start]);
            self.decoder.logits(kernels, &cache, 0, &mut scores);
        }
    }
}

/// Returns the number of feature frames of an utterance and its padding.
fn window(pcm: &[i16]) -> usize {
    (pcm.len().div_ceil(HOP) + PADDING).clamp(LEAST_WINDOW, FULL_WINDOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models_dir::models_dir;
    use crate::whisper::{Whisper, test_recording};
    use voxline::engine::{Accuracy, Latency, RecognitionRequest};

    /// A recording that was decoded once, in the full window.
    struct Decoded {
        whisper: Whisper,
        kernels: Kernels,
        transcription: Transcription,
        attempt: Attempt,
    }

    impl Decoded {
        fn at(accuracy: Accuracy) -> Decoded {
            let whisper = Whisper::load(&models_dir().join("whisper-base")).expect("the model is there");
            let (model, mut kernels) = (&whisper.shared.model, Kernels::default());
            let request =
                RecognitionRequest::new().language("en").latency(Latency::Relaxed).accuracy(accuracy);
            let options = DecodingOptions::new(&model.tokens, &request).expect("Whisper honours it");
            let pcm = test_recording::pcm();
            let lively = pcm.len() as u64;
            let mut transcription = Transcription::new(pcm, lively, options);
            transcription.window = FULL_WINDOW;
            let attempt = loop {
                if let Stage::Decode(decoding) = &mut transcription.stage {
                    while !decoding.advance(model, &mut kernels) {}
                    break decoding.take_attempt(model);
                }
                assert!(transcription.step(model, &mut kernels).is_none());
            };
            Decoded { whisper, kernels, transcription, attempt }
        }

        fn rejection(&self) -> Option<Rejection> {
            let samples = self.transcription.pcm.len();
            self.attempt.rejection(&self.whisper.shared.model, samples, samples)
        }

        /// Replaces the text by ten repetitions of itself, and concludes the attempt. Returns the text of the
        /// transcript, and whether the utterance was decoded again.
        fn conclude_repeated(mut self) -> (String, bool) {
            assert_eq!(self.rejection(), None);
            let text = &mut self.attempt.text;
            text.tokens = text.tokens.repeat(10);
            text.log_probabilities = vec![-0.1; text.tokens.len() + 1];
            assert_eq!(self.rejection(), Some(Rejection::Repetitive));
            let Decoded { whisper, mut kernels, mut transcription, attempt } = self;
            let model = &whisper.shared.model;
            match transcription.conclude(model, &mut kernels, attempt) {
                Some(transcript) => (transcript.text, false),
                None => {
                    let mut steps = std::iter::repeat_with(|| transcription.step(model, &mut kernels));
                    (steps.find_map(|end| end).expect("the steps end").text, true)
                }
            }
        }
    }

    #[test]
    fn a_repetitive_text_is_decoded_again() {
        let (text, again) = Decoded::at(Accuracy::Balanced).conclude_repeated();
        assert!(again);
        assert!(text.starts_with("Call me back") && text.len() < 100, "{text}");
    }

    #[test]
    fn fast_decoding_samples_nothing() {
        let (_, again) = Decoded::at(Accuracy::Fast).conclude_repeated();
        assert!(!again);
    }

    /// A sampled text that the model takes for silence would replace the text of speech by nothing.
    #[test]
    fn silence_ends_the_fallback_only_if_the_likeliest_text_shows_it() {
        let mut decoded = Decoded::at(Accuracy::Balanced);
        decoded.attempt.no_speech = 0.7;
        decoded.attempt.text.log_probability = -1.2;
        assert_eq!(decoded.rejection(), None);
        decoded.attempt.text.sampled = true;
        assert_eq!(decoded.rejection(), Some(Rejection::Unlikely));
    }
}
