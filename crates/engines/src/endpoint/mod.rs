//! Endpointing: detection of the start and the end of utterances.
//!
//! The stream is judged in hops of 16 ms, counted from its start (or the last flush), so the decisions do
//! not depend on how the samples are pushed.
//!
//! An endpointer of a live session begins anew at the end of each span: it forgets all before, and judges
//! once more the samples that it has judged beyond. So the spans of a session that begins at the end of a
//! span are those of the undisturbed session. A recording begins its endpointer anew at the end of each
//! window instead.

mod utterance;

use std::collections::VecDeque;

use earshot::Detector;

use self::utterance::Utterance;
use crate::modulation::Modulation;
use voxline::audio::{FramePos, FrameRange};
use voxline::engine::RECOGNIZER_RATE;
use voxline::vad::{HOP, VOICED};

/// Score down to which a hop stays voiced within an utterance. Outside of one, a hop is voiced from
/// [`VOICED`] on.
const STILL_VOICED: f32 = 0.3;
/// Root mean square (-60 dBFS) below which nothing is speech, whatever the detector's score.
const FAINTEST: f32 = 33.0;

/// Number of voiced hops among the last `ONSET_WINDOW` at which speech begins. Shorter noises are clicks.
const ONSET_VOICED: usize = 5;
const ONSET_WINDOW: usize = 8;

/// Audio kept before the first voiced hop, which may hold soft consonants: 0.3 s.
pub(crate) const PRE_ROLL: u64 = milliseconds(300);
/// Audio kept after the last voiced hop: 0.3 s.
const HANGOVER: u64 = milliseconds(300);
/// Silence that ends an utterance: 0.6 s.
const END_SILENCE: u64 = milliseconds(600);
/// Longest utterance: 28 s, which with its padding fits a window of 30 s.
pub(crate) const LONGEST: u64 = milliseconds(28_000);
/// Duration from which silence is reported: 10 s.
pub(crate) const REPORT_SILENCE: u64 = milliseconds(10_000);
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
    /// `true` if the endpointer begins anew at the end of each span.
    begins_anew: bool,
}

impl Endpointer {
    /// Most frames that an endpointer leaves unreported while it waits for more: a longest utterance, the
    /// pause before it that is not reported by itself, and an incomplete hop.
    pub const LONGEST_PENDING: u64 = LONGEST + REPORT_PAUSE + HOP as u64;

    /// Creates an endpointer at the start of a stream.
    #[must_use]
    pub fn new() -> Endpointer {
        Endpointer::starting_at(FramePos::ZERO)
    }

    /// Creates an endpointer that starts at a position of a stream.
    pub(crate) fn starting_at(position: FramePos) -> Endpointer {
        Endpointer {
            detector: Box::default(),
            modulation: Modulation::new(FAINTEST * FAINTEST),
            kept: VecDeque::new(),
            kept_from: position,
            judged: position,
            reported: position,
            recent: VecDeque::new(),
            open: None,
            begins_anew: false,
        }
    }

    /// Makes the endpointer begin anew at the end of each span.
    pub(crate) fn beginning_anew(self) -> Endpointer {
        Endpointer { begins_anew: true, ..self }
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
        let utterance = self.open.as_ref().filter(|utterance| utterance.lively_frames() > 0)?;
        let (start, end) = (utterance.start, utterance.heard_end());
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
            let heard = utterance.start.to(end.min(utterance.heard_end()));
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

    /// Returns the position up to which the stream is judged.
    pub(crate) fn judged(&self) -> FramePos {
        self.judged
    }

    /// Returns the number of frames of the open utterance so far; 0 in silence, and while no part of the
    /// sound was like speech.
    pub(crate) fn open_frames(&self) -> u64 {
        let utterance = self.open.as_ref().filter(|utterance| utterance.lively_frames() > 0);
        utterance.map_or(0, |utterance| self.judged.min(utterance.heard_end()) - utterance.start)
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

    /// Begins anew at the end of a span, unless the endpointer goes on from there.
    fn begin_at(&mut self, end: FramePos) {
        self.reported = end;
        if self.begins_anew {
            self.forget(end);
            self.judged = end;
            self.recent.clear();
            self.detector.reset();
            self.modulation.reset();
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
                if loud && score >= STILL_VOICED {
                    utterance.voiced_end = self.judged;
                }
                utterance.push(self.judged, energy, change);
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
                if self.begins_anew {
                    return;
                }
            }
            self.forget(start);
            self.recent.clear();
            let mut utterance = Utterance::new(start, self.judged);
            utterance.push(self.judged, energy, change);
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
            let end = utterance.heard_end();
            self.report(end, start.to(end), &utterance, spans);
        } else if self.judged - start >= LONGEST - HOP as u64 {
            let back = utterance.cut_back();
            let cut = FramePos(self.judged.0 - (back * HOP) as u64);
            self.open = (!self.begins_anew).then(|| utterance.split_off(back, cut));
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
            self.begin_at(end);
        }
        self.forget(end);
    }

    fn silence(&mut self, end: FramePos, spans: &mut Vec<Span>) {
        spans.push(Span::Silence { range: self.reported.to(end) });
        self.begin_at(end);
    }
}

impl Default for Endpointer {
    fn default() -> Endpointer {
        Endpointer::new()
    }
}

#[cfg(test)]
mod tests;
