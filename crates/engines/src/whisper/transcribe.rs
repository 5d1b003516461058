//! Transcription of an utterance, step by step: greedy decoding, and its safeguards.

use super::alignment::{self, Word};
use super::detection::Detected;
use super::encoder::Encoding;
use super::greedy::{Attempt, DecodedText, GreedyDecoding};
use super::mel::HOP;
use super::model::Model;
use super::ops::Kernels;
use super::options::DecodingOptions;
use voxline::engine::{RECOGNIZER_RATE, Task};

/// Number of feature frames per second.
const FRAMES_PER_SECOND: usize = RECOGNIZER_RATE as usize / HOP;
/// Window that Whisper was trained on, in feature frames.
const FULL_WINDOW: usize = 30 * FRAMES_PER_SECOND;
/// Silence appended to an utterance in a shorter window, in feature frames. With 2 s Whisper loops and
/// loses words; with 6 s its word error rate is that of the full window.
const PADDING: usize = 6 * FRAMES_PER_SECOND;
/// Shortest window, in feature frames.
const LEAST_WINDOW: usize = 8 * FRAMES_PER_SECOND;

/// Whisper's own thresholds. A text with a mean log-probability below `LOG_PROBABILITY_THRESHOLD` is
/// doubtful; a doubtful text is dropped if the no-speech probability is above `NO_SPEECH_THRESHOLD`.
const LOG_PROBABILITY_THRESHOLD: f32 = -1.0;
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
const SLOWEST: f32 = 0.7;
/// Mean log-probability below which a slow text, or a caption, is invented: a confidence of 0.7. Music
/// gives such texts: "Thank you." for about 20 s of music.
const UNLIKELY: f32 = -0.36;

/// Letters and digits per second that nobody speaks: twice what a fast speaker says. Whisper was trained on
/// subtitles, and writes whole lines of them for clips of less than a second.
const FASTEST: usize = 40;

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
/// The window is cut to the utterance and some silence, which costs a fraction of the full one. If the
/// text loops, or if the model itself doubts it, the utterance is decoded again in the full window, and
/// the better text counts.
pub(super) struct Transcription {
    pcm: Vec<i16>,
    /// Number of samples whose spectrum changes as that of speech does.
    lively: usize,
    options: DecodingOptions,
    /// `true` if a doubtful text is worth decoding again.
    careful: bool,
    window: usize,
    /// Doubtful text of the shorter window.
    doubtful: Option<Attempt>,
    stage: Stage,
}

enum Stage {
    Features,
    Encode(Encoding),
    Decode(Box<GreedyDecoding>),
}

impl Transcription {
    /// Begins to transcribe an utterance, of which `lively` samples change as speech does.
    pub(super) fn new(pcm: Vec<i16>, lively: u64, options: DecodingOptions) -> Transcription {
        let window = window(&pcm);
        let lively = usize::try_from(lively).unwrap_or(usize::MAX);
        Transcription { pcm, lively, options, careful: true, window, doubtful: None, stage: Stage::Features }
    }

    /// Begins to transcribe for a partial result: a doubtful text is not decoded again.
    pub(super) fn partial(pcm: Vec<i16>, lively: u64, options: DecodingOptions) -> Transcription {
        Transcription { careful: false, ..Transcription::new(pcm, lively, options) }
    }

    /// Does all remaining work.
    pub(super) fn finish(mut self, model: &Model, kernels: &mut Kernels) -> Transcript {
        loop {
            if let Some(transcript) = self.step(model, kernels) {
                return transcript;
            }
        }
    }

    /// Does a bounded piece of the work, some ten milliseconds: a layer of the encoder, or a few words.
    /// The last step returns the transcript, after which there is no more to do.
    pub(super) fn step(&mut self, model: &Model, kernels: &mut Kernels) -> Option<Transcript> {
        match &mut self.stage {
            Stage::Features => {
                let features = model.mel.features(&self.pcm, self.window.next_multiple_of(2));
                self.stage = Stage::Encode(model.encoder.begin(kernels, &features));
            }
            Stage::Encode(encoding) => {
                if let Some(states) = model.encoder.advance(kernels, encoding) {
                    let cache = model.decoder.start(kernels, &states);
                    let decoding =
                        GreedyDecoding::begin(model, kernels, cache, self.pcm.len(), &self.options);
                    self.stage = Stage::Decode(Box::new(decoding));
                }
            }
            Stage::Decode(decoding) => {
                if decoding.advance(model, kernels) {
                    let Stage::Decode(decoding) = std::mem::replace(&mut self.stage, Stage::Features) else {
                        unreachable!("it was just decoded")
                    };
                    return self.conclude(model, decoding.into_attempt());
                }
            }
        }
        None
    }

    /// Ends an attempt: returns the transcript, or starts again in the full window.
    fn conclude(&mut self, model: &Model, attempt: Attempt) -> Option<Transcript> {
        let again = self.careful
            && (attempt.is_doubtful() || attempt.is_too_fast(model, self.pcm.len()))
            && !attempt.is_silent(self.lively)
            && self.window < FULL_WINDOW;
        if again {
            self.doubtful = Some(attempt);
            self.window = FULL_WINDOW;
            return None;
        }
        let (samples, lively) = (self.pcm.len(), self.lively);
        let rank = |attempt: &Attempt| attempt.rank(model, samples, lively);
        let best = match self.doubtful.take() {
            Some(before) if rank(&before) >= rank(&attempt) => before,
            _ => attempt,
        };
        Some(best.transcript(model, samples, lively, self.careful))
    }
}

impl Model {
    /// Does the work of an utterance of `seconds` seconds without one: the steps are those of
    /// [`Transcription`], and their cost does not depend on the content.
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
    fn is_doubtful(&self) -> bool {
        self.text.runaway || self.text.log_probability < LOG_PROBABILITY_THRESHOLD
    }

    /// Returns whether the model predicts silence, and either the text is doubtful or nothing in the
    /// utterance was like speech. Whisper is often sure of a text for steady noise.
    fn is_silent(&self, lively: usize) -> bool {
        self.no_speech > NO_SPEECH_THRESHOLD
            && (self.text.log_probability < LOG_PROBABILITY_THRESHOLD || lively == 0)
    }

    fn is_too_fast(&self, model: &Model, samples: usize) -> bool {
        is_too_fast(&model.tokens.text(&self.text.tokens), samples)
    }

    fn is_invented(&self, model: &Model, samples: usize, lively: usize) -> bool {
        self.is_too_fast(model, samples)
            || is_invented(self.text.log_probability, self.pieces(model).len(), samples, lively)
    }

    /// Returns a rank that is greater for the better of two attempts: a text that is not invented first,
    /// then one that ends, then the likelier one.
    fn rank(&self, model: &Model, samples: usize, lively: usize) -> (bool, bool, f32) {
        let DecodedText { log_probability, runaway, .. } = self.text;
        (!self.is_invented(model, samples, lively), !runaway, log_probability)
    }

    /// Returns the words of the text, each with its tokens.
    fn pieces(&self, model: &Model) -> Vec<alignment::WordTokens> {
        let language = model.tokens.text_language(self.language, self.task);
        alignment::split(&model.tokens, &self.text.tokens, language)
    }

    /// Returns the transcript, with its words if they are wanted.
    fn transcript(&self, model: &Model, samples: usize, lively: usize, with_words: bool) -> Transcript {
        let Attempt { language, detected, no_speech, text, .. } = self;
        let transcript = |whole: String, tokens: Vec<u32>, words: Vec<Word>| Transcript {
            text: whole,
            language: *language,
            detected: *detected,
            log_probability: text.log_probability,
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
            alignment::align(&model.decoder, text, self.pieces(model), samples)
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
fn is_invented(log_probability: f32, words: usize, samples: usize, lively: usize) -> bool {
    let pace = |samples: usize| words as f32 * RECOGNIZER_RATE as f32 / samples as f32;
    let at_pace = lively > 0 && pace(samples) >= PACE;
    let is_slow = samples > LONG && pace(if lively == 0 { samples } else { lively }) < SLOWEST;
    let least = if at_pace { INVENTED_AT_PACE } else { INVENTED };
    log_probability < least || is_slow && log_probability < UNLIKELY
}

/// Returns whether nobody can have said a text within `samples` samples.
fn is_too_fast(text: &str, samples: usize) -> bool {
    let spoken = text.chars().filter(|c| c.is_alphanumeric()).count();
    spoken * RECOGNIZER_RATE as usize > FASTEST * samples
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

    /// Cases of `benches/noise.py`: log-probability, words, seconds, and seconds like speech.
    #[test]
    fn music_invents_and_speech_among_voices_does_not() {
        let is_invented = |(log_probability, words, seconds, lively): (f32, usize, f32, f32)| {
            let samples = |seconds: f32| (seconds * RECOGNIZER_RATE as f32) as usize;
            is_invented(log_probability, words, samples(seconds), samples(lively))
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

    #[test]
    fn nobody_says_a_line_of_subtitles_in_less_than_a_second() {
        let samples = |seconds: f32| (seconds * RECOGNIZER_RATE as f32) as usize;
        let credits = "Субтитры Редактор субтитров А.Семкин Корректор А.Егорова";
        assert!(is_too_fast(credits, samples(0.76)), "Debian's prompt confbridge-leave");
        for (spoken, seconds) in
            [("Конференция.", 0.6), ("Пользователь вышел.", 0.76), ("Yes, of course it is.", 0.6)]
        {
            assert!(!is_too_fast(spoken, samples(seconds)), "{spoken}");
        }
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
