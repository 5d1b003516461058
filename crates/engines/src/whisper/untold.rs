//! Speech that a text leaves out.
//!
//! Of a sentence that is said again without a pause, Whisper may tell one time only. Its words are then
//! placed where they were said, and one of them is left with all the rest of the speech: longer than anybody
//! takes for it. Or the rest comes after the last word. Such an utterance is heard once more in two halves,
//! cut in a quiet place of that rest.

use super::alignment::Word;
use voxline::engine::RECOGNIZER_RATE;
use voxline::vad::HOP;

/// Number of hops of the quiet place, 144 ms: about a pause between words, as in the endpointer.
const QUIET_HOPS: usize = 9;
/// Share of the power of the loudest hop from which a hop is speech (-20 dB), as in the endpointer.
const LOUD: f32 = 0.01;

/// Longest time that anybody takes for a word, in samples: 1.2 s, and for each letter 0.2 s and each digit
/// 0.5 s more.
const LONGEST_WORD: usize = RECOGNIZER_RATE as usize * 12 / 10;
const LETTER: usize = RECOGNIZER_RATE as usize / 5;
const DIGIT: usize = RECOGNIZER_RATE as usize / 2;

/// Longest speech after the last word, in samples: 1 s. Attention may leave a word early.
const LONGEST_REST: usize = RECOGNIZER_RATE as usize;

/// Shortest half of an utterance: 0.8 s.
const SHORTEST: usize = RECOGNIZER_RATE as usize * 8 / 10;

/// Returns the sample at which to cut an utterance, if one of its words is left with more speech than anybody
/// takes for it, or there is more speech after the last one.
pub(super) fn cut(words: &[Word], pcm: &[i16]) -> Option<usize> {
    let energy: Vec<f32> = pcm.chunks_exact(HOP).map(energy).collect();
    let loudest = energy.iter().copied().fold(0.0, f32::max);
    let ends = words.iter().skip(1).map(|word| word.range.start).chain([pcm.len()]);
    let starts = words.iter().enumerate().map(|(at, word)| if at == 0 { 0 } else { word.range.start });
    let hops = |from: usize, to: usize| from / HOP..(to / HOP).min(energy.len());
    let speech =
        |from: usize, to: usize| hops(from, to).filter(|hop| energy[*hop] >= LOUD * loudest).count() * HOP;
    let is_untold = |(word, (from, to)): &(&Word, (usize, usize))| speech(*from, *to) > longest(&word.text);
    let rest = words.last().map(|last| (last.range.end, pcm.len()));
    let (from, to) = match words.iter().zip(starts.zip(ends)).find(is_untold) {
        Some((_, span)) => span,
        None => rest.filter(|(from, to)| speech(*from, *to) > LONGEST_REST)?,
    };
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
    fn speech_after_the_last_word_is_untold() {
        let pcm = sound(&[20, 2, 15]);
        let told = words(&[("subsequently", 0)], 20);
        let cut = cut(&told, &pcm).expect("speech is left out");
        assert!((20 * SECOND / 10..22 * SECOND / 10).contains(&cut), "{cut}");
        assert_eq!(super::cut(&told, &sound(&[20, 2, 9])), None, "attention has left the word early");
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
