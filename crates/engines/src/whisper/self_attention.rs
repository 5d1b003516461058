//! Attention of the encoder: of every state to every state, head by head.
//!
//! The queries lie side by side in vectors, one per lane. So the softmax needs no sums across lanes, and keys
//! and values are read as they are. The scores of some keys at a time stay in the nearest cache: the weights
//! are relative to the highest score so far, and what was summed up before is scaled when a higher one comes
//! (the online softmax of FlashAttention).

use rten_simd::ops::{BitOps, FloatOps, NumOps};
use rten_simd::{Isa, SimdOp, SimdUnaryOp};
use rten_vecmath::Exp;

/// Width of an attention head in every Whisper model.
pub(super) const HEAD: usize = 64;

/// Number of vectors of queries that are processed side by side.
const VECTORS: usize = 3;
/// Number of keys, or of elements of a value, that a reading of the queries serves: the sums of a tile fit
/// the 16 registers of AVX2 with their operands.
const TILE: usize = 4;
/// Number of keys whose scores are computed at a time.
const KEYS: usize = 64;

/// A SIMD operation that computes the attention of every row to every row.
pub(super) struct SelfAttention<'a> {
    /// The query, key and value of a row side by side.
    pub(super) qkv: &'a [f32],
    /// Width of each of these.
    pub(super) width: usize,
    pub(super) context: &'a mut [f32],
}

impl SimdOp for SelfAttention<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let SelfAttention { qkv, width, context } = self;
        let stride = 3 * width;
        let rows = qkv.len() / stride;
        let block = VECTORS * isa.f32().len();
        let mut head_rows = HeadRows { keys: Vec::new(), values: Vec::new() };
        let mut queries = Block::new(block);
        for head in (0..width).step_by(HEAD) {
            head_rows.gather(qkv, stride, width, head);
            for first in (0..rows).step_by(block) {
                let count = block.min(rows - first);
                queries.take(qkv[first * stride + head..].chunks(stride).take(count));
                queries.attend(isa, &head_rows);
                for (column, row) in context[first * width..].chunks_mut(width).take(count).enumerate() {
                    queries.give(column, &mut row[head..head + HEAD]);
                }
            }
        }
    }
}

/// Keys and values of a head: one row of [`HEAD`] elements per state, and rows of zeros up to a whole tile.
struct HeadRows {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl HeadRows {
    fn gather(&mut self, qkv: &[f32], stride: usize, width: usize, head: usize) {
        self.keys.clear();
        self.values.clear();
        for row in qkv.chunks_exact(stride) {
            self.keys.extend_from_slice(&row[width + head..][..HEAD]);
            self.values.extend_from_slice(&row[2 * width + head..][..HEAD]);
        }
        let tiles = self.keys.len().next_multiple_of(TILE * HEAD);
        self.keys.resize(tiles, 0.0);
    }
}

/// Queries side by side.
struct Block {
    /// Number of queries.
    size: usize,
    /// One row per element of a query, scaled by the factor of the scores.
    queries: Vec<f32>,
    /// One row per key.
    scores: Vec<f32>,
    /// One row per element of a value.
    context: Vec<f32>,
}

impl Block {
    fn new(size: usize) -> Block {
        Block {
            size,
            queries: vec![0.0; HEAD * size],
            scores: vec![0.0; KEYS * size],
            context: vec![0.0; HEAD * size],
        }
    }

    /// Takes the queries at the beginning of some rows. Lanes without a query keep an earlier one.
    fn take<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>) {
        // A power of two, so the factor is exact.
        let scale = (HEAD as f32).sqrt().recip();
        for (column, row) in rows.enumerate() {
            for (queries, value) in self.queries.chunks_exact_mut(self.size).zip(&row[..HEAD]) {
                queries[column] = value * scale;
            }
        }
    }

    /// Returns the context of a query.
    fn give(&self, column: usize, out: &mut [f32]) {
        for (value, row) in out.iter_mut().zip(self.context.chunks_exact(self.size)) {
            *value = row[column];
        }
    }

    /// Computes the context of each query.
    #[inline(always)]
    fn attend<I: Isa>(&mut self, isa: I, rows: &HeadRows) {
        let floats = isa.f32();
        let lanes = floats.len();
        self.context.fill(0.0);
        let mut highest = [floats.splat(f32::NEG_INFINITY); VECTORS];
        let mut sums = [floats.zero(); VECTORS];
        for (keys, values) in rows.keys.chunks(KEYS * HEAD).zip(rows.values.chunks(KEYS * HEAD)) {
            let count = values.len() / HEAD;
            let top = self.score(isa, keys, count, highest);
            let mut scale = highest;
            for vector in 0..VECTORS {
                scale[vector] = Exp::apply(isa, floats.sub(highest[vector], top[vector]));
                sums[vector] = floats.mul(sums[vector], scale[vector]);
            }
            highest = top;
            for row in self.scores.chunks_exact_mut(self.size).take(count) {
                for (vector, scores) in row.chunks_exact_mut(lanes).enumerate() {
                    let weight = Exp::apply(isa, floats.sub(floats.load(scores), highest[vector]));
                    sums[vector] = floats.add(sums[vector], weight);
                    floats.store(weight, scores);
                }
            }
            self.add_values(isa, values, scale);
        }
        for row in self.context.chunks_exact_mut(self.size) {
            for (context, sum) in row.chunks_exact_mut(lanes).zip(sums) {
                floats.store(floats.div(floats.load(context), sum), context);
            }
        }
    }

    /// Computes the scores of some keys, of which the first `count` count. Returns the highest so far.
    #[inline(always)]
    fn score<I: Isa>(
        &mut self,
        isa: I,
        keys: &[f32],
        count: usize,
        mut highest: [I::F32; VECTORS],
    ) -> [I::F32; VECTORS] {
        let floats = isa.f32();
        let lanes = floats.len();
        let tiles = keys.chunks_exact(TILE * HEAD).zip(self.scores.chunks_exact_mut(TILE * self.size));
        for (tile, (keys, scores)) in tiles.enumerate() {
            let (keys, _) = keys.as_chunks::<HEAD>();
            let mut sums = [[floats.zero(); VECTORS]; TILE];
            for element in 0..HEAD {
                let queries = load(isa, &self.queries[element * self.size..]);
                for (sums, key) in sums.iter_mut().zip(keys) {
                    let factor = floats.splat(key[element]);
                    for (sum, query) in sums.iter_mut().zip(queries) {
                        *sum = floats.mul_add(query, factor, *sum);
                    }
                }
            }
            let in_tile = TILE.min(count - tile * TILE);
            for (sums, row) in sums.into_iter().zip(scores.chunks_exact_mut(self.size)).take(in_tile) {
                for (vector, sum) in sums.into_iter().enumerate() {
                    highest[vector] = floats.max(highest[vector], sum);
                    floats.store(sum, &mut row[vector * lanes..][..lanes]);
                }
            }
        }
        highest
    }

    /// Scales the context, and adds the values by their weights.
    #[inline(always)]
    fn add_values<I: Isa>(&mut self, isa: I, values: &[f32], scale: [I::F32; VECTORS]) {
        let floats = isa.f32();
        let lanes = floats.len();
        for (tile, context) in self.context.chunks_exact_mut(TILE * self.size).enumerate() {
            let mut sums = [[floats.zero(); VECTORS]; TILE];
            for (sums, row) in sums.iter_mut().zip(context.chunks_exact(self.size)) {
                for (vector, sum) in sums.iter_mut().enumerate() {
                    *sum = floats.mul(floats.load(&row[vector * lanes..][..lanes]), scale[vector]);
                }
            }
            for (key, values) in values.as_chunks::<HEAD>().0.iter().enumerate() {
                let weights = load(isa, &self.scores[key * self.size..]);
                // Of a slice of unknown length, the sums would be kept in memory, at half the speed.
                let values = &values.as_chunks::<TILE>().0[tile];
                for (sums, value) in sums.iter_mut().zip(values) {
                    let factor = floats.splat(*value);
                    for (sum, weight) in sums.iter_mut().zip(weights) {
                        *sum = floats.mul_add(weight, factor, *sum);
                    }
                }
            }
            for (sums, row) in sums.into_iter().zip(context.chunks_exact_mut(self.size)) {
                for (vector, sum) in sums.into_iter().enumerate() {
                    floats.store(sum, &mut row[vector * lanes..][..lanes]);
                }
            }
        }
    }
}

/// Loads the vectors of a row. A closure would be compiled without the instructions of the kernel, and each
/// load would be a call.
#[inline(always)]
fn load<I: Isa>(isa: I, row: &[f32]) -> [I::F32; VECTORS] {
    let floats = isa.f32();
    let lanes = floats.len();
    let row = &row[..VECTORS * lanes];
    let mut vectors = [floats.zero(); VECTORS];
    for (number, vector) in vectors.iter_mut().enumerate() {
        *vector = floats.load(&row[number * lanes..][..lanes]);
    }
    vectors
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns values from -1 to 1.
    fn noise(count: usize, salt: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7_919 + salt * 31) % 1_009) as f32 / 504.5 - 1.0).collect()
    }

    /// Computes the context of a row in float64.
    fn exact(qkv: &[f32], width: usize, row: usize) -> Vec<f64> {
        let stride = 3 * width;
        let query = &qkv[row * stride..][..width];
        let context = (0..width).step_by(HEAD).flat_map(|head| {
            let score = |row: &[f32]| {
                let products = (head..head + HEAD).map(|i| f64::from(query[i]) * f64::from(row[width + i]));
                (products.sum::<f64>() / 8.0).exp()
            };
            let scores: Vec<f64> = qkv.chunks_exact(stride).map(score).collect();
            let total: f64 = scores.iter().sum();
            let value = move |i: usize| {
                let rows = qkv.chunks_exact(stride).zip(&scores);
                rows.map(|(row, score)| score * f64::from(row[2 * width + i])).sum::<f64>() / total
            };
            (head..head + HEAD).map(value).collect::<Vec<f64>>()
        });
        context.collect()
    }

    /// The numbers of rows fill neither a block of queries, a tile nor the keys of a step; larger values make
    /// the highest score come late.
    #[test]
    fn attention_is_that_of_its_definition() {
        let width = 2 * HEAD;
        for rows in [1, 5, 47, 131, 200] {
            let mut qkv = noise(rows * 3 * width, rows);
            for (row, values) in qkv.chunks_exact_mut(3 * width).enumerate() {
                values.iter_mut().for_each(|value| *value *= 1.0 + row as f32 / 20.0);
            }
            let mut context = vec![f32::NAN; rows * width];
            SelfAttention { qkv: &qkv, width, context: &mut context }.dispatch();
            for (row, context) in context.chunks_exact(width).enumerate() {
                for (value, exact) in context.iter().zip(exact(&qkv, width, row)) {
                    let error = (f64::from(*value) - exact).abs();
                    assert!(error < 1e-4 * exact.abs().max(1.0), "{value} instead of {exact}");
                }
            }
        }
    }
}
