//! Keywords: rare names are heard with them, and not where nobody said them.
//!
//! The names are spoken by the voices at hand, each in a sentence of its own, and heard without keywords and
//! with all of them. Recordings of people who say none of the names are heard with them, too. A run takes a
//! part of both; with `VOXLINE_KEYWORDS=all` it takes all, and prints the texts
//! (`./dev prove keywords`).

use std::sync::Arc;

use voxline::audio::sample;
use voxline::engine::{RecognitionRequest, Recognizer, Voice};
use voxline::resample::Resampler;
use voxline_engines::voices::discover;
use voxline_engines::wer::normal;
use voxline_engines::whisper::Whisper;

use voxline_fixtures::clips;
use voxline_fixtures::samples::models_dir;
use voxline_fixtures::whisper::whisper;

/// Rare names, each with a sentence. The bounds of `whisper::keywords` were chosen on other names.
const ENGLISH: [(&str, &str); 20] = [
    ("Penhaligon", "The shop belongs to Rose Penhaligon."),
    ("Ndiaye", "Captain Ndiaye lifted the cup."),
    ("Aberystwyth", "Change at Shrewsbury for Aberystwyth."),
    ("Terraform", "All servers are described in Terraform."),
    ("Niamh", "Tell Niamh that the parcel is here."),
    ("Anguissola", "The portrait was made by Sofonisba Anguissola."),
    ("Polkinghorne", "Polkinghorne wrote about physics and faith."),
    ("Cholmondeley", "Lord Cholmondeley opened the garden."),
    ("Ansible", "Install the packages with Ansible."),
    ("Bergstrom", "Nurse Bergstrom will take your blood."),
    ("Isafjordur", "The road to Isafjordur is closed."),
    ("Carruthers", "Major Carruthers missed the boat."),
    ("Nimzowitsch", "This move goes back to Nimzowitsch."),
    ("Clickhouse", "We keep the events in Clickhouse."),
    ("Venkataraman", "Send the draft to Lakshmi Venkataraman."),
    ("Micawber", "Mister Micawber waits for something to turn up."),
    ("Wisniewski", "Wisniewski repaired the printer again."),
    ("Skellig", "Puffins breed on Skellig in the summer."),
    ("Yamashiro", "The tea comes from a farm in Yamashiro."),
    ("Thistlewood", "Judge Thistlewood adjourned the hearing."),
];

/// The same by a Russian voice.
const RUSSIAN: [(&str, &str); 8] = [
    ("Грушницкий", "Доктор Грушницкий примет вас в девять часов."),
    ("Мухаметзянов", "Посылку отправил инженер Мухаметзянов."),
    ("Пустошка", "Деревня Пустошка стоит у самого озера."),
    ("Вышеславцев", "Лекцию сегодня читает профессор Вышеславцев."),
    ("Ягужинская", "Письмо подписала Анна Ягужинская."),
    ("Синегубова", "Договор готовит юрист Синегубова."),
    ("Лесозаводск", "Поезд идёт до станции Лесозаводск."),
    ("Кустодиев", "Эту картину написал художник Кустодиев."),
];

#[allow(clippy::disallowed_methods, reason = "a knob of the tests")]
fn takes_all() -> bool {
    std::env::var_os("VOXLINE_KEYWORDS").is_some()
}

/// Returns a text, spoken at the rate of recognisers, with silence around it.
fn spoken(voice: &Arc<dyn Voice>, text: &str) -> Vec<i16> {
    let pcm = voice.speak(text, 1.0).expect("the voice speaks");
    let samples: Vec<f32> = pcm.into_iter().map(sample::to_f32).collect();
    let mut resampler = Resampler::new(voice.info().sample_rate, 16_000).expect("voices have ordinary rates");
    let mut output = vec![0.0; 8_000];
    resampler.push(&samples, &mut output);
    resampler.finish(&mut output);
    output.resize(output.len() + 8_000, 0.0);
    output.into_iter().map(sample::to_s16).collect()
}

fn heard(whisper: &Whisper, request: &RecognitionRequest, pcm: &[i16]) -> String {
    let mut stream = whisper.start(request).expect("Whisper takes keywords");
    let mut segments = stream.push(pcm).expect("recognition works");
    segments.extend(stream.flush().expect("recognition works"));
    segments.into_iter().map(|segment| segment.text).collect::<Vec<_>>().join(" ")
}

/// Returns whether a text has a name, in Russian also in another case.
fn has(text: &str, name: &str) -> bool {
    let name = name.to_lowercase();
    let is_russian = name.starts_with(|c: char| !c.is_ascii());
    let kept = name.chars().count() - if is_russian { 2 } else { 0 };
    let stem: String = name.chars().take(kept).collect();
    normal(text).iter().any(|word| word.starts_with(&stem))
}

/// Names spoken, and those heard.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    said: usize,
    without: usize,
    with: usize,
    /// Names heard with keywords in place of those that were said.
    confused: usize,
}

/// Has a voice say a sentence for each of these names, and Whisper hear it with all of `keywords` and without.
#[expect(clippy::print_stdout, reason = "the figures that it prints")]
fn count(whisper: &Whisper, voice: &str, names: &[(&str, &str)], keywords: &[(&str, &str)]) -> Counts {
    let voice = discover(&models_dir()).find(Some(voice), None).expect("the voice is installed");
    let plain = RecognitionRequest::new().language(&voice.info().language);
    let with = plain.clone().keywords(keywords.iter().map(|(name, _)| *name));
    let mut counts = Counts::default();
    for (name, sentence) in names {
        let pcm = spoken(&voice, sentence);
        let (before, after) = (heard(whisper, &plain, &pcm), heard(whisper, &with, &pcm));
        counts.said += 1;
        counts.without += usize::from(has(&before, name));
        counts.with += usize::from(has(&after, name));
        counts.confused += keywords.iter().filter(|(other, _)| other != name && has(&after, other)).count();
        println!("{name}: {before} | {after}");
    }
    println!("{}: {counts:?}", voice.info().name);
    counts
}

/// Returns some of the names, or all.
fn part<'a>(names: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let (first, step) = if takes_all() { (0, 1) } else { (3, 5) };
    names.iter().copied().skip(first).step_by(step).collect()
}

#[test]
fn names_are_heard_with_keywords() {
    let whisper = whisper();
    let mut counts = vec![count(&whisper, "joe", &part(&ENGLISH), &ENGLISH)];
    if takes_all() {
        counts.push(count(&whisper, "espeak-en", &ENGLISH, &ENGLISH));
        counts.push(count(&whisper, "festival-ru", &RUSSIAN, &RUSSIAN));
    }
    for Counts { said, without, with, confused } in counts {
        assert!(with > without, "keywords find no name");
        // One voice's "Nimzowitsch" is taken for "Niamh".
        assert!(confused * 20 <= said, "{confused} of {said} names are taken for others");
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures that it prints")]
fn names_are_not_heard_where_nobody_said_them() {
    let whisper = whisper();
    let mut invented = 0;
    for (set, language, names) in
        [("en-16k", "en", &ENGLISH[..]), ("en-telephone", "en", &ENGLISH), ("ru-telephone", "ru", &RUSSIAN)]
    {
        let plain = RecognitionRequest::new().language(language);
        let with = plain.clone().keywords(names.iter().map(|(name, _)| *name));
        let clips: Vec<(String, Vec<i16>)> = if takes_all() && set != "en-16k" {
            clips::names(set).into_iter().map(|name| (name.clone(), clips::audio(set, &name))).collect()
        } else {
            clips::set(set).into_iter().map(|clip| (clip.name, clip.pcm)).collect()
        };
        let mut samples = 0;
        for (clip, pcm) in clips {
            samples += pcm.len();
            let text = heard(&whisper, &with, &pcm);
            if names.iter().any(|(name, _)| has(&text, name)) {
                invented += 1;
                println!("{clip}: {} | {text}", heard(&whisper, &plain, &pcm));
            }
        }
        println!("{set}: {invented} names so far, in {} s more", samples / 16_000);
    }
    assert_eq!(invented, 0);
}
