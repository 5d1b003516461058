//! Queries, and the parameters that live audio and recordings have in common.

use std::str::FromStr;

use crate::dialects::hints::keywords;
use voxline::engine::RecognitionRequest;

/// Reason why a query can't be served, for the client.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadParameter(pub(super) String);

/// Languages that a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SpokenLanguage {
    /// That of the project, or of the gateway.
    Default,
    /// Any of these; any at all if there are none.
    OneOf(Vec<String>),
}

impl SpokenLanguage {
    /// Returns a request for these languages. `default` has those of a client that names none.
    pub(super) fn request(&self, default: impl FnOnce() -> RecognitionRequest) -> RecognitionRequest {
        match self {
            SpokenLanguage::Default => default(),
            SpokenLanguage::OneOf(languages) => {
                RecognitionRequest::new().languages(languages.iter().cloned())
            }
        }
    }
}

/// The parameters of a query, in order.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses a query.
    ///
    /// # Errors
    /// Returns [`BadParameter`] for a callback, whose client would wait for results in vain.
    pub(super) fn parse(query: &str) -> Result<Query, BadParameter> {
        let query = Query::with_callback(query);
        if query.last("callback").is_some() {
            return Err(BadParameter("callback is not supported here".to_owned()));
        }
        Ok(query)
    }

    /// Parses a query that may have a callback.
    pub(super) fn with_callback(query: &str) -> Query {
        Query(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn last(&self, name: &str) -> Option<&str> {
        self.all(name).last()
    }

    /// Returns a switch. Older clients write it with a capital.
    pub(super) fn flag(&self, name: &str) -> Result<bool, BadParameter> {
        let Some(value) = self.last(name) else { return Ok(false) };
        truth(value).ok_or_else(|| BadParameter(format!("{name} should be true or false")))
    }

    pub(super) fn number<T: FromStr>(&self, name: &str) -> Result<Option<T>, BadParameter> {
        let parsed =
            |value: &str| value.parse().map_err(|_| BadParameter(format!("{name} should be a number")));
        self.last(name).map(parsed).transpose()
    }

    /// Returns whether any language may be spoken, so that results name it.
    pub(super) fn is_multilingual(&self) -> Result<bool, BadParameter> {
        Ok(self.last("language") == Some("multi") || self.flag("detect_language")?)
    }

    pub(super) fn language(&self) -> Result<SpokenLanguage, BadParameter> {
        let language = self.last("language").filter(|language| !language.is_empty());
        let hints: Vec<String> = self.all("language_hint").map(str::to_owned).collect();
        let is_open = self.is_multilingual()?;
        Ok(match language {
            Some(language) if !is_open => SpokenLanguage::OneOf(vec![language.to_owned()]),
            None if !is_open && hints.is_empty() => SpokenLanguage::Default,
            _ => SpokenLanguage::OneOf(hints),
        })
    }

    /// Returns the words and phrases to favour.
    pub(super) fn keywords(&self) -> Vec<String> {
        let terms = self.all("keyterm").map(str::to_owned);
        // A keyword may have a boost behind it, which has no equivalent.
        let words =
            self.all("keywords").map(|word| word.split_once(':').map_or(word, |(word, _)| word).to_owned());
        keywords(terms.chain(words))
    }
}

/// Returns the truth that a value stands for.
pub(super) fn truth(value: &str) -> Option<bool> {
    ["true", "false"].iter().position(|known| value.eq_ignore_ascii_case(known)).map(|index| index == 0)
}
