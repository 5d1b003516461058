//! Whisper understands the speech of the voices.
//!
//! `VOXLINE_SENTENCES` is the number of sentences to speak in each language, of the hundred in
//! `tests/it/data`. For all of them:
//!
//! ```text
//! VOXLINE_SENTENCES=100 cargo test -p voxline-engines --test it -- --nocapture voices::round_trip
//! ```

use std::fs;
use std::process::Command;

use voxline::audio::sample;
use voxline::engine::{RecognitionRequest, Recognizer, Voice};
use voxline::resample::Resampler;

use super::sentences_of;
use voxline_engines::wer::WordErrors;
use voxline_fixtures::knob::knob;
use voxline_fixtures::whisper::whisper;

/// Returns the number of sentences of each language: `VOXLINE_SENTENCES`, or 20.
fn count() -> usize {
    knob("VOXLINE_SENTENCES").unwrap_or(20)
}

#[test]
fn english_is_understood() {
    let joe = super::voice("joe");
    let percent = word_error_rate("joe", "en", |text| at_16_khz(&*joe, text));
    assert!(percent <= 3.0, "{percent} %");
}

/// The joins in festival's speech are recognised as other sounds, with any program that runs festival.
/// The changes that voxline makes to the speech must not cost words. A few words are recognised
/// differently, because the loudness differs from festival's own.
#[test]
fn russian_is_understood_as_well_as_from_festival_itself() {
    let festival = super::voice("festival-ru");
    let ours = word_error_rate("festival-ru", "ru", |text| at_16_khz(&*festival, text));
    let plain = word_error_rate("text2wave", "ru", text2wave);
    assert!(ours <= plain + 3.0, "{ours} % instead of {plain} %");
}

/// Returns the word error rate in percent of Whisper on sentences that `speak` converts to speech at 16
/// kHz.
#[expect(clippy::print_stdout, reason = "the figures are what the test is run for")]
fn word_error_rate(name: &str, language: &str, speak: impl Fn(&str) -> Vec<i16>) -> f64 {
    let whisper = whisper();
    let mut errors = WordErrors::default();
    for text in sentences_of(language, count()) {
        let request = RecognitionRequest::new().language(language);
        let mut stream = whisper.start(&request).unwrap();
        let mut segments = stream.push(&speak(&text)).unwrap();
        segments.extend(stream.flush().unwrap());
        let heard = segments.into_iter().map(|segment| segment.text).collect::<Vec<_>>().join(" ");
        let of_sentence = WordErrors::between(&text, &heard);
        if of_sentence.errors > 0 {
            println!(
                "{name}: {} of {} words\n  said  {text}\n  heard {heard}",
                of_sentence.errors, of_sentence.words
            );
        }
        errors = errors.and(of_sentence);
    }
    let percent = errors.percent();
    println!("{name}: word error rate {percent:.1} % ({} of {} words)", errors.errors, errors.words);
    percent
}

/// Returns the speech of a voice, resampled to 16 kHz.
fn at_16_khz(voice: &dyn Voice, text: &str) -> Vec<i16> {
    let pcm = voice.speak(text, 1.0).unwrap();
    let samples: Vec<f32> = pcm.into_iter().map(sample::to_f32).collect();
    let mut resampler = Resampler::new(voice.info().sample_rate, 16_000).unwrap();
    let mut output = Vec::new();
    resampler.push(&samples, &mut output);
    resampler.finish(&mut output);
    output.into_iter().map(sample::to_s16).collect()
}

/// Returns the speech that festival's own program makes of a text. All its Russian speech has 16 kHz.
fn text2wave(text: &str) -> Vec<i16> {
    let files = tempfile::tempdir().unwrap();
    let (from, to) = (files.path().join("text"), files.path().join("speech"));
    fs::write(&from, text).unwrap();
    let mut program = Command::new("text2wave");
    program.args(["-eval", "(voice_msu_ru_nsh_clunits)", "-otype", "raw", "-o"]).arg(&to).arg(&from);
    assert!(program.status().unwrap().success(), "{text}");
    fs::read(&to).unwrap().as_chunks().0.iter().map(|&bytes| i16::from_ne_bytes(bytes)).collect()
}
