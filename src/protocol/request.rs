//! The recognition that a client requests with `start`: the kind of the text, its urgency, and hints about
//! it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::audio::FramePos;

/// Longest prompt of `start`, in bytes of UTF-8. Whisper uses the last 223 tokens, some 1,000 characters.
pub const MAX_PROMPT_BYTES: usize = 4 * 1024;

/// Largest number of keywords of `start`. Each keyword is another word that the text may be mistaken for.
pub const MAX_KEYWORDS: usize = 100;

/// Longest keyword of `start`, in bytes of UTF-8: a name of several words.
pub const MAX_KEYWORD_BYTES: usize = 100;

/// The urgency with which a client needs its results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Latency {
    /// No user waits for each word. If computing time is short, live sessions take precedence.
    Relaxed,
    /// A user waits for each word. Values of later versions are read as this one.
    #[default]
    #[serde(other)]
    Live,
}

impl Latency {
    fn is_live(&self) -> bool {
        *self == Latency::Live
    }
}

/// Parameters of a new session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Start {
    /// Frames per second of the session stream.
    pub sample_rate: u32,
    /// Language spoken, as a BCP 47 code; detected if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// True if the client wants partial results.
    #[serde(default = "yes", deserialize_with = "or_yes")]
    pub partials: bool,
    /// Urgency of the results.
    #[serde(default, deserialize_with = "super::or_default", skip_serializing_if = "Latency::is_live")]
    pub latency: Latency,
    /// Kind of the text.
    #[serde(default, deserialize_with = "super::or_default", skip_serializing_if = "Task::is_transcribe")]
    pub task: Task,
    /// Text that is taken to precede the audio, up to [`MAX_PROMPT_BYTES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt: Option<String>,
    /// Words and phrases that are likely to be spoken, up to [`MAX_KEYWORDS`] of [`MAX_KEYWORD_BYTES`].
    #[serde(default, deserialize_with = "super::or_default", skip_serializing_if = "Vec::is_empty")]
    pub keywords: Vec<String>,
    /// Balance between accuracy and cost.
    #[serde(default, deserialize_with = "super::or_default", skip_serializing_if = "Accuracy::is_balanced")]
    pub accuracy: Accuracy,
    /// Position at which the session's timeline starts.
    #[serde(default, deserialize_with = "super::or_default")]
    pub origin: FramePos,
    /// Context in force at `origin`, from the finals of an earlier session: see
    /// [`Final::context`](super::Final::context).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

impl Start {
    /// Creates a live session of `sample_rate` frames per second, from position 0, with partial results.
    #[must_use]
    pub fn new(sample_rate: u32) -> Start {
        Start {
            sample_rate,
            language: None,
            partials: true,
            latency: Latency::Live,
            task: Task::Transcribe,
            prompt: None,
            keywords: Vec::new(),
            accuracy: Accuracy::Balanced,
            origin: FramePos::ZERO,
            context: None,
        }
    }
}

fn yes() -> bool {
    true
}

fn or_yes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Option::deserialize(deserializer).map(|value| value.unwrap_or(true))
}

/// Kind of text that a recogniser makes of speech.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Task {
    /// The words that were spoken, in the language in which they were spoken.
    #[default]
    Transcribe,
    /// A translation into English.
    Translate,
    /// A task of a later version, which no recogniser of this version performs.
    #[serde(other)]
    Unknown,
}

/// Balance between accuracy and cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Accuracy {
    /// Least computation: for weak machines and many sessions.
    Fast,
    /// Default of the engine. Levels of later versions are read as this one.
    #[default]
    Balanced,
    /// Best text that the engine can make, at several times the cost.
    Best,
}

impl<'de> Deserialize<'de> for Accuracy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Accuracy, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(name.parse().unwrap_or_default())
    }
}

impl Task {
    pub(super) fn is_transcribe(&self) -> bool {
        *self == Task::Transcribe
    }
}

impl Accuracy {
    fn is_balanced(&self) -> bool {
        *self == Accuracy::Balanced
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Task::Transcribe => "transcribe",
            Task::Translate => "translate",
            Task::Unknown => "unknown",
        })
    }
}

impl fmt::Display for Accuracy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Accuracy::Fast => "fast",
            Accuracy::Balanced => "balanced",
            Accuracy::Best => "best",
        })
    }
}

/// Error of a name that is neither a task nor a level of accuracy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{given}' is not one of {expected}")]
pub struct UnknownName {
    given: String,
    expected: &'static str,
}

impl FromStr for Task {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Task, UnknownName> {
        match name {
            "transcribe" => Ok(Task::Transcribe),
            "translate" => Ok(Task::Translate),
            _ => Err(UnknownName { given: name.to_owned(), expected: "transcribe, translate" }),
        }
    }
}

impl FromStr for Accuracy {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Accuracy, UnknownName> {
        match name {
            "fast" => Ok(Accuracy::Fast),
            "balanced" => Ok(Accuracy::Balanced),
            "best" => Ok(Accuracy::Best),
            _ => Err(UnknownName { given: name.to_owned(), expected: "fast, balanced, best" }),
        }
    }
}

/// Error of a prompt or of keywords beyond their bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HintError {
    /// The prompt is too long.
    #[error("prompt of {0} bytes, the limit is {MAX_PROMPT_BYTES}")]
    Prompt(usize),
    /// There are too many keywords.
    #[error("{0} keywords, the limit is {MAX_KEYWORDS}")]
    Keywords(usize),
    /// A keyword is too long.
    #[error("keyword of {0} bytes, the limit is {MAX_KEYWORD_BYTES}")]
    Keyword(usize),
}

/// Checks that a prompt and keywords are within the bounds of the protocol.
///
/// # Errors
/// Returns [`HintError`] for the first bound that is exceeded.
pub fn check_hints(prompt: Option<&str>, keywords: &[String]) -> Result<(), HintError> {
    let prompt = prompt.map_or(0, str::len);
    if prompt > MAX_PROMPT_BYTES {
        return Err(HintError::Prompt(prompt));
    }
    if keywords.len() > MAX_KEYWORDS {
        return Err(HintError::Keywords(keywords.len()));
    }
    match keywords.iter().map(String::len).find(|bytes| *bytes > MAX_KEYWORD_BYTES) {
        Some(bytes) => Err(HintError::Keyword(bytes)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_have_bounds() {
        let keywords = |count: usize, bytes: usize| vec!["я".repeat(bytes / 2); count];
        assert_eq!(check_hints(None, &[]), Ok(()));
        let prompt = "p".repeat(MAX_PROMPT_BYTES);
        assert_eq!(check_hints(Some(&prompt), &keywords(MAX_KEYWORDS, MAX_KEYWORD_BYTES)), Ok(()));
        assert_eq!(check_hints(Some(&format!("{prompt}p")), &[]), Err(HintError::Prompt(4_097)));
        assert_eq!(check_hints(None, &keywords(101, 2)), Err(HintError::Keywords(101)));
        assert_eq!(check_hints(None, &keywords(1, 102)), Err(HintError::Keyword(102)));
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for task in [Task::Transcribe, Task::Translate] {
            assert_eq!(task.to_string().parse(), Ok(task));
        }
        for accuracy in [Accuracy::Fast, Accuracy::Balanced, Accuracy::Best] {
            assert_eq!(accuracy.to_string().parse(), Ok(accuracy));
        }
        let error = "finest".parse::<Accuracy>().unwrap_err();
        assert_eq!(error.to_string(), "'finest' is not one of fast, balanced, best");
        assert!("unknown".parse::<Task>().is_err());
    }
}
