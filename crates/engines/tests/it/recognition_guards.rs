//! Sounds without speech: silence, noise, the tones of telephones, and music. Any text recognised in them
//! is invented.
//!
//! Each sound lasts some seconds and is recognised at the default accuracy and at another, by turns; or
//! `VOXLINE_GUARD_MINUTES` minutes if that is set, and it is then recognised at each accuracy, in a detected
//! language, as English and as Russian, and as a recording, which is sampled oftener. The test prints a table
//! (`cargo test -p voxline-engines --test it recognition_guards -- --nocapture`).

use voxline::engine::{Accuracy, Latency, RecognitionRequest, Recognizer, Segment};
use voxline_engines::Whisper;
use voxline_engines::wer::normal;

use voxline_fixtures::clips;
use voxline_fixtures::knob::knob;
use voxline_fixtures::sounds::{RATE, brown, fan, pink, tone, white};
use voxline_fixtures::whisper::whisper;

/// Default length of each sound in seconds: twice the longest pattern of the tones.
const SECONDS: usize = 12;

/// Returns the length of each sound in minutes, if the environment states one.
fn minutes() -> Option<usize> {
    knob("VOXLINE_GUARD_MINUTES")
}

/// Returns the number of samples of each sound.
fn length() -> usize {
    minutes().map_or(SECONDS, |minutes| minutes * 60) * RATE
}

/// Returns the sound whose sample at each time in seconds is `wave`, with a full scale of 1.
fn sound(mut wave: impl FnMut(f64) -> f64) -> Vec<i16> {
    (0..length()).map(|at| (wave(at as f64 / RATE as f64) * 32_767.0) as i16).collect()
}

/// Returns the requests by which the `number`-th sound is recognised, each with a description.
fn requests(number: usize) -> Vec<(String, RecognitionRequest)> {
    let live = |accuracy| RecognitionRequest::new().accuracy(accuracy);
    let recorded = |accuracy| live(accuracy).latency(Latency::Relaxed);
    let (balanced, best) = (Accuracy::Balanced, Accuracy::Best);
    let others = [live(best), recorded(balanced), live(Accuracy::Fast), recorded(best)];
    let requests = if minutes().is_some() {
        let named = [balanced, best, Accuracy::Fast]
            .map(|accuracy| ["en", "ru"].map(|language| live(accuracy).language(language)));
        [live(balanced)].into_iter().chain(others).chain(named.into_iter().flatten()).collect()
    } else {
        vec![live(balanced), others[number % others.len()].clone()]
    };
    let described = requests.into_iter().map(|request: RecognitionRequest| {
        let language = request.languages.first().map_or("detected", String::as_str);
        (format!("{language}, {}, {:?}", request.accuracy, request.latency), request)
    });
    described.collect()
}

/// Runs Whisper on sounds without speech, prints the text it invents, and asserts that there is none.
#[track_caller]
#[expect(clippy::print_stdout, reason = "the figures are what the test is run for")]
fn assert_nothing_is_invented(sounds: impl IntoIterator<Item = (String, Vec<i16>)>) {
    let whisper = whisper();
    let mut invented = 0;
    for (number, (name, pcm)) in sounds.into_iter().enumerate() {
        for (description, request) in requests(number) {
            let said = said(&whisper, &request, &pcm);
            let words: usize = said.iter().map(|segment| normal(&segment.text).len().max(1)).sum();
            println!("{name}, {description}: {words} words in {:.0} s", pcm.len() as f64 / RATE as f64);
            for Segment { range, text, language, confidence, .. } in said {
                let (language, confidence) = (language.unwrap_or_default(), confidence.unwrap_or_default());
                println!("  {range:?}, {language}, {confidence:.2}: {text}");
            }
            invented += words;
        }
    }
    assert_eq!(invented, 0, "words were invented: {invented}");
}

/// Returns the segments with text.
fn said(whisper: &Whisper, request: &RecognitionRequest, pcm: &[i16]) -> Vec<Segment> {
    let mut stream = whisper.start(request).unwrap();
    let mut said = Vec::new();
    for packet in pcm.chunks(RATE / 10) {
        said.extend(stream.push(packet).unwrap());
    }
    said.extend(stream.flush().unwrap());
    said.retain(|segment| !segment.text.is_empty());
    said
}

#[test]
fn in_silence_and_noise() {
    let (mut white, mut pink, mut brown, mut fan) = (white(1), pink(1), brown(1), fan(1));
    let mut sounds = vec![("silence".to_owned(), sound(|_| 0.0))];
    for (loudness, level) in [("loud", 0.3), ("faint", 0.003)] {
        sounds.push((format!("{loudness} white noise"), sound(|_| white() * level)));
        sounds.push((format!("{loudness} pink noise"), sound(|_| pink() * level)));
        sounds.push((format!("{loudness} brown noise"), sound(|_| brown() * level)));
        sounds.push((format!("{loudness} fan"), sound(|_| fan() * level)));
    }
    sounds.push(("the hum of the mains".to_owned(), sound(|t| 0.05 * tone(50.0, t) + 0.03 * tone(150.0, t))));
    assert_nothing_is_invented(sounds);
}

/// Tones of ITU-T E.180 and its supplement 2, E.182 (special information), Q.23 (push buttons), and T.30
/// (fax).
#[test]
fn in_the_tones_of_telephones() {
    // A sum of tones that is on and off in turn. The lengths of the turns are in seconds.
    let cadence = |hz: &'static [f64], turns: &'static [f64]| {
        let period: f64 = turns.iter().sum();
        sound(move |t| {
            let mut at = t % period;
            let turn = turns.iter().position(|turn| {
                at -= turn;
                at < 0.0
            });
            let on = turn.is_none_or(|turn| turn % 2 == 0);
            if on { hz.iter().map(|hz| 0.2 * tone(*hz, t)).sum() } else { 0.0 }
        })
    };
    let special = sound(|t| match t % 2.0 {
        at if at < 0.33 => 0.3 * tone(950.0, t),
        at if at < 0.66 => 0.3 * tone(1_400.0, t),
        at if at < 0.99 => 0.3 * tone(1_800.0, t),
        _ => 0.0,
    });
    let buttons = sound(|t| {
        let press = (t * 5.0) as usize;
        let (low, high) =
            ([697.0, 770.0, 852.0, 941.0][press % 4], [1_209.0, 1_336.0, 1_477.0][press / 3 % 3]);
        if t * 5.0 % 1.0 < 0.5 { 0.2 * tone(low, t) + 0.2 * tone(high, t) } else { 0.0 }
    });
    let sounds = [
        ("dial tone, US", cadence(&[350.0, 440.0], &[1.0])),
        ("dial tone, Europe", cadence(&[425.0], &[1.0])),
        ("busy tone, US", cadence(&[480.0, 620.0], &[0.5, 0.5])),
        ("busy tone, Europe", cadence(&[425.0], &[0.5, 0.5])),
        ("busy tone, Russia", cadence(&[425.0], &[0.35, 0.35])),
        ("ringing, US", cadence(&[440.0, 480.0], &[2.0, 4.0])),
        ("ringing, Europe", cadence(&[425.0], &[1.0, 4.0])),
        ("ringing, Russia", cadence(&[425.0], &[0.8, 3.2])),
        ("ringing, UK", cadence(&[400.0, 450.0], &[0.4, 0.2, 0.4, 2.0])),
        ("special information", special),
        ("push buttons", buttons),
        ("a fax calling", cadence(&[1_100.0], &[0.5, 3.0])),
    ];
    // Each sound as generated, and on a line that hisses at -50 dB of full scale.
    let mut hiss = white(1);
    let mut on_a_line = |pcm: &[i16]| pcm.iter().map(|sample| sample + (hiss() * 180.0) as i16).collect();
    assert_nothing_is_invented(sounds.into_iter().flat_map(|(name, pcm)| {
        let hissing = on_a_line(&pcm);
        [(name.to_owned(), pcm), (format!("{name}, on a line"), hissing)]
    }));
}

#[test]
fn in_music_on_hold() {
    let pieces = clips::music().into_iter().map(|(name, mut pcm)| {
        pcm.truncate(length());
        (name, pcm)
    });
    assert_nothing_is_invented(pieces);
}
