//! An open utterance: what is measured while it lasts, whether it is a tone, and where it is best cut.

use super::{HANGOVER, milliseconds};
use crate::modulation::{LIKE_SPEECH, SEEN, STEADY};
use voxline::audio::FramePos;
use voxline::vad::HOP;

/// Share of the power of an utterance's loudest hop from which a hop counts as loud (-20 dB). Speech that
/// is this far above the noise around it also changes as speech does.
const LOUD: f32 = 0.01;

/// Range at the end of a too long utterance in which it may be cut: 10 s.
const CUT_BACK: u64 = milliseconds(10_000);
/// Number of hops whose loudness is averaged to find a quiet place for that cut: about a pause between
/// words.
const CUT_HOPS: usize = 9;

/// An utterance that has not ended.
pub(super) struct Utterance {
    pub(super) start: FramePos,
    /// End of the last voiced hop.
    pub(super) voiced_end: FramePos,
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
    /// `lively` without the hops after the hangover, which are not part of the utterance: the same whether
    /// it is asked for when the samples have settled or when silence has ended the utterance.
    heard_lively: usize,
}

impl Utterance {
    /// Creates an utterance without hops.
    pub(super) fn new(start: FramePos, voiced_end: FramePos) -> Utterance {
        Utterance {
            start,
            voiced_end,
            energy: Vec::new(),
            changes: Vec::new(),
            greatest: 0.0,
            lively: 0,
            since_lively: SEEN,
            heard_lively: 0,
        }
    }

    /// Takes the loudness of the hop that ends at `end`, and the lasting change of the spectrum up to it.
    pub(super) fn push(&mut self, end: FramePos, energy: f32, change: f32) {
        self.energy.push(energy);
        self.changes.push(change);
        self.greatest = self.greatest.max(change);
        self.since_lively = (self.since_lively + 1).min(SEEN);
        if change >= LIKE_SPEECH {
            self.lively += self.since_lively;
            self.since_lively = 0;
        }
        if end <= self.heard_end() {
            self.heard_lively = self.lively;
        }
    }

    /// Returns the position up to which the utterance is heard, should no voiced hop follow.
    pub(super) fn heard_end(&self) -> FramePos {
        self.voiced_end + HANGOVER
    }

    /// Returns the last `back` hops, which begin at `cut`, as an utterance of their own.
    pub(super) fn split_off(&self, back: usize, cut: FramePos) -> Utterance {
        let mut rest = Utterance::new(cut, self.voiced_end.max(cut));
        let first = self.energy.len() - back;
        let mut end = cut;
        for (energy, change) in self.energy[first..].iter().zip(&self.changes[first..]) {
            end = end + HOP as u64;
            rest.push(end, *energy, *change);
        }
        rest
    }

    /// Returns whether the utterance is a tone: its spectrum changes only where it begins and ends. An
    /// utterance that is too short to tell is not taken for a tone.
    pub(super) fn is_steady(&self) -> bool {
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

    /// Returns the number of heard frames whose spectrum changes as that of speech does.
    pub(super) fn lively_frames(&self) -> u64 {
        (self.heard_lively * HOP) as u64
    }

    /// Returns the number of hops, counted back from the end, at which the utterance is best cut: in the
    /// middle of the quietest `CUT_HOPS` of the last `CUT_BACK` frames.
    pub(super) fn cut_back(&self) -> usize {
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
    use crate::endpoint::END_SILENCE;

    #[test]
    fn sound_after_an_utterance_has_settled_does_not_make_it_livelier() {
        let hop = |count: u64| FramePos(count * HOP as u64);
        let mut utterance = Utterance::new(FramePos::ZERO, FramePos::ZERO);
        for end in 1..=30 {
            utterance.voiced_end = hop(end);
            utterance.push(hop(end), 1e6, LIKE_SPEECH);
        }
        let voiced = utterance.lively_frames();
        // Sound that changes, but that no detector takes for a voice.
        let mut settled = Vec::new();
        for end in (31..).take_while(|end| hop(*end) < hop(30) + END_SILENCE) {
            utterance.push(hop(end), 1e6, LIKE_SPEECH);
            if hop(end) >= utterance.heard_end() {
                settled.push(utterance.lively_frames());
            }
        }
        assert!(settled.len() > 10 && settled.iter().all(|lively| *lively == settled[0]), "{settled:?}");
        assert!(settled[0] > voiced && settled[0] <= voiced + HANGOVER, "{settled:?}, {voiced}");

        // Should the voice go on, all that came before it counts.
        utterance.voiced_end = hop(90);
        utterance.push(hop(90), 1e6, LIKE_SPEECH);
        assert!(utterance.lively_frames() > settled[0] + HANGOVER / 2);
    }
}
