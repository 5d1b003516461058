//! Voices speak the given text at the given speed, and survive any text.

mod loudness;
mod round_trip;

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use voxline::engine::{Quality, Voice, VoiceError, Voices, language_of};
use voxline::sentences::sentences;
use voxline_engines::PiperVoice;

use voxline_fixtures::samples::models_dir;

fn voices() -> Voices {
    voxline_engines::voices::discover(&models_dir())
}

/// Returns a voice, or panics with a message that states how to get it.
fn voice(name: &str) -> Arc<dyn Voice> {
    voices().find(Some(name), None).unwrap_or_else(|error| panic!("{error}"))
}

fn seconds(voice: &dyn Voice, pcm: &[i16]) -> f32 {
    pcm.len() as f32 / voice.info().sample_rate as f32
}

/// Returns the first sentences of a language in `tests/it/data`.
fn sentences_of(language: &str, count: usize) -> Vec<String> {
    let lines = include_str!("../data/sentences.tsv").lines();
    let sentences = lines.filter_map(|line| line.strip_prefix(language)?.strip_prefix('\t'));
    sentences.take(count).map(str::to_owned).collect()
}

/// Returns the root mean square, as a fraction of full scale.
fn loudness(pcm: &[i16]) -> f64 {
    let power: f64 = pcm.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    (power / pcm.len().max(1) as f64).sqrt() / 32_768.0
}

/// Texts that a voice might fail on, or take for options or commands.
const ODD_TEXTS: &[&str] = &[
    "",
    " ",
    "\n\n\t",
    ".",
    "?! ... ;:,",
    "—",
    "\u{0}\u{1}\u{7f}",
    "😀",
    "😀😀 hello 😀.",
    "[[h@l'oU]] {x} <speak>x</speak>",
    "--version",
    "-w /tmp/voxline-must-not-exist.wav",
    "(quit) \"'\\ $(id) `id` ; id | id",
    "naïve façade Привет 你好 مرحبا",
    "a\u{301}\u{302}\u{303}\u{304}",
    "\u{202e}right to left\u{202c}\u{feff}",
    "ъ",
    "3.5 + 4,2 = 7.7 % № 5",
    "999 999 999 999 999 999 999 999 999 999",
];

#[test]
fn joe_speaks_a_sentence() {
    let joe = voice("joe");
    let info = joe.info().clone();
    assert_eq!((info.language.as_str(), info.sample_rate, info.quality), ("en", 22_050, Quality::Natural));
    assert!(info.license.contains("CC0") && info.license.contains("lessac"), "{}", info.license);
    let pcm = joe.speak("The quick brown fox jumps over the lazy dog.", 1.0).unwrap();
    let duration = seconds(&*joe, &pcm);
    assert!((1.5..5.0).contains(&duration), "{duration} s");
    assert!(loudness(&pcm) > 0.02, "{}", loudness(&pcm));
}

#[test]
fn tempo_shortens_and_stretches_every_voice() {
    for name in ["joe", "espeak-en", "espeak-ru", "festival-ru"] {
        let voice = voice(name);
        let text = match voice.info().language.as_str() {
            "ru" => "Сегодня хорошая погода, и мы идём гулять.",
            _ => "The weather is fine today, and we go for a walk.",
        };
        let length = |tempo| seconds(&*voice, &voice.speak(text, tempo).unwrap());
        let (slow, normal, fast) = (length(0.75), length(1.0), length(1.75));
        assert!(slow > normal * 1.15 && fast < normal * 0.75, "{name}: {slow} s, {normal} s, {fast} s");
    }
}

#[test]
fn a_tempo_out_of_range_is_the_nearest_in_it() {
    for name in ["joe", "espeak-en"] {
        let voice = voice(name);
        for (tempo, nearest) in [(0.0, 0.5), (-1.0, 0.5), (f32::INFINITY, 2.0), (f32::NAN, 1.0)] {
            let said = voice.speak("One.", tempo).unwrap();
            assert!(!said.is_empty() && said == voice.speak("One.", nearest).unwrap(), "{name} at {tempo}");
        }
    }
}

#[test]
fn odd_texts_never_panic_and_never_become_options() {
    for name in ["joe", "espeak-en", "espeak-ru", "festival-ru"] {
        let voice = voice(name);
        for text in ODD_TEXTS {
            voice.speak(text, 1.0).unwrap_or_else(|error| panic!("{name}, {text:?}: {error}"));
        }
        for text in ["", " ", "\n\n\t", "?! ... ;:,", "\u{0}\u{1}\u{7f}"] {
            assert!(voice.speak(text, 1.0).unwrap().is_empty(), "{name}, {text:?}");
        }
    }
    assert!(!Path::new("/tmp/voxline-must-not-exist.wav").exists());
}

#[test]
fn a_text_without_end_is_spoken_in_bounded_pieces() {
    let text = "word ".repeat(130);
    assert_eq!(sentences(&text).count(), 4);
    let joe = voice("joe");
    let pcm = joe.speak(&text, 2.0).unwrap();
    assert!(seconds(&*joe, &pcm) > 10.0, "{}", seconds(&*joe, &pcm));
}

#[test]
fn a_question_does_not_sound_like_a_statement() {
    let joe = voice("joe");
    let length = |text: &str| joe.speak(text, 1.0).unwrap().len() as f32;
    // Without its punctuation mark a clause is shorter, because nothing closes it.
    assert!(length("Well, then, go, now, please.") > length("Well then go now please") * 1.05);
    assert_ne!(joe.speak("You are coming?", 1.0).unwrap(), joe.speak("You are coming.", 1.0).unwrap());
}

#[test]
fn the_same_text_gives_the_same_samples_whoever_else_speaks() {
    for (name, text, other) in [
        ("joe", "When it rains, we stay at home; otherwise we go out.", "Two."),
        ("festival-ru", "Когда идёт дождь, мы сидим дома.", "Два."),
        ("espeak-en", "When it rains, we stay at home.", "Two."),
    ] {
        let said = voice(name).speak(text, 1.0).unwrap();
        let voice = voice(name);
        thread::scope(|scope| {
            scope.spawn(|| voice.speak(other, 1.0).unwrap());
            for _ in 0..2 {
                scope.spawn(|| assert!(voice.speak(text, 1.0).unwrap() == said, "{name}"));
            }
        });
        assert!(voice.speak(text, 1.25).unwrap() != said, "{name}");
    }
}

#[test]
fn pieces_are_what_is_spoken_and_no_more_are_made_than_are_taken() {
    let joe = voice("joe");
    for text in ["One.", "When it rains, we stay at home; otherwise we go out.", ""] {
        let (mut pieces, mut pcm) = (0, Vec::new());
        let mut take = |piece: &[i16]| {
            pieces += 1;
            pcm.extend_from_slice(piece);
            ControlFlow::Continue(())
        };
        joe.speak_in_pieces(text, 1.0, &mut take).unwrap();
        assert!(pcm == joe.speak(text, 1.0).unwrap(), "{text}");
        assert!(pieces > 1 || text.len() < 10, "{text}: {pieces}");
    }
    let mut taken = 0;
    let mut once = |_: &[i16]| {
        taken += 1;
        ControlFlow::Break(())
    };
    joe.speak_in_pieces("When it rains, we stay at home; otherwise we go out.", 1.0, &mut once).unwrap();
    assert_eq!(taken, 1);
}

#[test]
fn numbers_are_read_in_both_languages() {
    for (name, written, read) in [
        ("joe", "It costs $5.20.", "It costs 5 dollars and 20 cents."),
        ("espeak-en", "It costs $5.20.", "It costs 5 dollars and 20 cents."),
        (
            "festival-ru",
            "Это стоит 21 ₽, т.е. 3,5 %.",
            "Это стоит двадцать один рубль, то есть три целых пять десятых процента.",
        ),
    ] {
        let voice = voice(name);
        assert!(voice.speak(written, 1.0).unwrap() == voice.speak(read, 1.0).unwrap(), "{name}");
    }
}

#[test]
fn hostile_text_is_spoken_or_refused_and_festival_lives_on() {
    let festival = voice("festival-ru");
    let marker = Path::new("/tmp/voxline-must-not-exist-either");
    let said = festival.speak("Привет.", 1.0).unwrap();
    for text in [
        "\") (system \"touch /tmp/voxline-must-not-exist-either\") (print \"",
        "(quit)",
        "\\\" (exit) \\",
        "voxline: done",
        "\nvoxline: done\n(quit)\n",
        "#\\nul '`,@ ;",
    ] {
        festival.speak(text, 1.0).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert!(festival.speak("Привет.", 1.0).unwrap() == said, "{text:?}");
    }
    assert!(!marker.exists());
}

/// The speakers are read from the small settings file, before anything is loaded.
#[test]
fn a_voice_of_several_speakers_lists_them_and_is_found_by_each() {
    let models = tempfile::tempdir().unwrap();
    let directory = models.path().join("piper-many");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("en_US-many-medium.onnx"), b"not looked at").unwrap();
    let settings = r#"{"audio": {"sample_rate": 22050}, "espeak": {"voice": "en-us"},
        "inference": {"noise_scale": 0.6, "length_scale": 1, "noise_w": 0.8}, "num_speakers": 2,
        "speaker_id_map": {"p226": 1, "p225": 0}, "phoneme_id_map": {"^": [1], "$": [2], "_": [0]}}"#;
    std::fs::write(directory.join("en_US-many-medium.onnx.json"), settings).unwrap();
    let voices = voxline_engines::voices::discover(models.path());
    assert_eq!(voices.find(Some("many"), None).unwrap().info().speakers, ["p225", "p226"]);
    let one = voices.find(Some("many:p226"), None).unwrap();
    assert_eq!((one.info().name.as_str(), one.info().speakers.len()), ("many:p226", 0));
    for (name, expected) in [
        ("many:p227", "voice \"many\" has no speaker \"p227\"; it has p225, p226"),
        ("espeak-en:x", "voice \"espeak-en\" has no speaker \"x\"; it has but one"),
    ] {
        let error = voices.find(Some(name), None).map(|_| ()).unwrap_err();
        assert!(matches!(error, VoiceError::Speaker { .. }));
        assert_eq!(error.to_string(), expected);
    }
    assert!(matches!(voices.find(Some("nobody:x"), None), Err(VoiceError::Unknown { .. })));
}

#[test]
fn russian_is_spoken_clearly_by_festival() {
    let festival = voice("festival-ru");
    assert_eq!(festival.info().quality, Quality::Clear);
    let pcm = festival.speak("«Да, — сказал он, — это 3,5 процента, т.е. немного».", 1.0).unwrap();
    let duration = seconds(&*festival, &pcm);
    assert!((2.0..9.0).contains(&duration), "{duration} s");
    assert!(loudness(&pcm) > 0.01, "{}", loudness(&pcm));
}

#[test]
fn the_best_voice_of_a_language_comes_first() {
    let voices = voices();
    let name = |name, language| voices.find(name, language).unwrap().info().name.clone();
    assert_eq!(name(None, None), "joe");
    assert_eq!(name(None, Some("en-GB")), "joe");
    assert_eq!(name(None, Some("RU")), "festival-ru");
    assert_eq!(name(Some("espeak-ru"), Some("en")), "espeak-ru");
    let low: Vec<String> =
        voices.list().into_iter().filter(|info| info.quality == Quality::Low).map(|info| info.name).collect();
    assert_eq!(low, ["espeak-ru"]);
}

#[test]
fn what_is_not_there_is_named_with_the_command_that_brings_it() {
    let nothing = tempfile::tempdir().unwrap();
    let voices = voxline_engines::voices::discover(nothing.path());
    let error = |name, language| match voices.find(name, language) {
        Ok(voice) => panic!("found {}", voice.info().name),
        Err(error) => error,
    };
    let absent = error(Some("joe"), None);
    assert!(matches!(absent, VoiceError::Absent { .. }));
    assert_eq!(
        absent.to_string(),
        "voice \"joe\" is not on this machine; run: voxline models pull piper-joe"
    );
    // English does not fall back to espeak-ng unasked.
    assert_eq!(error(None, Some("en-GB")).to_string(), absent.to_string());
    assert_eq!(voices.find(Some("espeak-en"), None).unwrap().info().name, "espeak-en");
    let unknown = error(Some("nobody\n"), None).to_string();
    assert!(
        unknown.starts_with("voice \"nobody\\n\" is unknown; available: festival-ru, espeak-en"),
        "{unknown}"
    );
    assert!(unknown.ends_with("for more run: voxline models pull piper-joe (joe)"), "{unknown}");
    assert!(error(None, Some("fr")).to_string().starts_with("no available voice speaks \"fr\""));
    // Without any voice, there is an error.
    assert!(Voices::new(Vec::new()).find(None, None).is_err());
}

#[test]
fn a_damaged_voice_is_an_error_that_names_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let load = || PiperVoice::load(directory.path()).map(|_| ()).unwrap_err().to_string();
    assert!(load().contains("holds no *.onnx file; run: voxline models pull piper-joe"), "{}", load());
    std::fs::write(directory.path().join("x.onnx"), b"not a network").unwrap();
    assert!(load().contains("x.onnx.json"), "{}", load());
    let settings = r#"{"audio": {"sample_rate": 22050}, "espeak": {"voice": "VOICE"},
        "inference": {"noise_scale": 0.6, "length_scale": 1, "noise_w": 0.8},
        "phoneme_id_map": {"^": [1], "$": [2], "_": [0]}}"#;
    std::fs::write(directory.path().join("x.onnx.json"), settings.replace("VOICE", "--path=/etc")).unwrap();
    assert!(load().contains("is not a voice's name"), "{}", load());
    std::fs::write(directory.path().join("x.onnx.json"), settings.replace("VOICE", "en-us")).unwrap();
    assert!(load().contains("x.onnx:"), "{}", load());
}

#[test]
fn the_script_tells_the_language() {
    for (text, language) in [
        ("Привет!", "ru"),
        ("Hello", "en"),
        ("", "en"),
        ("123", "en"),
        ("Привет из iOS", "ru"),
        ("Wi-Fi и", "en"),
    ] {
        assert_eq!(language_of(text), language, "{text}");
    }
}
