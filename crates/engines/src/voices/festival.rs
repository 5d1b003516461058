//! The Russian voice of festival (package festvox-ru), spoken by the program `festival`.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use super::loudness::Gain;
use super::reading::spelt_out;
use super::safe_text;
use super::stretch::stretched;
use crate::program::{Limits, ProcessPool, Processes, Program, ProgramError};
use crate::voices::clamped_tempo;
use voxline::engine::{EngineError, ProgramFault, Quality, Voice, VoiceInfo};

/// The program. festival takes about 0.02 s for a second of speech, and 0.7 s to start; a sentence is up
/// to 20 s.
const FESTIVAL: Program =
    Program { name: "festival", packages: "festival festvox-ru", deadline: Duration::from_secs(30) };

/// Largest number of processes. Each holds the whole voice, half a gigabyte, and speaks forty times as
/// fast as a person.
const PROCESSES: usize = 2;

/// Number of answers of a process before it is replaced, since it grows by a third of a megabyte with
/// each sentence.
const ANSWERS: usize = 300;

/// Limits of a process. A process was seen with 512 MB at first, 100 MB more after so many answers, and
/// 0.8 s of CPU time for an answer at most.
const LIMITS: Limits = Limits { cpu_seconds: 600, memory: 2 << 30 };

/// First input of festival: the work of `text2wave` for one file, as a function of two paths that reports
/// when it is done. festival reads this and the paths as Lisp; the text is in a file, and is never read
/// as Lisp.
const GREETING: &str = r#"
(gc-status nil)
(voice_msu_ru_nsh_clunits)
(define (voxline_keep utterance) (set! voxline_spoken (cons utterance voxline_spoken)) utterance)
(define (voxline_join utterances)
  (let ((all (utt.wave (car utterances))))
    (mapcar (lambda (utterance) (wave.append all (utt.wave utterance))) (cdr utterances))
    all))
(define (voxline_speak from to)
  (set! voxline_spoken nil)
  (set! tts_hooks (list utt.synth voxline_keep))
  (unwind-protect
    (begin
      (tts_file from nil)
      (if voxline_spoken (wave.save (voxline_join (reverse voxline_spoken)) to 'raw)))
    nil)
  (set! voxline_spoken nil)
  (voxline_done))
(define (voxline_done) (format t "voxline: done
") (fflush nil))
(voxline_done)
"#;
const DONE: &str = "voxline: done";

/// The two files in festival's working directory, and the command for them.
const TEXT: &str = "text";
const SPEECH: &str = "speech";
const SPEAK: &str = "(voxline_speak \"text\" \"speech\")\n";

/// Loudness of the voice without gain, measured over the sentences of `tests/it/data`, in LUFS.
const LOUDNESS: f64 = -18.1;

/// Rate of the voice's recordings, in Hz.
const RATE: u32 = 16_000;

/// Directory of the voice in Debian's festvox-ru. Asking festival itself takes half a second, too long
/// for a list.
const VOICE_DIRECTORY: &str = "/usr/share/festival/voices/russian/msu_ru_nsh_clunits";

/// Command that installs the program and the voice, shown to users who lack them.
pub(super) const INSTALL: &str = "apt-get install festival festvox-ru";

/// The voice `festival-ru`: one male voice made of recorded units. The voice is clear, with audible
/// joints.
#[derive(Debug)]
pub struct FestivalVoice {
    info: VoiceInfo,
    festival: ProcessPool,
}

impl FestivalVoice {
    /// Creates the Russian voice. festival starts with the first sentence, and runs until the voice is
    /// dropped.
    #[must_use]
    pub fn russian() -> FestivalVoice {
        let info = VoiceInfo {
            name: "festival-ru".to_owned(),
            language: "ru".to_owned(),
            sample_rate: RATE,
            quality: Quality::Clear,
            license: "BSD-like (festvox-ru, Nickolay V. Shmyrev; its Debian packaging is GPL-3)".to_owned(),
            speakers: Vec::new(),
        };
        let festival = ProcessPool {
            program: FESTIVAL,
            args: vec!["--pipe".to_owned()],
            limits: LIMITS,
            greeting: GREETING.to_owned(),
            end_line: DONE,
            max_processes: PROCESSES,
            max_answers: ANSWERS,
            processes: Processes::default(),
        };
        FestivalVoice { info, festival }
    }

    /// Returns the samples for a text that has been broken up by [`safe_text`]; `None` if festival made
    /// no file, because its rules could not read the text, or the voice is missing.
    pub(super) fn utter(&self, text: &str) -> Result<Option<Vec<i16>>, ProgramError> {
        let text = readable(text);
        if text.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let put = |directory: &Path| {
            let _ = fs::remove_file(directory.join(SPEECH));
            fs::write(directory.join(TEXT), &text)
        };
        let get = |directory: &Path, _| match fs::read(directory.join(SPEECH)) {
            Ok(raw) => Ok(Some(raw)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        let raw = self.festival.ask_with_files(SPEAK, put, get)?;
        Ok(raw.map(|raw| raw.as_chunks().0.iter().map(|&bytes| i16::from_ne_bytes(bytes)).collect()))
    }
}

impl Voice for FestivalVoice {
    fn info(&self) -> &VoiceInfo {
        &self.info
    }

    fn speak_in_pieces(
        &self,
        sentence: &str,
        tempo: f32,
        take: &mut dyn FnMut(&[i16]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let said = safe_text::ask(FESTIVAL.name, &spelt_out("ru", sentence), |text| self.utter(text));
        let mut samples = match said.map_err(failed)? {
            Some(Some(samples)) => samples,
            Some(None) => {
                return Err(failed(ProgramFault::Answer(format!(
                    "said nothing; is the voice there? {INSTALL}"
                ))));
            }
            // A text that crashed the program in every form is left out.
            None => return Ok(()),
        };
        if samples.is_empty() {
            return Ok(());
        }
        Gain::of(LOUDNESS).apply(&mut samples);
        // Recorded units have fixed lengths: festival's Duration_Stretch has no effect on them.
        let _ = take(&stretched(&samples, RATE, clamped_tempo(tempo)));
        Ok(())
    }
}

fn failed(reason: impl Into<ProgramFault>) -> EngineError {
    EngineError::Program { program: FESTIVAL.name.to_owned(), reason: reason.into() }
}

/// Returns whether the program and the voice are installed.
pub(super) fn is_installed() -> bool {
    Path::new(VOICE_DIRECTORY).is_dir() && FESTIVAL.run(&["--version"], b"").is_ok()
}

/// Returns the part of the text that festvox-ru can read, in UTF-8; empty if nothing is left.
///
/// The letter rules of festvox-ru know the Russian and Latin alphabets, digits, and a mark directly after
/// a word and before white space. On any other character the rules silently give up the whole utterance,
/// so signs are spelt out and the rest becomes spaces.
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

/// Returns whether festvox-ru has rules for a character within words.
fn is_letter(c: char) -> bool {
    matches!(c, 'а'..='я' | 'А'..='Я' | 'ё' | 'Ё') || c.is_ascii_alphanumeric()
}

/// Returns the words for a sign; empty for any other character.
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
        // Every text of four of these signs: one of each kind, and those that the rules fail on.
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
