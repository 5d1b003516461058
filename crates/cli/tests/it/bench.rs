//! `voxline bench asr` and `voxline bench tts`: measurements of a recogniser on the user's recordings,
//! and of voices on the user's texts.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::Value;

use crate::cli::{Place, assert_fails, path, text};

/// Common start of the paths of the LibriVox recordings.
const LIBRIVOX: &str = "/usr/share/pocketsphinx/test/data/librivox/sense_and_sensibility_01_austen_64kb";
/// Text of `austen_0930` in `samples/transcripts.tsv`.
const AMIABLE: &str = "He might even have been made amiable himself";
/// Text of `austen_0890` in `samples/transcripts.tsv`.
const COLD: &str = "Unless to be rather cold-hearted and rather selfish is to be ill-disposed";

/// Creates a corpus: a directory with one recording and its transcript `said`, which may be wrong.
fn corpus(place: &Place, name: &str, said: &str) -> std::path::PathBuf {
    let directory = place.path(name);
    fs::create_dir_all(&directory).unwrap();
    symlink(format!("{LIBRIVOX}-0930.wav"), directory.join("amiable.wav")).unwrap();
    fs::write(directory.join("amiable.txt"), said).unwrap();
    directory
}

/// Runs `voxline bench asr` on a directory with the fast model, and returns its JSON output.
fn bench(place: &Place, directory: &Path, more: &[&str]) -> Value {
    let arguments =
        [&["bench", "asr", path(directory), "--model", "whisper-tiny.en", "--json"], more].concat();
    let run = place.run(&arguments);
    assert_eq!((run.status.code(), text(&run.stderr)), (Some(0), ""));
    assert_eq!(text(&run.stdout).lines().count(), 1);
    serde_json::from_slice(&run.stdout).unwrap()
}

#[test]
fn what_was_heard_is_held_against_what_was_said() {
    let place = Place::new();
    let directory = corpus(&place, "corpus", AMIABLE);
    // Silence has an empty transcript. A file of another kind is not part of the corpus.
    let silence = hound::WavSpec {
        channels: 1,
        sample_rate: 8_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(directory.join("silence.wav"), silence).unwrap();
    (0..8_000).for_each(|_| writer.write_sample(0i16).unwrap());
    writer.finalize().unwrap();
    fs::write(directory.join("silence.txt"), "").unwrap();
    fs::write(directory.join("README.md"), "about").unwrap();

    let told = bench(&place, &directory, &["--threads", "2"]);
    assert_eq!((&told["words"], &told["errors"], &told["wer_percent"]), (&8.into(), &0.into(), &0.0.into()));
    assert_eq!((&told["model"], &told["live"]), (&"whisper-tiny.en".into(), &false.into()));
    let files: Vec<_> = told["files"].as_array().unwrap().iter().map(|file| &file["file"]).collect();
    assert_eq!(files, ["amiable.wav", "silence.wav"]);
    let seconds = |key: &str| told[key].as_f64().unwrap_or_else(|| panic!("{key} in {told}"));
    let length =
        f64::from(hound::WavReader::open(format!("{LIBRIVOX}-0930.wav")).unwrap().duration()) / 16_000.0;
    assert!((seconds("duration_s") - length - 1.0).abs() < 1e-3, "{told}");
    assert!(seconds("cpu_s") > 0.0 && seconds("wall_s") > 0.0 && seconds("load_s") > 0.0, "{told}");
    let factor = seconds("cpu_s") / seconds("duration_s");
    assert!((seconds("cpu_real_time_factor") - factor).abs() < 1e-6, "{told}");
    assert_eq!(told["finals"], 1);
    assert!(seconds("final_p50_s") > 0.0 && seconds("final_p50_s") <= seconds("wall_s"), "{told}");
}

#[test]
fn words_that_differ_are_shown() {
    let place = Place::new();
    let said = "Oh, he might evenly have been made himself";
    let directory = corpus(&place, "corpus", said);
    let run = ["bench", "asr", path(&directory), "--model", "whisper-tiny.en", "--verbose"];
    let told = place.run(&run);
    let told = text(&told.stdout);
    let shown =
        "amiable.wav: 3 of 8 words: [-oh-] he might [-evenly-] {+even+} have been made {+amiable+} himself\n";
    assert!(told.starts_with(shown), "{told}");
    assert!(told.contains("word error rate 37.5 %: of 8 words 1 wrong, 1 missing; 1 extra\n"), "{told}");
    assert!(told.contains("real-time factor 0.") && told.contains(" of wall time, 1 at once\n"), "{told}");
}

#[test]
fn a_list_may_name_recordings_anywhere() {
    let place = Place::new();
    let directory = place.path("corpus");
    fs::create_dir(&directory).unwrap();
    symlink(format!("{LIBRIVOX}-0930.wav"), directory.join("amiable.wav")).unwrap();
    let list = format!("# file, text\n\n{LIBRIVOX}-0890.wav\t{COLD}\namiable.wav\t{AMIABLE}\n");
    fs::write(directory.join("transcripts.tsv"), list).unwrap();
    let told = bench(&place, &directory, &[]);
    assert_eq!(told["recordings"], 2);
    let files = told["files"].as_array().unwrap();
    assert_eq!(files[1]["file"], "amiable.wav");
    assert_eq!(files[1]["errors"], 0, "{told}");
}

#[test]
fn live_its_text_is_waited_for() {
    let place = Place::new();
    let directory = corpus(&place, "corpus", AMIABLE);
    let told = bench(&place, &directory, &["--live"]);
    assert_eq!(
        (&told["live"], &told["errors"], &told["finals"]),
        (&true.into(), &0.into(), &1.into()),
        "{told}"
    );
    assert!(told["final_p50_s"].as_f64().is_some_and(|late| late > 0.0), "{told}");
    assert!(told["cpu_s"].as_f64().is_some_and(|cpu| cpu > 0.0), "{told}");
    assert_eq!(told["wall_real_time_factor"], Value::Null, "{told}");
}

#[test]
fn what_cannot_be_measured_is_named() {
    let place = Place::new();
    let fails = |directory: &str, parts: &[&str]| {
        assert_fails(&place.run(&["bench", "asr", directory]), 3, parts);
    };
    fails("nowhere", &["nowhere: "]);
    fs::create_dir(place.path("empty")).unwrap();
    fails("empty", &["empty: no recordings with transcripts", "NAME.txt", "transcripts.tsv"]);

    let directory = corpus(&place, "lonely", AMIABLE);
    symlink(format!("{LIBRIVOX}-0890.wav"), directory.join("other.WAV")).unwrap();
    fails("lonely", &["lonely/other.WAV: ", "lonely/other.txt is missing"]);
    fs::remove_file(directory.join("other.WAV")).unwrap();
    fs::write(directory.join("another.txt"), "text").unwrap();
    fails("lonely", &["lonely/another.txt: no recording"]);
    fs::write(directory.join("another.mp3"), "no audio").unwrap();
    fails("lonely", &["lonely/another.mp3: "]);
    fs::write(directory.join("amiable.txt"), b"\xff").unwrap();
    fails("lonely", &["lonely/amiable.txt: ", "UTF-8"]);

    fs::create_dir(place.path("listed")).unwrap();
    place.file("listed/transcripts.tsv", "a.wav\tone\nb.wav two\n");
    fails("listed", &["listed/transcripts.tsv, line 2: no tab"]);
    place.file("listed/transcripts.tsv", "a.wav\tone\n");
    fails("listed", &["listed/a.wav: "]);

    place.secret("token", "vxs_any");
    let elsewhere = ["bench", "asr", "lonely", "--endpoint", "http://127.0.0.1:9", "--token-file", "token"];
    assert_fails(&place.run(&elsewhere), 2, &["--live"]);
}

#[test]
fn voices_are_measured_and_understood() {
    let place = Place::new();
    let sentences = "# English\nThe train to the coast leaves at seven in the morning.\n\nПоезд на юг.\n\
                     Her brother keeps three dogs and a very old cat.\n";
    let file = place.file("sentences.txt", sentences);
    let arguments = ["bench", "tts", path(&file), "--voice", "joe", "--model", "whisper-tiny.en"];
    let run = place.run(&[&arguments[..], &["--round-trip", "--json"]].concat());
    assert_eq!((run.status.code(), text(&run.stderr)), (Some(0), ""));
    let told: Value = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(
        (&told["voice"], &told["language"], &told["sentences"]),
        (&"joe".into(), &"en".into(), &2.into())
    );
    let number = |key: &str| told[key].as_f64().unwrap_or_else(|| panic!("{key} in {told}"));
    // The voice reads the two sentences in about five seconds.
    assert!((3.0..12.0).contains(&number("duration_s")), "{told}");
    assert!(0.0 < number("first_audio_p50_s") && number("first_audio_max_s") <= number("wall_s"), "{told}");
    let factor = number("wall_s") / number("duration_s");
    assert!((number("real_time_factor") - factor).abs() < 1e-6, "{told}");
    assert_eq!(told["words"], 21);
    assert!(number("errors") <= 4.0, "{told}");

    let unheard = place.run(&arguments);
    assert!(text(&unheard.stdout).starts_with("joe, en: 2 sentences, "), "{unheard:?}");
    assert!(!text(&unheard.stdout).contains("word error rate"), "{unheard:?}");

    assert_fails(&place.run(&["bench", "tts", "nowhere"]), 3, &["nowhere: "]);
    let russian = place.file("russian.txt", "Поезд на юг.\n");
    let none = place.run(&["bench", "tts", path(&russian), "--voice", "joe"]);
    assert_fails(&none, 3, &["no sentence in a language of these voices"]);
    let unknown = place.run(&["bench", "tts", path(&file), "--voice", "nobody"]);
    assert_fails(&unknown, 2, &["voice nobody", "400"]);
}
