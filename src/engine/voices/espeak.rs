//! The program espeak-ng: the phonemes that Piper speaks, and voices of its own as a last resort.
//!
//! espeak-ng is under GPL-3.0-or-later. It is run as a program and never linked, so that voxline stays MIT/Apache-2.0.

use std::ops::ControlFlow;
use std::time::Duration;

use super::loudness::Gain;
use super::reading::spelt_out;
use super::wave;
use crate::engine::{EngineError, Quality, Voice, VoiceInfo, clamped_tempo};
use crate::program::{Processes, Program, ProgramError, WarmProgram};

/// espeak-ng takes some 15 ms for a sentence; a loaded machine may need a hundred times that.
const ESPEAK: Program =
    Program { name: "espeak-ng", packages: "espeak-ng", deadline: Duration::from_secs(10) };

/// espeak-ng's own speed, in words a minute, and the range it keeps to (espeak-ng(1), option -s).
const WORDS_A_MINUTE: f32 = 175.0;
const SLOWEST: f32 = 80.0;
const FASTEST: f32 = 450.0;

/// How loud its voices are by themselves, measured over the sentences of `tests/it/data`, in LUFS.
const ENGLISH_LOUDNESS: f64 = -21.0;
const RUSSIAN_LOUDNESS: f64 = -21.1;

/// The most processes that phonemes are asked of at once: each answers a thousand clauses a second.
const PROCESSES: usize = 2;

/// A process is small and was never seen to grow; this is caution.
const ANSWERS: usize = 100_000;

/// Phoneme codes on a line of their own, and what espeak-ng says to them: no text is pronounced like that.
const END: &str = "[[tktktk]]\n";
const ENDED: &str = "tktktk";

/// The most bytes of a line: espeak-ng reads 999, and takes what is left for the next line.
const LINE: usize = 900;

/// A voice of espeak-ng: robotic, quick, always there once the program is installed.
#[derive(Debug)]
pub struct EspeakVoice {
    info: VoiceInfo,
    /// What espeak-ng calls it.
    voice: &'static str,
    /// In LUFS.
    loudness: f64,
}

impl EspeakVoice {
    /// The English voice, `espeak-en`: easy to understand.
    #[must_use]
    pub fn english() -> EspeakVoice {
        EspeakVoice::new("en", "en-us", Quality::Clear, ENGLISH_LOUDNESS)
    }

    /// The Russian voice, `espeak-ru`: recognisers understand next to nothing of it (95 % of the words wrong when
    /// measured with Whisper base), so it is marked as low quality.
    #[must_use]
    pub fn russian() -> EspeakVoice {
        EspeakVoice::new("ru", "ru", Quality::Low, RUSSIAN_LOUDNESS)
    }

    fn new(language: &str, voice: &'static str, quality: Quality, loudness: f64) -> EspeakVoice {
        let info = VoiceInfo {
            name: format!("espeak-{language}"),
            language: language.to_owned(),
            // What espeak-ng's formant voices are made at (espeak_Initialize's result).
            sample_rate: 22_050,
            quality,
            license: "GPL-3.0-or-later (the program espeak-ng and its data)".to_owned(),
            speakers: Vec::new(),
        };
        EspeakVoice { info, voice, loudness }
    }
}

impl Voice for EspeakVoice {
    fn info(&self) -> &VoiceInfo {
        &self.info
    }

    fn speak_in_pieces(
        &self,
        sentence: &str,
        tempo: f32,
        take: &mut dyn FnMut(&[i16]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let text = plain(&spelt_out(&self.info.language, sentence));
        if text.trim().is_empty() {
            return Ok(());
        }
        // Not kept warm: it speaks 15 ms after its start, and when it has said all tells only by ending.
        let speed = (WORDS_A_MINUTE * clamped_tempo(tempo)).clamp(SLOWEST, FASTEST).round().to_string();
        let wav = ESPEAK
            .run(&["-b", "1", "-v", self.voice, "-s", &speed, "--stdin", "--stdout"], text.as_bytes())
            .map_err(program_error)?;
        let (rate, mut samples) = wave::read(&wav).map_err(refused)?;
        if rate != self.info.sample_rate {
            return Err(refused(format!("speaks at {rate} Hz instead of {}", self.info.sample_rate)));
        }
        // For a text without words espeak-ng gives a few zeros.
        if samples.iter().any(|&sample| sample != 0) {
            Gain::of(self.loudness).apply(&mut samples);
            let _ = take(&samples);
        }
        Ok(())
    }
}

/// Whether espeak-ng can be run.
pub(super) fn is_installed() -> bool {
    ESPEAK.run(&["--version"], b"").is_ok()
}

/// What to tell users who lack it.
pub(super) const BRINGS: &str = "apt-get install espeak-ng";

/// Pronounces texts as one of espeak-ng's voices does, without speaking. It runs from the first text on.
#[derive(Debug)]
pub(super) struct Phonemizer {
    espeak: WarmProgram,
}

impl Phonemizer {
    /// One for the voice that espeak-ng calls `voice`.
    pub(super) fn new(voice: &str) -> Phonemizer {
        // Without --stdin it takes each line for a text, and answers it before it reads the next.
        let args = ["-b", "1", "-v", voice, "-q", "--ipa"].map(str::to_owned).to_vec();
        let (greeting, processes) = (END.to_owned(), Processes::default());
        let espeak = WarmProgram {
            program: ESPEAK,
            args,
            greeting,
            last: ENDED,
            most: PROCESSES,
            answers: ANSWERS,
            processes,
        };
        Phonemizer { espeak }
    }

    /// The pronunciation of a text without punctuation, in IPA; empty where there is nothing to pronounce.
    pub(super) fn phonemes(&self, text: &str) -> Result<String, EngineError> {
        let text = plain(text);
        if text.trim().is_empty() {
            return Ok(String::new());
        }
        let lines = self.espeak.ask(&(lines(&text) + END)).map_err(program_error)?;
        Ok(without_language_flags(&lines.join(" ")))
    }
}

/// The words of `text` in lines of at most [`LINE`] bytes. A longer word becomes several.
fn lines(text: &str) -> String {
    let (mut lines, mut length) = (String::with_capacity(text.len() + 1), 0);
    for word in text.split_whitespace() {
        for (index, letter) in word.char_indices() {
            let first = index == 0;
            let word = if first { word.len().min(LINE) } else { letter.len_utf8() };
            if length > 0 && length + word >= LINE {
                lines.push('\n');
                length = 0;
            } else if first && length > 0 {
                lines.push(' ');
                length += 1;
            }
            lines.push(letter);
            length += letter.len_utf8();
        }
    }
    lines + "\n"
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

    #[test]
    fn lines_are_bounded_and_lose_nothing() {
        assert_eq!(lines(" one  two\n"), "one two\n");
        for text in ["word ".repeat(1_000), "ы".repeat(2_000), format!("a {} b", "x".repeat(899))] {
            let lines = lines(&text);
            assert!(lines.ends_with('\n') && lines.lines().all(|line| (1..=LINE).contains(&line.len())));
            let solid = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(solid(&lines), solid(&text));
        }
    }

    #[test]
    fn a_process_that_has_spoken_pronounces_as_a_new_one() {
        let texts = ["Hello world", "Dr. Smith lives here", "...", "", "tktktk", "Привет you", "Hello world"];
        let warm = Phonemizer::new("en-us");
        for text in texts {
            let new = Phonemizer::new("en-us").phonemes(text).unwrap();
            assert_eq!(warm.phonemes(text).unwrap(), new, "{text}");
        }
        assert_eq!(warm.phonemes("Hello world").unwrap(), "həlˈoʊ wˈɜːld");
    }
}
