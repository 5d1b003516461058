//! Byte-pair encoding: from text to the tokens that Whisper would write it in.
//!
//! A CTranslate2 vocabulary lists no merges, and needs none. GPT-2's vocabularies, of which Whisper's two
//! are, number the 256 bytes first and then each token in the order in which it was merged. So the rank of a
//! merge is the number of its result, as in OpenAI's `tiktoken`.

use std::sync::LazyLock;

use regex::Regex;

/// GPT-2's parts, within which bytes are merged: a word or a number with the space before it, a contraction,
/// a run of other characters, a run of spaces. The last space of a run belongs to the word behind it, which
/// [`parts`] sees to, as `regex` does not look ahead.
static PART: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+").expect("well formed")
});

/// An encoder for one vocabulary.
pub(super) struct Bpe {
    /// Text tokens, in the order of their bytes.
    sorted: Vec<u32>,
}

/// A run of bytes that is a token, or a byte that the vocabulary lacks.
struct Run {
    start: usize,
    /// Token of this run and the next together; `None` if there is none.
    merged: Option<u32>,
}

impl Bpe {
    /// Creates the encoder of a vocabulary, given the bytes of each text token.
    pub(super) fn new(pieces: &[Vec<u8>]) -> Bpe {
        let mut sorted: Vec<u32> = (0..).zip(pieces).map(|(id, _)| id).collect();
        sorted.sort_by_key(|id| &pieces[*id as usize]);
        Bpe { sorted }
    }

    /// Returns the tokens of a text. Bytes that the vocabulary lacks, which real ones do not, are left out.
    pub(super) fn encode(&self, pieces: &[Vec<u8>], text: &str) -> Vec<u32> {
        parts(text).flat_map(|part| self.encode_part(pieces, part.as_bytes())).collect()
    }

    fn encode_part(&self, pieces: &[Vec<u8>], part: &[u8]) -> Vec<u32> {
        let token = |bytes: &[u8]| {
            let at = self.sorted.binary_search_by_key(&bytes, |id| pieces[*id as usize].as_slice());
            at.ok().map(|at| self.sorted[at])
        };
        // Runs `at` and `at + 1` together; the last run ends with the part.
        let merged = |runs: &[Run], at: usize| {
            runs.get(at + 1)?;
            let end = runs.get(at + 2).map_or(part.len(), |run| run.start);
            token(&part[runs[at].start..end])
        };
        let mut runs: Vec<Run> = (0..part.len()).map(|start| Run { start, merged: None }).collect();
        for at in 0..runs.len() {
            runs[at].merged = merged(&runs, at);
        }
        // Each merge costs one pass over the rest: a part is a word.
        while let Some((_, at)) = (0..).zip(&runs).filter_map(|(at, run)| Some((run.merged?, at))).min() {
            runs.remove(at + 1);
            runs[at].merged = merged(&runs, at);
            if let Some(before) = at.checked_sub(1) {
                runs[before].merged = merged(&runs, before);
            }
        }
        let ends = runs.iter().skip(1).map(|run| run.start).chain([part.len()]);
        runs.iter().zip(ends).filter_map(|(run, end)| token(&part[run.start..end])).collect()
    }
}

/// Splits a text into the parts within which bytes are merged.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let found = PART.find_at(text, at)?;
        let mut end = found.end();
        let is_space = found.as_str().starts_with(char::is_whitespace);
        let last = found.as_str().chars().next_back().filter(|last| is_space && last.is_whitespace());
        if let Some(last) = last
            && end < text.len()
            && found.len() > last.len_utf8()
        {
            end -= last.len_utf8();
        }
        at = end;
        Some(&text[found.start()..end])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models_dir::models_dir;
    use crate::whisper::tokens::Tokens;

    #[test]
    fn parts_are_those_of_gpt2() {
        let parts = |text| parts(text).collect::<Vec<_>>();
        assert_eq!(parts("Don't  go, 10 метров!"), ["Don", "'t", " ", " go", ",", " 10", " метров", "!"]);
        assert_eq!(parts(" \n\tnew  "), [" \n", "\t", "new", "  "]);
        assert_eq!(parts("it's you'll"), ["it", "'s", " you", "'ll"]);
        assert_eq!(parts(" (a)  —"), [" (", "a", ")", " ", " —"]);
        assert_eq!(parts(""), [] as [&str; 0]);
    }

    fn vocabulary(model: &str) -> Tokens {
        let path = models_dir().join(model).join("vocabulary.txt");
        Tokens::parse(&std::fs::read_to_string(path).expect("the model is there"))
            .expect("it is a vocabulary")
    }

    /// The expected tokens are those of OpenAI's `tiktoken` with the vocabularies of openai-whisper.
    #[test]
    fn texts_have_the_tokens_of_the_reference() {
        let multilingual: [(&str, &[u32]); 4] = [
            (" Zbigniew Brzeziński spoke", &[1176, 65, 788, 1093, 1603, 1381, 3992, 5248, 18020, 7179]),
            (
                " Александр Грибоедов, Щёлково-7",
                &[44938, 481, 7247, 4679, 18670, 2229, 1055, 11, 42373, 24180, 7718, 354, 12, 22],
            ),
            (" कि  two  spaces \n", &[31970, 33279, 220, 732, 220, 7673, 220, 198]),
            (" kubernetes Kubernetes", &[350, 22457, 23145]),
        ];
        let english: [(&str, &[u32]); 2] = [
            (" Zbigniew Brzeziński spoke", &[1168, 65, 570, 769, 1709, 2736, 17027, 129, 226, 20545, 5158]),
            (" kubernetes Kubernetes", &[479, 18478, 3262, 274, 12554, 527, 3262, 274]),
        ];
        let (base, tiny) = (vocabulary("whisper-base"), vocabulary("whisper-tiny.en"));
        for (text, expected) in multilingual {
            assert_eq!(base.encode(text), expected, "{text}");
        }
        for (text, expected) in english {
            assert_eq!(tiny.encode(text), expected, "{text}");
        }
    }

    #[test]
    fn a_decoded_text_is_what_was_encoded() {
        let texts = [
            " Go forward ten meters.",
            "Zbigniew Brzeziński, Øystein & 이순신 — 東京 🎉 don't",
            " Александр Сергеевич Грибоедов, Щёлково-7, №1",
            "कि ขอบคุณ ﷽ e\u{301}\u{302}",
            "\u{0}\u{7f}\u{a0}|<|endoftext|>|",
        ];
        for tokens in [vocabulary("whisper-base"), vocabulary("whisper-tiny.en")] {
            for text in texts {
                let encoded = tokens.encode(text);
                let bytes: Vec<u8> = encoded.iter().flat_map(|token| tokens.piece(*token)).copied().collect();
                assert_eq!(String::from_utf8(bytes).as_deref(), Ok(text), "{encoded:?}");
                assert!(encoded.iter().all(|token| *token < tokens.end), "a text steers: {encoded:?}");
            }
        }
    }

    /// Every token is the encoding of its own text, unless its bytes are merged in another order than alone.
    #[test]
    fn tokens_are_found_by_their_bytes() {
        let tokens = vocabulary("whisper-base");
        let words = (0..tokens.end).filter_map(|token| {
            let text = std::str::from_utf8(tokens.piece(token)).ok()?;
            let is_word = parts(text).count() == 1;
            is_word.then(|| (token, text.to_owned()))
        });
        let (mut alone, mut all) = (0, 0);
        for (token, text) in words {
            all += 1;
            alone += usize::from(tokens.encode(&text) == [token]);
        }
        assert!(alone * 1_000 > all * 999, "{alone} of {all}");
    }
}
