//! The few operations a transformer is made of.
//!
//! A matrix is a slice of rows. Shapes are settled when a model is loaded, so a product that doesn't fit is a defect
//! of this module, not of its input.

use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_tensor::{Matrix, NdTensorView};
use rten_vecmath::{Gelu, Normalize, NormalizeOptions, Softmax, Sum, SumSquareSub};

use super::quantized::Scratch;

/// Multiplies matrices of floats with the best kernel this machine has.
pub(super) type Gemm = GemmExecutor<f32>;
/// The same for levels of activations and whole weights.
pub(super) type Int8 = GemmExecutor<u8, i8, i32>;

/// What a thread computes with. It stays there, as kernels can't be sent to another.
#[derive(Default)]
pub(super) struct Kernels {
    pub(super) float: Gemm,
    pub(super) int8: Int8,
    pub(super) scratch: Scratch,
}

/// A view of `rows` x `columns` elements, `strides` apart.
pub(super) fn matrix<T>(data: &[T], shape: [usize; 2], strides: [usize; 2]) -> Matrix<'_, T> {
    NdTensorView::from_slice_with_strides(shape, data, strides).expect("the slice holds the shape")
}

/// `out = scale * a b + bias`.
pub(super) fn multiply(
    gemm: &Gemm,
    out: &mut [f32],
    a: Matrix<'_, f32>,
    b: GemmInputB<'_, f32>,
    scale: f32,
    bias: Option<&[f32]>,
) {
    let bias = bias.map(BiasVector::Row);
    let options = GemmOptions { alpha: scale, bias, ..GemmOptions::default() };
    gemm.gemm(out, GemmInputA::Unpacked(a), b, options).expect("the shapes agree");
}

/// An affine map, `y = x Wᵀ + b`.
pub(super) struct Linear {
    weight: PackedBMatrix<f32>,
    bias: Vec<f32>,
    inputs: usize,
}

impl Linear {
    /// `weight` holds a row of `inputs` for each output.
    pub(super) fn new(gemm: &Gemm, weight: &[f32], bias: Vec<f32>, inputs: usize) -> Linear {
        let weight = gemm.prepack_b(matrix(weight, [inputs, bias.len()], [1, inputs]));
        Linear { weight, bias, inputs }
    }

    /// How many values a row of the result holds.
    pub(super) fn outputs(&self) -> usize {
        self.bias.len()
    }

    /// `out = x Wᵀ + b`.
    pub(super) fn apply(&self, gemm: &Gemm, x: &[f32], out: &mut [f32]) {
        let rows = matrix(x, [x.len() / self.inputs, self.inputs], [self.inputs, 1]);
        multiply(gemm, out, rows, GemmInputB::Packed(&self.weight), 1.0, Some(&self.bias));
    }
}

/// Layer normalisation, with PyTorch's epsilon.
pub(super) struct Norm {
    /// What each element is scaled by.
    pub(super) gamma: Vec<f32>,
    /// What is then added to it.
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

/// The Gaussian error linear unit of each element, in place.
pub(super) fn gelu(x: &mut [f32]) {
    Gelu {}.map_mut(x);
}

/// The softmax of each row, in place.
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
