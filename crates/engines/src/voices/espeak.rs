//! The program espeak-ng: source of the phonemes that Piper speaks, and of voices of its own as a last
//! resort.
//!
//! espeak-ng is under GPL-3.0-or-later. The program is run and never linked, so that voxline stays
//! MIT/Apache-2.0.

use std::ops::ControlFlow;
use std::time::Duration;

use super::loudness::Gain;
use super::reading::spelt_out;
use super::{safe_text, wave};
use crate::program::{Limits, ProcessPool, Processes, Program, ProgramError};
use crate::voices::clamped_tempo;
use voxline::engine::{EngineError, ProgramFault, Quality, Voice, VoiceInfo};

/// The program. espeak-ng takes some 15 ms for a sentence; a loaded machine may need a hundred times
/// that.
const ESPEAK: Program =
    Program { name: "espeak-ng", packages: "espeak-ng", deadline: Duration::from_secs(10) };

/// Limits of a process. A process was seen with 91 MB, and takes a millisecond for the phonemes of a
/// clause.
const LIMITS: Limits = Limits { cpu_seconds: 600, memory: 512 << 20 };

/// Default speed of espeak-ng, in words a minute, and the range that it keeps to (espeak-ng(1), option
/// -s).
const WORDS_A_MINUTE: f32 = 175.0;
const SLOWEST: f32 = 80.0;
const FASTEST: f32 = 450.0;

/// Loudness of its voices without gain, measured over the sentences of `tests/it/data`, in LUFS.
const ENGLISH_LOUDNESS: f64 = -21.0;
const RUSSIAN_LOUDNESS: f64 = -21.1;

/// Largest number of processes that are asked for phonemes at once: each answers a thousand clauses a
/// second.
const PROCESSES: usize = 2;

/// Number of answers of a process before it is replaced. A process is small and was never seen to grow;
/// the limit is a precaution.
const ANSWERS: usize = 100_000;

/// Phoneme codes on a line of their own, and espeak-ng's answer to them: no text is pronounced like that.
const END: &str = "[[tktktk]]\n";
const ENDED: &str = "tktktk";

/// Longest line, in bytes: espeak-ng reads 999, and takes the rest as the next line.
const LINE: usize = 900;

/// A voice of espeak-ng: robotic, fast, and available wherever the program is installed.
#[derive(Debug)]
pub struct EspeakVoice {
    info: VoiceInfo,
    /// Name of the voice in espeak-ng.
    voice: &'static str,
    /// Loudness without gain, in LUFS.
    loudness: f64,
}

impl EspeakVoice {
    /// Creates the English voice, `espeak-en`, which is easy to understand.
    #[must_use]
    pub fn english() -> EspeakVoice {
        EspeakVoice::new("en", "en-us", Quality::Clear, ENGLISH_LOUDNESS)
    }

    /// Creates the Russian voice, `espeak-ru`. The voice is marked as low quality, since recognisers
    /// understand almost nothing of it (95 % of the words wrong when measured with Whisper base).
    #[must_use]
    pub fn russian() -> EspeakVoice {
        EspeakVoice::new("ru", "ru", Quality::Low, RUSSIAN_LOUDNESS)
    }

    fn new(language: &str, voice: &'static str, quality: Quality, loudness: f64) -> EspeakVoice {
        let info = VoiceInfo {
            name: format!("espeak-{language}"),
            language: language.to_owned(),
            // Rate of espeak-ng's formant voices (the result of espeak_Initialize).
            sample_rate: 22_050,
            quality,
            license: "GPL-3.0-or-later (the program espeak-ng and its data)".to_owned(),
            speakers: Vec::new(),
        };
        EspeakVoice { info, voice, loudness }
    }

    /// Returns the speech for a text as WAV; nothing if the text is empty.
    ///
    /// The process is not kept running: it speaks 15 ms after its start, and shows only by ending that it
    /// has said all.
    pub(super) fn utter(&self, text: &str, speed: &str) -> Result<Vec<u8>, ProgramError> {
        if text.is_empty() {
            return Ok(Vec::new());
        }
        let args = ["-b", "1", "-v", self.voice, "-s", speed, "--stdin", "--stdout"];
        ESPEAK.run_confined(&LIMITS, &args, text.as_bytes())
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
        let text = without_orders(&spelt_out(&self.info.language, sentence));
        let speed = (WORDS_A_MINUTE * clamped_tempo(tempo)).clamp(SLOWEST, FASTEST).round().to_string();
        let wav = safe_text::ask(ESPEAK.name, &text, |text| self.utter(text, &speed)).map_err(failed)?;
        // A text that crashed the program in every form is left out.
        let Some(wav) = wav.filter(|wav| !wav.is_empty()) else { return Ok(()) };
        let (rate, mut samples) = wave::read(&wav).map_err(|reason| failed(ProgramFault::Answer(reason)))?;
        if rate != self.info.sample_rate {
            return Err(failed(ProgramFault::Answer(format!(
                "speaks at {rate} Hz instead of {}",
                self.info.sample_rate
            ))));
        }
        // espeak-ng gives a few zeros for a text without words.
        if samples.iter().any(|&sample| sample != 0) {
            Gain::of(self.loudness).apply(&mut samples);
            let _ = take(&samples);
        }
        Ok(())
    }
}

/// Returns whether espeak-ng can be run.
pub(super) fn is_installed() -> bool {
    ESPEAK.run(&["--version"], b"").is_ok()
}

/// Command that installs the program, shown to users who lack it.
pub(super) const INSTALL: &str = "apt-get install espeak-ng";

/// A phonemizer, which pronounces texts as one of espeak-ng's voices does, without speaking. The
/// processes run from the first text on.
#[derive(Debug)]
pub(super) struct Phonemizer {
    espeak: ProcessPool,
}

impl Phonemizer {
    /// Creates a phonemizer for the voice that espeak-ng calls `voice`.
    pub(super) fn new(voice: &str) -> Phonemizer {
        // Without --stdin espeak-ng takes each line for a text, and answers it before it reads the next.
        let args = ["-b", "1", "-v", voice, "-q", "--ipa"].map(str::to_owned).to_vec();
        let (greeting, processes) = (END.to_owned(), Processes::default());
        let espeak = ProcessPool {
            program: ESPEAK,
            args,
            limits: LIMITS,
            greeting,
            end_line: ENDED,
            max_processes: PROCESSES,
            max_answers: ANSWERS,
            processes,
        };
        Phonemizer { espeak }
    }

    /// Returns the pronunciation of a text without punctuation, in IPA; empty if there is nothing to
    /// pronounce.
    pub(super) fn phonemes(&self, text: &str) -> Result<String, EngineError> {
        let phonemes = safe_text::ask(ESPEAK.name, &without_orders(text), |text| self.pronounce(text))
            .map_err(failed)?;
        // A text that crashed the program in every form is left out.
        Ok(phonemes.unwrap_or_default())
    }

    /// Returns the pronunciation of a text that has been broken up by [`safe_text`].
    pub(super) fn pronounce(&self, text: &str) -> Result<String, ProgramError> {
        if text.is_empty() {
            return Ok(String::new());
        }
        let answer = self.espeak.ask(&(lines(text) + END))?;
        Ok(without_language_flags(&answer.join(" ")))
    }
}

/// Returns the words of `text` in lines of at most [`LINE`] bytes.
fn lines(text: &str) -> String {
    let (mut lines, mut length) = (String::with_capacity(text.len() + 1), 0);
    for word in text.split_whitespace() {
        if length > 0 {
            let full = length + 1 + word.len() > LINE;
            lines.push(if full { '\n' } else { ' ' });
            length = if full { 0 } else { length + 1 };
        }
        lines.push_str(word);
        length += word.len();
    }
    lines + "\n"
}

/// Returns the text without brackets, since espeak-ng takes `[[...]]` for phoneme codes.
pub(super) fn without_orders(text: &str) -> String {
    text.replace(['[', ']'], " ")
}

/// Returns the phonemes on one line, without `(en)` and `(ru)`, by which espeak-ng marks a change of
/// language.
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

fn failed(reason: impl Into<ProgramFault>) -> EngineError {
    EngineError::Program { program: ESPEAK.name.to_owned(), reason: reason.into() }
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
        assert_eq!(without_orders("a [[f'u:]] b"), "a   f'u:   b");
    }

    #[test]
    fn lines_are_bounded_and_lose_nothing() {
        assert_eq!(lines(" one  two\n"), "one two\n");
        for text in ["word ".repeat(1_000), "ы".repeat(2_000), format!("a {} b", "x".repeat(899))] {
            let lines = lines(&safe_text::broken_up(&text));
            assert!(lines.ends_with('\n') && lines.lines().all(|line| (1..=LINE).contains(&line.len())));
            let solid = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(solid(&lines), solid(&text));
        }
    }

    #[test]
    fn a_process_that_has_spoken_pronounces_as_a_new_one() {
        let texts = ["Hello world", "Dr. Smith lives here", "...", "", "tktktk", "Привет you", "Hello world"];
        let pooled = Phonemizer::new("en-us");
        for text in texts {
            let new = Phonemizer::new("en-us").phonemes(text).unwrap();
            assert_eq!(pooled.phonemes(text).unwrap(), new, "{text}");
        }
        assert_eq!(pooled.phonemes("Hello world").unwrap(), "həlˈoʊ wˈɜːld");
    }
}
