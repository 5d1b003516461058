//! Languages as users name them: by code, by English name, or left to detection.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Word that leaves the choice of the language to the recogniser.
const AUTO: &str = "auto";

/// Languages that Whisper models are trained on, in the order of their tokens: code, and English names
/// (names and codes of `LANGUAGES` in openai/whisper, whisper/tokenizer.py).
const LANGUAGES: &[(&str, &[&str])] = &[
    ("en", &["english"]),
    ("zh", &["chinese", "mandarin"]),
    ("de", &["german"]),
    ("es", &["spanish", "castilian"]),
    ("ru", &["russian"]),
    ("ko", &["korean"]),
    ("fr", &["french"]),
    ("ja", &["japanese"]),
    ("pt", &["portuguese"]),
    ("tr", &["turkish"]),
    ("pl", &["polish"]),
    ("ca", &["catalan", "valencian"]),
    ("nl", &["dutch", "flemish"]),
    ("ar", &["arabic"]),
    ("sv", &["swedish"]),
    ("it", &["italian"]),
    ("id", &["indonesian"]),
    ("hi", &["hindi"]),
    ("fi", &["finnish"]),
    ("vi", &["vietnamese"]),
    ("he", &["hebrew"]),
    ("uk", &["ukrainian"]),
    ("el", &["greek"]),
    ("ms", &["malay"]),
    ("cs", &["czech"]),
    ("ro", &["romanian", "moldavian"]),
    ("da", &["danish"]),
    ("hu", &["hungarian"]),
    ("ta", &["tamil"]),
    ("no", &["norwegian"]),
    ("th", &["thai"]),
    ("ur", &["urdu"]),
    ("hr", &["croatian"]),
    ("bg", &["bulgarian"]),
    ("lt", &["lithuanian"]),
    ("la", &["latin"]),
    ("mi", &["maori"]),
    ("ml", &["malayalam"]),
    ("cy", &["welsh"]),
    ("sk", &["slovak"]),
    ("te", &["telugu"]),
    ("fa", &["persian", "farsi"]),
    ("lv", &["latvian"]),
    ("bn", &["bengali"]),
    ("sr", &["serbian"]),
    ("az", &["azerbaijani"]),
    ("sl", &["slovenian"]),
    ("kn", &["kannada"]),
    ("et", &["estonian"]),
    ("mk", &["macedonian"]),
    ("br", &["breton"]),
    ("eu", &["basque"]),
    ("is", &["icelandic"]),
    ("hy", &["armenian"]),
    ("ne", &["nepali"]),
    ("mn", &["mongolian"]),
    ("bs", &["bosnian"]),
    ("kk", &["kazakh"]),
    ("sq", &["albanian"]),
    ("sw", &["swahili"]),
    ("gl", &["galician"]),
    ("mr", &["marathi"]),
    ("pa", &["punjabi"]),
    ("si", &["sinhala"]),
    ("km", &["khmer"]),
    ("sn", &["shona"]),
    ("yo", &["yoruba"]),
    ("so", &["somali"]),
    ("af", &["afrikaans"]),
    ("oc", &["occitan"]),
    ("ka", &["georgian"]),
    ("be", &["belarusian"]),
    ("tg", &["tajik"]),
    ("sd", &["sindhi"]),
    ("gu", &["gujarati"]),
    ("am", &["amharic"]),
    ("yi", &["yiddish"]),
    ("lo", &["lao"]),
    ("uz", &["uzbek"]),
    ("fo", &["faroese"]),
    ("ht", &["haitian", "haitian creole"]),
    ("ps", &["pashto"]),
    ("tk", &["turkmen"]),
    ("nn", &["nynorsk"]),
    ("mt", &["maltese"]),
    ("sa", &["sanskrit"]),
    ("lb", &["luxembourgish"]),
    ("my", &["burmese", "myanmar"]),
    ("bo", &["tibetan"]),
    ("tl", &["tagalog", "filipino"]),
    ("mg", &["malagasy"]),
    ("as", &["assamese"]),
    ("tt", &["tatar"]),
    ("haw", &["hawaiian"]),
    ("ln", &["lingala"]),
    ("ha", &["hausa"]),
    ("ba", &["bashkir"]),
    ("jw", &["javanese"]),
    ("su", &["sundanese"]),
    ("yue", &["cantonese"]),
];

/// BCP 47 codes of languages for which Whisper uses another code.
const SYNONYMS: &[(&str, &str)] = &[("nb", "no"), ("fil", "tl"), ("jv", "jw")];

/// A BCP 47 tag of a language that Whisper models know, such as `en` or `ru-RU`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Language(String);

/// Error parsing a word that names no known language.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("language '{given}' is unknown: {hint}")]
pub struct UnknownLanguage {
    given: String,
    hint: String,
}

impl Language {
    /// Parses a user's choice; `None` for `auto`, which leaves the language to the recogniser.
    ///
    /// # Errors
    /// Returns [`UnknownLanguage`] if the text names no known language, with the closest name if there is
    /// one.
    pub fn choice(text: &str) -> Result<Option<Language>, UnknownLanguage> {
        let text = text.trim();
        if text.eq_ignore_ascii_case(AUTO) { Ok(None) } else { text.parse().map(Some) }
    }

    /// Returns the tag: a code in lower case, with the region if one was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the English name in lower case, such as `russian`.
    #[must_use]
    pub fn english_name(&self) -> &'static str {
        let code = self.0.split('-').next().unwrap_or_default();
        let named = LANGUAGES.iter().find(|(known, _)| *known == code);
        named.map_or("unknown", |(_, names)| names[0])
    }
}

impl FromStr for Language {
    type Err = UnknownLanguage;

    /// Parses a code with or without a region (`en`, `ru-RU`, `pt_BR`), or an English name (`english`),
    /// in any case.
    fn from_str(text: &str) -> Result<Language, UnknownLanguage> {
        let word = text.trim().to_lowercase();
        if let Some((code, _)) = LANGUAGES.iter().find(|(_, names)| names.contains(&word.as_str())) {
            return Ok(Language((*code).to_owned()));
        }
        let (primary, region) = match word.find(['-', '_']) {
            Some(at) => (&word[..at], Some(&text.trim()[at + 1..])),
            None => (word.as_str(), None),
        };
        let code = SYNONYMS.iter().find(|(synonym, _)| *synonym == primary).map_or(primary, |(_, code)| code);
        let is_known = LANGUAGES.iter().any(|(known, _)| *known == code);
        // A subtag has at most eight letters and digits (RFC 5646, section 2.1).
        let is_region = |region: &str| {
            let is_subtag = |tag: &str| {
                (1..=8).contains(&tag.len()) && tag.bytes().all(|byte| byte.is_ascii_alphanumeric())
            };
            region.split(['-', '_']).all(is_subtag)
        };
        match region {
            None if is_known => Ok(Language(code.to_owned())),
            Some(region) if is_known && is_region(region) => {
                Ok(Language(format!("{code}-{}", region.replace('_', "-"))))
            }
            _ => Err(UnknownLanguage { given: text.chars().take(40).collect(), hint: hint(&word) }),
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Languages that may be spoken: one, several from which one is detected, or any. Written as `ru`,
/// `ru,en` and `auto`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Languages(Vec<Language>);

impl Languages {
    /// Returns the language, if there is exactly one.
    #[must_use]
    pub fn only(&self) -> Option<&Language> {
        if let [language] = &self.0[..] { Some(language) } else { None }
    }

    /// Returns the languages; none if any may be spoken.
    pub fn iter(&self) -> impl Iterator<Item = &Language> {
        self.0.iter()
    }

    /// Returns whether any language may be spoken.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for Languages {
    type Err = UnknownLanguage;

    fn from_str(text: &str) -> Result<Languages, UnknownLanguage> {
        if text.trim().eq_ignore_ascii_case(AUTO) {
            return Ok(Languages::default());
        }
        let mut languages = Vec::new();
        for word in text.split(',') {
            let language = word.parse()?;
            if !languages.contains(&language) {
                languages.push(language);
            }
        }
        Ok(Languages(languages))
    }
}

impl TryFrom<String> for Languages {
    type Error = UnknownLanguage;

    fn try_from(text: String) -> Result<Languages, UnknownLanguage> {
        text.parse()
    }
}

impl From<Languages> for String {
    fn from(languages: Languages) -> String {
        languages.to_string()
    }
}

impl fmt::Display for Languages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_any() {
            return f.write_str(AUTO);
        }
        f.write_str(&self.0.iter().map(Language::as_str).collect::<Vec<_>>().join(","))
    }
}

/// Returns a suggestion for a word that names no language.
fn hint(word: &str) -> String {
    let names = LANGUAGES.iter().flat_map(|(code, names)| names.iter().map(move |name| (*name, *code)));
    match closest(word, names.clone().map(|(name, _)| name).chain([AUTO])) {
        Some(AUTO) => format!("did you mean {AUTO}, which has it detected?"),
        Some(near) => {
            let code = names.into_iter().find(|(name, _)| *name == near).map_or("", |(_, code)| code);
            format!("did you mean {near} ({code})?")
        }
        None => format!("a code such as ru, a name such as russian, or {AUTO} was expected"),
    }
}

/// Returns the word of `known` that a misspelt `given` most probably stands for. The similarity measure
/// and its threshold are those of clap's suggestions, so that all suggestions of the program are
/// consistent.
pub fn closest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.7;
    // The measure is quadratic, and a text longer than any name is no misspelling of one.
    if given.len() > 100 {
        return None;
    }
    let alike = known.into_iter().map(|word| (strsim::jaro(given, word), word));
    let near = alike.filter(|(likeness, _)| *likeness > ALIKE);
    near.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_language_is_a_code_or_a_name() {
        for (given, tag) in [
            ("en", "en"),
            ("RU", "ru"),
            ("English", "en"),
            (" russian ", "ru"),
            ("ru-RU", "ru-RU"),
            ("pt_BR", "pt-BR"),
            ("zh-Hant-TW", "zh-Hant-TW"),
            ("nb", "no"),
            ("haw", "haw"),
            ("Haitian Creole", "ht"),
        ] {
            assert_eq!(Language::choice(given).unwrap().unwrap().as_str(), tag, "{given}");
        }
        assert_eq!(Language::choice("auto").unwrap(), None);
        assert_eq!(Language::choice("Auto").unwrap(), None);
    }

    #[test]
    fn a_language_has_an_english_name() {
        for (given, name) in
            [("ru-RU", "russian"), ("nb", "norwegian"), ("haw", "hawaiian"), ("spanish", "spanish")]
        {
            assert_eq!(given.parse::<Language>().unwrap().english_name(), name, "{given}");
        }
    }

    #[test]
    fn several_languages_are_a_list() {
        for (given, written, only) in
            [("auto", "auto", None), ("Russian", "ru", Some("ru")), ("ru, english,ru", "ru,en", None)]
        {
            let languages: Languages = given.parse().unwrap();
            assert_eq!(languages.to_string(), written);
            assert_eq!(languages.only().map(Language::as_str), only);
        }
        for given in ["", "ru,", "ru,auto", "ru;en"] {
            assert!(given.parse::<Languages>().is_err(), "{given}");
        }
    }

    #[test]
    fn another_word_is_refused_with_what_it_may_mean() {
        for (given, expected) in [
            ("englsh", "language 'englsh' is unknown: did you mean english (en)?"),
            ("rus", "language 'rus' is unknown: did you mean russian (ru)?"),
            ("aoto", "language 'aoto' is unknown: did you mean auto, which has it detected?"),
            (
                "xx",
                "language 'xx' is unknown: a code such as ru, a name such as russian, or auto was expected",
            ),
        ] {
            assert_eq!(given.parse::<Language>().unwrap_err().to_string(), expected);
        }
        for given in ["", "-", "en-", "en-\u{e4}", "en-toolongatag", "русский", "en US", &"e".repeat(1 << 20)]
        {
            let error = given.parse::<Language>().unwrap_err().to_string();
            assert!(error.len() < 200, "{error}");
        }
    }

    #[test]
    fn no_code_and_no_name_stands_for_two_languages() {
        let mut words: Vec<&str> =
            LANGUAGES.iter().flat_map(|(code, names)| [&[*code], *names].concat()).collect();
        words.extend(SYNONYMS.iter().map(|(synonym, _)| *synonym));
        let count = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), count);
    }
}
