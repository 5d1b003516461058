//! Recordings that are likely to make Whisper loop: speech with bursts of noise or music in it, with gaps,
//! with a piece of a word repeated, or with a held vowel. No text of them repeats itself oftener than the
//! audio does.
//!
//! `VOXLINE_GUARD_MINUTES` raises the number of recordings, as it does the length of the sounds without
//! speech.

use std::fmt::Write;

use voxline::audio::FramePos;
use voxline::engine::Segment;
use voxline_engines::wer::normal;
use voxline_fixtures::clips::{self, Clip};
use voxline_fixtures::random::Random;
use voxline_fixtures::sounds::{RATE, white};
use voxline_fixtures::whisper::whisper;

use super::{minutes, requests, said};

/// Number of times in a row from which a phrase is a loop, unless the audio has a part of itself as often.
const LOOP: usize = 4;
/// Number of words of the longest phrase that is looked for.
const LONGEST_PHRASE: usize = 4;
/// Number of times in a row from which letters within a word are a loop, and the most letters looked for. A
/// cry may be written with many vowels.
const LETTER_LOOP: usize = 12;
const MOST_LETTERS: usize = 4;
/// Letters and digits per second that a fast speaker says.
const FAST: usize = 20;
/// Sets of the clips.
const SETS: [&str; 3] = ["en-16k", "en-telephone", "ru-telephone"];

/// A recording that is likely to make Whisper loop.
struct Provocation {
    pcm: Vec<i16>,
    /// Number of times in a row that the audio has a part of itself.
    rounds: usize,
}

/// Makes a recording from a clip, by random choices.
type Provoke = fn(&mut Random, &[i16]) -> Provocation;

const PROVOCATIONS: [(&str, Provoke); 5] = [
    ("bursts of noise", bursts),
    ("a piece repeated", piece_repeated),
    ("music in mid-phrase", music_in_mid_phrase),
    ("gaps", gaps),
    ("a held vowel", held_vowel),
];

/// Returns a random number of samples between two times in milliseconds.
fn samples(random: &mut Random, from: usize, to: usize) -> usize {
    (from + random.below(to - from + 1)) * RATE / 1_000
}

/// Returns a random sample of the middle half of some audio.
fn middle(random: &mut Random, pcm: &[i16]) -> usize {
    pcm.len() / 4 + random.below(pcm.len() / 2)
}

/// Returns the loudest piece of some length, of those that begin at a multiple of 10 ms.
fn loudest(pcm: &[i16], length: usize) -> &[i16] {
    let power = |piece: &&[i16]| piece.iter().map(|sample| i64::from(*sample).pow(2)).sum::<i64>();
    pcm.windows(length.min(pcm.len())).step_by(RATE / 100).max_by_key(power).unwrap_or(pcm)
}

/// Loud noise for 50 to 300 ms, between and within words.
fn bursts(random: &mut Random, speech: &[i16]) -> Provocation {
    let mut pcm = speech.to_vec();
    let mut noise = white(random.next() as u32);
    let mut at = 0;
    while at < pcm.len() {
        let end = (at + samples(random, 50, 300)).min(pcm.len());
        let level = (3 + random.below(20)) as f64 * 1_000.0;
        for sample in &mut pcm[at..end] {
            *sample = sample.saturating_add((noise() * level) as i16);
        }
        at = end + samples(random, 100, 500);
    }
    Provocation { pcm, rounds: 1 }
}

/// One piece of 0.1 to 0.4 s, five to thirty times, by itself or in the middle of its clip.
fn piece_repeated(random: &mut Random, speech: &[i16]) -> Provocation {
    let length = samples(random, 100, 400);
    let at = middle(random, speech);
    let (before, after) = speech.split_at(at);
    let rounds = 5 + random.below(26);
    let gap = vec![0; random.below(2) * samples(random, 20, 150)];
    let round = [loudest(after, length), &gap].concat();
    let repeated = round.repeat(rounds);
    let pcm = if random.below(2) == 0 { repeated } else { [before, &repeated, after].concat() };
    Provocation { pcm, rounds }
}

/// Two to eight seconds of music in the middle of a clip.
fn music_in_mid_phrase(random: &mut Random, speech: &[i16]) -> Provocation {
    let music = clips::music();
    let (_, music) = &music[random.below(music.len())];
    let length = samples(random, 2_000, 8_000);
    let start = random.below(music.len() - length);
    let (before, after) = speech.split_at(middle(random, speech));
    Provocation { pcm: [before, &music[start..][..length], after].concat(), rounds: 1 }
}

/// A clip cut at every half second, with gaps of silence.
fn gaps(random: &mut Random, speech: &[i16]) -> Provocation {
    let gap = vec![0; samples(random, 100, 600)];
    let pieces: Vec<Vec<i16>> = speech.chunks(RATE / 2).map(|piece| [piece, &gap].concat()).collect();
    Provocation { pcm: pieces.concat(), rounds: 1 }
}

/// A vowel that is held for 2 to 12 s after the beginning of its clip.
fn held_vowel(random: &mut Random, speech: &[i16]) -> Provocation {
    let (before, after) = speech.split_at(middle(random, speech));
    let vowel = loudest(after, RATE / 20);
    let period = pitch_period(vowel);
    let wave = &vowel[..vowel.len() / period * period];
    let held = wave.repeat(samples(random, 2_000, 12_000) / wave.len());
    Provocation { pcm: [before, &held].concat(), rounds: 1 }
}

/// Returns the number of samples after which a voice is most like itself: of 70 to 400 Hz.
fn pitch_period(voice: &[i16]) -> usize {
    let likeness = |lag: &usize| {
        let pairs = voice.iter().zip(&voice[*lag..]);
        let product = pairs.clone().map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let power = pairs.map(|(a, b)| f64::from(*a).powi(2) + f64::from(*b).powi(2)).sum::<f64>();
        product / power.max(1.0)
    };
    (RATE / 400..RATE / 70).max_by(|a, b| likeness(a).total_cmp(&likeness(b))).expect("there are lags")
}

/// Returns the largest number of times that some items follow each other in a row, of those that are
/// `length` at a time, and the first of them.
fn longest_run<T: PartialEq>(items: &[T], length: usize) -> (usize, &[T]) {
    let runs = (0..items.len().saturating_sub(length - 1)).map(|start| {
        let phrase = &items[start..start + length];
        let times = items[start..].chunks_exact(length).take_while(|next| *next == phrase).count();
        (times, phrase)
    });
    runs.max_by_key(|(times, _)| *times).unwrap_or((0, &[]))
}

/// Returns the reason for which nobody can have said the text of some segments, if there is one. The audio
/// has no part of itself more than `rounds` times in a row.
///
/// No phrase of at most [`LONGEST_PHRASE`] words is said [`LOOP`] times in a row or oftener, unless the audio
/// has a part of itself as often. No letters within a word are written [`LETTER_LOOP`] times in a row. No
/// segment has more than [`FAST`] letters and digits per second.
fn loop_in(segments: &[Segment], rounds: usize) -> Option<String> {
    let words: Vec<String> = segments.iter().flat_map(|segment| normal(&segment.text)).collect();
    for length in 1..=LONGEST_PHRASE {
        let (times, phrase) = longest_run(&words, length);
        if times >= LOOP && times > rounds {
            return Some(format!("{times} times: {phrase:?}"));
        }
    }
    for word in &words {
        let letters: Vec<char> = word.chars().collect();
        let times = (1..=MOST_LETTERS).map(|length| longest_run(&letters, length).0).max();
        if times.is_some_and(|times| times >= LETTER_LOOP && letters.iter().any(|c| c.is_alphabetic())) {
            return Some(format!("letters over and over: {word}"));
        }
    }
    let is_too_fast = |segment: &&Segment| {
        let letters = segment.text.chars().filter(|c| c.is_alphanumeric()).count();
        letters * RATE > FAST * segment.range.len() as usize
    };
    segments.iter().find(is_too_fast).map(|segment| format!("too fast: {}", segment.text))
}

/// Returns recordings of each kind: one, or as many minutes as the environment states.
fn provocations(random: &mut Random) -> Vec<(String, Provocation)> {
    let clips: Vec<Clip> = SETS.into_iter().flat_map(clips::set).collect();
    let mut all = Vec::new();
    for (name, provoke) in PROVOCATIONS {
        let mut length = 0;
        loop {
            let Clip { name: clip, pcm, .. } = &clips[random.below(clips.len())];
            let provocation = provoke(random, pcm);
            length += provocation.pcm.len();
            all.push((format!("{name} in {clip}"), provocation));
            if length >= minutes().map_or(1, |minutes| minutes * 60 * RATE) {
                break;
            }
        }
    }
    all
}

#[test]
#[expect(clippy::print_stdout, reason = "the texts are what the long form is run for")]
fn provoked_loops() {
    let mut random = Random::for_test("recognition_guards::loops::provoked_loops");
    let provocations = provocations(&mut random);
    let whisper = whisper();
    let mut loops = String::new();
    for (number, (name, Provocation { pcm, rounds })) in provocations.iter().enumerate() {
        for (description, request) in requests(number) {
            let segments = said(&whisper, &request, pcm);
            let texts: Vec<&str> = segments.iter().map(|segment| segment.text.as_str()).collect();
            println!("{name}, {rounds} rounds, {description}: {texts:?}");
            if let Some(reason) = loop_in(&segments, *rounds) {
                writeln!(loops, "{name}, {rounds} rounds, {description}: {reason} of {texts:?}").unwrap();
            }
        }
    }
    assert!(loops.is_empty(), "loops were told:\n{loops}");
}

/// The criterion finds loops, and what is said often is none.
#[test]
fn loops_are_what_nobody_says() {
    let segment = |text: &str, seconds: u64| {
        let range = FramePos::ZERO.to(FramePos(seconds * RATE as u64));
        vec![Segment { text: text.to_owned(), ..Segment::silence(range) }]
    };
    for (text, rounds) in [
        ("No, no, no, no.", 1),
        ("so I'm going to, I'm going to, I'm going to, I'm going to say", 3),
        ("аааааааааааааа", 1),
        ("hahahahahahahahahahahaha", 30),
    ] {
        assert!(loop_in(&segment(text, 10), rounds).is_some(), "{text}");
    }
    for (text, rounds) in [("No, no, no.", 1), ("No, no, no, no.", 5), ("Aaaaah! 1000000000000", 1), ("", 1)]
    {
        assert_eq!(loop_in(&segment(text, 10), rounds), None, "{text}");
    }
    assert!(loop_in(&segment("all of this within one second", 1), 1).is_some());
}
