//! Endpointing: detection of the start and the end of utterances.
//!
//! The stream is judged in hops of 16 ms, counted from its start (or the last flush), so the decisions do
//! not depend on how the samples are pushed.

use std::collections::VecDeque;

use earshot::Detector;

use super::modulation::{LIKE_SPEECH, Modulation, SEEN, STEADY};
use voxline::audio::{FramePos, FrameRange};
use voxline::engine::RECOGNIZER_RATE;
use voxline::voice::{HOP, VOICED};

/// Score down to which a hop stays voiced within an utterance. Outside of one, a hop is voiced from
/// [`VOICED`] on.
const STILL_VOICED: f32 = 0.3;
/// Root mean square (-60 dBFS) below which nothing is speech, whatever the detector's score.
const FAINTEST: f32 = 33.0;

/// Share of the power of an utterance's loudest hop from which a hop counts as loud (-20 dB). Speech that
/// is this far above the noise around it also changes as speech does.
const LOUD: f32 = 0.01;

/// Number of voiced hops among the last `ONSET_WINDOW` at which speech begins. Shorter noises are clicks.
const ONSET_VOICED: usize = 5;
const ONSET_WINDOW: usize = 8;

/// Audio kept before the first voiced hop, which may hold soft consonants: 0.3 s.
const PRE_ROLL: u64 = milliseconds(300);
/// Audio kept after the last voiced hop: 0.3 s.
const HANGOVER: u64 = milliseconds(300);
/// Silence that ends an utterance: 0.6 s.
const END_SILENCE: u64 = milliseconds(600);
/// Longest utterance: 28 s, which with its padding fits a window of 30 s.
const LONGEST: u64 = milliseconds(28_000);
/// Range at the end of a too long utterance in which it may be cut: 10 s.
const CUT_BACK: u64 = milliseconds(10_000);
/// Number of hops whose loudness is averaged to find a quiet place for that cut: about a pause between
/// words.
const CUT_HOPS: usize = 9;
/// Duration from which silence is reported: 10 s.
const REPORT_SILENCE: u64 = milliseconds(10_000);
/// Duration from which silence before an utterance is reported by itself: 0.5 s. So a segment with words
/// begins near its first word.
const REPORT_PAUSE: u64 = milliseconds(500);

const fn milliseconds(count: u64) -> u64 {
    count * RECOGNIZER_RATE as u64 / 1_000
}

/// A stretch of the stream. Spans are contiguous: each begins at the end of the one before, the first at
/// zero.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// A stretch without speech.
    Silence {
        /// Frames of the span.
        range: FrameRange,
    },
    /// An utterance, and a short silence before it.
    Speech {
        /// Frames of the span.
        range: FrameRange,
        /// Start of the utterance within the span.
        start: FramePos,
        /// Samples of the utterance, with a little silence on both sides: at most 28 s.
        pcm: Vec<i16>,
        /// Number of frames of the utterance whose spectrum changes as that of speech does, and as that
        /// of noise does not.
        lively: u64,
    },
}

/// An utterance that has not ended.
#[derive(Clone, Copy, Debug)]
pub struct Open<'a> {
    /// Frames since the last span, up to the position that was judged.
    pub range: FrameRange,
    /// Start of the utterance within these frames.
    pub start: FramePos,
    /// Samples of the utterance so far.
    pub pcm: &'a [i16],
    /// Number of frames of the utterance whose spectrum changes as that of speech does; above 0.
    pub lively: u64,
    /// `true` if the samples are those that the span will hold, should silence last until the utterance
    /// ends.
    pub settled: bool,
}

/// An endpointer, which splits a stream of samples into utterances and silence.
///
/// The decision combines a small neural voice activity detector (earshot), an energy floor, and the
/// change of the spectrum, because the detector takes dial tones and loud noise for voices. Only a sound
/// as steady as a tone counts as silence: speech in noise must never count as silence, so noise is left
/// to the recogniser, which is told how much of it was like speech. An utterance ends after 0.6 s of
/// silence; an utterance of 28 s is cut at the quietest place of its last 10 s.
pub struct Endpointer {
    detector: Box<Detector>,
    modulation: Modulation,
    /// Samples from `kept_from` on: the pre-roll or the open utterance, and the samples that do not fill
    /// a hop yet.
    kept: VecDeque<i16>,
    kept_from: FramePos,
    /// Position up to which hops have been judged.
    judged: FramePos,
    /// End of the last span.
    reported: FramePos,
    /// Results for the last hops, `true` if voiced, oldest first; counted towards the onset.
    recent: VecDeque<bool>,
    open: Option<Utterance>,
}

/// An utterance that has not ended.
struct Utterance {
    start: FramePos,
    /// End of the last voiced hop.
    voiced_end: FramePos,
    /// Loudness of each hop judged since the utterance was opened or cut; the last hop ends at `judged`.
    energy: Vec<f32>,
    /// Change of the spectrum up to each of these hops, in dB.
    changes: Vec<f32>,
    /// Greatest of these changes.
    greatest: f32,
    /// Number of hops over which the spectrum changed as that of speech does.
    lively: usize,
    /// Number of hops since the last of these.
    since_lively: usize,
}

impl Endpointer {
    /// Most frames that an endpointer leaves unreported while it waits for more: a longest utterance, the
    /// pause before it that is not reported by itself, and an incomplete hop.
    pub const LONGEST_PENDING: u64 = LONGEST + REPORT_PAUSE + HOP as u64;

    /// Creates an endpointer at the start of a stream.
    #[must_use]
    pub fn new() -> Endpointer {
        Endpointer {
            detector: Box::default(),
            modulation: Modulation::new(FAINTEST * FAINTEST),
            kept: VecDeque::new(),
            kept_from: FramePos::ZERO,
            judged: FramePos::ZERO,
            reported: FramePos::ZERO,
            recent: VecDeque::new(),
            open: None,
        }
    }

    /// Takes the next samples and returns the spans that they complete.
    pub fn push(&mut self, pcm: &[i16]) -> Vec<Span> {
        let mut spans = Vec::new();
        // A large push is taken in pieces, so that the buffer stays small.
        for piece in pcm.chunks(RECOGNIZER_RATE as usize) {
            self.kept.extend(piece);
            while self.end() - self.judged >= HOP as u64 {
                self.judge(&mut spans);
            }
        }
        spans
    }

    /// Returns the open utterance so far, without the samples that do not fill a hop yet; `None` in
    /// silence, and while no part of the sound was like speech.
    pub fn open(&mut self) -> Option<Open<'_>> {
        let utterance = self.open.as_ref().filter(|utterance| utterance.lively > 0)?;
        let (start, end) = (utterance.start, utterance.voiced_end + HANGOVER);
        let lively = utterance.lively_frames();
        let (from, to) = (self.index(start), self.index(self.judged.min(end)));
        let range = self.reported.to(self.judged);
        let settled = self.judged >= end;
        Some(Open { range, start, pcm: &self.kept.make_contiguous()[from..to], lively, settled })
    }

    /// Ends the open utterance and returns the span that covers all samples pushed so far, if any were
    /// pushed since the last span.
    pub fn flush(&mut self) -> Vec<Span> {
        let mut spans = Vec::new();
        let end = self.end();
        if let Some(utterance) = self.open.take() {
            let heard = utterance.start.to(end.min(utterance.voiced_end + HANGOVER));
            self.report(end, heard, &utterance, &mut spans);
        } else if end > self.reported {
            self.silence(end, &mut spans);
        }
        self.forget(end);
        self.judged = end;
        self.recent.clear();
        self.detector.reset();
        self.modulation.reset();
        spans
    }

    /// Returns the position after the last pushed sample.
    fn end(&self) -> FramePos {
        self.kept_from + self.kept.len() as u64
    }

    /// Returns the index of a position in `kept`.
    fn index(&self, position: FramePos) -> usize {
        usize::try_from(position - self.kept_from).expect("what is kept fits in memory")
    }

    /// Drops the samples before `position`.
    fn forget(&mut self, position: FramePos) {
        if position > self.kept_from {
            self.kept.drain(..self.index(position));
            self.kept_from = position;
        }
    }

    /// Judges the next hop, which must be complete.
    fn judge(&mut self, spans: &mut Vec<Span>) {
        let at = self.index(self.judged);
        let mut hop = [0; HOP];
        for (slot, sample) in hop.iter_mut().zip(self.kept.range(at..)) {
            *slot = *sample;
        }
        let energy = hop.iter().map(|sample| f32::from(*sample).powi(2)).sum::<f32>() / HOP as f32;
        let score = self.detector.predict_i16(&hop);
        let change = self.modulation.push(&hop, energy);
        let loud = energy >= FAINTEST * FAINTEST;
        self.judged = self.judged + HOP as u64;

        match &mut self.open {
            Some(utterance) => {
                utterance.hear(energy, change);
                if loud && score >= STILL_VOICED {
                    utterance.voiced_end = self.judged;
                }
                self.close_or_cut(spans);
            }
            None => self.wait(loud && score >= VOICED, energy, change, spans),
        }
    }

    /// Handles a hop outside of an utterance: opens an utterance, or lets the silence grow.
    fn wait(&mut self, voiced: bool, energy: f32, change: f32, spans: &mut Vec<Span>) {
        self.recent.push_back(voiced);
        if self.recent.len() > ONSET_WINDOW {
            self.recent.pop_front();
        }
        let onset = self.recent.iter().filter(|voiced| **voiced).count() >= ONSET_VOICED;
        if voiced && onset {
            let first = self.recent.iter().position(|voiced| *voiced).expect("this hop is voiced");
            let hops = (self.recent.len() - first) as u64;
            let start = FramePos((self.judged.0 - hops * HOP as u64).saturating_sub(PRE_ROLL));
            let start = start.max(self.reported).max(self.kept_from);
            if start.0 >= self.reported.0 + REPORT_PAUSE {
                self.silence(start, spans);
            }
            self.forget(start);
            self.recent.clear();
            let mut utterance = Utterance::new(start, self.judged);
            utterance.hear(energy, change);
            self.open = Some(utterance);
            return;
        }
        // The samples kept suffice for an utterance that begins with the oldest of the recent hops.
        let needed = PRE_ROLL + (ONSET_WINDOW * HOP) as u64;
        let settled = FramePos(self.judged.0.saturating_sub(needed));
        self.forget(settled);
        if settled.0 >= self.reported.0 + REPORT_SILENCE {
            self.silence(settled, spans);
        }
    }

    /// Handles a hop within an utterance: ends the utterance after silence, and cuts it when it is too
    /// long.
    fn close_or_cut(&mut self, spans: &mut Vec<Span>) {
        let Some(utterance) = self.open.take() else { return };
        let start = utterance.start;
        if self.judged - utterance.voiced_end >= END_SILENCE {
            let end = utterance.voiced_end + HANGOVER;
            self.report(end, start.to(end), &utterance, spans);
        } else if self.judged - start >= LONGEST - HOP as u64 {
            let back = utterance.cut_back();
            let cut = FramePos(self.judged.0 - (back * HOP) as u64);
            let rest = utterance.split_off(back, cut);
            self.open = Some(rest);
            self.report(cut, start.to(cut), &utterance, spans);
        } else {
            self.open = Some(utterance);
        }
    }

    /// Reports an utterance, and all frames up to `end`.
    fn report(&mut self, end: FramePos, heard: FrameRange, utterance: &Utterance, spans: &mut Vec<Span>) {
        if utterance.is_steady() {
            self.silence(end, spans);
        } else {
            let pcm = self.kept.range(self.index(heard.start)..self.index(heard.end)).copied().collect();
            let (range, lively) = (self.reported.to(end), utterance.lively_frames().min(heard.len()));
            spans.push(Span::Speech { range, start: heard.start, pcm, lively });
            self.reported = end;
        }
        self.forget(end);
    }

    fn silence(&mut self, end: FramePos, spans: &mut Vec<Span>) {
        spans.push(Span::Silence { range: self.reported.to(end) });
        self.reported = end;
    }
}

impl Default for Endpointer {
    fn default() -> Endpointer {
        Endpointer::new()
    }
}

impl Utterance {
    fn new(start: FramePos, voiced_end: FramePos) -> Utterance {
        let (energy, changes) = (Vec::new(), Vec::new());
        Utterance { start, voiced_end, energy, changes, greatest: 0.0, lively: 0, since_lively: SEEN }
    }

    /// Takes the loudness of a hop, and the lasting change of the spectrum up to it.
    fn hear(&mut self, energy: f32, change: f32) {
        self.energy.push(energy);
        self.changes.push(change);
        self.greatest = self.greatest.max(change);
        self.since_lively = (self.since_lively + 1).min(SEEN);
        if change >= LIKE_SPEECH {
            self.lively += self.since_lively;
            self.since_lively = 0;
        }
    }

    /// Returns the last `back` hops, which begin at `cut`, as an utterance of their own.
    fn split_off(&self, back: usize, cut: FramePos) -> Utterance {
        let mut rest = Utterance::new(cut, self.voiced_end.max(cut));
        let first = self.energy.len() - back;
        for (energy, change) in self.energy[first..].iter().zip(&self.changes[first..]) {
            rest.hear(*energy, *change);
        }
        rest
    }

    /// Returns whether the utterance is a tone: its spectrum changes only where it begins and ends. An
    /// utterance that is too short to tell is not taken for a tone.
    fn is_steady(&self) -> bool {
        self.energy.len() > SEEN && (self.greatest < STEADY || self.is_tone_over_hiss())
    }

    /// Returns whether all loud hops are a tone, and none is like speech. On a line that hisses, the
    /// spectrum of a ringing tone changes at random in its pauses.
    fn is_tone_over_hiss(&self) -> bool {
        let loudest = self.energy.iter().copied().fold(0.0, f32::max);
        let seen = self.energy.windows(SEEN).zip(&self.changes[SEEN - 1..]);
        let mut loud = seen
            .filter(|(hops, _)| hops.iter().all(|energy| *energy >= loudest * LOUD))
            .map(|(_, change)| *change)
            .peekable();
        self.lively == 0 && loud.peek().is_some() && loud.all(|change| change < STEADY)
    }

    /// Returns the number of frames whose spectrum changes as that of speech does.
    fn lively_frames(&self) -> u64 {
        (self.lively * HOP) as u64
    }

    /// Returns the number of hops, counted back from the end, at which the utterance is best cut: in the
    /// middle of the quietest `CUT_HOPS` of the last `CUT_BACK` frames.
    fn cut_back(&self) -> usize {
        let recent = &self.energy[self.energy.len().saturating_sub(CUT_BACK as usize / HOP)..];
        let loudness = |window: &[f32]| window.iter().sum::<f32>();
        let quietest = recent
            .windows(CUT_HOPS)
            .enumerate()
            .min_by(|(_, a), (_, b)| loudness(a).total_cmp(&loudness(b)))
            .map_or(0, |(first, _)| first + CUT_HOPS / 2);
        recent.len() - quietest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(spans: &[Span]) -> Vec<FrameRange> {
        spans
            .iter()
            .map(|span| match span {
                Span::Silence { range } | Span::Speech { range, .. } => *range,
            })
            .collect()
    }

    /// Returns syllables: a buzz at 120 Hz shaped by a formant, 150 ms on and 50 ms off, which the
    /// detector takes for speech.
    fn babble(frames: usize) -> Vec<i16> {
        (0..frames)
            .map(|i| {
                let t = i as f32 / 16_000.0;
                let envelope = if (t / 0.2).fract() < 0.75 { 1.0 } else { 0.02 };
                let pitch = 120.0 + 20.0 * (t * 3.0).sin();
                let buzz: f32 = (1..20)
                    .map(|k| {
                        let hz = pitch * k as f32;
                        let gain = 1.0 / (1.0 + ((hz - 600.0) / 300.0).powi(2))
                            + 0.4 / (1.0 + ((hz - 1_800.0) / 300.0).powi(2));
                        gain * (std::f32::consts::TAU * hz * t).sin()
                    })
                    .sum();
                (buzz * envelope * 4_000.0) as i16
            })
            .collect()
    }

    #[test]
    fn silence_advances_and_flush_covers_all() {
        let mut endpointer = Endpointer::new();
        let mut spans = endpointer.push(&vec![0; 16_000 * 25]);
        assert_eq!(spans.len(), 2);
        spans.extend(endpointer.push(&[0; 100]));
        spans.extend(endpointer.flush());
        let ranges = ends(&spans);
        assert_eq!(ranges[0].start, FramePos::ZERO);
        assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start));
        assert_eq!(ranges.last().unwrap().end, FramePos(16_000 * 25 + 100));
        assert!(endpointer.flush().is_empty());
        assert!(endpointer.kept.len() < 16_000);
    }

    #[test]
    fn an_utterance_is_bounded_by_silence() {
        let mut audio = vec![0; 16_000];
        audio.extend(babble(32_000));
        audio.extend(vec![0; 16_000]);
        let mut endpointer = Endpointer::new();
        let spans = endpointer.push(&audio);
        let [Span::Silence { range: before }, Span::Speech { range, pcm, .. }] = &spans[..] else {
            panic!("{:?}", ends(&spans))
        };
        // The pre-roll before the first voiced hop belongs to the utterance; all before it is silence.
        assert_eq!((before.start, before.end), (FramePos::ZERO, range.start));
        assert!((16_000 - 2 * PRE_ROLL..16_000).contains(&range.start.0), "{range}");
        assert!((48_000..56_000).contains(&range.end.0), "{range}");
        assert_eq!(pcm[..], audio[range.start.0 as usize..range.end.0 as usize]);
    }

    #[test]
    fn tones_are_silence() {
        let tone = |hz: f32, i: usize| (std::f32::consts::TAU * hz * i as f32 / 16_000.0).sin() * 8_000.0;
        let dial: Vec<i16> = (0..80_000).map(|i| (tone(350.0, i) + tone(440.0, i)) as i16).collect();
        let busy: Vec<i16> =
            (0..80_000).map(|i| if i / 8_000 % 2 == 0 { tone(425.0, i) as i16 } else { 0 }).collect();
        for sound in [dial, busy] {
            let mut endpointer = Endpointer::new();
            let mut spans = endpointer.push(&sound);
            assert!(endpointer.open().is_none());
            spans.extend(endpointer.flush());
            assert!(spans.iter().all(|span| matches!(span, Span::Silence { .. })), "{:?}", ends(&spans));
        }
    }

    /// Covers a line that hisses at -50 dB of full scale.
    #[test]
    fn ringing_over_hiss_is_silence_and_a_word_over_hiss_is_not() {
        let mut seed = 1u32;
        let mut hiss = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((seed >> 8) as f32 / (1 << 23) as f32 - 1.0) * 180.0
        };
        let tone = |hz: f32, i: usize| (std::f32::consts::TAU * hz * i as f32 / 16_000.0).sin() * 8_000.0;
        let ringing = |hz: [f32; 2], on: usize, period: usize| {
            move |i: usize| if i % period < on { tone(hz[0], i) + tone(hz[1], i) } else { 0.0 }
        };
        let mut spans = |sound: &dyn Fn(usize) -> f32| {
            let pcm: Vec<i16> = (0..320_000).map(|i| (sound(i) + hiss()) as i16).collect();
            let mut endpointer = Endpointer::new();
            let mut spans = endpointer.push(&pcm);
            spans.extend(endpointer.flush());
            spans
        };
        let europe = ringing([425.0, 425.0], 16_000, 80_000);
        let america = ringing([440.0, 480.0], 32_000, 96_000);
        let britain = ringing([400.0, 450.0], 6_400, 48_000);
        for (country, sound) in
            [("Europe", &europe as &dyn Fn(usize) -> f32), ("US", &america), ("UK", &britain)]
        {
            let spans = spans(sound);
            let is_silence = |span: &Span| matches!(span, Span::Silence { .. });
            assert!(spans.iter().all(is_silence), "{country}: {:?}", ends(&spans));
        }
        let word = babble(8_000);
        let spans = spans(&|i| word.get(i % 80_000).copied().map_or(0.0, f32::from));
        let words = spans.iter().filter(|span| matches!(span, Span::Speech { .. })).count();
        assert_eq!(words, 4, "{:?}", ends(&spans));
    }

    #[test]
    fn a_long_utterance_is_cut_in_a_pause() {
        let mut audio = babble(16_000 * 22);
        audio.extend(vec![0; 16_000 * 2 / 5]);
        audio.extend(babble(16_000 * 20));
        let mut endpointer = Endpointer::new();
        let mut spans = endpointer.push(&audio);
        spans.extend(endpointer.flush());
        let ranges = ends(&spans);
        assert_eq!(ranges.len(), 2, "{ranges:?}");
        assert!((16_000 * 22..16_000 * 45 / 2).contains(&ranges[0].end.0), "{ranges:?}");
        for span in &spans {
            let Span::Speech { pcm, .. } = span else { panic!("{span:?}") };
            assert!(pcm.len() as u64 <= LONGEST);
        }
    }

    #[test]
    fn splits_do_not_matter() {
        let mut audio = vec![0; 5_000];
        audio.extend(babble(40_000));
        audio.extend(vec![0; 12_345]);
        audio.extend(babble(16_000 * 30));
        let run = |sizes: &[usize]| {
            let mut endpointer = Endpointer::new();
            let mut spans = Vec::new();
            let mut rest = &audio[..];
            for size in sizes.iter().cycle() {
                let (piece, tail) = rest.split_at(rest.len().min(*size));
                spans.extend(endpointer.push(piece));
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            spans.extend(endpointer.flush());
            spans
        };
        let whole = run(&[audio.len()]);
        assert!(whole.len() > 2);
        assert!(whole == run(&[160]) && whole == run(&[1, 999, 7]), "another split gave other spans");
    }
}
