//! The encoder: from log-mel features to a state for each 20 ms.

use rten_simd::SimdOp;

use super::ct2::ModelFile;
use super::int8::{Int8Linear, ROWS};
use super::ops::{Gemm, Kernels, Linear, Norm, gelu};
use super::self_attention::{HEAD, SelfAttention};

/// An encoder of two convolutions and a stack of self-attention layers.
pub(super) struct Encoder {
    conv1: Linear,
    conv2: Linear,
    layers: Vec<Layer>,
    norm: Norm,
    width: usize,
    bands: usize,
}

struct Layer {
    attention_norm: Norm,
    /// Queries, keys and values side by side.
    attention_in: Int8Linear,
    attention_out: Int8Linear,
    ffn_norm: Norm,
    ffn_in: Int8Linear,
    ffn_out: Int8Linear,
}

/// The state of an encoding between layers.
pub(super) struct Encoding {
    x: Vec<f32>,
    qkv: Vec<f32>,
    context: Vec<f32>,
    /// Number of layers done.
    layers: usize,
}

impl Encoder {
    /// Loads the encoder's weights from a model file.
    pub(super) fn load(file: &ModelFile, kernels: &Kernels) -> Result<Encoder, String> {
        let (width, bands) = match file.shape("encoder/conv1/weight") {
            Some(&[width, bands @ (80 | 128), 3]) if width > 0 && width % HEAD == 0 => (width, bands),
            Some(shape) => return Err(format!("encoder/conv1/weight has the unknown shape {shape:?}")),
            None => return Err("encoder/conv1/weight is missing".to_owned()),
        };
        let conv = |name: &str, channels: usize| {
            let weight = file.tensor(&format!("encoder/{name}/weight"), &[width, channels, 3])?;
            let bias = file.tensor(&format!("encoder/{name}/bias"), &[width])?;
            Ok::<_, String>(Linear::new(&kernels.float, &weight, bias, channels * 3))
        };
        let linear = |name: String, outputs: usize, inputs: usize| {
            let weight = file.tensor(&format!("{name}/weight"), &[outputs, inputs])?;
            let bias = file.tensor(&format!("{name}/bias"), &[outputs])?;
            Ok::<_, String>(Int8Linear::packed(&kernels.int8, &weight, bias, inputs))
        };
        let layers = (0..)
            .map(|i| format!("encoder/layer_{i}"))
            .take_while(|name| file.shape(&format!("{name}/self_attention/linear_0/weight")).is_some())
            .map(|name| {
                Ok(Layer {
                    attention_norm: norm(file, &format!("{name}/self_attention/layer_norm"), width)?,
                    attention_in: linear(format!("{name}/self_attention/linear_0"), 3 * width, width)?,
                    attention_out: linear(format!("{name}/self_attention/linear_1"), width, width)?,
                    ffn_norm: norm(file, &format!("{name}/ffn/layer_norm"), width)?,
                    ffn_in: linear(format!("{name}/ffn/linear_0"), 4 * width, width)?,
                    ffn_out: linear(format!("{name}/ffn/linear_1"), width, 4 * width)?,
                })
            })
            .collect::<Result<Vec<Layer>, String>>()?;
        if layers.is_empty() {
            return Err("encoder/layer_0 is missing".to_owned());
        }
        Ok(Encoder {
            conv1: conv("conv1", bands)?,
            conv2: conv("conv2", width)?,
            layers,
            norm: norm(file, "encoder/layer_norm", width)?,
            width,
            bands,
        })
    }

    /// Returns the width of a state.
    pub(super) fn width(&self) -> usize {
        self.width
    }

    /// Returns the number of mel bands of the features.
    pub(super) fn bands(&self) -> usize {
        self.bands
    }

    /// Begins an encoding of features. Each [`advance`](Encoder::advance) then computes one layer.
    pub(super) fn begin(&self, kernels: &Kernels, features: &[f32]) -> Encoding {
        let width = self.width;
        let hidden = convolve(&kernels.float, &self.conv1, features, self.bands, 1);
        let mut x = convolve(&kernels.float, &self.conv2, &hidden, width, 2);
        add_positions(&mut x, width);
        Encoding { qkv: vec![0.0; 3 * x.len()], context: vec![0.0; x.len()], x, layers: 0 }
    }

    /// Computes the next layer. After the last one, returns the states, one row for every two rows of
    /// features.
    pub(super) fn advance(&self, kernels: &mut Kernels, encoding: &mut Encoding) -> Option<Vec<f32>> {
        let width = self.width;
        let Encoding { x, qkv, context, layers } = encoding;
        let Some(layer) = self.layers.get(*layers) else {
            let mut states = std::mem::take(context);
            self.norm.apply(x, &mut states);
            return Some(states);
        };
        *layers += 1;
        // The rows are processed in batches that stay in the cache from one step to the next. So several
        // utterances side by side would gain nothing: they would be the same products of as many rows,
        // one after the other.
        let (mut normed, mut inner) = (vec![0.0; ROWS * width], vec![0.0; ROWS * 4 * width]);
        for (x, qkv) in x.chunks(ROWS * width).zip(qkv.chunks_mut(ROWS * 3 * width)) {
            let normed = &mut normed[..x.len()];
            layer.attention_norm.apply(x, normed);
            layer.attention_in.apply(kernels, normed, qkv);
        }
        SelfAttention { qkv, width, context }.dispatch();
        for (x, context) in x.chunks_mut(ROWS * width).zip(context.chunks(ROWS * width)) {
            layer.attention_out.add(kernels, context, x);

            let (normed, inner) = (&mut normed[..x.len()], &mut inner[..4 * x.len()]);
            layer.ffn_norm.apply(x, normed);
            layer.ffn_in.apply(kernels, normed, inner);
            gelu(inner);
            layer.ffn_out.add(kernels, inner, x);
        }
        None
    }
}

/// Loads the weights of a normalisation from a model file.
pub(super) fn norm(file: &ModelFile, name: &str, width: usize) -> Result<Norm, String> {
    Ok(Norm {
        gamma: file.tensor(&format!("{name}/gamma"), &[width])?,
        beta: file.tensor(&format!("{name}/beta"), &[width])?,
    })
}

/// Computes a convolution over three neighbouring rows and its GELU. The rows under the kernel are laid
/// side by side, channel by channel as in the weights, which makes the convolution one matrix product.
fn convolve(gemm: &Gemm, kernel: &Linear, x: &[f32], channels: usize, stride: usize) -> Vec<f32> {
    let rows = x.len() / channels;
    let mut seen = vec![0.0; rows.div_ceil(stride) * channels * 3];
    for (centre, patch) in (0..rows).step_by(stride).zip(seen.chunks_exact_mut(channels * 3)) {
        for tap in 0..3 {
            // Before the first row and after the last there is silence, which the patch already holds.
            let Some(row) = (centre + tap).checked_sub(1).filter(|row| *row < rows) else { continue };
            for (channel, value) in x[row * channels..][..channels].iter().enumerate() {
                patch[channel * 3 + tap] = *value;
            }
        }
    }
    let mut out = vec![0.0; rows.div_ceil(stride) * kernel.outputs()];
    kernel.apply(gemm, &seen, &mut out);
    gelu(&mut out);
    out
}

/// Adds the sinusoids of its position to each row: sines in the first half, cosines in the second, of
/// wavelengths from 2π to 10,000 · 2π rows.
fn add_positions(x: &mut [f32], width: usize) {
    let half = width / 2;
    let step = 10_000f64.ln() / (half - 1) as f64;
    // The angles of a row are those of the row before, turned by these: in float64 this is as exact as a sine
    // of each, at a fraction of the cost.
    let turns: Vec<(f64, f64)> = (0..half).map(|i| (-step * i as f64).exp().sin_cos()).collect();
    let mut angles = vec![(0.0, 1.0); half];
    for row in x.chunks_exact_mut(width) {
        let (sines, cosines) = row.split_at_mut(half);
        for ((sine, cosine), (sin, cos)) in sines.iter_mut().zip(cosines).zip(&angles) {
            *sine += *sin as f32;
            *cosine += *cos as f32;
        }
        for ((sin, cos), (turn_sin, turn_cos)) in angles.iter_mut().zip(&turns) {
            (*sin, *cos) = (*sin * turn_cos + *cos * turn_sin, *cos * turn_cos - *sin * turn_sin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_sinusoids_of_their_row() {
        let (width, rows) = (512, 1_500);
        let mut x = vec![0.0; rows * width];
        add_positions(&mut x, width);
        for (row, at) in [(0, 3), (1, 0), (7, 100), (1_499, 0), (1_499, 17), (1_499, 255)] {
            let angle = row as f64 * (-(10_000f64.ln()) / 255.0 * at as f64).exp();
            for (value, exact) in
                [(x[row * width + at], angle.sin()), (x[row * width + 256 + at], angle.cos())]
            {
                assert!((f64::from(value) - exact).abs() < 1e-6, "{value} instead of {exact}");
            }
        }
    }
}
