//! Speech in steady noise is recognised: no guard mistakes the speech for the noise.
//!
//! All clips pass through the endpointer here, but only a sample of them through the recogniser. `./dev
//! prove noise` runs the recogniser on all of them, beside faster-whisper.

use voxline::engine::{RecognitionRequest, Recognizer};
use voxline_engines::{Endpointer, Span};

use voxline_engines::wer::WordErrors;
use voxline_fixtures::clips::{self, Clip};
use voxline_fixtures::sounds::{brown, fan, hum, in_noise, pink, white};
use voxline_fixtures::whisper::whisper;

type Noise = Box<dyn FnMut() -> f64>;
/// Constructor of a noise from a seed.
type Source = fn(u32) -> Noise;

/// Kinds of noise, by name.
const NOISES: [(&str, Source); 6] = [
    ("white", |seed| Box::new(white(seed))),
    ("pink", |seed| Box::new(pink(seed))),
    ("brown", |seed| Box::new(brown(seed))),
    ("fan", |seed| Box::new(fan(seed))),
    ("hum", |_| Box::new(hum())),
    ("babble", babble),
];

/// Returns babble: three prompts spoken at once, over and over.
fn babble(seed: u32) -> Noise {
    let voices =
        ["vm-intro", "demo-instruct", "privacy-prompt"].map(|clip| clips::audio("en-telephone", clip));
    let mut at = seed as usize * 1_000;
    Box::new(move || {
        at += 1;
        voices.iter().map(|voice| f64::from(voice[at % voice.len()]) / 100_000.0).sum()
    })
}

fn spans(pcm: &[i16]) -> Vec<Span> {
    let mut endpointer = Endpointer::new();
    let mut spans = endpointer.push(pcm);
    spans.extend(endpointer.flush());
    spans
}

fn all_clips() -> Vec<Clip> {
    ["en-16k", "en-telephone", "ru-telephone"].into_iter().flat_map(clips::set).collect()
}

/// Each prompt and reading, in two of the noises, gives an utterance that resembles speech.
#[test]
fn noise_hides_no_utterance() {
    let mut hidden = Vec::new();
    for (at, clip) in all_clips().iter().enumerate() {
        for (name, noise) in [NOISES[at % 6], NOISES[(at + 1 + at / 6) % 6]] {
            let pcm = in_noise(&clip.pcm, noise(at as u32 + 1), 5.0);
            let is_speech = |span: &Span| matches!(span, Span::Speech { lively: 1.., .. });
            if !spans(&pcm).iter().any(is_speech) {
                hidden.push(format!("{} in {name} noise", clip.name));
            }
        }
    }
    assert!(hidden.is_empty(), "lost: {hidden:#?}");
}

/// Single digits, in noise as loud as they are, are too short to be classified as speech with certainty.
/// They are detected all the same.
#[test]
fn noise_hides_no_word() {
    let mut hidden = Vec::new();
    for set in ["en-telephone", "ru-telephone"] {
        for digit in 0..=9 {
            let word = clips::audio(set, &format!("digits/{digit}"));
            let (name, noise) = NOISES[digit as usize % 6];
            let pcm = in_noise(&word, noise(digit + 1), 0.0);
            if !spans(&pcm).iter().any(|span| matches!(span, Span::Speech { .. })) {
                hidden.push(format!("{digit} of {set} in {name} noise"));
            }
        }
    }
    assert!(hidden.is_empty(), "lost: {hidden:#?}");
}

/// Recognition of a sample of the clips in noise.
#[test]
#[expect(clippy::print_stdout, reason = "the figures are what the test is run for")]
fn words_in_noise_are_recognised() {
    let whisper = whisper();
    let mut errors = WordErrors::default();
    for (at, (name, noise)) in NOISES.iter().enumerate() {
        let (set, clip, language) = [
            ("en-16k", "goforward", "en"),
            ("en-telephone", "invalid", "en"),
            ("ru-telephone", "queue-youarenext", "ru"),
        ][at % 3];
        let clip = clips::clip(set, clip);
        let pcm = in_noise(&clip.pcm, noise(at as u32 + 1), 5.0);
        let request = RecognitionRequest::new().language(language);
        let mut stream = whisper.start(&request).unwrap();
        let mut segments = stream.push(&pcm).unwrap();
        segments.extend(stream.flush().unwrap());
        let heard = segments.iter().map(|segment| segment.text.as_str()).collect::<Vec<_>>().join(" ");
        println!("{} in {name} noise at 5 dB: {heard}", clip.name);
        assert!(!heard.trim().is_empty(), "{} in {name} noise at 5 dB is lost", clip.name);
        errors = errors.and(WordErrors::between(&clip.text, &heard));
    }
    // faster-whisper with greedy decoding makes about as many errors.
    assert!(errors.percent() <= 60.0, "{} of {} words are wrong", errors.errors, errors.words);
}
