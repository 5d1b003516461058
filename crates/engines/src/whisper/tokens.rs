//! The vocabulary: GPT-2's byte-level pieces, and the special tokens that steer Whisper.

use std::collections::HashMap;
use std::sync::OnceLock;

use serde::Deserialize;

use super::bpe::Bpe;
use voxline::engine::Task;

/// Size of the smallest multilingual vocabulary. English-only models have one token less, and were never
/// taught the meaning of their language tokens.
const MULTILINGUAL: usize = 51_865;

/// The vocabulary of a model.
pub(super) struct Tokens {
    count: usize,
    /// Bytes of each text token.
    pieces: Vec<Vec<u8>>,
    /// The encoder of texts, which few sessions need.
    bpe: OnceLock<Bpe>,
    /// `<|startofprev|>`, before a text that precedes the audio; `None` if the vocabulary lacks it.
    previous: Option<u32>,
    /// `<|startoftranscript|>`.
    pub(super) start: u32,
    /// `<|endoftext|>`. The tokens before it are text; those after it steer.
    pub(super) end: u32,
    /// `<|nospeech|>`, called `<|nocaptions|>` by older models: predicted first if there is no speech.
    pub(super) no_speech: u32,
    transcribe: u32,
    /// `<|translate|>`; `None` for an English-only model.
    translate: Option<u32>,
    no_timestamps: u32,
    /// Language codes and their tokens; empty for an English-only model.
    languages: Vec<(String, u32)>,
    /// Text tokens that never occur in speech, such as brackets and music signs.
    pub(super) suppressed: Vec<u32>,
    /// Tokens that a text does not begin with.
    pub(super) suppressed_first: Vec<u32>,
    /// Text tokens with characters of Chinese, Japanese or Korean, or the first byte of one.
    east_asian: Vec<u32>,
}

/// Languages written in the characters of [`Tokens::east_asian`].
const EAST_ASIAN: [&str; 4] = ["zh", "yue", "ja", "ko"];

/// The settings in `config.json`.
#[derive(Deserialize)]
pub(super) struct Config {
    suppress_ids: Vec<u32>,
    suppress_ids_begin: Vec<u32>,
    /// Heads of the decoder, by layer and number, whose attention follows the words.
    pub(super) alignment_heads: Option<Vec<(usize, usize)>>,
}

impl Tokens {
    /// Parses `vocabulary.txt`, one token per line.
    ///
    /// # Errors
    /// Returns a description of the token that is missing or unreadable.
    pub(super) fn parse(vocabulary: &str) -> Result<Tokens, String> {
        let lines: Vec<&str> = vocabulary.split_terminator('\n').collect();
        let specials: HashMap<&str, u32> = lines
            .iter()
            .zip(0..)
            .filter(|(line, _)| line.starts_with("<|") && line.ends_with("|>"))
            .map(|(line, id)| (*line, id))
            .collect();
        let special =
            |name: &str| specials.get(name).copied().ok_or_else(|| format!("the token {name} is missing"));

        let end = special("<|endoftext|>")?;
        let start = special("<|startoftranscript|>")?;
        let mut languages = Vec::new();
        if lines.len() >= MULTILINGUAL {
            let codes = lines.iter().zip(0..).skip(start as usize + 1).map_while(|(line, id)| {
                let code = line.strip_prefix("<|")?.strip_suffix("|>")?;
                let is_code = matches!(code.len(), 2..=3) && code.bytes().all(|b| b.is_ascii_lowercase());
                is_code.then(|| (code.to_owned(), id))
            });
            languages.extend(codes);
            if languages.is_empty() {
                return Err("no language follows <|startoftranscript|>".to_owned());
            }
        }

        let bytes = byte_of_char();
        let pieces = lines[..end as usize]
            .iter()
            .zip(0..)
            .map(|(line, id)| {
                let piece: Option<Vec<u8>> = line.chars().map(|c| bytes.get(&c).copied()).collect();
                piece.ok_or_else(|| format!("line {}: '{line}' isn't a byte-level piece", id + 1))
            })
            .collect::<Result<Vec<Vec<u8>>, String>>()?;
        let east_asian =
            pieces.iter().zip(0..).filter(|(piece, _)| is_east_asian(piece)).map(|(_, id)| id).collect();
        Ok(Tokens {
            count: lines.len(),
            pieces,
            bpe: OnceLock::new(),
            previous: special("<|startofprev|>").ok(),
            start,
            end,
            no_speech: special("<|nospeech|>").or_else(|_| special("<|nocaptions|>"))?,
            transcribe: special("<|transcribe|>")?,
            translate: special("<|translate|>").ok().filter(|_| !languages.is_empty()),
            no_timestamps: special("<|notimestamps|>")?,
            languages,
            suppressed: Vec::new(),
            suppressed_first: Vec::new(),
            east_asian,
        })
    }

    /// Sets the tokens to suppress.
    ///
    /// # Errors
    /// Returns a description if the lists name a token that the vocabulary does not have.
    pub(super) fn suppress(&mut self, config: &Config) -> Result<(), String> {
        let mut ids = config.suppress_ids.iter().chain(&config.suppress_ids_begin);
        if let Some(unknown) = ids.find(|id| **id as usize >= self.count) {
            return Err(format!("suppresses token {unknown} of a vocabulary of {}", self.count));
        }
        self.suppressed.clone_from(&config.suppress_ids);
        self.suppressed_first.clone_from(&config.suppress_ids_begin);
        Ok(())
    }

    /// Returns the number of tokens, including special ones.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Returns the token of a language given as a BCP 47 tag, of which only the first part counts; `None`
    /// if the model does not know the language. An English-only model knows English, without a token.
    pub(super) fn language(&self, tag: &str) -> Option<Option<u32>> {
        let primary = tag.split(['-', '_']).next().unwrap_or(tag).to_ascii_lowercase();
        if self.languages.is_empty() {
            return (primary == "en").then_some(None);
        }
        // BCP 47 distinguishes the languages that Whisper calls Norwegian and Tagalog.
        let primary = match primary.as_str() {
            "nb" => "no",
            "fil" => "tl",
            other => other,
        };
        self.languages.iter().find(|(code, _)| code == primary).map(|(_, id)| Some(*id))
    }

    /// Returns the codes and tokens of the languages to distinguish; empty for an English-only model.
    pub(super) fn languages(&self) -> &[(String, u32)] {
        &self.languages
    }

    /// Returns the code of a language's token; English for a model without language tokens.
    pub(super) fn code(&self, language: Option<u32>) -> Option<&str> {
        match language {
            None => self.languages.is_empty().then_some("en"),
            Some(id) => self.languages.iter().find(|(_, known)| *known == id).map(|(code, _)| code.as_str()),
        }
    }

    /// Returns the text tokens that a text in this language never needs. From noise, and from speech that
    /// it fails to understand, Whisper makes single Chinese characters, even within Russian text.
    pub(super) fn foreign(&self, language: Option<u32>) -> &[u32] {
        let is_theirs = self.code(language).is_some_and(|code| EAST_ASIAN.contains(&code));
        if is_theirs { &[] } else { &self.east_asian }
    }

    /// Returns the token of translation into English, if the model was taught it.
    pub(super) fn translate(&self) -> Option<u32> {
        self.translate
    }

    /// Returns the tokens that follow [`start`](Tokens::start) in the prompt: the spoken language and the
    /// task.
    pub(super) fn prompt(&self, language: Option<u32>, task: Task) -> Vec<u32> {
        let translate = self.translate.filter(|_| task == Task::Translate);
        match language {
            Some(language) => vec![language, translate.unwrap_or(self.transcribe), self.no_timestamps],
            None => vec![self.no_timestamps],
        }
    }

    /// Returns the language of the text that a task makes of speech in a language.
    pub(super) fn text_language(&self, spoken: Option<u32>, task: Task) -> Option<u32> {
        if task == Task::Translate { self.language("en").flatten() } else { spoken }
    }

    /// Returns the bytes of a text token; empty for other tokens.
    pub(super) fn piece(&self, token: u32) -> &[u8] {
        self.pieces.get(token as usize).map_or(&[], Vec::as_slice)
    }

    /// Returns `<|startofprev|>`, if the vocabulary has it.
    pub(super) fn previous(&self) -> Option<u32> {
        self.previous
    }

    /// Returns the tokens of a text. None of them steers, whatever the text looks like.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        self.bpe.get_or_init(|| Bpe::new(&self.pieces)).encode(&self.pieces, text)
    }

    /// Returns the text of these tokens. Bytes that are not UTF-8, such as those of a split character,
    /// are left out.
    pub(super) fn text(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| self.piece(*token)).copied().collect();
        let text: String = bytes.utf8_chunks().map(|chunk| chunk.valid()).collect();
        text.trim().to_owned()
    }
}

/// Returns whether a piece has a byte that begins a character from U+3000 to U+DFFF (UTF-8: 0xE3 to 0xED,
/// which never continue one): kana, Han and Hangul with their punctuation.
fn is_east_asian(piece: &[u8]) -> bool {
    piece.iter().any(|byte| matches!(byte, 0xe3..=0xed))
}

/// Returns the byte of each character of GPT-2's notation: bytes that are printable in Latin-1 stand for
/// themselves, and the others are the characters from U+0100 on, in their order.
fn byte_of_char() -> HashMap<char, u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let (kept, moved): (Vec<u8>, Vec<u8>) = (0..=u8::MAX).partition(printable);
    let kept = kept.into_iter().map(|byte| (char::from(byte), byte));
    kept.chain(('\u{100}'..).zip(moved)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a vocabulary with few pieces, padded to a size.
    fn vocabulary(size: usize) -> String {
        let mut lines = vec!["Hi", "Ġthere", "ÐŁ", "ÑĢ", "Ð", "<|endoftext|>", "<|startoftranscript|>"];
        lines.extend(["<|en|>", "<|ru|>", "<|haw|>", "<|translate|>", "<|transcribe|>", "<|nocaptions|>"]);
        lines.push("<|notimestamps|>");
        lines.resize(size, "<|0.00|>");
        lines.join("\n")
    }

    #[test]
    fn pieces_are_bytes() {
        let tokens = Tokens::parse(&vocabulary(MULTILINGUAL)).unwrap();
        assert_eq!(tokens.text(&[0, 1, tokens.end]), "Hi there");
        assert_eq!(tokens.text(&[2, 3]), "Пр");
        assert_eq!(tokens.text(&[2, 4]), "П", "half a character was shown");
    }

    #[test]
    fn chinese_characters_are_for_languages_that_have_them() {
        // The bytes of 去, whole and its first byte alone; those of a Russian letter, and of a quotation
        // mark.
        let vocabulary = vocabulary(MULTILINGUAL).replace("Hi\nĠthere\nÐŁ\nÑĢ", "åİ»\nå\nÐŁ\nâĢľ");
        let tokens = Tokens::parse(&vocabulary.replace("<|haw|>", "<|ja|>")).unwrap();
        assert_eq!((tokens.text(&[0]).as_str(), tokens.text(&[3]).as_str()), ("去", "“"));
        assert_eq!(tokens.foreign(tokens.language("ru").unwrap()), [0, 1]);
        assert_eq!(tokens.foreign(tokens.language("ja").unwrap()), [] as [u32; 0]);
    }

    #[test]
    fn tags_name_languages() {
        let tokens = Tokens::parse(&vocabulary(MULTILINGUAL)).unwrap();
        assert_eq!(tokens.language("ru-RU"), Some(Some(8)));
        assert_eq!(tokens.language("EN"), Some(Some(7)));
        assert_eq!(tokens.language("tlh"), None);
        assert_eq!(tokens.languages().len(), 3);
        assert_eq!(tokens.code(Some(9)), Some("haw"));
        assert_eq!(tokens.prompt(Some(8), Task::Transcribe), [8, 11, 13]);
    }

    #[test]
    fn a_translation_is_english_whatever_is_spoken() {
        let tokens = Tokens::parse(&vocabulary(MULTILINGUAL)).unwrap();
        assert_eq!(tokens.prompt(Some(8), Task::Translate), [8, 10, 13]);
        assert_eq!(tokens.text_language(Some(8), Task::Translate), Some(7));
        assert_eq!(tokens.text_language(Some(8), Task::Transcribe), Some(8));
        let english_only = Tokens::parse(&vocabulary(MULTILINGUAL - 1)).unwrap();
        assert_eq!(english_only.translate(), None);
    }

    #[test]
    fn a_smaller_vocabulary_is_english() {
        let tokens = Tokens::parse(&vocabulary(MULTILINGUAL - 1)).unwrap();
        assert_eq!(tokens.language("en_GB"), Some(None));
        assert_eq!(tokens.language("ru"), None);
        assert_eq!(tokens.code(None), Some("en"));
        assert_eq!(tokens.prompt(None, Task::Transcribe), [13]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let damaged = vocabulary(20).replace("<|transcribe|>", "<|other|>");
        assert!(Tokens::parse(&damaged).err().unwrap().contains("<|transcribe|>"));
        let mut tokens = Tokens::parse(&vocabulary(20)).unwrap();
        let far = r#"{"suppress_ids": [1, 20], "suppress_ids_begin": []}"#;
        let far: Config = serde_json::from_str(far).unwrap();
        assert!(tokens.suppress(&far).unwrap_err().contains("token 20"));
    }
}
