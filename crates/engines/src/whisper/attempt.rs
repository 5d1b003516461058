//! Judgement of a decoded text: whether it was said, and the transcript that it gives.

use super::alignment::{self, Word};
use super::decoded_text::DecodedText;
use super::decoder::Attention;
use super::detection::Detected;
use super::fallback::{self, LOG_PROBABILITY_THRESHOLD, Rejection, is_too_fast};
use super::model::Model;
use voxline::engine::{RECOGNIZER_RATE, Task};

/// Whisper's own threshold: an unlikely text is dropped if the no-speech probability is above it.
const NO_SPEECH_THRESHOLD: f32 = 0.6;
/// Mean log-probability below which a text is invented, as from music and machines: a confidence of 0.2.
const INVENTED: f32 = -1.6;
/// Words per second that people speak, and the bound that replaces `INVENTED` from this pace on. Music
/// hardly yields a text at such a pace, and speech among other voices as loud reaches down to -2.1.
const PACE: f32 = 2.0;
const INVENTED_AT_PACE: f32 = -2.3;

/// Length in samples above which an utterance may be too slow, and slowest pace of speech in words per
/// second. A speaker says at least seven words in ten seconds.
const LONG: usize = 5 * RECOGNIZER_RATE as usize;
pub(super) const SLOWEST: f32 = 0.7;
/// Mean log-probability below which a slow text, or a caption, is invented: a confidence of 0.7. Music
/// gives such texts: "Thank you." for about 20 s of music.
const UNLIKELY: f32 = -0.36;

/// Least share of an utterance that is like speech where it holds words that the rest has none of.
const LIVELY_SHARE: f32 = 0.05;
/// Least number of tokens whose attention tells whether they follow the audio.
const FOLLOWED: usize = 4;
/// Least [focus](alignment::focus) of the attention of spoken text. That of the texts of music is 0.04 to
/// 0.18 where they are short. That of sentences in noise at 0 to 10 dB is 0.43 to 0.55, and that of doubtful
/// single words 0.30 at least.
const FOCUSED: f32 = 0.2;
/// Length in samples from which the focus tells: 2 s. Of a shorter utterance of one word, the only token may
/// have the attention that an end has.
const FOCUSABLE: usize = 2 * RECOGNIZER_RATE as usize;

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

/// The result of transcribing an utterance.
#[derive(Default)]
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
        self.is_too_fast(model, samples)
            || self.is_unrelated()
            || self.is_unfocused(model, samples)
            || is_invented(log_probability, sampled, words, samples, lively)
    }

    /// Returns whether an unlikely text has nothing to do with the audio. Of 357 texts of `benches/noise.py`
    /// at 0 to 10 dB, ten were such, and those were invented; so were most texts of music and tones. The
    /// words of a translation are in another order.
    fn is_unrelated(&self) -> bool {
        let DecodedText { tokens, log_probability, .. } = &self.text;
        let is_long = tokens.len() >= FOLLOWED && self.task == Task::Transcribe;
        is_long && *log_probability < UNLIKELY && self.strays()
    }

    /// Returns whether an unlikely text, of any number of tokens, has attention that is nowhere in
    /// particular. The beam search makes "Thank you." of music, with a log-probability of -1.1.
    fn is_unfocused(&self, model: &Model, samples: usize) -> bool {
        let DecodedText { tokens, log_probability, attention, .. } = &self.text;
        let Attention { weights, heads, states } = attention;
        let is_told = self.task == Task::Transcribe && model.decoder.states_alignment_heads();
        // The end of a text is nowhere in the audio.
        let of_tokens = &weights[..weights.len().min(tokens.len() * heads * states)];
        is_told
            && samples > FOCUSABLE
            && *log_probability < UNLIKELY
            && alignment::focus(of_tokens, *heads, *states).is_some_and(|focus| focus < FOCUSED)
    }

    /// Returns whether the attention of the tokens does not move on through the audio. Models without
    /// alignment heads, and parts of a text that was heard together, have no attention to tell by.
    fn strays(&self) -> bool {
        !self.text.attention.weights.is_empty() && !self.is_spoken()
    }

    /// Returns a rank that is greater for the better of two attempts: a text that is not invented first,
    /// then one that does not repeat itself, then the likelier one. Sampling finds some words in anything,
    /// so a rejected text of sampled tokens is only better than an invented one.
    pub(super) fn rank(&self, model: &Model, samples: usize, lively: usize) -> (bool, bool, bool, f32) {
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
        let is_doubtful = || text.log_probability < UNLIKELY || self.strays();
        let caption = is_beep(&whole) || is_caption(&whole) && is_doubtful();
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
/// no words. If hardly any sample was like speech, and for the test of quick music, all samples count.
///
/// A sampled text needs a greater log-probability: from music, sampling makes a text of any pace, of up to
/// -1.3 at a slow one.
fn is_invented(log_probability: f32, sampled: bool, words: usize, samples: usize, lively: usize) -> bool {
    let pace = |samples: usize| words as f32 * RECOGNIZER_RATE as f32 / samples as f32;
    let at_pace = lively > 0 && pace(samples) >= PACE;
    let is_speechless = (lively as f32) < LIVELY_SHARE * samples as f32;
    let is_slow = samples > LONG && pace(if is_speechless { samples } else { lively }) < SLOWEST;
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

/// Returns whether a text is nothing but beeps, as subtitles render the tones of telephones. Whisper is sure
/// of them, and its attention follows the tones. In Russian they are syllables that no word consists of,
/// three of them or more.
fn is_beep(text: &str) -> bool {
    let words = text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty());
    let words: Vec<String> = words.map(str::to_lowercase).collect();
    let all = |beeps: &[&str]| words.iter().all(|word| beeps.contains(&&**word));
    !words.is_empty() && all(&["beep", "beeps", "beeping"]) || words.len() >= 3 && all(&["пи", "пу", "ту"])
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

#[cfg(test)]
mod tests {
    use super::*;

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
        // A busy tone on a line that hisses, of which 0.3 s were like speech.
        for heard in [(-1.57, 13, 27.0, 0.3), (-1.263, 5, 18.1, 0.3), (-0.6, 1, 26.0, 0.3)] {
            assert!(is_invented(heard), "{heard:?}");
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
    fn beeps_are_not_said() {
        for tone in ["BEEP", "Beep! Beep!", "beep, beep, beep", "(beeping)", "Пу-пу-пу!", "Ту-ту-ту-ту."]
        {
            assert!(is_beep(tone), "{tone}");
        }
        for spoken in ["Leave a message after the beep.", "Beepers", "Ту?", "Да-да-да!", "...", ""] {
            assert!(!is_beep(spoken), "{spoken}");
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
