//! Transcription of an utterance, step by step: decoding, and its safeguards.

use std::ops::Range;

use super::alignment::{self, Word};
use super::decoder::Attention;
use super::decoding::{Attempt, DecodedText, Decoding, detect_in_part};
use super::detection::Detected;
use super::encoder::Encoding;
use super::fallback::{self, LOG_PROBABILITY_THRESHOLD, Rejection, is_too_fast};
use super::mel::HOP;
use super::model::Model;
use super::ops::Kernels;
use super::options::{DecodingOptions, Language};
use voxline::engine::{RECOGNIZER_RATE, Task};

/// Number of feature frames per second.
const FRAMES_PER_SECOND: usize = RECOGNIZER_RATE as usize / HOP;
/// Window that Whisper was trained on, in feature frames.
pub(super) const FULL_WINDOW: usize = 30 * FRAMES_PER_SECOND;
/// Silence appended to an utterance in a shorter window, in feature frames. With 2 s Whisper loops and
/// loses words; with 6 s its word error rate is that of the full window.
const PADDING: usize = 6 * FRAMES_PER_SECOND;
/// Shortest window, in feature frames.
const LEAST_WINDOW: usize = 8 * FRAMES_PER_SECOND;

/// Whisper's own threshold: an unlikely text is dropped if the no-speech probability is above it.
const NO_SPEECH_THRESHOLD: f32 = 0.6;
/// Mean log-probability below which a text is invented, as from music and machines: a confidence of 0.2.
const INVENTED: f32 = -1.6;
/// Words per second that people speak, and the bound that replaces `INVENTED` from this pace on. Music
/// hardly yields a text at such a pace, and speech among other voices as loud reaches down to -2.1.
const PACE: f32 = 2.0;
const INVENTED_AT_PACE: f32 = -2.3;

/// Typical number of tokens spoken per second: three words, of one token in English and two in Russian.
const SPOKEN_TOKENS: usize = 5;

/// Length in samples above which an utterance may be too slow, and slowest pace of speech in words per
/// second. A speaker says at least seven words in ten seconds.
const LONG: usize = 5 * RECOGNIZER_RATE as usize;
pub(super) const SLOWEST: f32 = 0.7;
/// Mean log-probability below which a slow text, or a caption, is invented: a confidence of 0.7. Music
/// gives such texts: "Thank you." for about 20 s of music.
const UNLIKELY: f32 = -0.36;

/// The result of transcribing an utterance.
pub(super) struct Transcript {
    /// Text of the utterance; empty if there was no speech.
    pub(super) text: String,
    /// Token of the spoken language.
    pub(super) language: Option<u32>,
    /// Detected language, if detection was asked for.
    pub(super) detected: Option<Detected>,
    /// Mean of the tokens' log-probabilities, also if the text was dropped.
    pub(super) log_probability: f32,
    /// Probability that there was no speech.
    pub(super) no_speech: f32,
    /// Tokens of the text.
    pub(super) tokens: Vec<u32>,
    pub(super) words: Vec<Word>,
}

impl Transcript {
    /// Returns the geometric mean of the tokens' probabilities.
    pub(super) fn confidence(&self) -> f32 {
        self.log_probability.exp().clamp(0.0, 1.0)
    }
}

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
    window: usize,
    /// Places of the utterances whose languages are to be detected, if there are several.
    parts: Vec<Range<usize>>,
    /// Languages detected in them.
    languages: Vec<Option<Detected>>,
    /// Best of the rejected texts.
    best: Option<Attempt>,
    stage: Stage,
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
            window,
            parts: Vec::new(),
            languages: Vec::new(),
            best: None,
            stage: Stage::Features,
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
        Transcription { careful: false, ..Transcription::new(pcm, lively, options) }
    }

    /// Does a bounded piece of the work, some ten milliseconds: a layer of the encoder, or a few words.
    /// The last step returns the transcript, after which there is no more to do.
    pub(super) fn step(&mut self, model: &Model, kernels: &mut Kernels) -> Option<Transcript> {
        let attempt = self.attempt(model, kernels)?;
        self.conclude(model, kernels, attempt)
    }

    /// Does a piece of the work as [`step`](Transcription::step) does. Returns a text as it was decoded.
    pub(super) fn attempt(&mut self, model: &Model, kernels: &mut Kernels) -> Option<Attempt> {
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
        let is_token_by_token = matches!(&self.stage, Stage::Decode(stage) if stage.is_token_by_token());
        is_token_by_token && self.halves.is_none()
    }

    /// Returns the decoding, if it has begun.
    pub(super) fn decoding(&mut self) -> Option<&mut Decoding> {
        match &mut self.stage {
            Stage::Decode(decoding) => Some(decoding),
            Stage::Features | Stage::Encode(_) => None,
        }
    }

    /// Takes the text of a decoding that has ended.
    pub(super) fn take_attempt(&mut self, model: &Model) -> Option<Attempt> {
        self.decoding().map(|decoding| decoding.take_attempt(model))
    }

    /// Ends an attempt: returns the transcript, or begins the next attempt.
    pub(super) fn conclude(
        &mut self,
        model: &Model,
        kernels: &mut Kernels,
        attempt: Attempt,
    ) -> Option<Transcript> {
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
        Some(best.transcript(model, samples, lively, self.careful))
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

impl Attempt {
    /// Returns the reason to decode the utterance again, if there is one. Silence is no reason.
    pub(super) fn rejection(&self, model: &Model, samples: usize, lively: usize) -> Option<Rejection> {
        if self.is_silent(lively) {
            // A sampled text proves nothing about silence that the greedy one did not show.
            return self.text.sampled.then_some(Rejection::Unlikely);
        }
        let DecodedText { tokens, log_probability, runaway, .. } = &self.text;
        let (text, is_spoken) = (model.tokens.text(tokens), || self.is_spoken());
        let rejection = fallback::rejection(&text, *log_probability, *runaway, samples, is_spoken);
        rejection.or_else(|| self.is_invented(model, samples, lively).then_some(Rejection::TooSlow))
    }

    /// Returns whether the model predicts silence, and either the text is doubtful or nothing in the
    /// utterance was like speech. Whisper is often sure of a text for steady noise.
    pub(super) fn is_silent(&self, lively: usize) -> bool {
        self.no_speech > NO_SPEECH_THRESHOLD
            && (self.text.log_probability < LOG_PROBABILITY_THRESHOLD || lively == 0)
    }

    fn is_too_fast(&self, model: &Model, samples: usize) -> bool {
        is_too_fast(&model.tokens.text(&self.text.tokens), samples)
    }

    fn is_invented(&self, model: &Model, samples: usize, lively: usize) -> bool {
        let DecodedText { log_probability, sampled, .. } = self.text;
        let words = self.pieces(model).len();
        self.is_too_fast(model, samples) || is_invented(log_probability, sampled, words, samples, lively)
    }

    /// Returns a rank that is greater for the better of two attempts: a text that is not invented first,
    /// then one that does not repeat itself, then the likelier one. Sampling finds some words in anything,
    /// so a rejected text of sampled tokens is only better than an invented one.
    fn rank(&self, model: &Model, samples: usize, lively: usize) -> (bool, bool, bool, f32) {
        let DecodedText { log_probability, sampled, .. } = self.text;
        let is_trusted = !sampled || self.rejection(model, samples, lively).is_none();
        let is_invented = self.is_invented(model, samples, lively);
        (!is_invented, is_trusted, !self.repeats(model), log_probability)
    }

    fn repeats(&self, model: &Model) -> bool {
        let is_repetitive = || fallback::is_repetitive(&model.tokens.text(&self.text.tokens));
        self.text.runaway || is_repetitive() && !self.is_spoken()
    }

    /// Returns whether the text was spoken as it stands, by the attention of its tokens: a repetition is a
    /// loop otherwise.
    fn is_spoken(&self) -> bool {
        let Attention { weights, heads, states } = &self.text.attention;
        let rows = weights.len() / (heads * states).max(1);
        rows >= self.text.tokens.len() && alignment::are_spoken(weights, *heads, *states, 0)
    }

    /// Returns the words of the text, each with its tokens.
    pub(super) fn pieces(&self, model: &Model) -> Vec<alignment::WordTokens> {
        let language = model.tokens.text_language(self.language, self.task);
        alignment::split(&model.tokens, &self.text.tokens, language)
    }

    /// Returns the transcript, with its words if they are wanted.
    pub(super) fn transcript(
        &self,
        model: &Model,
        samples: usize,
        lively: usize,
        with_words: bool,
    ) -> Transcript {
        let Attempt { language, detected, no_speech, text, .. } = self;
        let transcript = |whole: String, tokens: Vec<u32>, words: Vec<Word>| Transcript {
            text: whole,
            language: *language,
            detected: *detected,
            log_probability: text.unbiased_log_probability(),
            no_speech: *no_speech,
            tokens,
            words,
        };
        let whole = model.tokens.text(&text.tokens);
        let invented = self.is_silent(lively) || self.is_invented(model, samples, lively);
        let caption = is_caption(&whole) && text.log_probability < UNLIKELY;
        if invented || caption || is_credit(&whole) {
            return transcript(String::new(), Vec::new(), Vec::new());
        }
        // The words of a translation are not in the order of the speech, along which alignment goes.
        let words = if with_words && self.task == Task::Transcribe {
            alignment::align(text, self.pieces(model), samples)
        } else {
            Vec::new()
        };
        transcript(whole, text.tokens.clone(), words)
    }
}

/// Returns whether a text of `words` words, with this mean log-probability, was invented for `samples`
/// samples.
///
/// The test for slow speech counts the lively samples alone, since noise before and after the speech has
/// no words. If no sample was like speech, and for the test of quick music, all samples count.
///
/// A sampled text needs a greater log-probability: from music, sampling makes a text of any pace, of up to
/// -1.3 at a slow one.
fn is_invented(log_probability: f32, sampled: bool, words: usize, samples: usize, lively: usize) -> bool {
    let pace = |samples: usize| words as f32 * RECOGNIZER_RATE as f32 / samples as f32;
    let at_pace = lively > 0 && pace(samples) >= PACE;
    let is_slow = samples > LONG && pace(if lively == 0 { samples } else { lively }) < SLOWEST;
    let least = match (sampled, at_pace) {
        (false, true) => INVENTED_AT_PACE,
        (false, false) | (true, true) => INVENTED,
        (true, false) => LOG_PROBABILITY_THRESHOLD,
    };
    log_probability < least || is_slow && log_probability < UNLIKELY
}

/// Returns whether a text is all in capitals, as subtitles render sounds that are not speech: "MUSIC
/// PLAYS". A name may be in capitals, too, but is shorter.
fn is_caption(text: &str) -> bool {
    let letters = text.chars().filter(|c| c.is_alphabetic()).count();
    letters > 6 && text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
}

/// Beginnings of the lines that credit the subtitles' authors. Whisper was trained on subtitles, and is
/// sure of these lines when it hears music: the first is the base model's text for a piece of Debian's
/// music on hold.
const CREDITS: [&str; 5] = [
    "редактор субтитров",
    "субтитры сделал",
    "субтитры создавал",
    "субтитры подготовил",
    "subtitles by the amara",
];

/// Returns whether a text credits the subtitles' authors.
fn is_credit(text: &str) -> bool {
    let text = text.trim_start().to_lowercase();
    CREDITS.iter().any(|credit| text.starts_with(credit))
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

    /// Cases of `benches/noise.py`: log-probability, words, seconds, and seconds like speech.
    #[test]
    fn music_invents_and_speech_among_voices_does_not() {
        let is_invented = |(log_probability, words, seconds, lively): (f32, usize, f32, f32)| {
            let samples = |seconds: f32| (seconds * RECOGNIZER_RATE as f32) as usize;
            is_invented(log_probability, false, words, samples(seconds), samples(lively))
        };
        let music = [
            (-1.498, 15, 26.5, 24.6),
            (-2.194, 10, 18.9, 9.3),
            (-2.268, 12, 18.3, 18.3),
            (-1.136, 4, 15.2, 11.8),
            (-0.927, 9, 27.9, 22.0),
            (-1.77, 9, 12.0, 4.0),
        ];
        let speech = [
            (-1.751, 9, 3.0, 2.9),
            (-2.117, 8, 3.0, 2.9),
            (-1.479, 6, 6.2, 6.1),
            (-1.442, 4, 4.7, 0.7),
            (-0.278, 4, 4.8, 4.8),
        ];
        for heard in music {
            assert!(is_invented(heard), "{heard:?}");
        }
        for heard in speech {
            assert!(!is_invented(heard), "{heard:?}");
        }
    }

    /// The music gave "1 cholera sate waltz" over and over; the speech is Debian's dir-intro in babble as
    /// loud.
    #[test]
    fn sampled_texts_need_more_than_greedy_ones() {
        let is_invented = |log_probability: f32, sampled, words, seconds: usize| {
            let samples = seconds * RECOGNIZER_RATE as usize;
            is_invented(log_probability, sampled, words, samples, samples)
        };
        assert!(is_invented(-1.33, true, 18, 20));
        assert!(!is_invented(-1.33, false, 18, 20));
        assert!(!is_invented(-1.49, true, 36, 14));
        assert!(is_invented(-1.7, true, 36, 14));
        assert!(!is_invented(-1.7, false, 36, 14));
    }

    #[test]
    fn captions_are_in_capitals() {
        assert!(is_caption("ТРЕВОЖНАЯ МУЗЫКА"));
        assert!(is_caption("[MUSIC PLAYS]"));
        for spoken in ["NATO", "Music plays", "IBM and NASA", "1,234,567", "你好世界你好世界", ""] {
            assert!(!is_caption(spoken), "{spoken}");
        }
    }

    #[test]
    fn who_wrote_the_subtitles_is_not_said() {
        assert!(is_credit("Редактор субтитров А.Семкин Корректор А.Егорова"));
        assert!(is_credit(" Subtitles by the Amara.org community"));
        for spoken in ["Она редактор субтитров.", "Субтитры включены.", "Subtitles by whom?", ""]
        {
            assert!(!is_credit(spoken), "{spoken}");
        }
    }
}
