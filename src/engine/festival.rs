//! The Russian voice of festival (package festvox-ru), spoken by the program `text2wave`.

use std::path::Path;
use std::time::Duration;

use super::stretch::stretched;
use super::{EngineError, Quality, Voice, VoiceInfo, clamped_tempo, wave};
use crate::program::Program;

/// text2wave takes a second to start and about 0.1 s for a second of speech; a sentence is up to 20 s.
const TEXT2WAVE: Program =
    Program { name: "text2wave", packages: "festival festvox-ru", deadline: Duration::from_secs(30) };

/// Chooses the voice. festival reads this as Lisp; it is a constant, and no text ever gets in there.
const CHOOSE_VOICE: &str = "(voice_msu_ru_nsh_clunits)";

/// Where Debian's festvox-ru puts the voice. Asking festival itself takes half a second, too long for a list.
const VOICE_DIRECTORY: &str = "/usr/share/festival/voices/russian/msu_ru_nsh_clunits";

/// What to tell users who lack it.
pub(super) const BRINGS: &str = "apt-get install festival festvox-ru";

/// `festival-ru`: one male voice made of recorded units. Clear, with audible joints.
#[derive(Debug)]
pub struct FestivalVoice {
    info: VoiceInfo,
}

impl FestivalVoice {
    /// The Russian voice.
    #[must_use]
    pub fn russian() -> FestivalVoice {
        let info = VoiceInfo {
            name: "festival-ru".to_owned(),
            language: "ru".to_owned(),
            sample_rate: 16_000,
            quality: Quality::Clear,
            license: "BSD-like (festvox-ru, Nickolay V. Shmyrev; its Debian packaging is GPL-3)".to_owned(),
        };
        FestivalVoice { info }
    }
}

impl Voice for FestivalVoice {
    fn info(&self) -> &VoiceInfo {
        &self.info
    }

    fn speak(&self, sentence: &str, tempo: f32) -> Result<Vec<i16>, EngineError> {
        let text = readable(sentence);
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let refused = |reason| EngineError::Program { program: TEXT2WAVE.name.to_owned(), reason };
        let wav = TEXT2WAVE
            .run(&["-eval", CHOOSE_VOICE], text.as_bytes())
            .map_err(|error| refused(error.to_string()))?;
        if wav.is_empty() {
            // It ends with status 0 when its rules can't read a text, or the voice is missing.
            return Err(refused(format!("said nothing; is the voice there? {BRINGS}")));
        }
        let (rate, samples) = wave::read(&wav).map_err(refused)?;
        if rate != self.info.sample_rate {
            return Err(refused(format!("speaks at {rate} Hz instead of {}", self.info.sample_rate)));
        }
        // Recorded units have the length they have: festival's Duration_Stretch does nothing to them.
        Ok(stretched(&samples, rate, clamped_tempo(tempo)))
    }
}

/// Whether the program and the voice are there.
pub(super) fn is_installed() -> bool {
    // text2wave is a script of festival's, and takes a second to say even that; both are in one package.
    let festival = Program { name: "festival", ..TEXT2WAVE };
    Path::new(VOICE_DIRECTORY).is_dir() && festival.run(&["--version"], b"").is_ok()
}

/// The text as far as festvox-ru can read it, UTF-8; empty where nothing is left.
///
/// Its letter rules know the Russian and Latin alphabets, digits, and a mark that stands right behind a word and
/// before white space. At anything else they give up on the whole utterance without a word, so signs are
/// spelt out and the rest becomes a space.
fn readable(text: &str) -> String {
    let mut readable = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        let next = characters.peek().copied();
        let after_word = readable.ends_with(is_letter);
        match c {
            _ if is_letter(c) => readable.push(c),
            '.' | ',' if after_digit(&readable) && next.is_some_and(|next| next.is_ascii_digit()) => {
                readable.push_str(if c == ',' { " запятая " } else { " точка " });
            }
            '.' | ',' | '!' | '?' | ';' | ':' | '…' if after_word => {
                let pause = next.is_none_or(|next| !is_letter(next));
                readable.push(if c == '…' { '.' } else { c });
                if !pause {
                    readable.pop(); // т.е., 10:30
                }
                readable.push(' ');
            }
            '—' | '–' if !readable.trim_end().is_empty() && readable.trim_end().ends_with(is_letter) => {
                readable.truncate(readable.trim_end().len());
                readable.push_str(", ");
            }
            '-' if after_word && next.is_some_and(is_letter) => readable.push(c),
            _ => {
                readable.push(' ');
                readable.push_str(spelt(c));
                readable.push(' ');
            }
        }
    }
    if !readable.contains(is_letter) {
        return String::new();
    }
    readable.split_whitespace().collect::<Vec<_>>().join(" ") + "\n"
}

fn after_digit(text: &str) -> bool {
    text.ends_with(|c: char| c.is_ascii_digit())
}

/// What festvox-ru has rules for, within words.
fn is_letter(c: char) -> bool {
    matches!(c, 'а'..='я' | 'А'..='Я' | 'ё' | 'Ё') || c.is_ascii_alphanumeric()
}

/// Signs and neighbouring alphabets in words and letters it can read.
fn spelt(c: char) -> &'static str {
    match c {
        '%' => "процентов",
        '№' => "номер",
        '$' => "долларов",
        '€' => "евро",
        '₽' => "рублей",
        '+' => "плюс",
        '=' => "равно",
        '&' => "и",
        '@' => "собака",
        '°' => "градусов",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_its_rules_cannot_read_is_spelt_out_or_left_out() {
        for (text, expected) in [
            ("Привет, мир!", "Привет, мир!\n"),
            ("«Да», сказал он.", "Да сказал он.\n"),
            ("Это 3,5 процента, т.е. мало...", "Это 3 запятая 5 процента, т е. мало.\n"),
            ("в 10:30 — дом № 5", "в 10 30, дом номер 5\n"),
            ("какой-нибудь - 50%", "какой-нибудь 50 процентов\n"),
            ("привет 😀 !", "привет\n"),
            ("Hello", "Hello\n"),
            ("?! ...", ""),
            ("— \u{0}\n", ""),
        ] {
            assert_eq!(readable(text), expected, "{text}");
        }
    }

    #[test]
    fn nothing_else_gets_through_in_any_order() {
        // Every text of four of these signs: each of its kinds, and what its rules choke on.
        let signs = ['я', 'z', '7', ' ', '.', ',', '-', '—', '«', '%', '\n', '😀'];
        for number in 0..signs.len().pow(4) {
            let text: String =
                (0..4).map(|place| signs[number / signs.len().pow(place) % signs.len()]).collect();
            let readable: Vec<char> = readable(&text).chars().collect();
            for (at, &c) in readable.iter().enumerate() {
                let inside_word = |at: usize| readable.get(at).copied().is_some_and(is_letter);
                let fits = match c {
                    '-' => inside_word(at - 1) && inside_word(at + 1),
                    '.' | ',' => inside_word(at - 1) && readable[at + 1].is_whitespace(),
                    ' ' | '\n' => true,
                    _ => is_letter(c),
                };
                assert!(fits, "{text:?} gives {readable:?}");
            }
        }
    }
}
