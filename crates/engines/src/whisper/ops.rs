//! The basic operations of a transformer.
//!
//! A matrix is a slice of rows. Shapes are settled when a model is loaded, so a product of unfitting
//! shapes is a defect of this module, not of its input.

use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_tensor::{Matrix, NdTensorView};
use rten_vecmath::{Gelu, Normalize, NormalizeOptions, Softmax, Sum, SumSquareSub};

use super::row_scale::Scratch;

/// Multiplier of float matrices, with the best kernel of this machine.
pub(super) type Gemm = GemmExecutor<f32>;
/// Multiplier of quantised activations and integer weights.
pub(super) type Int8Gemm = GemmExecutor<u8, i8, i32>;

/// Kernels and buffers of one thread. The kernels stay on the thread, as kernels cannot be sent to
/// another.
#[derive(Default)]
pub(super) struct Kernels {
    pub(super) float: Gemm,
    pub(super) int8: Int8Gemm,
    pub(super) scratch: Scratch,
}

/// Returns a view of `rows` x `columns` elements, `strides` apart.
pub(super) fn matrix<T>(data: &[T], shape: [usize; 2], strides: [usize; 2]) -> Matrix<'_, T> {
    NdTensorView::from_slice_with_strides(shape, data, strides).expect("the slice holds the shape")
}

/// An affine map, `y = x Wᵀ + b`.
pub(super) struct Linear {
    weight: PackedBMatrix<f32>,
    bias: Vec<f32>,
    inputs: usize,
}

impl Linear {
    /// Creates a map. `weight` holds a row of `inputs` for each output.
    pub(super) fn new(gemm: &Gemm, weight: &[f32], bias: Vec<f32>, inputs: usize) -> Linear {
        let weight = gemm.prepack_b(matrix(weight, [inputs, bias.len()], [1, inputs]));
        Linear { weight, bias, inputs }
    }

    /// Returns the number of values in a row of the result.
    pub(super) fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// Computes `out = x Wᵀ + b`.
    pub(super) fn apply(&self, gemm: &Gemm, x: &[f32], out: &mut [f32]) {
        let rows = matrix(x, [x.len() / self.inputs, self.inputs], [self.inputs, 1]);
        let options = GemmOptions { bias: Some(BiasVector::Row(&self.bias)), ..GemmOptions::default() };
        let (a, b) = (GemmInputA::Unpacked(rows), GemmInputB::Packed(&self.weight));
        gemm.gemm(out, a, b, options).expect("the shapes agree");
    }
}

/// Layer normalisation, with PyTorch's epsilon.
pub(super) struct Norm {
    /// Factor of each element.
    pub(super) gamma: Vec<f32>,
    /// Offset that is then added to each element.
    pub(super) beta: Vec<f32>,
}

impl Norm {
    /// Normalises each row of `x` into `out`.
    pub(super) fn apply(&self, x: &[f32], out: &mut [f32]) {
        const EPSILON: f32 = 1e-5;
        let width = self.gamma.len();
        out.copy_from_slice(x);
        for row in out.chunks_exact_mut(width) {
            let mean = Sum::new(row).dispatch() / width as f32;
            let variance = SumSquareSub::new(row, mean).dispatch() / width as f32;
            let options = NormalizeOptions {
                pre_scale_bias: mean,
                scale: (variance + EPSILON).sqrt().recip(),
                element_scale: Some(&self.gamma),
                bias: 0.0,
                element_bias: Some(&self.beta),
            };
            Normalize::new_mut(row, options).dispatch();
        }
    }
}

/// Applies the Gaussian error linear unit to each element, in place.
pub(super) fn gelu(x: &mut [f32]) {
    Gelu {}.map_mut(x);
}

/// Applies the softmax to each row, in place.
pub(super) fn softmax(x: &mut [f32], width: usize) {
    for row in x.chunks_exact_mut(width) {
        Softmax::new_mut(row).dispatch();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_normalised_row_has_mean_beta_and_deviation_gamma() {
        let norm = Norm { gamma: vec![2.0; 4], beta: vec![1.0; 4] };
        let mut out = [0.0; 4];
        norm.apply(&[1.0, 3.0, 1.0, 3.0], &mut out);
        for (value, expected) in out.into_iter().zip([-1.0, 3.0, -1.0, 3.0]) {
            assert!((value - expected).abs() < 1e-4, "{value}");
        }
    }
}
