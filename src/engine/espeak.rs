//! The program espeak-ng: the phonemes that Piper speaks, and voices of its own as a last resort.
//!
//! espeak-ng is under GPL-3.0-or-later. It is run as a program and never linked, so that voxline stays MIT/Apache-2.0.

use std::time::Duration;

use super::{EngineError, Quality, Voice, VoiceInfo, clamped_tempo, wave};
use crate::program::{Program, ProgramError};

/// espeak-ng takes some 15 ms for a sentence; a loaded machine may need a hundred times that.
const ESPEAK: Program =
    Program { name: "espeak-ng", packages: "espeak-ng", deadline: Duration::from_secs(10) };

/// espeak-ng's own speed, in words a minute, and the range it keeps to (espeak-ng(1), option -s).
const WORDS_A_MINUTE: f32 = 175.0;
const SLOWEST: f32 = 80.0;
const FASTEST: f32 = 450.0;

/// A voice of espeak-ng: robotic, quick, always there once the program is installed.
#[derive(Debug)]
pub struct EspeakVoice {
    info: VoiceInfo,
    /// What espeak-ng calls it.
    voice: &'static str,
}

impl EspeakVoice {
    /// The English voice, `espeak-en`: easy to understand.
    #[must_use]
    pub fn english() -> EspeakVoice {
        EspeakVoice::new("en", "en-us", Quality::Clear)
    }

    /// The Russian voice, `espeak-ru`: recognisers understand next to nothing of it (95 % of the words wrong when
    /// measured with Whisper base), so it is marked as low quality.
    #[must_use]
    pub fn russian() -> EspeakVoice {
        EspeakVoice::new("ru", "ru", Quality::Low)
    }

    fn new(language: &str, voice: &'static str, quality: Quality) -> EspeakVoice {
        let info = VoiceInfo {
            name: format!("espeak-{language}"),
            language: language.to_owned(),
            // What espeak-ng's formant voices are made at (espeak_Initialize's result).
            sample_rate: 22_050,
            quality,
            license: "GPL-3.0-or-later (the program espeak-ng and its data)".to_owned(),
        };
        EspeakVoice { info, voice }
    }
}

impl Voice for EspeakVoice {
    fn info(&self) -> &VoiceInfo {
        &self.info
    }

    fn speak(&self, sentence: &str, tempo: f32) -> Result<Vec<i16>, EngineError> {
        let text = plain(sentence);
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        let speed = (WORDS_A_MINUTE * clamped_tempo(tempo)).clamp(SLOWEST, FASTEST).round().to_string();
        let wav = ESPEAK
            .run(&["-b", "1", "-v", self.voice, "-s", &speed, "--stdin", "--stdout"], text.as_bytes())
            .map_err(program_error)?;
        let (rate, samples) = wave::read(&wav).map_err(refused)?;
        if rate != self.info.sample_rate {
            return Err(refused(format!("speaks at {rate} Hz instead of {}", self.info.sample_rate)));
        }
        // For a text without words espeak-ng gives a few zeros.
        Ok(if samples.iter().all(|&sample| sample == 0) { Vec::new() } else { samples })
    }
}

/// Whether espeak-ng can be run.
pub(super) fn is_installed() -> bool {
    ESPEAK.run(&["--version"], b"").is_ok()
}

/// What to tell users who lack it.
pub(super) const BRINGS: &str = "apt-get install espeak-ng";

/// How `voice` pronounces a text without punctuation, in IPA; empty where there is nothing to pronounce.
pub(super) fn phonemes(voice: &str, text: &str) -> Result<String, EngineError> {
    let text = plain(text);
    if text.trim().is_empty() {
        return Ok(String::new());
    }
    let ipa = ESPEAK
        .run(&["-b", "1", "-v", voice, "-q", "--ipa", "--stdin"], text.as_bytes())
        .map_err(program_error)?;
    Ok(without_language_flags(&String::from_utf8_lossy(&ipa)))
}

/// The text without what espeak-ng would take for orders: `[[...]]` holds phoneme codes, and control characters steer
/// it. White space of any kind becomes a space, so that a line's end is no pause.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '[' | ']') { ' ' } else { c }).collect()
}

/// The phonemes on one line, without `(en)` and `(ru)`, by which espeak-ng says that it changed its language.
fn without_language_flags(ipa: &str) -> String {
    let mut phonemes = String::with_capacity(ipa.len());
    let mut rest = ipa;
    while let Some((before, flag)) = rest.split_once('(') {
        phonemes.push_str(before);
        rest = flag.split_once(')').map_or("", |(_, after)| after);
    }
    phonemes.push_str(rest);
    phonemes.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn program_error(error: ProgramError) -> EngineError {
    refused(error.to_string())
}

fn refused(reason: String) -> EngineError {
    EngineError::Program { program: ESPEAK.name.to_owned(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn language_flags_and_line_ends_are_no_phonemes() {
        assert_eq!(without_language_flags(" (en)həlˈoʊ\nwˈɜːld(ru) \n"), "həlˈoʊ wˈɜːld");
        assert_eq!(without_language_flags("a (b"), "a");
        assert_eq!(without_language_flags(""), "");
    }

    #[test]
    fn orders_in_the_text_are_taken_out() {
        assert_eq!(plain("a [[f'u:]] b\n\u{1}c"), "a   f'u:   b  c");
    }
}
