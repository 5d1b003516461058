//! Word timestamps: alignment of the text with the decoder's attention to the audio.
//!
//! The method is that of OpenAI's Whisper (`timing.py`): the attention of some heads follows the speech.
//! The attention of each head is normalised over the tokens and smoothed along the audio; the timestamps
//! lie on the path of most attention through the mean of the heads (dynamic time warping).

use std::ops::Range;

use super::decoded_text::DecodedText;
use super::decoder::Attention;
use super::tokens::Tokens;
use voxline::engine::RECOGNIZER_RATE;

/// Number of samples per encoder state: 20 ms.
pub(super) const STATE: usize = RECOGNIZER_RATE as usize / 50;

/// Number of states over which attention is smoothed, and those of them on one side.
const SMOOTHED: usize = 7;
const REACH: usize = SMOOTHED / 2;

/// Share of the tokens of spoken text, at least, to which attention moves on in their order.
const IN_ORDER: f32 = 0.8;
/// Number of states that a spoken token takes at least: 40 ms.
const FASTEST_TOKEN: usize = 2;
/// Number of states on each side of the most attention that are near to it: 0.2 s.
const NEAR: usize = 10;

/// Languages that are written without spaces between words; each character is a word.
const WITHOUT_SPACES: &[&str] = &["zh", "ja", "th", "lo", "my", "yue"];

/// A word, and its place in the audio.
pub(super) struct Word {
    pub(super) text: String,
    /// Range of the word, in samples of the utterance.
    pub(super) range: Range<usize>,
    /// Geometric mean of the probabilities of the word's tokens.
    pub(super) confidence: f32,
}

/// A word, and the range of its tokens in the text.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct WordTokens {
    text: String,
    pub(super) tokens: Range<usize>,
}

/// Splits tokens into words: a word begins with a space, or with each character in a language without
/// spaces. A mark that stands by itself belongs to the word before.
pub(super) fn split(tokens: &Tokens, text: &[u32], language: Option<u32>) -> Vec<WordTokens> {
    let code = tokens.code(language).unwrap_or_default();
    join(text.iter().map(|token| tokens.piece(*token)), WITHOUT_SPACES.contains(&code))
}

fn join<'a>(pieces: impl Iterator<Item = &'a [u8]>, by_character: bool) -> Vec<WordTokens> {
    let mut words: Vec<WordTokens> = Vec::new();
    let mut open: (Vec<u8>, Range<usize>) = (Vec::new(), 0..0);
    for piece in pieces {
        let (bytes, tokens) = &mut open;
        let whole = by_character && std::str::from_utf8(bytes).is_ok();
        if (piece.starts_with(b" ") || whole) && !bytes.is_empty() {
            close(&mut words, bytes, tokens.clone(), by_character);
            bytes.clear();
            tokens.start = tokens.end;
        }
        bytes.extend_from_slice(piece);
        tokens.end += 1;
    }
    close(&mut words, &open.0, open.1, by_character);
    words
}

/// Adds the open word; if it has no letters or digits, appends it to the word before.
fn close(words: &mut Vec<WordTokens>, bytes: &[u8], tokens: Range<usize>, by_character: bool) {
    let text: String = bytes.utf8_chunks().map(|chunk| chunk.valid()).collect();
    let text = text.trim();
    match words.last_mut() {
        Some(word) if !text.chars().any(char::is_alphanumeric) => {
            word.tokens.end = tokens.end;
            if !text.is_empty() && !by_character {
                word.text.push(' ');
            }
            word.text.push_str(text);
        }
        _ if text.is_empty() => {}
        _ => words.push(WordTokens { text: text.to_owned(), tokens }),
    }
}

/// Aligns words with `samples` samples. Returns no words if the model has no alignment heads.
pub(super) fn align(text: &DecodedText, words: Vec<WordTokens>, samples: usize) -> Vec<Word> {
    let Attention { weights, heads, states: heard } = &text.attention;
    let (heads, heard) = (*heads, *heard);
    let row = heads * heard;
    if row == 0 || words.is_empty() {
        return Vec::new();
    }
    // Each token has the attention that it was decoded by, and so has the end.
    let rows = (text.tokens.len() + 1).min(weights.len() / row);
    let audible = samples.div_ceil(STATE).clamp(1, heard);
    let attention = mean_attention(weights, rows, heads, heard, audible);
    let starts = path(&attention, audible);

    // A text that was cut off has no attention at its end.
    let sample = |token: usize| (starts.get(token).copied().unwrap_or(audible) * STATE).min(samples);
    let place = |WordTokens { text: word, tokens }: WordTokens| {
        let likely = &text.log_probabilities[tokens.clone()];
        let mean = likely.iter().sum::<f32>() / likely.len() as f32;
        let range = sample(tokens.start)..sample(tokens.end);
        Word { text: word, range, confidence: mean.exp().clamp(0.0, 1.0) }
    };
    words.into_iter().map(place).collect()
}

/// Returns whether the attention of tokens moves on through the audio as it does while they are spoken. In
/// a loop it stays where it is, or wanders. `weights` holds the attention of each token, head by head, to
/// each of `heard` states; the tokens before the `first` are left out.
pub(super) fn are_spoken(weights: &[f32], heads: usize, heard: usize, first: usize) -> bool {
    let row = heads * heard;
    if row == 0 || weights.len() / row <= first + 1 {
        return false;
    }
    let attention = mean_attention(weights, weights.len() / row, heads, heard, heard);
    let peaks: Vec<usize> = attention.chunks_exact(heard).skip(first).map(peak).collect();
    advance(&peaks)
}

/// Returns the focus of the attention of tokens: the share of it that lies within 0.2 s of where the token
/// has the most, as the mean of the tokens; `None` if there are none. `weights` is as in [`are_spoken`].
pub(super) fn focus(weights: &[f32], heads: usize, heard: usize) -> Option<f32> {
    let row = heads * heard;
    let tokens = weights.len().checked_div(row).filter(|tokens| *tokens > 0)?;
    let mut mean = vec![0.0; heard];
    let near = weights.chunks_exact(row).map(|token| {
        mean.fill(0.0);
        for head in token.chunks_exact(heard) {
            mean.iter_mut().zip(head).for_each(|(sum, weight)| *sum += weight / heads as f32);
        }
        let peak = peak(&mean);
        mean[peak.saturating_sub(NEAR)..(peak + NEAR + 1).min(heard)].iter().sum::<f32>()
    });
    Some(near.sum::<f32>() / tokens as f32)
}

/// Returns the index of the highest of some values, the first of equals.
fn peak(values: &[f32]) -> usize {
    let highest = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    values.iter().position(|value| *value == highest).unwrap_or(0)
}

/// Returns whether most of the places follow each other, at the pace of speech or slower.
fn advance(places: &[usize]) -> bool {
    // The last place of the rising sequence of each length that ends earliest, and where it began.
    let mut rising: Vec<(usize, usize)> = Vec::new();
    for place in places {
        let length = rising.partition_point(|(last, _)| last <= place);
        let began = if length == 0 { *place } else { rising[length - 1].1 };
        match rising.get_mut(length) {
            Some(sequence) => *sequence = (*place, began),
            None => rising.push((*place, began)),
        }
    }
    let Some((last, began)) = rising.last() else { return false };
    let in_order = rising.len() as f32 / places.len() as f32;
    in_order >= IN_ORDER && last - began >= FASTEST_TOKEN * (places.len() - 1)
}

/// Returns the attention of each of `rows` tokens to each of the first `audible` of `heard` states: the
/// mean of the heads, one row per token.
fn mean_attention(weights: &[f32], rows: usize, heads: usize, heard: usize, audible: usize) -> Vec<f32> {
    let mut mean = vec![0.0; rows * audible];
    let mut normal = vec![0.0; audible];
    for head in 0..heads {
        let tokens = || (0..rows).map(|token| &weights[(token * heads + head) * heard..][..audible]);
        let mut average = vec![0.0; audible];
        for weights in tokens() {
            average.iter_mut().zip(weights).for_each(|(sum, weight)| *sum += weight);
        }
        average.iter_mut().for_each(|sum| *sum /= rows as f32);
        let mut scale = vec![0.0; audible];
        for weights in tokens() {
            let deviations = weights.iter().zip(&average).map(|(weight, average)| weight - average);
            scale.iter_mut().zip(deviations).for_each(|(sum, deviation)| *sum += deviation * deviation);
        }
        for sum in &mut scale {
            *sum = (*sum / rows as f32).sqrt().max(f32::MIN_POSITIVE).recip();
        }
        for (weights, mean) in tokens().zip(mean.chunks_exact_mut(audible)) {
            let scaled = weights.iter().zip(&average).zip(&scale);
            for (normal, ((weight, average), scale)) in normal.iter_mut().zip(scaled) {
                *normal = (weight - average) * scale;
            }
            for (mean, value) in mean.iter_mut().zip(medians(&normal)) {
                // The attention of a damaged model may be NaN or infinite.
                *mean += if value.is_finite() { value / heads as f32 } else { 0.0 };
            }
        }
    }
    mean
}

/// Returns the median of the [`SMOOTHED`] values around each value; those beyond the ends are mirrored.
fn medians(values: &[f32]) -> Vec<f32> {
    let last = values.len() - 1;
    let mirrored: Vec<f32> = (0..values.len() + SMOOTHED - 1)
        .map(|at| at.abs_diff(REACH))
        .map(|at| values[if at > last { (2 * last).saturating_sub(at) } else { at }])
        .collect();
    mirrored.array_windows().map(|around| median(*around)).collect()
}

/// Returns the median by a network of exchanges, which the compiler makes one of vectors (Devillard, Fast
/// median search, 1998).
fn median(mut values: [f32; SMOOTHED]) -> f32 {
    const EXCHANGES: [(usize, usize); 13] = [
        (0, 5),
        (0, 3),
        (1, 6),
        (2, 4),
        (0, 1),
        (3, 5),
        (2, 6),
        (2, 3),
        (3, 6),
        (4, 5),
        (1, 4),
        (1, 3),
        (3, 4),
    ];
    for (low, high) in EXCHANGES {
        let (a, b) = (values[low], values[high]);
        values[low] = if b < a { b } else { a };
        values[high] = if b < a { a } else { b };
    }
    values[REACH]
}

/// Returns the column at which each row is reached on the path of the greatest sum from the first row and
/// column to the last. A step goes down, to the right, or both.
fn path(gains: &[f32], columns: usize) -> Vec<usize> {
    #[derive(Clone, Copy)]
    enum From {
        Both,
        Above,
        Left,
    }
    let rows = gains.len() / columns;
    let mut best = vec![f32::NEG_INFINITY; columns];
    let mut came = Vec::with_capacity(gains.len());
    for (row, gains) in gains.chunks_exact(columns).enumerate() {
        let mut diagonal = if row == 0 { 0.0 } else { f32::NEG_INFINITY };
        let mut left = f32::NEG_INFINITY;
        for (best, gain) in best.iter_mut().zip(gains) {
            let above = *best;
            let (from, before) = if diagonal >= above && diagonal >= left {
                (From::Both, diagonal)
            } else if above >= left {
                (From::Above, above)
            } else {
                (From::Left, left)
            };
            came.push(from);
            *best = before + gain;
            diagonal = above;
            left = *best;
        }
    }
    let mut starts = vec![0; rows];
    let (mut row, mut column) = (rows.saturating_sub(1), columns - 1);
    while row > 0 {
        match came[row * columns + column] {
            From::Left => column -= 1,
            step => {
                starts[row] = column;
                row -= 1;
                column -= usize::from(matches!(step, From::Both));
            }
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pieces: &[&str], by_character: bool) -> Vec<(String, Range<usize>)> {
        let pieces = pieces.iter().map(|piece| piece.as_bytes());
        join(pieces, by_character).into_iter().map(|piece| (piece.text, piece.tokens)).collect()
    }

    #[test]
    fn tokens_make_words() {
        assert_eq!(
            words(&[" Well", ",", " for", "ward", " -", " ten", "."], false),
            [("Well,".into(), 0..2), ("forward -".into(), 2..5), ("ten.".into(), 5..7)]
        );
        assert_eq!(words(&["你", "好", "。"], true), [("你".into(), 0..1), ("好。".into(), 1..3)]);
        assert!(words(&[], false).is_empty());
    }

    #[test]
    fn the_path_follows_what_is_bright() {
        let gains = [[1.0, 0.9, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0]];
        assert_eq!(path(gains.as_flattened(), 5), [0, 2, 3]);
        assert_eq!(path(&[1.0, 1.0], 2), [0]);
    }

    #[test]
    fn attention_advances_through_speech_and_not_in_a_loop() {
        let spoken: Vec<usize> = (0..20).map(|token| 10 + 7 * token).collect();
        assert!(advance(&spoken));
        let mut stray = spoken.clone();
        (stray[4], stray[11]) = (140, 0);
        assert!(advance(&stray), "two tokens look elsewhere");
        let again: Vec<usize> = (0..20).map(|token| 10 + 7 * (token % 5)).collect();
        assert!(!advance(&again));
        assert!(!advance(&[60; 20]));
        assert!(!advance(&(0..20).collect::<Vec<usize>>()), "nobody speaks as fast");
        assert!(!advance(&[]));
    }

    #[test]
    fn attention_to_a_place_is_focused() {
        let (heads, heard) = (2, 100);
        let even = vec![0.01; 3 * heads * heard];
        let spread = focus(&even, heads, heard).expect("there are tokens");
        assert!((0.1..0.22).contains(&spread), "{spread}");
        let mut sharp = vec![0.0; 2 * heads * heard];
        for (token, row) in sharp.chunks_exact_mut(heads * heard).enumerate() {
            (row[30 + 20 * token], row[heard + 35 + 20 * token], row[heard + 95]) = (1.0, 0.5, 0.5);
        }
        let focused = focus(&sharp, heads, heard).expect("there are tokens");
        assert!((focused - 0.75).abs() < 1e-6, "{focused}");
        assert_eq!(focus(&[], heads, heard), None);
        assert_eq!(focus(&[], 0, 0), None);
        assert!(focus(&[f32::NAN; 200], heads, heard).is_some_and(f32::is_nan), "a damaged model");
    }

    #[test]
    fn medians_are_those_of_a_sort() {
        let values: Vec<f32> = (0..500).map(|i| ((i * 7_919) % 101) as f32).collect();
        for (at, median) in medians(&values).into_iter().enumerate().skip(REACH).take(500 - 2 * REACH) {
            let mut around = values[at - REACH..=at + REACH].to_vec();
            around.sort_by(f32::total_cmp);
            assert_eq!(median, around[REACH]);
        }
    }

    #[test]
    fn smoothing_drops_a_lone_spike() {
        let values = [0.0, 0.0, 9.0, 0.0, 0.0];
        assert_eq!(medians(&values), [0.0; 5]);
        assert_eq!(medians(&[4.0]), [4.0]);
    }
}
