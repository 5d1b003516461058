//! Language detection over the utterances of a stream.
//!
//! The language that Whisper detects in one utterance is unreliable: in an hour's recording in English it
//! took 7 of 425 for Dutch. So the language of the first speech is kept until another is detected with
//! confidence, for longer.
//!
//! The bounds below were measured on the 567 English prompts of Debian's packages, joined with pauses to
//! 37 minutes (whisper-base): 53 utterances, of 1 to 2 s each, were detected as another language, one of
//! them with a probability above [`CERTAIN`] (0.75) and none above 0.76; none was written in another
//! language.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::tokens::Tokens;
use voxline::engine::RECOGNIZER_RATE;

/// Probability below which a detected language is uncertain, unless the utterance has [`LONG`] samples.
const CERTAIN: f32 = 0.7;
/// Length in samples from which an utterance settles the language at any probability, and total length of
/// a rival's utterances from which its language is accepted.
const LONG: usize = 5 * RECOGNIZER_RATE as usize;
/// Probability from which, in an utterance of [`LONG_ENOUGH`] samples, another language is accepted at
/// once: people do change languages.
const SURE: f32 = 0.95;
const LONG_ENOUGH: usize = 2 * RECOGNIZER_RATE as usize;

/// State of the language detection of a stream.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Detection {
    /// Allowed languages, as tokens; all if empty.
    allowed: Arc<[u32]>,
    settled: Option<Settled>,
    rival: Option<Rival>,
}

/// The language that a stream is taken to be in.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Settled {
    language: u32,
    /// `true` if the language was detected with certainty, and not only for want of a better one.
    is_certain: bool,
}

/// Another language, detected with certainty in all utterances since the settled language was last
/// detected.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rival {
    language: u32,
    /// Number of samples of these utterances.
    samples: usize,
}

/// The language that an utterance sounds like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Detected {
    pub(super) language: u32,
    pub(super) probability: f32,
}

/// The state of the detection as it travels with a final result, by language codes.
#[derive(Serialize, Deserialize)]
struct Context {
    language: String,
    #[serde(default)]
    certain: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rival: Option<(String, usize)>,
}

impl Detection {
    /// Creates a detection among the `allowed` languages, or among all if none are given, which continues
    /// from the state in `context`. An unreadable context is ignored.
    pub(super) fn new(tokens: &Tokens, allowed: Vec<u32>, context: Option<&str>) -> Detection {
        let mut detection = Detection { allowed: allowed.into(), settled: None, rival: None };
        let context: Option<Context> = context.and_then(|context| serde_json::from_str(context).ok());
        if let Some(Context { language, certain, rival }) = context {
            let token = |code: &str| tokens.language(code).flatten().filter(|token| detection.allows(*token));
            let settled = token(&language).map(|language| Settled { language, is_certain: certain });
            let rival = rival.and_then(|(code, samples)| Some(Rival { language: token(&code)?, samples }));
            (detection.settled, detection.rival) = (settled, rival);
        }
        detection
    }

    /// Returns whether a language may be spoken.
    pub(super) fn allows(&self, language: u32) -> bool {
        self.allowed.is_empty() || self.allowed.contains(&language)
    }

    /// Returns whether the language is certain. The state then hardly changes from one utterance to the next.
    pub(super) fn is_steady(&self) -> bool {
        self.settled.is_some_and(|settled| settled.is_certain) && self.rival.is_none()
    }

    /// Returns the language in which to write an utterance of `samples` samples that sounds like
    /// `detected`.
    pub(super) fn choose(&self, detected: Detected, samples: usize) -> u32 {
        let Detected { language, probability } = detected;
        let Some(settled) = self.settled else { return language };
        if language == settled.language {
            return language;
        }
        let is_certain = probability >= CERTAIN;
        let is_believed = if settled.is_certain {
            let rival = self.rival.filter(|rival| is_certain && rival.language == language);
            let heard = rival.map_or(0, |rival| rival.samples);
            let lasts = heard > 0 && heard + samples >= LONG;
            lasts || probability >= SURE && samples >= LONG_ENOUGH
        } else {
            is_certain || samples >= LONG
        };
        if is_believed { language } else { settled.language }
    }

    /// Records an utterance with words, which sounded like `detected` and was written in `written`.
    pub(super) fn learn(&mut self, written: u32, detected: Detected, samples: usize) {
        let is_certain = detected.probability >= CERTAIN;
        if self.settled.is_none_or(|settled| settled.language != written) {
            self.settled = Some(Settled { language: written, is_certain: is_certain || samples >= LONG });
            self.rival = None;
        } else if detected.language == written {
            self.settled = Some(Settled {
                language: written,
                is_certain: is_certain || self.settled.is_some_and(|settled| settled.is_certain),
            });
            self.rival = None;
        } else if is_certain {
            let before = self.rival.filter(|rival| rival.language == detected.language);
            let samples = before.map_or(0, |rival| rival.samples).saturating_add(samples);
            self.rival = Some(Rival { language: detected.language, samples });
        }
    }

    /// Returns the state of the detection, for a stream that continues from here.
    pub(super) fn context(&self, tokens: &Tokens) -> Option<String> {
        let code = |token: u32| tokens.code(Some(token)).map(str::to_owned);
        let settled = self.settled?;
        let rival = self.rival.and_then(|rival| Some((code(rival.language)?, rival.samples)));
        let context = Context { language: code(settled.language)?, certain: settled.is_certain, rival };
        serde_json::to_string(&context).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGLISH: u32 = 1;
    const DUTCH: u32 = 2;
    const SECOND: usize = RECOGNIZER_RATE as usize;

    fn any() -> Detection {
        Detection { allowed: Arc::new([]), settled: None, rival: None }
    }

    /// Runs the detection over utterances, each with its detected language, probability and seconds.
    /// Returns the languages that they are written in.
    fn written(utterances: &[(u32, f32, usize)]) -> Vec<u32> {
        let mut detection = any();
        let hear = |(language, probability, seconds): &(u32, f32, usize)| {
            let detected = Detected { language: *language, probability: *probability };
            let written = detection.choose(detected, seconds * SECOND);
            detection.learn(written, detected, seconds * SECOND);
            written
        };
        utterances.iter().map(hear).collect()
    }

    #[test]
    fn one_utterance_changes_no_language() {
        let heard = written(&[(ENGLISH, 0.9, 3), (DUTCH, 0.9, 8), (ENGLISH, 0.5, 1), (DUTCH, 0.94, 20)]);
        assert_eq!(heard, [ENGLISH; 4]);
        // An uncertain detection changes no language, however long it lasts.
        assert_eq!(written(&[(ENGLISH, 0.9, 3), (DUTCH, 0.6, 20), (DUTCH, 0.6, 20)]), [ENGLISH; 3]);
    }

    #[test]
    fn a_language_that_lasts_is_believed() {
        let heard = written(&[(ENGLISH, 0.9, 3), (DUTCH, 0.8, 3), (DUTCH, 0.8, 3), (DUTCH, 0.4, 1)]);
        assert_eq!(heard, [ENGLISH, ENGLISH, DUTCH, DUTCH]);
        assert_eq!(written(&[(ENGLISH, 0.9, 3), (DUTCH, 0.99, 3)]), [ENGLISH, DUTCH]);
    }

    #[test]
    fn an_uncertain_start_is_corrected_at_once() {
        assert_eq!(
            written(&[(DUTCH, 0.4, 1), (ENGLISH, 0.8, 1), (DUTCH, 0.8, 2)]),
            [DUTCH, ENGLISH, ENGLISH]
        );
        assert_eq!(written(&[(DUTCH, 0.4, 1), (ENGLISH, 0.5, 1)]), [DUTCH, DUTCH]);
    }
}
