//! Recognition requests, and the capabilities that a recogniser declares.

use std::ops::RangeInclusive;

use crate::language::{Language, Languages};

pub use crate::protocol::{Accuracy, Latency, Task};

/// Request for the recognition of one stream.
///
/// A request is built from its defaults, by a setter for each field. A caller that has a field as an `Option`
/// may assign it instead.
///
/// ```
/// use voxline::engine::{RecognitionRequest, Task};
///
/// let request = RecognitionRequest::new().language("ru").task(Task::Translate).prompt("Dear Sir,");
/// assert_eq!(request.only_language(), Some("ru"));
/// ```
///
/// A recogniser refuses what its [`Capabilities`] lack. A caller to whom prompt, keywords, temperature and
/// accuracy are mere hints removes them with [`Capabilities::supported_part`].
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct RecognitionRequest {
    /// Languages that may be spoken, as BCP 47 codes (`en`, `ru`; a region as in `ru-RU` is ignored). One
    /// language is taken as given; from several, the language is detected. Empty, the default, to detect
    /// any.
    pub languages: Vec<String>,
    /// Kind of the text. The default is a transcript.
    pub task: Task,
    /// Text that is taken to precede the audio, in the language of the text that is asked for: it sets the
    /// style and the spelling of names. An engine may use only the end of a long prompt. `None`, the
    /// default, for no prompt.
    pub prompt: Option<String>,
    /// Words and phrases that are likely to be spoken, such as names, the most important first. Empty by
    /// default.
    pub keywords: Vec<String>,
    /// Randomness of the choice among likely texts, 0 to 1: 0 always takes the likeliest. `None`, the
    /// default, leaves the choice to the engine.
    pub temperature: Option<f32>,
    /// Urgency of the results; live by default. An engine may spend a relaxed session's time on accuracy
    /// or throughput. No engine refuses a latency.
    pub latency: Latency,
    /// Balance between accuracy and cost; [`Accuracy::Balanced`] by default.
    pub accuracy: Accuracy,
    /// [Context](super::Segment::context) of the last segment before the stream, from this or another
    /// process, perhaps of an earlier version. An engine that cannot read the context starts without one.
    pub context: Option<String>,
}

impl RecognitionRequest {
    /// Creates a request for the transcription of speech in any language.
    #[must_use]
    pub fn new() -> RecognitionRequest {
        RecognitionRequest::default()
    }

    /// Sets the spoken language.
    #[must_use]
    pub fn language(self, language: impl Into<String>) -> RecognitionRequest {
        self.languages([language])
    }

    /// Sets the languages that may be spoken.
    #[must_use]
    pub fn languages(mut self, languages: impl IntoIterator<Item: Into<String>>) -> RecognitionRequest {
        self.languages = languages.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the kind of the text.
    #[must_use]
    pub fn task(mut self, task: Task) -> RecognitionRequest {
        self.task = task;
        self
    }

    /// Sets the text that is taken to precede the audio.
    #[must_use]
    pub fn prompt(mut self, prompt: impl Into<String>) -> RecognitionRequest {
        self.prompt = Some(prompt.into());
        self
    }

    /// Sets the words and phrases that are likely to be spoken.
    #[must_use]
    pub fn keywords(mut self, keywords: impl IntoIterator<Item: Into<String>>) -> RecognitionRequest {
        self.keywords = keywords.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the temperature, 0 to 1.
    #[must_use]
    pub fn temperature(mut self, temperature: f32) -> RecognitionRequest {
        self.temperature = Some(temperature);
        self
    }

    /// Sets the urgency of the results.
    #[must_use]
    pub fn latency(mut self, latency: Latency) -> RecognitionRequest {
        self.latency = latency;
        self
    }

    /// Sets the balance between accuracy and cost.
    #[must_use]
    pub fn accuracy(mut self, accuracy: Accuracy) -> RecognitionRequest {
        self.accuracy = accuracy;
        self
    }

    /// Sets the context of the last segment before the stream.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> RecognitionRequest {
        self.context = Some(context.into());
        self
    }

    /// Returns the language, if there is exactly one.
    #[must_use]
    pub fn only_language(&self) -> Option<&str> {
        if let [language] = &self.languages[..] { Some(language) } else { None }
    }
}

impl From<&Languages> for RecognitionRequest {
    fn from(languages: &Languages) -> RecognitionRequest {
        RecognitionRequest::new().languages(languages.iter().map(Language::to_string))
    }
}

/// Parts of a [`RecognitionRequest`] that a recogniser supports, and parts of a
/// [`Segment`](super::Segment) that it reports.
///
/// The default is a recogniser that transcribes, takes no hints, and reports nothing but text. Context and
/// latency are part of every request and need no declaration.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Tasks that are supported.
    pub tasks: Vec<Task>,
    /// Codes of the languages that are supported. Empty if the recogniser has no list; it may then still
    /// refuse a language when a stream starts.
    pub languages: Vec<String>,
    /// `true` if the recogniser uses a prompt.
    pub prompt: bool,
    /// `true` if the recogniser uses keywords.
    pub keywords: bool,
    /// Temperatures that are supported; `None` if the recogniser has none. A recogniser that always takes
    /// the likeliest text supports `0.0..=0.0`.
    pub temperature: Option<RangeInclusive<f32>>,
    /// Levels of accuracy that are supported.
    pub accuracy: Vec<Accuracy>,
    /// `true` if segments have words. A translation need not have them.
    pub words: bool,
    /// `true` if segments name the speaker.
    pub speakers: bool,
}

impl Default for Capabilities {
    fn default() -> Capabilities {
        Capabilities {
            tasks: vec![Task::Transcribe],
            languages: Vec::new(),
            prompt: false,
            keywords: false,
            temperature: None,
            accuracy: vec![Accuracy::Balanced],
            words: false,
            speakers: false,
        }
    }
}

impl Capabilities {
    /// Checks that all of a request is supported. Languages are not checked here: only the recogniser
    /// knows the synonyms of their codes.
    ///
    /// # Errors
    /// Returns [`UnsupportedRequest`] for the first field that is not supported.
    pub fn check(&self, request: &RecognitionRequest) -> Result<(), UnsupportedRequest> {
        if !self.tasks.contains(&request.task) {
            return Err(UnsupportedRequest::Task(request.task));
        }
        if request.prompt.is_some() && !self.prompt {
            return Err(UnsupportedRequest::Prompt);
        }
        if !request.keywords.is_empty() && !self.keywords {
            return Err(UnsupportedRequest::Keywords);
        }
        if let Some(temperature) = request.temperature
            && !self.supports_temperature(temperature)
        {
            return Err(UnsupportedRequest::Temperature(temperature));
        }
        if !self.accuracy.contains(&request.accuracy) {
            return Err(UnsupportedRequest::Accuracy(request.accuracy));
        }
        Ok(())
    }

    /// Returns the request without the hints that are not supported: prompt, keywords, temperature and
    /// accuracy, without which the text is still the text that was asked for. Languages and task stay, and
    /// may be refused.
    #[must_use]
    pub fn supported_part(&self, mut request: RecognitionRequest) -> RecognitionRequest {
        if !self.prompt {
            request.prompt = None;
        }
        if !self.keywords {
            request.keywords.clear();
        }
        request.temperature = request.temperature.filter(|value| self.supports_temperature(*value));
        if !self.accuracy.contains(&request.accuracy) {
            request.accuracy = Accuracy::default();
        }
        request
    }

    fn supports_temperature(&self, temperature: f32) -> bool {
        self.temperature.as_ref().is_some_and(|supported| supported.contains(&temperature))
    }
}

/// Error of a request that a recogniser does not support, by field. The caller changes the field, or asks for
/// the [supported part](Capabilities::supported_part) of the request.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UnsupportedRequest {
    /// The recogniser does not know the language.
    #[error("language '{0}' is not one of this engine's")]
    Language(String),
    /// The recogniser does not perform the task.
    #[error("task '{0}' is not supported by this engine")]
    Task(Task),
    /// The recogniser takes no prompt.
    #[error("prompt is not supported by this engine")]
    Prompt,
    /// The recogniser takes no keywords.
    #[error("keywords are not supported by this engine")]
    Keywords,
    /// The recogniser takes no temperature, or not this one.
    #[error("temperature {0} is not supported by this engine")]
    Temperature(f32),
    /// The recogniser does not have the level of accuracy.
    #[error("accuracy '{0}' is not supported by this engine")]
    Accuracy(Accuracy),
}

impl UnsupportedRequest {
    /// Returns the name of the field of [`RecognitionRequest`] that is not supported.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match self {
            UnsupportedRequest::Language(_) => "languages",
            UnsupportedRequest::Task(_) => "task",
            UnsupportedRequest::Prompt => "prompt",
            UnsupportedRequest::Keywords => "keywords",
            UnsupportedRequest::Temperature(_) => "temperature",
            UnsupportedRequest::Accuracy(_) => "accuracy",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a request for each field that needs a capability.
    fn demanding() -> [RecognitionRequest; 5] {
        let request = RecognitionRequest::new;
        [
            request().task(Task::Translate),
            request().prompt("Dear Sir,"),
            request().keywords(["voxline"]),
            request().temperature(0.2),
            request().accuracy(Accuracy::Best),
        ]
    }

    #[test]
    fn a_recogniser_without_capabilities_refuses_each_field_by_its_name() {
        let none = Capabilities::default();
        assert_eq!(none.check(&RecognitionRequest::new().language("en")), Ok(()));
        let refused = demanding().map(|request| none.check(&request).unwrap_err().field());
        assert_eq!(refused, ["task", "prompt", "keywords", "temperature", "accuracy"]);
    }

    #[test]
    fn a_recogniser_with_all_capabilities_refuses_nothing() {
        let all = Capabilities {
            tasks: vec![Task::Transcribe, Task::Translate],
            prompt: true,
            keywords: true,
            temperature: Some(0.0..=1.0),
            accuracy: vec![Accuracy::Fast, Accuracy::Balanced, Accuracy::Best],
            ..Capabilities::default()
        };
        for request in demanding() {
            assert_eq!(all.check(&request), Ok(()));
            assert_eq!(all.supported_part(request.clone()), request);
        }
    }

    #[test]
    fn hints_can_be_left_out_and_the_task_cannot() {
        let greedy = Capabilities { temperature: Some(0.0..=0.0), ..Capabilities::default() };
        let [translation, hints @ ..] = demanding();
        for request in hints {
            assert_eq!(greedy.supported_part(request), RecognitionRequest::new());
        }
        let zero = RecognitionRequest::new().temperature(0.0);
        assert_eq!(greedy.supported_part(zero.clone()), zero);
        let left = greedy.supported_part(translation);
        assert_eq!(greedy.check(&left), Err(UnsupportedRequest::Task(Task::Translate)));
    }

    #[test]
    fn one_language_is_given_and_several_are_candidates() {
        let request = |languages: &str| RecognitionRequest::from(&languages.parse::<Languages>().unwrap());
        assert_eq!(request("ru").only_language(), Some("ru"));
        assert_eq!(request("ru,en").only_language(), None);
        assert_eq!(request("ru,en").languages, ["ru", "en"]);
        assert_eq!(request("auto"), RecognitionRequest::new());
    }
}
