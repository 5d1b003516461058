//! The decoder: from the text so far and the encoder's states to a score for every next token.

use rten_gemm::GemmInputB;

use super::ct2::ModelFile;
use super::encoder::{HEAD, norm};
use super::int8::Int8Linear;
use super::ops::{Gemm, Kernels, Norm, gelu, matrix, multiply, softmax};

/// A stack of layers that attend to the preceding tokens and to the audio.
pub(super) struct Decoder {
    /// One row per token: its embedding as input, and the weights of its score as output.
    embeddings: Int8Linear,
    /// One row per position in the text.
    positions: Vec<f32>,
    layers: Vec<Layer>,
    norm: Norm,
    width: usize,
    /// Heads, by layer and number, whose attention follows the words.
    alignment_heads: Vec<(usize, usize)>,
}

struct Layer {
    own_norm: Norm,
    /// Queries, keys and values side by side.
    own_in: Int8Linear,
    own_out: Int8Linear,
    cross_norm: Norm,
    cross_query: Int8Linear,
    /// Keys and values side by side, for all the audio at once.
    cross_memory: Int8Linear,
    cross_out: Int8Linear,
    ffn_norm: Norm,
    ffn_in: Int8Linear,
    ffn_out: Int8Linear,
}

/// The decoder's cache for one text, so that each step costs one token: the keys and values of the audio
/// and of the tokens so far. The cache also holds the working rows.
pub(super) struct KvCache {
    layers: Vec<LayerCache>,
    tokens: usize,
    states: Vec<f32>,
    normed: Vec<f32>,
    projected: Vec<f32>,
    context: Vec<f32>,
    inner: Vec<f32>,
    scores: Vec<f32>,
    /// Attention of each alignment head to the audio, for the last token of each
    /// [`forward`](Decoder::forward).
    attention: Vec<f32>,
}

/// Attention of the alignment heads to the audio.
pub(super) struct Attention {
    /// For each [`forward`](Decoder::forward) that of its last token, head by head, to each state.
    pub(super) weights: Vec<f32>,
    pub(super) heads: usize,
    /// Number of states of the audio.
    pub(super) states: usize,
}

struct LayerCache {
    /// One row per encoder state: its key and value side by side.
    audio: Vec<f32>,
    /// One row per token so far: its key and value side by side.
    text: Vec<f32>,
}

impl Decoder {
    /// Loads the decoder's weights from a model file. `width` is the width of the encoder's states.
    pub(super) fn load(file: &ModelFile, kernels: &Kernels, width: usize) -> Result<Decoder, String> {
        let weight = |name: &str, outputs: usize, inputs: usize| {
            let weight = file.tensor(&format!("{name}/weight"), &[outputs, inputs])?;
            let bias = file.tensor(&format!("{name}/bias"), &[outputs])?;
            Ok::<_, String>((weight, bias))
        };
        let rows = |name: String, outputs: usize, inputs: usize| {
            let (weight, bias) = weight(&name, outputs, inputs)?;
            Ok::<_, String>(Int8Linear::rows(&kernels.int8, &weight, bias, inputs))
        };
        let packed = |name: String, outputs: usize, inputs: usize| {
            let (weight, bias) = weight(&name, outputs, inputs)?;
            Ok::<_, String>(Int8Linear::packed(&kernels.int8, &weight, bias, inputs))
        };
        let first = |name: &str| match file.shape(name) {
            Some(shape) => shape.first().copied().ok_or_else(|| format!("{name} has no rows")),
            None => Err(format!("{name} is missing")),
        };
        let vocabulary = first("decoder/embeddings/weight")?;
        let places = first("decoder/position_encodings/encodings")?;
        let layers = (0..)
            .map(|i| format!("decoder/layer_{i}"))
            .take_while(|name| file.shape(&format!("{name}/self_attention/linear_0/weight")).is_some())
            .map(|name| {
                Ok(Layer {
                    own_norm: norm(file, &format!("{name}/self_attention/layer_norm"), width)?,
                    own_in: rows(format!("{name}/self_attention/linear_0"), 3 * width, width)?,
                    own_out: rows(format!("{name}/self_attention/linear_1"), width, width)?,
                    cross_norm: norm(file, &format!("{name}/attention/layer_norm"), width)?,
                    cross_query: rows(format!("{name}/attention/linear_0"), width, width)?,
                    cross_memory: packed(format!("{name}/attention/linear_1"), 2 * width, width)?,
                    cross_out: rows(format!("{name}/attention/linear_2"), width, width)?,
                    ffn_norm: norm(file, &format!("{name}/ffn/layer_norm"), width)?,
                    ffn_in: rows(format!("{name}/ffn/linear_0"), 4 * width, width)?,
                    ffn_out: rows(format!("{name}/ffn/linear_1"), width, 4 * width)?,
                })
            })
            .collect::<Result<Vec<Layer>, String>>()?;
        if layers.is_empty() {
            return Err("decoder/layer_0 is missing".to_owned());
        }
        // The upper half of the layers, as Whisper takes them by default.
        let heads = width / HEAD;
        let alignment_heads = (layers.len() / 2..layers.len())
            .flat_map(|layer| (0..heads).map(move |head| (layer, head)))
            .collect();
        let embeddings = file.tensor("decoder/embeddings/weight", &[vocabulary, width])?;
        Ok(Decoder {
            embeddings: Int8Linear::rows(&kernels.int8, &embeddings, vec![0.0; vocabulary], width),
            positions: file.tensor("decoder/position_encodings/encodings", &[places, width])?,
            layers,
            norm: norm(file, "decoder/layer_norm", width)?,
            width,
            alignment_heads,
        })
    }

    /// Sets the heads whose attention follows the words, by layer and number. Heads that the model does
    /// not have are left out.
    pub(super) fn align_by(&mut self, heads: &[(usize, usize)]) {
        let (layers, per_layer) = (self.layers.len(), self.width / HEAD);
        let known = heads.iter().copied().filter(|(layer, head)| *layer < layers && *head < per_layer);
        self.alignment_heads = known.collect();
    }

    /// Returns the number of tokens in the vocabulary.
    pub(super) fn vocabulary(&self) -> usize {
        self.embeddings.outputs()
    }

    /// Returns the largest number of tokens in a text, including its prompt.
    pub(super) fn context_length(&self) -> usize {
        self.positions.len() / self.width
    }

    /// Creates the cache of a text about the audio of these encoder states.
    pub(super) fn start(&self, kernels: &mut Kernels, states: &[f32]) -> KvCache {
        let heard = states.len() / self.width;
        let layers = self.layers.iter().map(|layer| {
            let mut audio = vec![0.0; heard * 2 * self.width];
            layer.cross_memory.apply(kernels, states, &mut audio);
            LayerCache { audio, text: Vec::with_capacity(self.context_length() * 2 * self.width) }
        });
        KvCache {
            layers: layers.collect(),
            tokens: 0,
            states: Vec::new(),
            normed: Vec::new(),
            projected: Vec::new(),
            context: Vec::new(),
            inner: Vec::new(),
            scores: vec![0.0; heard.max(self.context_length())],
            attention: Vec::new(),
        }
    }

    /// Reads `tokens`, which follow those read before. The resulting states then give the logits.
    ///
    /// # Panics
    /// Panics if the text grows beyond [`context_length`](Decoder::context_length), or if a token is not in
    /// the vocabulary.
    pub(super) fn forward(&self, kernels: &mut Kernels, cache: &mut KvCache, tokens: &[u32]) {
        let width = self.width;
        let KvCache { layers, states, normed, projected, context, inner, scores, attention, .. } = cache;
        let before = cache.tokens;
        let size = tokens.len() * width;
        states.clear();
        for (token, place) in tokens.iter().zip(self.positions[before * width..].chunks_exact(width)) {
            let embedding = self.embeddings.row(*token as usize);
            states.extend(embedding.zip(place).map(|(token, place)| token + place));
        }
        assert_eq!(states.len(), size, "the text outgrew its places");
        normed.resize(size, 0.0);
        context.resize(size, 0.0);
        projected.resize(3 * size, 0.0);
        inner.resize(4 * size, 0.0);

        for (number, (layer, cache)) in self.layers.iter().zip(layers).enumerate() {
            layer.own_norm.apply(states, normed);
            layer.own_in.apply(kernels, normed, projected);
            for (i, row) in projected.chunks_exact(3 * width).enumerate() {
                cache.text.extend_from_slice(&row[width..]);
                let context = &mut context[i * width..][..width];
                attend(&kernels.float, &row[..width], &cache.text, scores, context, |_, _| {});
            }
            layer.own_out.add(kernels, context, states);

            layer.cross_norm.apply(states, normed);
            let queries = &mut projected[..size];
            layer.cross_query.apply(kernels, normed, queries);
            let last = tokens.len() - 1;
            for (i, query) in queries.chunks_exact(width).enumerate() {
                let context = &mut context[i * width..][..width];
                attend(&kernels.float, query, &cache.audio, scores, context, |head, weights| {
                    if i == last && self.alignment_heads.contains(&(number, head)) {
                        attention.extend_from_slice(weights);
                    }
                });
            }
            layer.cross_out.add(kernels, context, states);

            layer.ffn_norm.apply(states, normed);
            layer.ffn_in.apply(kernels, normed, inner);
            gelu(inner);
            layer.ffn_out.add(kernels, inner, states);
        }
        self.norm.apply(states, normed);
        cache.tokens += tokens.len();
    }

    /// Forgets all but the first `tokens` tokens of those read, and the attention of all.
    pub(super) fn rewind(&self, cache: &mut KvCache, tokens: usize) {
        for layer in &mut cache.layers {
            layer.text.truncate(tokens * 2 * self.width);
        }
        cache.tokens = cache.tokens.min(tokens);
        cache.attention.clear();
    }

    /// Takes the attention of the tokens read since the cache was last rewound.
    pub(super) fn take_attention(&self, cache: &mut KvCache) -> Attention {
        Attention {
            weights: std::mem::take(&mut cache.attention),
            heads: self.alignment_heads.len(),
            states: cache.layers[0].audio.len() / (2 * self.width),
        }
    }

    /// Computes the logit of every token after the `row`-th of the tokens read last.
    pub(super) fn logits(&self, kernels: &mut Kernels, cache: &KvCache, row: usize, logits: &mut [f32]) {
        self.embeddings.apply(kernels, &cache.normed[row * self.width..][..self.width], logits);
    }
}

/// Computes the attention of one query to rows that hold a key and a value side by side, head by head.
/// Passes the weights of each head to `look`.
fn attend(
    gemm: &Gemm,
    query: &[f32],
    cache: &[f32],
    scores: &mut [f32],
    context: &mut [f32],
    mut attention: impl FnMut(usize, &[f32]),
) {
    let width = query.len();
    let stride = 2 * width;
    let rows = cache.len() / stride;
    let scores = &mut scores[..rows];
    let scale = (HEAD as f32).sqrt().recip();
    for head in (0..width).step_by(HEAD) {
        let query = matrix(&query[head..], [1, HEAD], [HEAD, 1]);
        let keys = GemmInputB::Unpacked(matrix(&cache[head..], [HEAD, rows], [1, stride]));
        multiply(gemm, scores, query, keys, scale, None);
        softmax(scores, rows);
        attention(head / HEAD, scores);
        let weights = matrix(scores, [1, rows], [rows, 1]);
        let values = GemmInputB::Unpacked(matrix(&cache[width + head..], [rows, HEAD], [stride, 1]));
        multiply(gemm, &mut context[head..head + HEAD], weights, values, 1.0, None);
    }
}
