//! Keywords: rare names are heard with them, at the cost of no other word, and not where nobody said them.
//!
//! The names are spoken by the voices at hand, each in a sentence of its own, and heard without keywords and
//! with all of them. Recordings of people who say none of the names, joined in a random order, are heard with
//! them, too. A run takes a part of both; with `VOXLINE_KEYWORDS=all` it takes all the names and ten minutes
//! of speech in each language at each accuracy, and prints the texts (`./dev prove keywords`).

use std::sync::Arc;

use voxline::audio::sample;
use voxline::engine::{Accuracy, RecognitionRequest, Recognizer, Voice};
use voxline::resample::Resampler;
use voxline_engines::voices::discover;
use voxline_engines::wer::{Step, WordErrors, align, normal};
use voxline_engines::whisper::Whisper;

use voxline_fixtures::clips;
use voxline_fixtures::random::Random;
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

/// Returns the number of words of a sentence, other than its name, that were heard as others or not at all.
fn lost_words(sentence: &str, name: &str, heard: &str) -> usize {
    let (said, heard) = (normal(sentence), normal(heard));
    let is_lost = |step: &Step<'_>| match step {
        Step::Wrong { said, .. } | Step::Missing(said) => !has(said, name),
        Step::Right(_) | Step::Extra(_) => false,
    };
    align(&said, &heard).iter().filter(|step| is_lost(step)).count()
}

/// Outcome of hearing names.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    /// Names heard.
    names: usize,
    /// Words other than names that were not heard.
    lost: usize,
    /// Word errors of the sentences.
    errors: usize,
    /// Names heard in place of those that were said.
    confused: usize,
}

impl Counts {
    fn add(&mut self, name: &str, sentence: &str, heard: &str, keywords: &[(&str, &str)]) {
        self.names += usize::from(has(heard, name));
        self.lost += lost_words(sentence, name, heard);
        self.errors += WordErrors::between(sentence, heard).errors;
        self.confused += keywords.iter().filter(|(other, _)| *other != name && has(heard, other)).count();
    }
}

/// Has a voice say a sentence for each of these names, and Whisper hear it without `keywords` and with all of
/// them. Asserts that keywords find names and cost no other words.
#[expect(clippy::print_stdout, reason = "the figures that it prints")]
fn assert_heard(
    whisper: &Whisper,
    voice: &str,
    accuracy: Accuracy,
    names: &[(&str, &str)],
    keywords: &[(&str, &str)],
) {
    let voice = discover(&models_dir()).find(Some(voice), None).expect("the voice is installed");
    let plain = RecognitionRequest::new().language(&voice.info().language).accuracy(accuracy);
    let favouring = plain.clone().keywords(keywords.iter().map(|(name, _)| *name));
    let (mut without, mut with) = (Counts::default(), Counts::default());
    for (name, sentence) in names {
        let pcm = spoken(&voice, sentence);
        let (before, after) = (heard(whisper, &plain, &pcm), heard(whisper, &favouring, &pcm));
        without.add(name, sentence, &before, keywords);
        with.add(name, sentence, &after, keywords);
        println!("{name}: {before} | {after}");
    }
    let name = &voice.info().name;
    println!("{name}, {accuracy}: of {} names without {without:?}, with {with:?}", names.len());
    assert!(with.names > without.names, "{name}, {accuracy}: keywords find no name");
    assert!(with.lost <= without.lost, "{name}, {accuracy}: keywords cost other words");
    assert!(with.errors <= without.errors, "{name}, {accuracy}: keywords cause errors");
    // One voice's "Nimzowitsch" is taken for "Niamh".
    assert!(with.confused * 20 <= names.len(), "{name}, {accuracy}: names are taken for others");
}

/// Returns some of the names, or all.
fn part<'a>(names: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let (first, step) = if takes_all() { (0, 1) } else { (3, 5) };
    names.iter().copied().skip(first).step_by(step).collect()
}

#[test]
fn names_are_heard_with_keywords() {
    let whisper = whisper();
    assert_heard(&whisper, "joe", Accuracy::Balanced, &part(&ENGLISH), &ENGLISH);
    if takes_all() {
        assert_heard(&whisper, "joe", Accuracy::Best, &ENGLISH, &ENGLISH);
        for accuracy in [Accuracy::Balanced, Accuracy::Best] {
            assert_heard(&whisper, "espeak-en", accuracy, &ENGLISH, &ENGLISH);
            assert_heard(&whisper, "festival-ru", accuracy, &RUSSIAN, &RUSSIAN);
        }
    }
}

/// Returns recordings of a set in a random order, with pauses, of this many seconds in all.
fn speech(set: &str, seconds: usize, random: &mut Random) -> Vec<i16> {
    let mut names = clips::names(set);
    names.sort();
    let mut pcm = Vec::new();
    while pcm.len() < seconds * 16_000 {
        let name = names.swap_remove(random.below(names.len()));
        pcm.extend(clips::audio(set, &name));
        pcm.resize(pcm.len() + 3_200 + random.below(24_000), 0);
    }
    pcm.truncate(seconds * 16_000);
    pcm
}

#[test]
#[expect(clippy::print_stdout, reason = "the figures that it prints")]
fn names_are_not_heard_where_nobody_said_them() {
    let whisper = whisper();
    let mut random = Random::for_test("keywords::names_are_not_heard_where_nobody_said_them");
    let all = [Accuracy::Fast, Accuracy::Balanced, Accuracy::Best];
    let (seconds, english, russian) =
        if takes_all() { (600, &all[..], &all[..]) } else { (60, &all[1..2], &all[2..]) };
    let mut invented = 0;
    for (set, language, names, accuracies) in
        [("en-telephone", "en", &ENGLISH[..], english), ("ru-telephone", "ru", &RUSSIAN, russian)]
    {
        let pcm = speech(set, seconds, &mut random);
        for accuracy in accuracies {
            let request = RecognitionRequest::new().language(language).accuracy(*accuracy);
            let text = heard(&whisper, &request.keywords(names.iter().map(|(name, _)| *name)), &pcm);
            let words = normal(&text).len();
            println!("{words} words in {seconds} s of {set}, {accuracy}");
            assert!(words > seconds / 2, "speech is lost: {text}");
            let found: Vec<&str> =
                names.iter().map(|(name, _)| *name).filter(|name| has(&text, name)).collect();
            if !found.is_empty() {
                println!("{found:?}: {text}");
            }
            invented += found.len();
        }
    }
    assert_eq!(invented, 0, "names were heard that nobody said");
}
