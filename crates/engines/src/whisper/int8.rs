//! Affine maps in 8-bit integers, which a CPU multiplies several times as fast as floats.
//!
//! A weight is an integer times the scale of its output, fixed when the model is loaded. The input is
//! quantised to 256 levels row by row, over the range of that row (dynamic quantisation).

use std::sync::OnceLock;

use rten_gemm::{GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::ops::{BitOps, FloatOps, NumOps, ToFloat};
use rten_simd::{Isa, SimdOp};
use rten_vecmath::MinMax;

use super::ops::{Int8Gemm, Kernels, matrix};
use super::row_scale::RowScale;

/// Number of rows multiplied at a time: few enough that their products stay in the cache until they are
/// scaled.
pub(super) const ROWS: usize = 64;

/// Number of rows from which a map by rows is worth rearranging: the prompt of a text has three, and a step
/// of a beam search five.
const MANY_ROWS: usize = 4;

/// Largest quantised weight.
const LARGEST: f32 = 127.0;
/// Largest quantised weight if the kernel adds two products in 16 bits: on x86 without VNNI, where larger
/// weights would saturate.
const LARGEST_OF_PAIRS: f32 = 63.0;

/// An affine map, `y = x Wᵀ + b`.
pub(super) struct Int8Linear {
    weight: Weight,
    /// Value of one step of each output's weights.
    scales: Vec<f32>,
    /// Sum of each output's weights, by which the zero level is to be subtracted.
    sums: Vec<f32>,
    bias: Vec<f32>,
    inputs: usize,
}

enum Weight {
    /// Rearranged for the kernel, which pays off if many rows are multiplied at a time.
    Packed(PackedBMatrix<i8>),
    /// One row per output, read from end to end for each row multiplied.
    Rows {
        rows: Vec<i8>,
        /// The same, rearranged once several rows were to be multiplied at a time.
        packed: OnceLock<PackedBMatrix<i8>>,
    },
}

impl Int8Linear {
    /// Creates a map that will be applied to many rows at a time. `weight` holds a row of `inputs` for
    /// each output.
    pub(super) fn packed(int8: &Int8Gemm, weight: &[f32], bias: Vec<f32>, inputs: usize) -> Int8Linear {
        let outputs = bias.len();
        let Int8Weights { weight, scales, sums } = Int8Weights::of(int8, weight, inputs);
        let weight = Weight::Packed(int8.prepack_b(matrix(&weight, [inputs, outputs], [1, inputs])));
        Int8Linear { weight, scales, sums, bias, inputs }
    }

    /// Creates a map that will mostly be applied to one row at a time. The first time that it is applied to
    /// several rows, it takes as much memory again.
    pub(super) fn rows(int8: &Int8Gemm, weight: &[f32], bias: Vec<f32>, inputs: usize) -> Int8Linear {
        let Int8Weights { weight, scales, sums } = Int8Weights::of(int8, weight, inputs);
        let weight = Weight::Rows { rows: weight, packed: OnceLock::new() };
        Int8Linear { weight, scales, sums, bias, inputs }
    }

    /// Returns the number of values in a row of the result.
    pub(super) fn outputs(&self) -> usize {
        self.scales.len()
    }

    /// Returns the weights of one output.
    ///
    /// # Panics
    /// Panics if the map was packed.
    pub(super) fn row(&self, output: usize) -> impl Iterator<Item = f32> {
        let Weight::Rows { rows, .. } = &self.weight else { panic!("a packed map has no rows") };
        let scale = self.scales[output];
        rows[output * self.inputs..][..self.inputs].iter().map(move |level| f32::from(*level) * scale)
    }

    /// Computes `out = x Wᵀ + b`.
    pub(super) fn apply(&self, kernels: &mut Kernels, x: &[f32], out: &mut [f32]) {
        self.run(kernels, x, out, false);
    }

    /// Computes `out += x Wᵀ + b`.
    pub(super) fn add(&self, kernels: &mut Kernels, x: &[f32], out: &mut [f32]) {
        self.run(kernels, x, out, true);
    }

    fn run(&self, kernels: &mut Kernels, x: &[f32], out: &mut [f32], add: bool) {
        let (inputs, outputs) = (self.inputs, self.outputs());
        let b = self.operand(&kernels.int8, x.len() / inputs);
        let at_once = if matches!(b, GemmInputB::Packed(_)) { ROWS } else { 1 };
        for (x, out) in x.chunks(at_once * inputs).zip(out.chunks_mut(at_once * outputs)) {
            let rows = x.len() / inputs;
            let Kernels { int8, scratch, .. } = kernels;
            scratch.quantise(x, inputs);
            scratch.products.resize(rows * outputs, 0);
            let a = GemmInputA::Unpacked(matrix(&scratch.levels, [rows, inputs], [inputs, 1]));
            // The zero level is subtracted here: rten-gemm 0.27 mixes up those of different rows.
            int8.gemm(&mut scratch.products, a, b, GemmOptions::default()).expect("the shapes agree");

            let products = scratch.products.chunks_exact(outputs);
            for ((products, levels), out) in products.zip(&scratch.rows).zip(out.chunks_exact_mut(outputs)) {
                Rescale { map: self, products, levels: *levels, out, add }.dispatch();
            }
        }
    }

    /// Returns the weights in the form to multiply `rows` rows by. Those that are not packed are multiplied
    /// row by row: a product of several rows would rearrange them first.
    fn operand(&self, int8: &Int8Gemm, rows: usize) -> GemmInputB<'_, i8> {
        let unpacked = |weight| matrix(weight, [self.inputs, self.outputs()], [1, self.inputs]);
        match &self.weight {
            Weight::Packed(packed) => GemmInputB::Packed(packed),
            Weight::Rows { rows: weight, packed } if rows >= MANY_ROWS => {
                GemmInputB::Packed(packed.get_or_init(|| int8.prepack_b(unpacked(weight))))
            }
            Weight::Rows { rows: weight, packed } => match packed.get().filter(|_| rows > 1) {
                Some(packed) => GemmInputB::Packed(packed),
                None => GemmInputB::Unpacked(unpacked(weight)),
            },
        }
    }
}

/// Integer weights, with their scales and sums.
struct Int8Weights {
    weight: Vec<i8>,
    scales: Vec<f32>,
    sums: Vec<f32>,
}

impl Int8Weights {
    fn of(int8: &Int8Gemm, floats: &[f32], inputs: usize) -> Int8Weights {
        let largest = if int8.may_saturate() { LARGEST_OF_PAIRS } else { LARGEST };
        let mut weights =
            Int8Weights { weight: Vec::with_capacity(floats.len()), scales: Vec::new(), sums: Vec::new() };
        for row in floats.chunks_exact(inputs) {
            let (least, most) = MinMax::new(row).dispatch();
            let reach = most.max(-least);
            let scale = (reach / largest).max(f32::MIN_POSITIVE);
            let sum = Levels { row, scale, levels: &mut weights.weight }.dispatch();
            weights.scales.push(scale);
            weights.sums.push(sum as f32 * scale);
        }
        weights
    }
}

/// A SIMD operation that appends the levels of a row of weights, and returns their sum.
struct Levels<'a> {
    row: &'a [f32],
    scale: f32,
    levels: &'a mut Vec<i8>,
}

impl SimdOp for Levels<'_> {
    type Output = i32;

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) -> i32 {
        /// The largest float below a half. Its sum with a value, cut off, is the value rounded as
        /// `f32::round` does, which is a call of a function for each value without SSE 4.1.
        const HALF: f32 = 0.499_999_97;
        let Levels { row, scale, levels } = self;
        let (ints, floats) = (isa.i32(), isa.f32());
        let mut rounded = [0; 64];
        let lanes = floats.len();
        let (scales, half, sign) = (floats.splat(scale), floats.splat(HALF), floats.splat(-0.0));
        let mut sum = 0;
        let whole = row.len() / rounded.len() * rounded.len();
        let (chunks, rest) = row.split_at(whole);
        for chunk in chunks.chunks_exact(rounded.len()) {
            for (values, rounded) in chunk.chunks_exact(lanes).zip(rounded.chunks_exact_mut(lanes)) {
                let value = floats.div(floats.load(values), scales);
                let half = floats.or(half, floats.and(value, sign));
                ints.store(floats.to_int_trunc(floats.add(value, half)), rounded);
            }
            sum += rounded.iter().sum::<i32>();
            levels.extend(rounded.iter().map(|level| *level as i8));
        }
        let rest = rest.iter().map(|value| (value / scale).round() as i8);
        sum += rest.clone().map(i32::from).sum::<i32>();
        levels.extend(rest);
        sum
    }
}

/// A SIMD operation that scales one row of products, and adds the bias.
struct Rescale<'a> {
    map: &'a Int8Linear,
    products: &'a [i32],
    levels: RowScale,
    out: &'a mut [f32],
    add: bool,
}

impl SimdOp for Rescale<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let Rescale { map: Int8Linear { scales, sums, bias, .. }, products, levels, out, add } = self;
        let (ints, floats) = (isa.i32(), isa.f32());
        let lanes = floats.len();
        let scale = floats.splat(levels.scale);
        let zero = floats.splat(-f32::from(levels.zero) * levels.scale);
        let whole = out.len() / lanes * lanes;
        for at in (0..whole).step_by(lanes) {
            let lanes = at..at + lanes;
            let product = ints.to_float(ints.load(&products[lanes.clone()]));
            let factor = floats.mul(scale, floats.load(&scales[lanes.clone()]));
            let rest = floats.load(&bias[lanes.clone()]);
            let rest = floats.mul_add(floats.load(&sums[lanes.clone()]), zero, rest);
            let rest = if add { floats.add(rest, floats.load(&out[lanes.clone()])) } else { rest };
            floats.store(floats.mul_add(product, factor, rest), &mut out[lanes]);
        }
        for at in whole..out.len() {
            let exact = products[at] as f32 * scales[at] - f32::from(levels.zero) * sums[at];
            let value = levels.scale * exact + bias[at];
            out[at] = if add { out[at] + value } else { value };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns values from -1 to 1.
    fn noise(count: usize, salt: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7_919 + salt) % 1_009) as f32 / 504.5 - 1.0).collect()
    }

    /// A step of a beam search gives each text the bits that it would have alone.
    #[test]
    fn several_rows_have_the_bits_of_each_alone() {
        let mut kernels = Kernels::default();
        let (inputs, outputs, rows) = (512, 70, 5);
        let map = Int8Linear::rows(&kernels.int8, &noise(inputs * outputs, 1), noise(outputs, 2), inputs);
        let x = noise(rows * inputs, 3);
        let mut alone = vec![f32::NAN; rows * outputs];
        for (x, out) in x.chunks_exact(inputs).zip(alone.chunks_exact_mut(outputs)) {
            map.apply(&mut kernels, x, out);
        }
        for count in [rows, 2] {
            let mut together = vec![f32::NAN; count * outputs];
            map.apply(&mut kernels, &x[..count * inputs], &mut together);
            assert_eq!(together, alone[..count * outputs]);
        }
    }

    /// The integers of the product are exact on every processor; only the scaling rounds.
    #[test]
    fn products_are_those_of_the_integers() {
        let mut kernels = Kernels::default();
        let (inputs, outputs) = (512, 70);
        let weight = noise(inputs * outputs, 1);
        let Int8Weights { weight: levels, scales, .. } = Int8Weights::of(&kernels.int8, &weight, inputs);
        let map = Int8Linear::rows(&kernels.int8, &weight, vec![0.0; outputs], inputs);
        let x = noise(inputs, 3);
        let mut out = vec![f32::NAN; outputs];
        map.apply(&mut kernels, &x, &mut out);
        let RowScale { scale, zero } = kernels.scratch.rows[0];
        let rows = levels.chunks_exact(inputs).zip(scales).zip(out);
        for ((row, row_scale), value) in rows {
            let products = row
                .iter()
                .zip(&kernels.scratch.levels)
                .map(|(weight, level)| i32::from(*weight) * (i32::from(*level) - i32::from(zero)));
            let exact = f64::from(products.sum::<i32>()) * f64::from(scale) * f64::from(row_scale);
            assert!((f64::from(value) - exact).abs() <= 1e-4, "{value} instead of {exact}");
        }
    }

    /// Halves are rounded away from zero, and the float below a half is not.
    #[test]
    fn levels_are_rounded_as_floats_are() {
        let mut row = noise(100, 4);
        row[..8].copy_from_slice(&[127.0, 0.5, -0.5, 1.5, -2.5, 0.499_999_97, 62.5, -126.5]);
        let mut levels = Vec::new();
        let sum = Levels { row: &row, scale: 1.0, levels: &mut levels }.dispatch();
        let expected: Vec<i8> = row.iter().map(|value| value.round() as i8).collect();
        assert_eq!(levels, expected);
        assert_eq!(sum, expected.into_iter().map(i32::from).sum::<i32>());
    }

    /// Compares within the accuracy of 8 bits: a hundredth of the sum of the products.
    #[test]
    fn maps_agree_with_floats() {
        let mut kernels = Kernels::default();
        let (inputs, outputs, rows) = (512, 40, 70);
        let weight = noise(inputs * outputs, 1);
        let bias = noise(outputs, 2);
        let x = noise(rows * inputs, 3).into_iter().enumerate();
        let x: Vec<f32> = x.map(|(i, value)| 3.0 * value + (i / inputs % 9) as f32 - 4.0).collect();
        let packed = Int8Linear::packed(&kernels.int8, &weight, bias.clone(), inputs);
        let plain = Int8Linear::rows(&kernels.int8, &weight, bias.clone(), inputs);
        for map in [packed, plain] {
            let mut out = vec![f32::NAN; rows * outputs];
            map.apply(&mut kernels, &x, &mut out);
            for (x, out) in x.chunks_exact(inputs).zip(out.chunks_exact(outputs)) {
                for ((weights, bias), value) in weight.chunks_exact(inputs).zip(&bias).zip(out) {
                    let products = x.iter().zip(weights).map(|(x, weight)| x * weight);
                    let (exact, sum) =
                        products.fold((*bias, 0.0), |(exact, sum), p| (exact + p, sum + p.abs()));
                    assert!((value - exact).abs() < 0.01 * sum, "{value} instead of {exact}");
                }
            }
            let once = out.clone();
            map.add(&mut kernels, &x, &mut out);
            assert!(
                out.iter()
                    .zip(once)
                    .all(|(twice, once)| (twice - 2.0 * once).abs() <= 1e-5 * once.abs().max(1.0))
            );
        }
    }
}
