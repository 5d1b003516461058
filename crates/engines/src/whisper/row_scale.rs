//! Dynamic quantisation: the rows of an input at 256 levels each.

use rten_simd::ops::{BitOps, FloatOps, NarrowSaturate, NumOps};
use rten_simd::{Isa, SimdOp};
use rten_vecmath::MinMax;

/// Quantisation of a row: `x = scale * (level - zero)`.
#[derive(Clone, Copy)]
pub(super) struct RowScale {
    pub(super) scale: f32,
    pub(super) zero: u8,
}

/// Buffers, kept from one product to the next.
#[derive(Default)]
pub(super) struct Scratch {
    pub(super) levels: Vec<u8>,
    pub(super) rows: Vec<RowScale>,
    pub(super) products: Vec<i32>,
}

impl Scratch {
    /// Quantises rows of `inputs`.
    pub(super) fn quantise(&mut self, x: &[f32], inputs: usize) {
        self.rows.clear();
        self.levels.resize(x.len(), 0);
        for (row, levels) in x.chunks_exact(inputs).zip(self.levels.chunks_exact_mut(inputs)) {
            let (least, most) = MinMax::new(row).dispatch();
            let scale = RowScale::reaching(least, most);
            Quantise { row, scale, levels }.dispatch();
            self.rows.push(scale);
        }
    }
}

impl RowScale {
    /// Returns 256 levels from `least` to `most`, of which zero is one.
    fn reaching(least: f32, most: f32) -> RowScale {
        let (least, most) = (least.min(0.0), most.max(0.0));
        let scale = ((most - least) / 255.0).max(f32::MIN_POSITIVE);
        RowScale { scale, zero: (-least / scale).round() as u8 }
    }
}

/// A SIMD operation that quantises a row. It does what that of rten-vecmath does, whose closures are compiled
/// without the instructions of the kernel, so that each of them is a call.
struct Quantise<'a> {
    row: &'a [f32],
    scale: RowScale,
    levels: &'a mut [u8],
}

impl SimdOp for Quantise<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Quantise { row, scale: RowScale { scale, zero }, levels } = self;
        let (floats, ints, shorts, bytes) = (isa.f32(), isa.i32(), isa.i16(), isa.u8());
        let lanes = floats.len();
        let steps = scale.recip();
        let (all_steps, all_zero) = (floats.splat(steps), ints.splat(i32::from(zero)));
        let whole = row.len() / (4 * lanes) * 4 * lanes;
        let (chunks, rest) = row.split_at(whole);
        let (chunk_levels, rest_levels) = levels.split_at_mut(whole);
        for (chunk, levels) in chunks.chunks_exact(4 * lanes).zip(chunk_levels.chunks_exact_mut(4 * lanes)) {
            let mut rounded = [all_zero; 4];
            for (values, rounded) in chunk.chunks_exact(lanes).zip(&mut rounded) {
                let value = floats.mul(floats.load(values), all_steps);
                *rounded = ints.add(floats.to_int_round(value), all_zero);
            }
            let low = ints.narrow_saturate(rounded[0], rounded[1]);
            let high = ints.narrow_saturate(rounded[2], rounded[3]);
            bytes.store(shorts.narrow_saturate(low, high), levels);
        }
        for (value, level) in rest.iter().zip(rest_levels) {
            let rounded = (value * steps).round_ties_even() as i32 + i32::from(zero);
            *level = rounded.clamp(0, 255) as u8;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rten_vecmath::Quantize;

    #[test]
    fn levels_are_those_of_rten() {
        for length in [1, 63, 64, 515] {
            let x: Vec<f32> = (0..2 * length).map(|i| ((i * 7_919) % 1_009) as f32 / 100.0 - 3.0).collect();
            let mut scratch = Scratch::default();
            scratch.quantise(&x, length);
            let rows = x.chunks_exact(length).zip(scratch.levels.chunks_exact(length)).zip(&scratch.rows);
            for ((row, levels), RowScale { scale, zero }) in rows {
                let mut expected = Vec::with_capacity(length);
                let room = &mut expected.spare_capacity_mut()[..length];
                assert_eq!(levels, Quantize::new(row, room, scale.recip(), *zero).dispatch());
            }
        }
    }
}
