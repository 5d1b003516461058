//! Fields of a form: the recognition that it asks for, and the format of its result.

use super::error::OpenAiError;
use super::form::Fields;
use crate::dialects::hints;
use voxline::engine::{RecognitionRequest, Task};
use voxline::language::{Language, Languages};

/// Format of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ResponseFormat {
    Json,
    Text,
    Srt,
    WebVtt,
    VerboseJson,
    /// Segments with speakers, each of whom has a channel of the recording.
    DiarizedJson,
}

impl ResponseFormat {
    fn named(name: &str) -> Option<ResponseFormat> {
        Some(match name {
            "json" => ResponseFormat::Json,
            "text" => ResponseFormat::Text,
            "srt" => ResponseFormat::Srt,
            "vtt" => ResponseFormat::WebVtt,
            "verbose_json" => ResponseFormat::VerboseJson,
            "diarized_json" => ResponseFormat::DiarizedJson,
            _ => return None,
        })
    }
}

/// A request, as far as the gateway heeds it.
#[derive(Clone, Debug)]
pub(super) struct TranscriptionRequest {
    pub(super) recognition: RecognitionRequest,
    pub(super) shape: Shape,
    /// True if the result is sent while it is recognised.
    pub(super) stream: bool,
}

/// The shape of an answer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shape {
    pub(super) task: Task,
    pub(super) format: ResponseFormat,
    /// True if `verbose_json` has the times of words.
    pub(super) words: bool,
    /// True if `verbose_json` has the times of segments.
    pub(super) segments: bool,
    pub(super) temperature: f32,
    /// Language of the recording, if the request names one.
    pub(super) language: Option<Language>,
    /// Names of the speakers, in the order of the channels.
    pub(super) speakers: Vec<String>,
}

impl TranscriptionRequest {
    /// Reads the fields of a form. `languages` are those of a client that names none.
    ///
    /// # Errors
    /// Returns [`OpenAiError`] with the field that has an unknown value.
    pub(super) fn read(
        fields: &Fields,
        task: Task,
        languages: RecognitionRequest,
    ) -> Result<TranscriptionRequest, OpenAiError> {
        let format = format(fields, task)?;
        let temperature = temperature(fields)?;
        let candidates = candidates(fields)?;
        let language = if let [language] = &candidates[..] { Some(language.clone()) } else { None };
        let mut recognition = languages.task(task);
        if !candidates.is_empty() {
            recognition = recognition.languages(candidates.iter().map(Language::as_str));
        }
        recognition.prompt = fields.get("prompt").map(|prompt| hints::end_of(prompt).to_owned());
        recognition.keywords = keywords(fields);
        // The service's default, 0, stands for the likeliest text, and others where that fails.
        recognition.temperature = temperature.filter(|temperature| *temperature > 0.0);
        let (words, segments) = granularities(fields)?;
        let stream = task == Task::Transcribe && stream(fields)?;
        if stream && matches!(format, ResponseFormat::Srt | ResponseFormat::WebVtt) {
            return Err(OpenAiError::invalid("stream", "subtitles can't be streamed"));
        }
        let speakers = fields.all("known_speaker_names").map(str::to_owned).collect();
        let temperature = temperature.unwrap_or_default();
        let shape = Shape { task, format, words, segments, temperature, language, speakers };
        Ok(TranscriptionRequest { recognition, shape, stream })
    }
}

fn format(fields: &Fields, task: Task) -> Result<ResponseFormat, OpenAiError> {
    const PARAM: &str = "response_format";
    let name = fields.get(PARAM).unwrap_or("json");
    let format = ResponseFormat::named(name)
        .filter(|format| task == Task::Transcribe || *format != ResponseFormat::DiarizedJson);
    let name: String = name.chars().take(40).collect();
    format.ok_or_else(|| {
        let also = if task == Task::Transcribe { ", diarized_json" } else { "" };
        let message = format!("response_format '{name}' is none of json, text, srt, vtt, verbose_json{also}");
        OpenAiError::invalid(PARAM, message)
    })
}

fn temperature(fields: &Fields) -> Result<Option<f32>, OpenAiError> {
    const PARAM: &str = "temperature";
    let Some(text) = fields.get(PARAM) else { return Ok(None) };
    let temperature = text.parse().ok().filter(|temperature| (0.0..=1.0).contains(temperature));
    temperature.map(Some).ok_or_else(|| OpenAiError::invalid(PARAM, "temperature is not between 0 and 1"))
}

/// Returns the languages that may be spoken; none to detect any.
fn candidates(fields: &Fields) -> Result<Vec<Language>, OpenAiError> {
    let mut candidates: Vec<Language> = Vec::new();
    for param in ["language", "languages"] {
        for text in fields.all(param) {
            let languages: Languages =
                text.parse().map_err(|error| OpenAiError::invalid(param, format!("{error}")))?;
            candidates.extend(
                languages
                    .iter()
                    .filter(|language| !candidates.contains(language))
                    .cloned()
                    .collect::<Vec<_>>(),
            );
        }
    }
    Ok(candidates)
}

/// Returns the terms to favour. Several may stand in one value of `hotwords`, separated by commas.
fn keywords(fields: &Fields) -> Vec<String> {
    let keywords = fields.all("keywords");
    let hotwords = fields.all("hotwords").flat_map(|value| value.split(','));
    let terms = keywords.chain(hotwords).map(str::trim).filter(|term| !term.is_empty());
    hints::keywords(terms.map(str::to_owned))
}

/// Returns whether `verbose_json` has words, and whether it has segments.
fn granularities(fields: &Fields) -> Result<(bool, bool), OpenAiError> {
    const PARAM: &str = "timestamp_granularities";
    let (mut words, mut segments) = (false, false);
    for name in fields.all(PARAM) {
        match name {
            "word" => words = true,
            "segment" => segments = true,
            _ => return Err(OpenAiError::invalid(PARAM, "a granularity is word or segment")),
        }
    }
    Ok((words, segments || !words))
}

fn stream(fields: &Fields) -> Result<bool, OpenAiError> {
    const PARAM: &str = "stream";
    match fields.get(PARAM).map(str::to_ascii_lowercase).as_deref() {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1") => Ok(true),
        Some(_) => Err(OpenAiError::invalid(PARAM, "stream is true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const COUNT: usize>(
        fields: [(&'static str, &str); COUNT],
    ) -> Result<TranscriptionRequest, OpenAiError> {
        let languages = RecognitionRequest::new().language("ru");
        TranscriptionRequest::read(&fields.into_iter().collect(), Task::Transcribe, languages)
    }

    #[test]
    fn a_bare_form_asks_for_json_in_the_languages_of_the_project() {
        let request = read([("model", "any"), ("language", ""), ("temperature", "0.0")]).unwrap();
        assert_eq!(request.recognition, RecognitionRequest::new().language("ru"));
        assert_eq!((request.shape.format, request.stream), (ResponseFormat::Json, false));
        assert_eq!((request.shape.words, request.shape.segments), (false, true));
    }

    #[test]
    fn each_field_reaches_the_recogniser() {
        let fields = [
            ("language", "English"),
            ("languages", "de"),
            ("languages", "en"),
            ("prompt", "Dear Sir,"),
            ("keywords", "Толстой"),
            ("keywords", "voxline"),
            ("hotwords", "one, two words,"),
            ("temperature", "0.4"),
        ];
        let expected = RecognitionRequest::new()
            .languages(["en", "de"])
            .prompt("Dear Sir,")
            .keywords(["Толстой", "voxline", "one", "two words"])
            .temperature(0.4);
        assert_eq!(read(fields).unwrap().recognition, expected);
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_field() {
        for (field, value) in [
            ("response_format", "aac"),
            ("temperature", "2"),
            ("temperature", "hot"),
            ("temperature", "NaN"),
            ("language", "klingon"),
            ("languages", "en,klingon"),
            ("timestamp_granularities", "letter"),
            ("stream", "perhaps"),
        ] {
            let object = read([(field, value)]).unwrap_err().object();
            assert_eq!(
                (&object["param"], &object["type"]),
                (&field.into(), &"invalid_request_error".into()),
                "{value}"
            );
        }
        assert!(read([("response_format", "srt"), ("stream", "true")]).is_err());
        let fields = Fields::from_iter([("response_format", "diarized_json")]);
        assert!(TranscriptionRequest::read(&fields, Task::Translate, RecognitionRequest::new()).is_err());
    }
}
