//! Mutated texts, none of which may end an external program. The texts take the whole path except for the
//! containment of crashes.
//!
//! `VOXLINE_TEXTS` is the number of texts for each program. A run of a hundred thousand takes hours:
//!
//! ```sh
//! VOXLINE_TEXTS=100000 cargo test -p voxline-engines --lib -- --nocapture mutated_texts
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::espeak::{Phonemizer, without_orders};
use super::reading::spelt_out;
use super::safe_text::broken_up;
use super::{EspeakVoice, FestivalVoice};
use crate::knob::knob;
use crate::program::ProgramError;
use voxline_support::random::Random;

/// Alphabets to mutate with: ordinary text, characters that programs stumble over, and characters of
/// other languages.
const ALPHABETS: &[&str] = &[
    "abcdefghijklmnopqrstuvwxyz",
    "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "абвгдежзийклмнопрстуфхцчшщъыьэюяё",
    "АБВГДЕЖЗИЙКЛМНОПРСТУФХЦЧШЩЪЫЬЭЮЯЁ",
    "0123456789",
    ".",
    "…,;:!?'\"-_/—–«»“”’",
    "  \t\n\u{a0}\u{2003}",
    "\u{301}\u{302}\u{303}\u{327}\u{483}",
    "😀🎉👨\u{200d}👩\u{fe0f}🇷🇺",
    "\0\u{1}\u{7}\u{1b}\u{7f}\u{85}\u{200b}\u{202e}\u{feff}",
    "%$№€₽#@&*+=<>~^|\\(){}[]`",
    "你好مرحباéüßığक한",
];

/// Words to mutate.
const WORDS: &[&str] = &[
    "The",
    "quick",
    "Mr. Smith's",
    "e.g.",
    "U.S.A.",
    "3.14",
    "12:30",
    "$5.20",
    "1,000,000",
    "http://a.b/c?d=e",
    "iPhone",
    "Привет",
    "какой-нибудь",
    "№ 5",
    "т.е.",
    "и т.д.",
    "А.С. Пушкин",
    "2024 г.",
    "21 ₽",
    "-7 °C",
    "XIV",
];

/// Number of times that a late text is asked again, by itself, before it counts as one that hangs the
/// program.
const TRIES: usize = 3;

/// Returns a text of up to 300 characters, longer than any sentence that a voice gets.
fn text(random: &mut Random) -> String {
    let mut below = |bound: usize| (random.next() % bound as u64) as usize;
    let characters = |alphabet: usize| ALPHABETS[alphabet].chars().collect::<Vec<_>>();
    let alphabets: Vec<Vec<char>> = (0..1 + below(4)).map(|_| characters(below(ALPHABETS.len()))).collect();
    let (length, prose) = (1 + below(300), below(3) == 0);
    let letter = |below: &mut dyn FnMut(usize) -> usize| {
        let alphabet = &alphabets[below(alphabets.len())];
        alphabet[below(alphabet.len())]
    };
    let mut text = String::new();
    while text.chars().count() < length {
        match below(20) {
            0..10 if prose => {
                text += WORDS[below(WORDS.len())];
                text += if below(3) > 0 { " " } else { "" };
            }
            0 | 10 => {
                let unit: String = (0..1 + below(4)).map(|_| letter(&mut below)).collect();
                text += &unit.repeat(1 + below(100));
            }
            _ => text.push(letter(&mut below)),
        }
    }
    text.chars().take(length).collect()
}

/// Passes each text of this run to `ask`, on two threads, and prints the number of texts that `program`
/// was asked.
#[expect(clippy::print_stdout, reason = "the figures")]
fn none_ends(
    program: &str,
    sample: u64,
    language: &str,
    ask: impl Fn(&str) -> Result<(), ProgramError> + Sync,
) {
    let (texts, seed): (u64, u64) =
        (knob("VOXLINE_TEXTS").unwrap_or(sample), knob("VOXLINE_SEED").unwrap_or(1));
    println!("replay: VOXLINE_SEED={seed}; text n has the seed VOXLINE_SEED + n");
    // Texts that were found to end espeak-ng.
    for unit in ["A.", "Я.", ".э", "a.\u{303}."] {
        ask(&broken_up(&unit.repeat(100)))
            .unwrap_or_else(|error| panic!("{program}, {unit:?} 100 times: {error}"));
    }
    let is_answered = |number: u64| {
        let text = text(&mut Random::new(seed + number));
        match ask(&broken_up(&without_orders(&spelt_out(language, &text)))) {
            Ok(()) => true,
            Err(ProgramError::Deadline(_)) => false,
            Err(error) => panic!("{program}, VOXLINE_SEED={}: {error}\n{text:?}", seed + number),
        }
    };
    let (next, late) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= texts {
                break;
            }
            if !is_answered(number) {
                late.lock().unwrap_or_else(PoisonError::into_inner).push(number);
            }
        }
    };
    thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
    let late = late.into_inner().unwrap_or_else(PoisonError::into_inner);
    // A busy machine may be late with any text; a text that hangs the program is late each time.
    for number in &late {
        assert!((0..TRIES).any(|_| is_answered(*number)), "{program}, VOXLINE_SEED={}: hangs", seed + number);
    }
    println!("{program}: {texts} texts, 0 crashes, 0 hangs, {} late once", late.len());
}

#[test]
fn espeak_pronounces_all() {
    for (voice, language) in [("en-us", "en"), ("ru", "ru")] {
        let phonemizer = Phonemizer::new(voice);
        none_ends(&format!("phonemes by espeak-ng, {voice}"), 100, language, |text| {
            phonemizer.pronounce(text).map(drop)
        });
    }
}

#[test]
fn espeak_speaks_all() {
    for (voice, language) in [(EspeakVoice::english(), "en"), (EspeakVoice::russian(), "ru")] {
        // The fastest speed, which is the least to synthesise.
        none_ends(&format!("espeak-ng, {language}"), 10, language, |text| voice.utter(text, "450").map(drop));
    }
}

#[test]
fn festival_speaks_all() {
    let festival = FestivalVoice::russian();
    none_ends("festival", 4, "ru", |text| {
        let said = festival.utter(text)?;
        assert!(said.is_some(), "festival said nothing to {text:?}");
        Ok(())
    });
}
