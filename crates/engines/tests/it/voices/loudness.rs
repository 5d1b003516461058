//! All voices are equally loud, and so are the sentences of a voice.

use std::fs;
use std::path::Path;

use ebur128::{EbuR128, Mode};
use voxline::audio::sample;
use voxline::engine::Voice;
use voxline_engines::PiperVoice;

use super::sentences_of;
use voxline_fixtures::samples::models_dir;

/// Loudness to which all voices are brought, in LUFS.
const TARGET: f64 = -23.0;

fn loudness(pcm: &[i16], rate: u32) -> f64 {
    let mut meter = EbuR128::new(1, rate, Mode::I).unwrap();
    let samples: Vec<f32> = pcm.iter().copied().map(sample::to_f32).collect();
    meter.add_frames_f32(&samples).unwrap();
    meter.loudness_global().unwrap()
}

/// Returns the loudness of each sentence, and of all sentences together, in LUFS.
#[expect(clippy::print_stdout, reason = "the figures are what the test is run for")]
fn measure(voice: &dyn Voice, sentences: &[String]) -> (Vec<f64>, f64) {
    let spoken: Vec<Vec<i16>> = sentences.iter().map(|text| voice.speak(text, 1.0).unwrap()).collect();
    let rate = voice.info().sample_rate;
    let each: Vec<f64> = spoken.iter().map(|pcm| loudness(pcm, rate)).collect();
    let all = loudness(&spoken.concat(), rate);
    let peaks: Vec<f64> = spoken
        .iter()
        .map(|pcm| 20.0 * (f64::from(pcm.iter().map(|s| s.unsigned_abs()).max().unwrap()) / 32_768.0).log10())
        .collect();
    let spread = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / values.len() as f64).sqrt()
    };
    let normalised: Vec<f64> = each.iter().zip(&peaks).map(|(loudness, peak)| loudness - peak).collect();
    println!(
        "{}: {all:.1} LUFS over {} sentences, deviation {:.2} LU (each at full scale: {:.2}), highest peak {:.1} dB",
        voice.info().name,
        each.len(),
        spread(&each),
        spread(&normalised),
        peaks.iter().copied().fold(f64::MIN, f64::max),
    );
    (each, all)
}

#[test]
fn all_voices_are_equally_loud() {
    let measured = ["joe", "festival-ru", "espeak-en", "espeak-ru"].map(|name| {
        let voice = super::voice(name);
        (name, measure(&*voice, &sentences_of(&voice.info().language, 12)))
    });
    for (name, (each, all)) in measured {
        assert!((all - TARGET).abs() < 1.0, "{name}: {all} LUFS");
        assert!(each.iter().all(|loudness| (loudness - TARGET).abs() < 4.0), "{name}: {each:?}");
    }
}

/// A voice that voxline does not know is measured when it first speaks.
#[test]
fn a_voice_of_any_name_is_as_loud_as_the_others() {
    let directory = tempfile::tempdir().unwrap();
    for extension in ["onnx", "onnx.json"] {
        let joe = models_dir().join("piper-joe/en_US-joe-medium").with_extension(extension);
        let copy = directory.path().join("en_US-somebody-medium").with_extension(extension);
        fs::hard_link(&joe, &copy).or_else(|_| fs::copy(&joe, Path::new(&copy)).map(drop)).unwrap();
    }
    let somebody = PiperVoice::load(directory.path()).unwrap();
    assert_eq!(somebody.info().name, "somebody");
    let (_, all) = measure(&somebody, &sentences_of("en", 6));
    assert!((all - TARGET).abs() < 2.0, "{all} LUFS");
}
