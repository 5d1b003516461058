//! Synthetic Whisper models of any shape that always say one word: small enough to write for a test, and
//! real in every other way.

use std::fs;
use std::path::Path;

use super::models_dir;

/// Number of text positions of a decoder.
const PLACES: usize = 448;

/// The shape of a model, and the text that it always produces.
pub(crate) struct Shape {
    /// Width of the model's states.
    pub(crate) width: usize,
    /// Number of mel bands.
    pub(crate) bands: usize,
    /// Number of decoder layers.
    pub(crate) decoder_layers: usize,
    /// `true` for a model of the third generation, which knows Cantonese.
    pub(crate) third: bool,
    /// Language and word that the model produces. The word is one token.
    pub(crate) hears: (&'static str, &'static str),
}

/// Writes the model's directory, as CTranslate2 does: `model.bin`, `vocabulary.txt` (`vocabulary.json` for
/// the third generation), `config.json`.
///
/// The row of the position encodings decides the output at each position of the text: it is the embedding
/// of the token to be written there, scaled up. The layers add a little of everything to it.
pub(crate) fn write(dir: &Path, shape: &Shape) {
    let base = models_dir().join("whisper-base");
    let vocabulary = fs::read_to_string(base.join("vocabulary.txt")).expect("whisper-base is there");
    let vocabulary = match shape.third {
        true => vocabulary.replace("<|translate|>\n", "<|yue|>\n<|translate|>\n"),
        false => vocabulary,
    };
    let tokens: Vec<&str> = vocabulary.lines().collect();
    let token = |name: &str| tokens.iter().position(|token| *token == name).expect("a token");
    let language = token(&format!("<|{}|>", shape.hears.0));
    let (word, end) = (token(&format!("Ġ{}", shape.hears.1)), token("<|endoftext|>"));

    let mut file = File { noise: 1, count: 0, bytes: Vec::new() };
    let width = shape.width;
    file.random("encoder/conv1/weight", &[width, shape.bands, 3]);
    file.same("encoder/conv1/bias", width, 0);
    file.random("encoder/conv2/weight", &[width, width, 3]);
    file.same("encoder/conv2/bias", width, 0);
    file.layer("encoder/layer_0", width, &["self_attention"]);
    file.norm("encoder/layer_norm", width);

    let embeddings = file.noise(tokens.len() * width);
    let mut positions = file.noise(PLACES * width);
    // Start, language, task and no-timestamps come first: the fourth position writes the word, and the
    // fifth ends.
    for (place, token) in [(0, language), (3, word), (4, end)] {
        for (to, from) in positions[place * width..][..width].iter_mut().zip(&embeddings[token * width..]) {
            *to = larger(*from);
        }
    }
    file.tensor("decoder/embeddings/weight", &[tokens.len(), width], &embeddings);
    file.tensor("decoder/position_encodings/encodings", &[PLACES, width], &positions);
    for layer in 0..shape.decoder_layers {
        file.layer(&format!("decoder/layer_{layer}"), width, &["self_attention", "attention"]);
    }
    file.norm("decoder/layer_norm", width);
    file.write(&dir.join("model.bin"));

    let (file, text) = match shape.third {
        true => ("vocabulary.json", serde_json::json!(tokens).to_string()),
        false => ("vocabulary.txt", vocabulary.clone()),
    };
    fs::write(dir.join(file), text).expect("the disk has room");
    let config = serde_json::json!({
        "suppress_ids": [], "suppress_ids_begin": [end], "alignment_heads": [[0, 0]], "lang_ids": [language],
    });
    fs::write(dir.join("config.json"), config.to_string()).expect("the disk has room");
}

/// A model file that is being written, with float16 tensors.
struct File {
    noise: u32,
    count: u32,
    bytes: Vec<u8>,
}

const ONE: u16 = 0x3c00;

/// Returns a float16, multiplied by 128.
fn larger(half: u16) -> u16 {
    half + (7 << 10)
}

impl File {
    /// Returns float16 values from 1/64 to 1/32, of either sign.
    fn noise(&mut self, count: usize) -> Vec<u16> {
        let halves = (0..count).map(|_| {
            self.noise = self.noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let random = (self.noise >> 16) as u16;
            random & 0x83ff | (15 - 6) << 10
        });
        halves.collect()
    }

    fn random(&mut self, name: &str, shape: &[usize]) {
        let halves = self.noise(shape.iter().product());
        self.tensor(name, shape, &halves);
    }

    fn same(&mut self, name: &str, count: usize, half: u16) {
        self.tensor(name, &[count], &vec![half; count]);
    }

    fn norm(&mut self, name: &str, width: usize) {
        self.same(&format!("{name}/gamma"), width, ONE);
        self.same(&format!("{name}/beta"), width, 0);
    }

    fn linear(&mut self, name: &str, outputs: usize, inputs: usize) {
        self.random(&format!("{name}/weight"), &[outputs, inputs]);
        self.same(&format!("{name}/bias"), outputs, 0);
    }

    /// Writes a layer with these kinds of attention: of the text to itself, and of the text to the audio.
    fn layer(&mut self, name: &str, width: usize, attentions: &[&str]) {
        for attention in attentions {
            let outputs: &[usize] = match *attention {
                "self_attention" => &[3, 1],
                _ => &[1, 2, 1],
            };
            self.norm(&format!("{name}/{attention}/layer_norm"), width);
            for (at, times) in outputs.iter().enumerate() {
                self.linear(&format!("{name}/{attention}/linear_{at}"), times * width, width);
            }
        }
        self.norm(&format!("{name}/ffn/layer_norm"), width);
        self.linear(&format!("{name}/ffn/linear_0"), 4 * width, width);
        self.linear(&format!("{name}/ffn/linear_1"), width, 4 * width);
    }

    fn name(&mut self, text: &str) {
        self.bytes.extend((text.len() as u16 + 1).to_le_bytes());
        self.bytes.extend(text.as_bytes());
        self.bytes.push(0);
    }

    fn tensor(&mut self, name: &str, shape: &[usize], halves: &[u16]) {
        self.count += 1;
        self.name(name);
        self.bytes.push(shape.len() as u8);
        self.bytes.extend(shape.iter().flat_map(|size| (*size as u32).to_le_bytes()));
        self.bytes.push(4);
        self.bytes.extend((halves.len() as u32 * 2).to_le_bytes());
        self.bytes.extend(halves.iter().flat_map(|half| half.to_le_bytes()));
    }

    /// Writes the whole file: version 6, revision 3 of the specification, the tensors, and no aliases.
    fn write(self, path: &Path) {
        let mut head = File { noise: 0, count: 0, bytes: 6u32.to_le_bytes().to_vec() };
        head.name("WhisperSpec");
        head.bytes.extend([3, self.count].map(u32::to_le_bytes).concat());
        fs::write(path, [head.bytes, self.bytes, 0u32.to_le_bytes().to_vec()].concat())
            .expect("the disk has room");
    }
}
