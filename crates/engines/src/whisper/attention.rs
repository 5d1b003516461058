//! Attention of the decoder: of a few queries to the audio, and of each query to the tokens of its text.
//!
//! A step of the decoder reads the keys and values of all the audio for the few texts that it extends, so
//! memory sets the pace. They are stored in float16, in the order in which they are read, and read once for
//! all texts of a step.

use rten_simd::ops::{BitOps, Extend, NarrowSaturate, NumOps};
use rten_simd::{Isa, SimdOp, f16};

use super::ops::softmax;
use super::self_attention::HEAD;

/// Number of columns of a panel: the lanes of the widest vector of float16.
const PANEL: usize = 32;

/// Largest number of queries that share a reading of the audio: as many as a beam search has by default, and
/// their sums fit the registers.
const TOGETHER: usize = 5;

/// Keys and values of the audio in one layer.
pub(super) struct AudioMemory {
    heads: Vec<HeadMemory>,
    states: usize,
}

/// Keys and values of the audio for one head.
struct HeadMemory {
    /// One row per element of a key, one column per state.
    keys: HalfMatrix,
    /// One row per state, one column per element of a value.
    values: HalfMatrix,
}

impl AudioMemory {
    /// Stores the keys and values in `rows`, which holds a row for each state: its key and value, each of
    /// `width` elements.
    pub(super) fn new(rows: &[f32], width: usize) -> AudioMemory {
        let states = rows.len() / (2 * width);
        // The factor of the scores, a power of two, is exact here.
        let scale = (HEAD as f32).sqrt().recip();
        let mut turned = vec![0.0; HEAD * PANEL];
        let heads = (0..width).step_by(HEAD).map(|head| {
            let mut keys = HalfMatrix::zero(HEAD, states);
            let panels = keys.halves.chunks_exact_mut(HEAD * PANEL);
            for (panel, rows) in panels.zip(rows.chunks(PANEL * 2 * width)) {
                turned.fill(0.0);
                for (column, row) in rows.chunks_exact(2 * width).enumerate() {
                    for (element, value) in row[head..head + HEAD].iter().enumerate() {
                        turned[element * PANEL + column] = *value;
                    }
                }
                Halve { rows: &turned, stride: PANEL, scale, halves: panel }.dispatch();
            }
            let mut values = HalfMatrix::zero(states, HEAD);
            for (panel, halves) in values.halves.chunks_exact_mut(states * PANEL).enumerate() {
                let rows = &rows[width + head + panel * PANEL..];
                Halve { rows, stride: 2 * width, scale: 1.0, halves }.dispatch();
            }
            HeadMemory { keys, values }
        });
        AudioMemory { heads: heads.collect(), states }
    }

    /// Returns the number of states of the audio.
    pub(super) fn states(&self) -> usize {
        self.states
    }

    /// Computes the attention of each query, a row of `queries`, into the same row of `context`. Passes the
    /// row, the head and the attention to each state to `look`.
    pub(super) fn attend(
        &self,
        queries: &[f32],
        scores: &mut Vec<f32>,
        context: &mut [f32],
        mut look: impl FnMut(usize, usize, &[f32]),
    ) {
        let width = self.heads.len() * HEAD;
        let padded = self.states.next_multiple_of(PANEL);
        scores.resize(TOGETHER * padded, 0.0);
        let groups = queries.chunks(TOGETHER * width).zip(context.chunks_mut(TOGETHER * width));
        for (first, (queries, context)) in (0..).step_by(TOGETHER).zip(groups) {
            let count = queries.len() / width;
            for (number, head) in self.heads.iter().enumerate() {
                let at = number * HEAD;
                head.keys.multiply(&queries[at..], width, scores, padded, count);
                for (row, scores) in scores.chunks_exact_mut(padded).take(count).enumerate() {
                    let scores = &mut scores[..self.states];
                    softmax(scores, self.states);
                    look(first + row, number, scores);
                }
                head.values.multiply(scores, padded, &mut context[at..], width, count);
            }
        }
    }
}

/// A matrix of float16 in panels of [`PANEL`] columns: all rows of the first panel, then all rows of the
/// next.
struct HalfMatrix {
    halves: Vec<f16>,
    rows: usize,
}

impl HalfMatrix {
    fn zero(rows: usize, columns: usize) -> HalfMatrix {
        HalfMatrix { halves: vec![f16::default(); rows * columns.next_multiple_of(PANEL)], rows }
    }

    /// Multiplies `count` vectors, which begin `stride` elements apart in `x`, by the matrix. The products
    /// begin `out_stride` elements apart in `out`, and are padded to whole panels.
    fn multiply(&self, x: &[f32], stride: usize, out: &mut [f32], out_stride: usize, count: usize) {
        match count {
            1 => Multiply::<1> { matrix: self, x, stride, out, out_stride }.dispatch(),
            2 => Multiply::<2> { matrix: self, x, stride, out, out_stride }.dispatch(),
            3 => Multiply::<3> { matrix: self, x, stride, out, out_stride }.dispatch(),
            4 => Multiply::<4> { matrix: self, x, stride, out, out_stride }.dispatch(),
            TOGETHER => Multiply::<TOGETHER> { matrix: self, x, stride, out, out_stride }.dispatch(),
            _ => unreachable!("{count} vectors at once"),
        }
    }
}

/// A SIMD operation that multiplies `N` vectors by a matrix.
struct Multiply<'a, const N: usize> {
    matrix: &'a HalfMatrix,
    x: &'a [f32],
    stride: usize,
    out: &'a mut [f32],
    out_stride: usize,
}

impl<const N: usize> SimdOp for Multiply<'_, N> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Multiply { matrix: HalfMatrix { halves: matrix, rows }, x, stride, out, out_stride } = self;
        let (floats, halves) = (isa.f32(), isa.f16());
        let (lanes, wide) = (floats.len(), halves.len());
        let x: [&[f32]; N] = std::array::from_fn(|vector| &x[vector * stride..][..*rows]);
        for (panel, matrix) in matrix.chunks_exact(rows * PANEL).enumerate() {
            for at in (0..PANEL).step_by(wide) {
                let mut sums = [[floats.zero(); 2]; N];
                for (row, values) in matrix.chunks_exact(PANEL).enumerate() {
                    let values = halves.load(&values[at..at + wide]);
                    let (low, high) = (halves.extend_low(values), halves.extend_high(values));
                    for (sums, x) in sums.iter_mut().zip(&x) {
                        let factor = floats.splat(x[row]);
                        *sums = [floats.mul_add(low, factor, sums[0]), floats.mul_add(high, factor, sums[1])];
                    }
                }
                for (vector, [low, high]) in sums.into_iter().enumerate() {
                    let out = &mut out[vector * out_stride + panel * PANEL + at..][..wide];
                    floats.store(low, &mut out[..lanes]);
                    floats.store(high, &mut out[lanes..]);
                }
            }
        }
    }
}

/// A SIMD operation that scales the first [`PANEL`] elements of each row, and rounds them to float16.
struct Halve<'a> {
    rows: &'a [f32],
    /// Distance between the rows.
    stride: usize,
    scale: f32,
    halves: &'a mut [f16],
}

impl SimdOp for Halve<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Halve { rows, stride, scale, halves } = self;
        let (floats, narrow) = (isa.f32(), isa.f16());
        let (lanes, wide) = (floats.len(), narrow.len());
        let scale = floats.splat(scale);
        for (row, halves) in rows.chunks(stride).zip(halves.chunks_exact_mut(PANEL)) {
            for at in (0..PANEL).step_by(wide) {
                let low = floats.mul(floats.load(&row[at..at + lanes]), scale);
                let high = floats.mul(floats.load(&row[at + lanes..at + wide]), scale);
                narrow.store(floats.narrow_saturate(low, high), &mut halves[at..at + wide]);
            }
        }
    }
}

/// A SIMD operation that computes the attention of a query to some tokens of a cache, head by head.
pub(super) struct TextAttention<'a> {
    pub(super) query: &'a [f32],
    /// Slots of keys and values side by side, one per token read.
    pub(super) cache: &'a [f32],
    /// Slots of the tokens.
    pub(super) slots: &'a [u32],
    pub(super) scores: &'a mut Vec<f32>,
    pub(super) context: &'a mut [f32],
}

impl SimdOp for TextAttention<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let TextAttention { query, cache, slots, scores, context } = self;
        let floats = isa.f32();
        let (width, lanes) = (query.len(), floats.len());
        let scale = (HEAD as f32).sqrt().recip();
        scores.resize(slots.len().max(scores.len()), 0.0);
        let scores = &mut scores[..slots.len()];
        let heads = query.chunks_exact(HEAD).zip(context.chunks_exact_mut(HEAD));
        for (at, (query, context)) in (0..).step_by(HEAD).zip(heads) {
            for (score, slot) in scores.iter_mut().zip(slots) {
                let key = &cache[*slot as usize * 2 * width + at..][..HEAD];
                let mut sum = floats.zero();
                for (query, key) in query.chunks_exact(lanes).zip(key.chunks_exact(lanes)) {
                    sum = floats.mul_add(floats.load(query), floats.load(key), sum);
                }
                *score = floats.sum(sum) * scale;
            }
            softmax(scores, scores.len());
            context.fill(0.0);
            for (weight, slot) in scores.iter().zip(slots) {
                let weight = floats.splat(*weight);
                let value = &cache[*slot as usize * 2 * width + width + at..][..HEAD];
                for (context, value) in context.chunks_exact_mut(lanes).zip(value.chunks_exact(lanes)) {
                    let sum = floats.mul_add(floats.load(value), weight, floats.load(context));
                    floats.store(sum, context);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 2 * HEAD;

    /// Returns values from -1 to 1.
    fn noise(count: usize, salt: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7_919 + salt * 31) % 1_009) as f32 / 504.5 - 1.0).collect()
    }

    /// Computes the attention of a query to rows of a key and a value in float64.
    fn exact(query: &[f32], rows: &[&[f32]]) -> (Vec<f64>, Vec<f64>) {
        let mut context = Vec::new();
        let mut weights = Vec::new();
        for head in (0..WIDTH).step_by(HEAD) {
            let score = |row: &&[f32]| {
                let products = (head..head + HEAD).map(|i| f64::from(query[i]) * f64::from(row[i]));
                (products.sum::<f64>() / 8.0).exp()
            };
            let scores: Vec<f64> = rows.iter().map(score).collect();
            let total: f64 = scores.iter().sum();
            weights.extend(scores.iter().map(|score| score / total));
            context.extend((head..head + HEAD).map(|i| {
                let values = rows.iter().zip(&scores).map(|(row, score)| score * f64::from(row[WIDTH + i]));
                values.sum::<f64>() / total
            }));
        }
        (context, weights)
    }

    fn assert_close(values: &[f32], exact: &[f64], tolerance: f64) {
        assert_eq!(values.len(), exact.len());
        for (value, exact) in values.iter().zip(exact) {
            assert!((f64::from(*value) - exact).abs() < tolerance, "{value} instead of {exact}");
        }
    }

    /// 70 states do not fill the last panel, and 7 queries are a group of five and one of two.
    #[test]
    fn attention_to_the_audio_is_exact_to_half_precision() {
        let (states, queries) = (70, 7);
        let rows = noise(states * 2 * WIDTH, 1);
        let query = noise(queries * WIDTH, 2);
        let memory = AudioMemory::new(&rows, WIDTH);
        assert_eq!(memory.states(), states);
        let mut context = vec![f32::NAN; queries * WIDTH];
        let mut seen = vec![Vec::new(); queries];
        let mut scores = Vec::new();
        memory.attend(&query, &mut scores, &mut context, |row, head, weights| {
            assert_eq!(seen[row].len(), head * states);
            seen[row].extend_from_slice(weights);
        });
        let rows: Vec<&[f32]> = rows.chunks_exact(2 * WIDTH).collect();
        for (query, (context, seen)) in query.chunks_exact(WIDTH).zip(context.chunks_exact(WIDTH).zip(&seen))
        {
            let (exact_context, exact_weights) = exact(query, &rows);
            assert_close(context, &exact_context, 1e-3);
            assert_close(seen, &exact_weights, 1e-4);
        }
    }

    /// A step of one text and a step of five give the same text the same bits.
    #[test]
    fn attention_does_not_depend_on_the_other_queries() {
        let rows = noise(40 * 2 * WIDTH, 3);
        let memory = AudioMemory::new(&rows, WIDTH);
        let query = noise(5 * WIDTH, 4);
        let (mut together, mut scores) = (vec![0.0; 5 * WIDTH], Vec::new());
        memory.attend(&query, &mut scores, &mut together, |_, _, _| {});
        for (query, together) in query.chunks_exact(WIDTH).zip(together.chunks_exact(WIDTH)) {
            let mut alone = vec![0.0; WIDTH];
            memory.attend(query, &mut scores, &mut alone, |_, _, _| {});
            assert_eq!(alone, together);
        }
    }

    #[test]
    fn attention_to_a_text_is_to_its_slots() {
        let cache = noise(9 * 2 * WIDTH, 5);
        let query = noise(WIDTH, 6);
        let slots = [7, 0, 3, 8];
        let rows: Vec<&[f32]> =
            slots.iter().map(|slot| &cache[*slot as usize * 2 * WIDTH..][..2 * WIDTH]).collect();
        let (mut context, mut scores) = (vec![f32::NAN; WIDTH], Vec::new());
        let text = TextAttention {
            query: &query,
            cache: &cache,
            slots: &slots,
            scores: &mut scores,
            context: &mut context,
        };
        text.dispatch();
        assert_close(&context, &exact(&query, &rows).0, 1e-6);
    }
}
