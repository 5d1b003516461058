//! Voices speak what they are given, at the speed they are told, and survive any text.

use std::path::Path;
use std::sync::Arc;

use voxline::engine::{
    EngineError, MAX_SENTENCE_CHARS, PiperVoice, Quality, Voice, VoiceError, VoiceInfo, Voices, language_of,
    sentences,
};

mod lab;

use crate::support::models_dir;

fn voices() -> Voices {
    Voices::discover(&models_dir())
}

/// The voice, or a failure that says how to get it.
fn voice(name: &str) -> Arc<dyn Voice> {
    voices().find(Some(name), None).unwrap_or_else(|error| panic!("{error}"))
}

fn seconds(voice: &dyn Voice, pcm: &[i16]) -> f32 {
    pcm.len() as f32 / voice.info().sample_rate as f32
}

/// The root of the mean square, as a part of full scale.
fn loudness(pcm: &[i16]) -> f64 {
    let power: f64 = pcm.iter().map(|&sample| f64::from(sample).powi(2)).sum();
    (power / pcm.len().max(1) as f64).sqrt() / 32_768.0
}

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
        for tempo in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            assert!(!voice.speak("One.", tempo).unwrap().is_empty(), "{name} at {tempo}");
        }
    }
}

#[test]
fn odd_texts_never_panic_and_never_become_options() {
    for name in ["joe", "espeak-en", "espeak-ru", "festival-ru"] {
        let voice = voice(name);
        // festival takes a second to start; what it is given is checked sign by sign where that is made.
        let joined = [ODD_TEXTS.join(". ")];
        let texts: Vec<&str> = match name {
            "festival-ru" => joined.iter().map(String::as_str).collect(),
            _ => ODD_TEXTS.to_vec(),
        };
        for text in texts {
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
    // The network is random, so only an effect on the phonemes shows: without its mark a clause is shorter, because
    // nothing closes it.
    let joe = voice("joe");
    let length = |text: &str| -> f32 { (0..3).map(|_| seconds(&*joe, &joe.speak(text, 1.0).unwrap())).sum() };
    assert!(length("Well, then, go, now, please.") > length("Well then go now please") * 1.05);
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
    for cloud in ["katherine", "katherine-hifigan", "maria", "maria-serious", "pavel", "pavel-hifigan"] {
        assert_eq!(name(Some(cloud), None), "festival-ru");
        assert_eq!(name(Some(cloud), Some("ru")), "festival-ru");
        // Better understood than in the service's own language.
        assert_eq!(name(Some(cloud), Some("en")), "joe");
    }
    let low: Vec<String> =
        voices.list().into_iter().filter(|info| info.quality == Quality::Low).map(|info| info.name).collect();
    assert_eq!(low, ["espeak-ru"]);
}

/// A voice that is nothing but a name.
struct Named(VoiceInfo);

impl Voice for Named {
    fn info(&self) -> &VoiceInfo {
        &self.0
    }

    fn speak(&self, _: &str, _: f32) -> Result<Vec<i16>, EngineError> {
        Ok(Vec::new())
    }
}

#[test]
fn a_name_of_the_services_is_spoken_for_by_a_woman_or_a_man_where_there_is_one() {
    let named = |(name, language): (&str, &str)| -> Arc<dyn Voice> {
        let (name, language) = (name.to_owned(), language.to_owned());
        let (sample_rate, quality) = (16_000, Quality::Natural);
        let (license, speakers) = (String::new(), Vec::new());
        Arc::new(Named(VoiceInfo { name, language, sample_rate, quality, license, speakers }))
    };
    let at_hand = [("denis", "ru"), ("irina", "ru"), ("amy", "en"), ("ryan", "en"), ("lessac", "ru")];
    let voices = Voices::new(at_hand.into_iter().map(named).collect());
    for (cloud, russian, english) in [
        ("katherine", "irina", "amy"),
        ("katherine-hifigan", "irina", "amy"),
        ("maria", "irina", "amy"),
        ("maria-serious", "irina", "amy"),
        ("pavel", "denis", "ryan"),
        ("pavel-hifigan", "denis", "ryan"),
    ] {
        let name = |language| voices.find(Some(cloud), language).unwrap().info().name.clone();
        assert_eq!([name(None), name(Some("ru")), name(Some("en"))], [russian, russian, english], "{cloud}");
    }
}

#[test]
fn what_is_not_there_is_named_with_the_command_that_brings_it() {
    let nothing = tempfile::tempdir().unwrap();
    let voices = Voices::discover(nothing.path());
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
    // English is not left to espeak-ng unasked.
    assert_eq!(error(None, Some("en-GB")).to_string(), absent.to_string());
    assert_eq!(voices.find(Some("espeak-en"), None).unwrap().info().name, "espeak-en");
    let unknown = error(Some("nobody\n"), None).to_string();
    assert!(
        unknown.starts_with("voice \"nobody\\n\" is unknown; at hand: festival-ru, espeak-en"),
        "{unknown}"
    );
    assert!(unknown.ends_with("for more run: voxline models pull piper-joe (joe)"), "{unknown}");
    assert!(error(None, Some("fr")).to_string().starts_with("no voice at hand speaks \"fr\""));
    // With no voice at all the list says so.
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

#[test]
fn sentences_end_where_a_reader_would_end_them() {
    for (text, expected) in [
        ("", &[][..]),
        (" \n ", &[]),
        ("One. Two! Three? Four… Five", &["One.", "Two!", "Three?", "Four…", "Five"]),
        ("Mr. Smith met Dr. Jones. They spoke.", &["Mr. Smith met Dr. Jones.", "They spoke."]),
        ("It costs 3.5 dollars. Really.", &["It costs 3.5 dollars.", "Really."]),
        ("Use tools, e.g. Rust. Fine.", &["Use tools, e.g. Rust.", "Fine."]),
        ("He left at 5 p.m. yesterday. She stayed.", &["He left at 5 p.m. yesterday.", "She stayed."]),
        ("He left at 5 p.m. She stayed.", &["He left at 5 p.m.", "She stayed."]),
        ("Apples, pears, etc. Then cake.", &["Apples, pears, etc.", "Then cake."]),
        ("J. R. R. Tolkien wrote. So did I. And you.", &["J. R. R. Tolkien wrote.", "So did I.", "And you."]),
        ("“Really?” she asked. “Yes.” He left.", &["“Really?” she asked.", "“Yes.”", "He left."]),
        ("Wait... what? Well... Yes.", &["Wait... what?", "Well...", "Yes."]),
        ("See example.com. It is v1.2.3.", &["See example.com.", "It is v1.2.3."]),
        ("A line\nbroken in two. Next", &["A line\nbroken in two.", "Next"]),
        ("Title\n\nFirst paragraph\r\n\r\nSecond", &["Title", "First paragraph", "Second"]),
        ("Это т.е. пример. И т.д. Конец.", &["Это т.е. пример.", "И т.д.", "Конец."]),
        (
            "Живу в г. Москва. Родился в 1990 г. Учился.",
            &["Живу в г. Москва.", "Родился в 1990 г.", "Учился."],
        ),
        ("А. С. Пушкин и А.С. Пушкин. Да.", &["А. С. Пушкин и А.С. Пушкин.", "Да."]),
        ("ул. Ленина, д. 5, кв. 12. Второй этаж.", &["ул. Ленина, д. 5, кв. 12.", "Второй этаж."]),
        ("— Куда? — спросил он. — Домой!", &["— Куда? — спросил он.", "— Домой!"]),
        ("«Да». Он ушёл в 5 ч. утра.", &["«Да».", "Он ушёл в 5 ч. утра."]),
        ("Цена 3,5 тыс. рублей. Дорого.", &["Цена 3,5 тыс. рублей.", "Дорого."]),
        ("?! ...", &["?!", "..."]),
    ] {
        assert_eq!(sentences(text).collect::<Vec<_>>(), expected, "{text:?}");
    }
}

#[test]
fn a_long_sentence_is_cut_at_a_clause_then_a_word_then_anywhere() {
    let clauses = format!("{}, {}", "a ".repeat(70).trim(), "b ".repeat(70).trim());
    let first = sentences(&clauses).next().unwrap();
    assert!(first.ends_with("a,"), "{first}");
    let words = "слово ".repeat(100);
    assert!(sentences(&words).all(|piece| piece.starts_with("слово") && piece.ends_with("слово")));
    let solid = "ы".repeat(1_000);
    assert_eq!(
        sentences(&solid).map(|piece| piece.chars().count()).collect::<Vec<_>>(),
        [200, 200, 200, 200, 200]
    );
    // Marks and quotes at the bound: nothing but white space is lost, and no piece is longer than the bound.
    for filler in 190..210 {
        for tail in
            ["…»»»»»»»»»»»» Дальше", "...............", ".\"\"\"\"\"\"\"\" Next", "! ! ! ! !", ",,,,,, , , ,"]
        {
            let text = format!("{}{tail}", "й".repeat(filler));
            let pieces: Vec<&str> = sentences(&text).collect();
            assert!(pieces.iter().all(|piece| (1..=MAX_SENTENCE_CHARS).contains(&piece.chars().count())));
            let solid = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(pieces.iter().map(|piece| solid(piece)).collect::<String>(), solid(&text));
        }
    }
}
