//! The few operations a transformer is made of.
//!
//! A matrix is a slice of rows. Shapes are settled when a model is loaded, so a product that doesn't fit is a defect
//! of this module, not of its input.

use rten_gemm::{BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, PackedBMatrix};
use rten_simd::{SimdOp, SimdUnaryOp};
use rten_tensor::{Matrix, NdTensorView};
use rten_vecmath::{Gelu, Normalize, NormalizeOptions, Softmax, Sum, SumSquareSub};

/// Multiplies matrices with the best kernel this machine has. It stays on its thread.
pub(super) type Gemm = GemmExecutor<f32>;

/// A view of `rows` x `columns` elements, `strides` apart.
pub(super) fn matrix(data: &[f32], shape: [usize; 2], strides: [usize; 2]) -> Matrix<'_, f32> {
    NdTensorView::from_slice_with_strides(shape, data, strides).expect("the slice holds the shape")
}

/// `out = scale * a b + keep * out + bias`.
pub(super) fn multiply(
    gemm: &Gemm,
    out: &mut [f32],
    a: Matrix<'_, f32>,
    b: GemmInputB<'_, f32>,
    scale: f32,
    keep: f32,
    bias: Option<&[f32]>,
) {
    let bias = bias.map(BiasVector::Row);
    let options = GemmOptions { alpha: scale, beta: keep, bias, ..GemmOptions::default() };
    gemm.gemm(out, GemmInputA::Unpacked(a), b, options).expect("the shapes agree");
}

/// An affine map, `y = x Wᵀ + b`.
pub(super) struct Linear {
    weight: Weight,
    bias: Option<Vec<f32>>,
    inputs: usize,
    outputs: usize,
}

enum Weight {
    /// Rearranged for the kernel, which pays where many rows are multiplied at a time.
    Packed(PackedBMatrix<f32>),
    /// As stored, a row per output: read once from end to end for each row multiplied.
    Rows(Vec<f32>),
}

impl Linear {
    /// A map that will be applied to many rows at a time. `weight` holds a row of `inputs` for each output.
    pub(super) fn packed(gemm: &Gemm, weight: &[f32], bias: Vec<f32>, inputs: usize) -> Linear {
        let outputs = bias.len();
        let weight = Weight::Packed(gemm.prepack_b(matrix(weight, [inputs, outputs], [1, inputs])));
        Linear { weight, bias: Some(bias), inputs, outputs }
    }

    /// A map that will be applied to one row at a time.
    pub(super) fn rows(weight: Vec<f32>, bias: Option<Vec<f32>>, inputs: usize) -> Linear {
        let outputs = weight.len() / inputs;
        Linear { weight: Weight::Rows(weight), bias, inputs, outputs }
    }

    /// The row of weights that makes one output.
    ///
    /// # Panics
    /// If the map was packed.
    pub(super) fn row(&self, output: usize) -> &[f32] {
        match &self.weight {
            Weight::Rows(weight) => &weight[output * self.inputs..][..self.inputs],
            Weight::Packed(_) => panic!("a packed map has no rows"),
        }
    }

    /// How many values a row of the result holds.
    pub(super) fn outputs(&self) -> usize {
        self.outputs
    }

    /// `out = x Wᵀ + b`.
    pub(super) fn apply(&self, gemm: &Gemm, x: &[f32], out: &mut [f32]) {
        self.run(gemm, x, out, 0.0);
    }

    /// `out += x Wᵀ + b`.
    pub(super) fn add(&self, gemm: &Gemm, x: &[f32], out: &mut [f32]) {
        self.run(gemm, x, out, 1.0);
    }

    fn run(&self, gemm: &Gemm, x: &[f32], out: &mut [f32], keep: f32) {
        let (inputs, outputs, bias) = (self.inputs, self.outputs, self.bias.as_deref());
        match &self.weight {
            Weight::Packed(packed) => {
                let rows = matrix(x, [x.len() / inputs, inputs], [inputs, 1]);
                multiply(gemm, out, rows, GemmInputB::Packed(packed), 1.0, keep, bias);
            }
            // Row by row, as a product of several would rearrange the weights first: for a prompt's three rows that
            // takes four times as long.
            Weight::Rows(weight) => {
                let weight = GemmInputB::Unpacked(matrix(weight, [inputs, outputs], [1, inputs]));
                for (row, out) in x.chunks_exact(inputs).zip(out.chunks_exact_mut(outputs)) {
                    multiply(gemm, out, matrix(row, [1, inputs], [inputs, 1]), weight, 1.0, keep, bias);
                }
            }
        }
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
    fn packed_and_plain_maps_agree() {
        let gemm = Gemm::new();
        let weight: Vec<f32> = (0..6).map(|i| i as f32).collect();
        let bias = vec![0.5, -0.5];
        let x = [1.0, 2.0, 3.0, -1.0, 0.0, 1.0];
        let expected = [8.5, 25.5, 2.5, 1.5];
        for map in [
            Linear::packed(&gemm, &weight, bias.clone(), 3),
            Linear::rows(weight.clone(), Some(bias.clone()), 3),
        ] {
            let mut out = [0.0; 4];
            map.apply(&gemm, &x, &mut out);
            assert_eq!(out, expected);
            map.add(&gemm, &x, &mut out);
            assert_eq!(out, expected.map(|value| value * 2.0));
        }
    }

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
