//! The decoder: from the text so far and the encoder's states to a score for every next token.

use rten_simd::SimdOp;

use super::attention::{AudioMemory, TextAttention};
use super::ct2::ModelFile;
use super::encoder::norm;
use super::int8::Int8Linear;
use super::ops::{Kernels, Norm, gelu};
use super::self_attention::HEAD;

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
    /// `true` if the model states its alignment heads.
    states_alignment_heads: bool,
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

/// The decoder's cache for texts about the same audio, so that each step costs one token: the keys and values
/// of the audio and of the tokens so far.
///
/// The keys and values of a token have a slot. A text is the list of the slots of its tokens, so texts that
/// begin alike share slots, and one that splits in two copies none.
pub(super) struct KvCache {
    layers: Vec<LayerCache>,
    /// Number of tokens of the text that [`forward`](Decoder::forward) extends, which has the first slots.
    tokens: usize,
    rows: WorkingRows,
    /// Attention of each alignment head to the audio, for the slots from `first_attention` on.
    attention: Vec<f32>,
    /// Slot of the first token whose attention was kept.
    first_attention: usize,
}

/// Working rows of a step of the decoder.
#[derive(Default)]
struct WorkingRows {
    states: Vec<f32>,
    normed: Vec<f32>,
    projected: Vec<f32>,
    context: Vec<f32>,
    inner: Vec<f32>,
    scores: Vec<f32>,
}

/// Buffers for a step of several texts about different audio.
#[derive(Default)]
pub(super) struct StepBuffers {
    rows: WorkingRows,
    logits: Vec<f32>,
}

/// A token to read.
pub(super) struct Row<'a> {
    pub(super) token: u32,
    /// Slots of the tokens before, and of the token itself.
    pub(super) slots: &'a [u32],
    /// `true` to keep the attention of the alignment heads.
    pub(super) aligned: bool,
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
    audio: AudioMemory,
    /// One row per slot: its key and value side by side.
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
            states_alignment_heads: false,
        })
    }

    /// Sets the heads whose attention follows the words, by layer and number. Heads that the model does
    /// not have are left out.
    pub(super) fn align_by(&mut self, heads: &[(usize, usize)]) {
        let (layers, per_layer) = (self.layers.len(), self.width / HEAD);
        let known = heads.iter().copied().filter(|(layer, head)| *layer < layers && *head < per_layer);
        self.alignment_heads = known.collect();
        self.states_alignment_heads = true;
    }

    /// Returns whether the model states its alignment heads. Otherwise many of them attend to nothing in
    /// particular.
    pub(super) fn states_alignment_heads(&self) -> bool {
        self.states_alignment_heads
    }

    /// Returns the number of tokens in the vocabulary.
    pub(super) fn vocabulary(&self) -> usize {
        self.embeddings.outputs()
    }

    /// Returns the largest number of tokens in a text, including its prompt.
    pub(super) fn context_length(&self) -> usize {
        self.positions.len() / self.width
    }

    /// Returns the size of the keys and values of `states` states of audio, in bytes.
    pub(super) fn audio_bytes(&self, states: usize) -> usize {
        self.layers.len() * states * 2 * self.width * size_of::<u16>()
    }

    /// Creates the cache of a text about the audio of these encoder states.
    pub(super) fn start(&self, kernels: &mut Kernels, states: &[f32]) -> KvCache {
        let mut rows = vec![0.0; states.len() * 2];
        let layers = self.layers.iter().map(|layer| {
            layer.cross_memory.apply(kernels, states, &mut rows);
            LayerCache { audio: AudioMemory::new(&rows, self.width), text: Vec::new() }
        });
        KvCache {
            layers: layers.collect(),
            tokens: 0,
            rows: WorkingRows::default(),
            attention: Vec::new(),
            first_attention: 0,
        }
    }

    /// Reads `tokens`, which follow those read before. The resulting states then give the logits.
    ///
    /// # Panics
    /// Panics if the text grows beyond [`context_length`](Decoder::context_length), or if a token is not in
    /// the vocabulary.
    pub(super) fn forward(&self, kernels: &mut Kernels, cache: &mut KvCache, tokens: &[u32]) {
        let before = cache.tokens;
        cache.tokens += tokens.len();
        let slots: Vec<u32> = (0..).take(cache.tokens).collect();
        let rows = tokens.iter().zip(before + 1..).map(|(token, length)| {
            let aligned = length == slots.len();
            Row { token: *token, slots: &slots[..length], aligned }
        });
        self.forward_each(kernels, cache, &rows.collect::<Vec<_>>());
    }

    /// Reads the next token of each of several texts about different audio. Returns the logits of every token
    /// after each, row by row. They are the same as if each text were read by itself.
    ///
    /// # Panics
    /// As [`forward`](Decoder::forward) does.
    pub(super) fn logits_after_each<'a>(
        &self,
        kernels: &mut Kernels,
        buffers: &'a mut StepBuffers,
        texts: Vec<(&mut KvCache, u32)>,
    ) -> impl Iterator<Item = &'a [f32]> {
        let StepBuffers { rows: working, logits } = buffers;
        logits.resize(texts.len() * self.vocabulary(), 0.0);
        let slots: Vec<Vec<u32>> =
            texts.iter().map(|(cache, _)| (0..).take(cache.tokens + 1).collect()).collect();
        let rows: Vec<[Row<'_>; 1]> = texts
            .iter()
            .zip(&slots)
            .map(|((_, token), slots)| [Row { token: *token, slots, aligned: true }])
            .collect();
        let texts = texts.into_iter().zip(&rows).map(|((cache, _), rows)| {
            cache.tokens += 1;
            (cache, &rows[..])
        });
        let mut texts: Vec<(&mut KvCache, &[Row<'_>])> = texts.collect();
        self.read(kernels, working, &mut texts);
        self.embeddings.apply(kernels, &working.normed, logits);
        logits.chunks_exact(self.vocabulary())
    }

    /// Reads a token of each of several texts at once, or several tokens of one. The resulting states then
    /// give the logits, row by row.
    ///
    /// # Panics
    /// As [`forward`](Decoder::forward) does.
    pub(super) fn forward_each(&self, kernels: &mut Kernels, cache: &mut KvCache, rows: &[Row<'_>]) {
        let mut working = std::mem::take(&mut cache.rows);
        self.read(kernels, &mut working, &mut [(&mut *cache, rows)]);
        cache.rows = working;
    }

    /// Reads the rows of each cache into the working rows, in the same order.
    fn read(
        &self,
        kernels: &mut Kernels,
        working: &mut WorkingRows,
        texts: &mut [(&mut KvCache, &[Row<'_>])],
    ) {
        let width = self.width;
        working.states.clear();
        for (cache, rows) in &mut *texts {
            self.embed(&mut working.states, rows);
            self.make_room(cache, rows);
        }
        let WorkingRows { states, normed, projected, context, inner, scores } = working;
        let size = states.len();
        normed.resize(size, 0.0);
        context.resize(size, 0.0);
        projected.resize(3 * size, 0.0);
        inner.resize(4 * size, 0.0);

        for (number, layer) in self.layers.iter().enumerate() {
            layer.own_norm.apply(states, normed);
            layer.own_in.apply(kernels, normed, projected);
            let (mut projections, mut contexts) = (&projected[..], &mut context[..]);
            for (cache, rows) in &mut *texts {
                let theirs = projections.split_off(..rows.len() * 3 * width).expect("each row has one");
                let context = contexts.split_off_mut(..rows.len() * width).expect("each row has one");
                let text = &mut cache.layers[number].text;
                for (projected, row) in theirs.chunks_exact(3 * width).zip(*rows) {
                    text[row.slot() * 2 * width..][..2 * width].copy_from_slice(&projected[width..]);
                }
                let projections = theirs.chunks_exact(3 * width).zip(context.chunks_exact_mut(width));
                for ((projected, context), Row { slots, .. }) in projections.zip(*rows) {
                    let query = &projected[..width];
                    TextAttention { query, cache: text, slots, scores, context }.dispatch();
                }
            }
            layer.own_out.add(kernels, context, states);

            layer.cross_norm.apply(states, normed);
            layer.cross_query.apply(kernels, normed, &mut projected[..size]);
            let (mut queries, mut contexts) = (&projected[..size], &mut context[..]);
            for (cache, rows) in &mut *texts {
                let queries = queries.split_off(..rows.len() * width).expect("each row has one");
                let context = contexts.split_off_mut(..rows.len() * width).expect("each row has one");
                self.attend_to_audio(cache, number, rows, queries, scores, context);
            }
            layer.cross_out.add(kernels, context, states);

            layer.ffn_norm.apply(states, normed);
            layer.ffn_in.apply(kernels, normed, inner);
            gelu(inner);
            layer.ffn_out.add(kernels, inner, states);
        }
        self.norm.apply(states, normed);
    }

    /// Computes the attention of each query to the audio in a layer, and keeps that of the alignment heads.
    fn attend_to_audio(
        &self,
        cache: &mut KvCache,
        layer: usize,
        rows: &[Row<'_>],
        queries: &[f32],
        scores: &mut Vec<f32>,
        context: &mut [f32],
    ) {
        let KvCache { layers, attention, first_attention, .. } = cache;
        let audio = &layers[layer].audio;
        let kept = self.alignment_heads.len() * audio.states();
        audio.attend(queries, scores, context, |row, head, weights| {
            let place = self.alignment_heads.iter().position(|known| *known == (layer, head));
            if let (Some(place), true) = (place, rows[row].aligned) {
                let at = (rows[row].slot() - *first_attention) * kept + place * weights.len();
                attention[at..][..weights.len()].copy_from_slice(weights);
            }
        });
    }

    /// Adds the states of tokens before they are read: their embeddings, each at its place in its text.
    fn embed(&self, states: &mut Vec<f32>, rows: &[Row<'_>]) {
        for Row { token, slots, .. } in rows {
            let place = (slots.len() - 1) * self.width;
            assert!(place < self.positions.len(), "the text outgrew its places");
            let embedding = self.embeddings.row(*token as usize);
            let place = &self.positions[place..][..self.width];
            states.extend(embedding.zip(place).map(|(token, place)| token + place));
        }
    }

    /// Makes room for the slots of tokens, and for their attention.
    fn make_room(&self, cache: &mut KvCache, rows: &[Row<'_>]) {
        let slots = rows.iter().map(|row| row.slot() + 1).max().unwrap_or(0);
        for layer in &mut cache.layers {
            let size = slots * 2 * self.width;
            layer.text.resize(size.max(layer.text.len()), 0.0);
        }
        let Some(first) = rows.iter().filter(|row| row.aligned).map(Row::slot).min() else { return };
        if cache.attention.is_empty() {
            cache.first_attention = first;
        }
        let size = (slots - cache.first_attention) * self.attention_size(cache);
        cache.attention.resize(size.max(cache.attention.len()), 0.0);
    }

    /// Returns the number of weights in the attention of a token.
    fn attention_size(&self, cache: &KvCache) -> usize {
        self.alignment_heads.len() * cache.layers[0].audio.states()
    }

    /// Forgets all but the first `tokens` tokens of those read, and the attention of all.
    pub(super) fn rewind(&self, cache: &mut KvCache, tokens: usize) {
        cache.tokens = cache.tokens.min(tokens);
        cache.attention.clear();
    }

    /// Forgets the last `tokens` tokens, each of which was read by itself, and their attention.
    pub(super) fn forget(&self, cache: &mut KvCache, tokens: usize) {
        cache.tokens -= tokens;
        let kept = (cache.tokens - cache.first_attention) * self.attention_size(cache);
        cache.attention.truncate(kept);
    }

    /// Returns the attention of the tokens read since the cache was last rewound, the number of heads, and
    /// the number of states of the audio.
    pub(super) fn attention_so_far<'a>(&self, cache: &'a KvCache) -> (&'a [f32], usize, usize) {
        (&cache.attention, self.alignment_heads.len(), cache.layers[0].audio.states())
    }

    /// Takes the attention of the tokens read since the cache was last rewound.
    pub(super) fn take_attention(&self, cache: &mut KvCache) -> Attention {
        let weights = std::mem::take(&mut cache.attention);
        self.attention(cache, weights)
    }

    /// Returns the attention of the tokens in these slots.
    pub(super) fn attention_of(&self, cache: &KvCache, slots: &[u32]) -> Attention {
        let size = self.attention_size(cache);
        let rows = slots.iter().map(|slot| {
            let at = (*slot as usize - cache.first_attention) * size;
            &cache.attention[at..][..size]
        });
        self.attention(cache, rows.collect::<Vec<_>>().concat())
    }

    fn attention(&self, cache: &KvCache, weights: Vec<f32>) -> Attention {
        let states = cache.layers[0].audio.states();
        Attention { weights, heads: self.alignment_heads.len(), states }
    }

    /// Computes the logit of every token after the `row`-th of the tokens read last.
    pub(super) fn logits(&self, kernels: &mut Kernels, cache: &KvCache, row: usize, logits: &mut [f32]) {
        self.embeddings.apply(kernels, &cache.rows.normed[row * self.width..][..self.width], logits);
    }

    /// Computes the logits of every token after each of the tokens read last, row by row.
    pub(super) fn logits_of_each(&self, kernels: &mut Kernels, cache: &KvCache, logits: &mut [f32]) {
        self.embeddings.apply(kernels, &cache.rows.normed, logits);
    }
}

impl Row<'_> {
    /// Returns the slot of the token.
    fn slot(&self) -> usize {
        self.slots.last().map_or(0, |slot| *slot as usize)
    }
}
