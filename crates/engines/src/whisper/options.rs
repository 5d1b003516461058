//! The part of a request that Whisper honours. A new option is declared, read and kept here; the decoding
//! takes it from [`DecodingOptions`].

use std::sync::Arc;

use super::detection::{Detected, Detection};
use super::fallback::Fallback;
use super::keywords::{Keywords, names};
use super::tokens::Tokens;
use voxline::engine::{Accuracy, Capabilities, RecognitionRequest, Task, UnsupportedRequest};

/// Options of the decoding of one stream.
#[derive(Clone, Debug)]
pub(super) struct DecodingOptions {
    pub(super) language: Language,
    pub(super) task: Task,
    /// Tokens of the text before the audio, of which the decoding keeps the end; empty without a prompt.
    pub(super) prompt: Arc<[u32]>,
    /// Keywords, and the names of the prompt.
    pub(super) keywords: Arc<Keywords>,
    /// Temperatures to try after a rejected text.
    pub(super) fallback: Fallback,
    /// Number of texts that a beam search extends side by side; 1 to take the likeliest token each time.
    pub(super) beam_size: usize,
}

/// Beam size of [`Accuracy::Best`], as OpenAI's Whisper and faster-whisper have it.
const BEAM_SIZE: usize = 5;

/// Language that is taken to be spoken.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Language {
    /// A given language, as the model's token; an English-only model has none.
    Known(Option<u32>),
    /// The detected language; in doubt, that of the stream so far.
    Detect(Detection),
}

impl Language {
    /// Returns the language in which to write an utterance of `samples` samples that sounds like `detected`.
    pub(super) fn choose(&self, detected: Detected, samples: usize) -> Option<u32> {
        match self {
            Language::Known(language) => *language,
            Language::Detect(detection) => Some(detection.choose(detected, samples)),
        }
    }
}

/// Returns the capabilities of a model with these tokens. The only temperature that can be asked for is 0,
/// which excludes the fallback.
pub(super) fn capabilities(tokens: &Tokens) -> Capabilities {
    let mut capabilities = Capabilities::default();
    if tokens.translate().is_some() {
        capabilities.tasks.push(Task::Translate);
    }
    capabilities.languages = match tokens.languages() {
        [] => vec!["en".to_owned()],
        languages => languages.iter().map(|(code, _)| code.clone()).collect(),
    };
    capabilities.prompt = tokens.previous().is_some();
    capabilities.keywords = true;
    capabilities.temperature = Some(0.0..=0.0);
    capabilities.accuracy = vec![Accuracy::Fast, Accuracy::Balanced, Accuracy::Best];
    capabilities.words = true;
    capabilities
}

impl DecodingOptions {
    /// Translates a request into options for a model with these tokens.
    ///
    /// # Errors
    /// Returns [`UnsupportedRequest`] if the model does not support all of the request.
    pub(super) fn new(
        tokens: &Tokens,
        request: &RecognitionRequest,
    ) -> Result<DecodingOptions, UnsupportedRequest> {
        capabilities(tokens).check(request)?;
        let known =
            |tag: &String| tokens.language(tag).ok_or_else(|| UnsupportedRequest::Language(tag.clone()));
        let language = match &request.languages[..] {
            [tag] => Language::Known(known(tag)?),
            [] if tokens.languages().is_empty() => Language::Known(None),
            // An English-only model detects nothing; one of the languages must be English.
            tags if tokens.languages().is_empty() => {
                let languages = tags.iter().map(known).collect::<Vec<_>>();
                let english = languages.iter().position(Result::is_ok).unwrap_or(0);
                Language::Known(languages.into_iter().nth(english).transpose()?.flatten())
            }
            tags => {
                let allowed = tags.iter().map(known).collect::<Result<Vec<Option<u32>>, _>>()?;
                let allowed = allowed.into_iter().flatten().collect();
                Language::Detect(Detection::new(tokens, allowed, request.context.as_deref()))
            }
        };
        let prompt = request.prompt.as_deref().map(str::trim).filter(|prompt| !prompt.is_empty());
        let keywords = request.keywords.iter().map(String::as_str);
        let keywords = Keywords::new(tokens, keywords.chain(prompt.into_iter().flat_map(names)));
        Ok(DecodingOptions {
            language,
            task: request.task,
            prompt: prompt.map_or(Vec::new(), |prompt| tokens.encode(&format!(" {prompt}"))).into(),
            keywords: Arc::new(keywords),
            fallback: Fallback::new(request),
            beam_size: if request.accuracy == Accuracy::Best { BEAM_SIZE } else { 1 },
        })
    }
}
