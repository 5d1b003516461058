//! Sounds without speech: silence, noise, the tones of telephones, and music. Any text recognised in them
//! is invented, also after a sentence, whose language a live session expects then.
//!
//! Each sound lasts some seconds and is recognised at the default accuracy and at another, by turns; or
//! `VOXLINE_GUARD_MINUTES` minutes if that is set, and it is then recognised at each accuracy, in a detected
//! language, as English and as Russian, and as a recording, which is sampled oftener. The test prints a table
//! (`cargo test -p voxline-engines --test it recognition_guards -- --nocapture`).

mod loops;

use voxline::audio::FramePos;
use voxline::engine::{Accuracy, Latency, RecognitionRequest, Recognizer, Segment};
use voxline_engines::Whisper;
use voxline_engines::wer::normal;

use voxline_fixtures::clips;
use voxline_fixtures::knob::knob;
use voxline_fixtures::sounds::{RATE, brown, fan, pink, tone, white};
use voxline_fixtures::whisper::whisper;

/// Default length of each sound in seconds: twice the longest pattern of the tones.
const SECONDS: usize = 12;
/// Silence between a sentence and the sound after it, in samples: 1 s, so that the utterance ends.
const PAUSE: usize = RATE;
/// The sentences, by turns.
const SENTENCES: [(&str, &str); 4] = [
    ("en-16k", "austen_0880"),
    ("ru-telephone", "tt-allbusy"),
    ("en-telephone", "invalid"),
    ("ru-telephone", "queue-youarenext"),
];

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

/// A sound without speech, perhaps after a sentence.
struct Sound {
    name: String,
    pcm: Vec<i16>,
    /// Position at which the sentence and the pause have ended.
    start: FramePos,
}

impl Sound {
    fn new(name: impl Into<String>, pcm: Vec<i16>) -> Sound {
        Sound { name: name.into(), pcm, start: FramePos::ZERO }
    }

    /// Returns the sound after the `number`-th sentence.
    fn after_sentence(self, number: usize) -> Sound {
        let (set, clip) = SENTENCES[number % SENTENCES.len()];
        let mut pcm = clips::audio(set, clip);
        pcm.resize(pcm.len() + PAUSE, 0);
        let start = FramePos(pcm.len() as u64);
        pcm.extend(self.pcm);
        Sound { name: format!("{} after {clip}", self.name), pcm, start }
    }
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
fn assert_nothing_is_invented(sounds: impl IntoIterator<Item = Sound>) {
    let whisper = whisper();
    let mut invented = 0;
    for (number, Sound { name, pcm, start }) in sounds.into_iter().enumerate() {
        for (description, request) in requests(number) {
            let mut said = said(&whisper, &request, &pcm);
            let is_sentence = |segment: &Segment| segment.range.end <= start;
            assert!(start == FramePos::ZERO || said.iter().any(is_sentence), "{name}: the sentence is lost");
            said.retain(|segment| !is_sentence(segment));
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

fn silence_and_noise() -> Vec<Sound> {
    let (mut white, mut pink, mut brown, mut fan) = (white(1), pink(1), brown(1), fan(1));
    let mut sounds = vec![Sound::new("silence", sound(|_| 0.0))];
    for (loudness, level) in [("loud", 0.3), ("faint", 0.003)] {
        sounds.push(Sound::new(format!("{loudness} white noise"), sound(|_| white() * level)));
        sounds.push(Sound::new(format!("{loudness} pink noise"), sound(|_| pink() * level)));
        sounds.push(Sound::new(format!("{loudness} brown noise"), sound(|_| brown() * level)));
        sounds.push(Sound::new(format!("{loudness} fan"), sound(|_| fan() * level)));
    }
    sounds.push(Sound::new("the hum of the mains", sound(|t| 0.05 * tone(50.0, t) + 0.03 * tone(150.0, t))));
    sounds
}

/// Tones of ITU-T E.180 and its supplement 2, E.182 (special information), Q.23 (push buttons), and T.30
/// (fax).
fn tones_of_telephones() -> Vec<Sound> {
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
    let both = sounds.into_iter().flat_map(|(name, pcm)| {
        let hissing = on_a_line(&pcm);
        [Sound::new(name, pcm), Sound::new(format!("{name}, on a line"), hissing)]
    });
    both.collect()
}

fn music_on_hold() -> Vec<Sound> {
    let pieces = clips::music().into_iter().map(|(name, mut pcm)| {
        pcm.truncate(length());
        Sound::new(name, pcm)
    });
    pieces.collect()
}

#[test]
fn in_silence_and_noise() {
    assert_nothing_is_invented(silence_and_noise());
}

#[test]
fn in_the_tones_of_telephones() {
    assert_nothing_is_invented(tones_of_telephones());
}

#[test]
fn in_music_on_hold() {
    assert_nothing_is_invented(music_on_hold());
}

/// A detected language is expected to be that of the sentence in the sound, too. A sample has all music, but
/// only some noises and tones.
#[test]
fn after_a_sentence() {
    let others = [silence_and_noise(), tones_of_telephones()].into_iter().flatten();
    let others = others.step_by(if minutes().is_some() { 1 } else { 3 });
    let sounds = music_on_hold().into_iter().chain(others);
    let after = sounds.enumerate().map(|(number, sound)| sound.after_sentence(number));
    assert_nothing_is_invented(after);
}
