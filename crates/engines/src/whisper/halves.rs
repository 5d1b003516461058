//! Speech that a text leaves out.
//!
//! Of a sentence that is said again without a pause, Whisper may tell one time only. Its words are then placed
//! where they were said, and one of them is left with all the rest of the speech: longer than anybody takes for
//! it. Such an utterance is heard once more in two halves, cut in a quiet place of that rest. The text of both
//! counts if it has more words.

use super::alignment::Word;
use super::attempt::{Attempt, Transcript};
use super::model::Model;
use super::ops::Kernels;
use super::transcribe::Transcription;
use voxline::engine::RECOGNIZER_RATE;
use voxline::vad::HOP;

/// Number of hops of the quiet place, 144 ms: about a pause between words, as in the endpointer.
const QUIET_HOPS: usize = 9;
/// Share of the power of the loudest hop from which a hop is speech (-20 dB), as in the endpointer.
const LOUD: f32 = 0.01;

/// Longest time that anybody takes for a word, in samples: 1.2 s, and for each letter 0.2 s and each digit 0.5 s
/// more.
const LONGEST_WORD: usize = RECOGNIZER_RATE as usize * 12 / 10;
const LETTER: usize = RECOGNIZER_RATE as usize / 5;
const DIGIT: usize = RECOGNIZER_RATE as usize / 2;

/// Shortest half of an utterance: 0.8 s.
const SHORTEST: usize = RECOGNIZER_RATE as usize * 8 / 10;
/// Mean log-probability that the text of each half needs: a confidence of 0.5, and hardly less than that of the
/// whole. A half of a sentence that is said again is likelier than the whole, and one of music is not.
const LIKELY: f32 = -0.7;
const LESS_LIKELY: f32 = 0.2;

/// Number of times that an utterance, and then its halves, may be cut: enough for a sentence that is said four
/// times.
pub(super) const MOST_CUTS: usize = 2;

/// An utterance that is heard in two halves.
pub(super) struct Halves {
    /// Transcript of the utterance as a whole.
    whole: Transcript,
    /// Sample at which the second half begins.
    cut: usize,
    halves: [Transcription; 2],
    /// Index of the half that is being heard.
    current: usize,
    /// Transcript of the half that was heard first.
    heard: Option<Transcript>,
}

impl Halves {
    /// Begins to hear an utterance in two halves, of which the second begins at the sample `cut`. The one
    /// with fewer words of the whole comes first: if there is nothing to tell, the other need not be heard.
    pub(super) fn new(whole: Transcript, cut: usize, halves: [Transcription; 2]) -> Halves {
        let told = whole.words.iter().filter(|word| word.range.start < cut).count();
        let current = usize::from(told > whole.words.len() / 2);
        Halves { whole, cut, halves, current, heard: None }
    }

    /// Returns the half that is being heard.
    pub(super) fn current(&self) -> &Transcription {
        &self.halves[self.current]
    }

    /// Returns the half that is being heard.
    pub(super) fn current_mut(&mut self) -> &mut Transcription {
        &mut self.halves[self.current]
    }

    /// Ends an attempt of a half. The last one returns the transcript of the utterance.
    pub(super) fn conclude(
        &mut self,
        model: &Model,
        kernels: &mut Kernels,
        attempt: Attempt,
    ) -> Option<Transcript> {
        if self.current().rejects(model, &attempt) {
            return Some(std::mem::take(&mut self.whole));
        }
        let half = self.current_mut().conclude(model, kernels, attempt)?;
        if !self.is_likely(&half) {
            return Some(std::mem::take(&mut self.whole));
        }
        let Some(other) = self.heard.take() else {
            self.heard = Some(half);
            self.current = 1 - self.current;
            return None;
        };
        let whole = std::mem::take(&mut self.whole);
        if half.words.len() + other.words.len() <= whole.words.len() {
            return Some(whole);
        }
        let halves = if self.current == 0 { [half, other] } else { [other, half] };
        Some(joined(model, whole, halves, self.cut))
    }

    /// Returns whether a half tells something likely.
    fn is_likely(&self, half: &Transcript) -> bool {
        let least = LIKELY.max(self.whole.log_probability - LESS_LIKELY);
        !half.text.is_empty() && half.log_probability >= least
    }
}

/// Joins the transcripts of two halves, of which the second begins at the sample `cut`.
fn joined(model: &Model, whole: Transcript, [first, second]: [Transcript; 2], cut: usize) -> Transcript {
    let weighted = |half: &Transcript| half.log_probability * half.tokens.len() as f32;
    let count = (first.tokens.len() + second.tokens.len()).max(1) as f32;
    let tokens = [&first.tokens[..], &second.tokens].concat();
    let moved = |Word { text, range, confidence }: Word| Word {
        text,
        range: range.start + cut..range.end + cut,
        confidence,
    };
    Transcript {
        text: model.tokens.text(&tokens),
        log_probability: (weighted(&first) + weighted(&second)) / count,
        tokens,
        words: first.words.into_iter().chain(second.words.into_iter().map(moved)).collect(),
        ..whole
    }
}

/// Returns the sample at which to cut an utterance, if one of its words is left with more speech than anybody
/// takes for it.
pub(super) fn cut(words: &[Word], pcm: &[i16]) -> Option<usize> {
    let energy: Vec<f32> = pcm.chunks_exact(HOP).map(energy).collect();
    let loudest = energy.iter().copied().fold(0.0, f32::max);
    let ends = words.iter().skip(1).map(|word| word.range.start).chain([pcm.len()]);
    let starts = words.iter().enumerate().map(|(at, word)| if at == 0 { 0 } else { word.range.start });
    let hops = |from: usize, to: usize| from / HOP..(to / HOP).min(energy.len());
    let is_untold = |(word, (from, to)): &(&Word, (usize, usize))| {
        let speech = hops(*from, *to).filter(|hop| energy[*hop] >= LOUD * loudest).count() * HOP;
        speech > longest(&word.text)
    };
    let (_, (from, to)) = words.iter().zip(starts.zip(ends)).find(is_untold)?;
    let places = hops(from.max(SHORTEST), to.min(pcm.len().saturating_sub(SHORTEST)));
    let quiet = energy.get(places.clone())?.windows(QUIET_HOPS).enumerate();
    let loudness = |window: &[f32]| window.iter().sum::<f32>();
    let (first, _) = quiet.min_by(|(_, a), (_, b)| loudness(a).total_cmp(&loudness(b)))?;
    Some((places.start + first + QUIET_HOPS / 2) * HOP)
}

/// Returns the longest time that anybody takes for a word, in samples.
fn longest(word: &str) -> usize {
    let time = |letter: char| match letter {
        letter if letter.is_numeric() => DIGIT,
        letter if letter.is_alphabetic() => LETTER,
        _ => 0,
    };
    LONGEST_WORD + word.chars().map(time).sum::<usize>()
}

fn energy(hop: &[i16]) -> f32 {
    hop.iter().map(|sample| f32::from(*sample).powi(2)).sum::<f32>() / hop.len() as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: usize = RECOGNIZER_RATE as usize;

    /// Returns sound of this many tenths of a second by turns with silence.
    fn sound(tenths: &[usize]) -> Vec<i16> {
        let parts = tenths.iter().enumerate().map(|(at, count)| {
            let level = if at % 2 == 0 { 8_000 } else { 3 };
            vec![level; count * SECOND / 10]
        });
        parts.collect::<Vec<_>>().concat()
    }

    fn words(starts: &[(&str, usize)], end: usize) -> Vec<Word> {
        let ends = starts.iter().skip(1).map(|(_, start)| *start).chain([end]);
        let word = |((text, start), end): (&(&str, usize), usize)| Word {
            text: (*text).to_owned(),
            range: start * SECOND / 10..end * SECOND / 10,
            confidence: 1.0,
        };
        starts.iter().zip(ends).map(word).collect()
    }

    #[test]
    fn an_utterance_with_untold_speech_is_cut_in_its_pause() {
        let pcm = sound(&[20, 2, 25]);
        let told = words(&[("pound", 8), ("key.", 15)], 20);
        let cut = cut(&told, &pcm).expect("speech is left out");
        assert!((20 * SECOND / 10..22 * SECOND / 10).contains(&cut), "{cut}");
    }

    #[test]
    fn an_utterance_whose_speech_is_told_is_not_cut() {
        let pcm = sound(&[20, 2, 25]);
        let told = words(&[("pound", 8), ("key.", 15), ("pound", 30), ("key.", 40)], 47);
        assert_eq!(cut(&told, &pcm), None);
        assert_eq!(cut(&words(&[("8005551234", 0)], 47), &pcm), None, "a number takes its time");
        assert_eq!(cut(&words(&[("key", 0)], 20), &sound(&[16, 40])), None, "silence is not speech");
        assert_eq!(cut(&[], &pcm), None);
    }
}
