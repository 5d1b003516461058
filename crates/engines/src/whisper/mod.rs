//! Whisper on the CPU: OpenAI's multilingual speech model, in Rust.
//!
//! The weights come from a directory in CTranslate2's format (`model.bin`, `vocabulary.txt` or `.json`,
//! `config.json`; float16, float32 or int8). Products are computed in 8-bit integers, the few steps
//! between them in float32. An utterance passes through these stages:
//!
//! ```text
//! endpointer -> mel -> encoder -> decoder -> tokens -> text, words
//! ```
//!
//! Decoding takes the likeliest token each time, or the best of five texts that grow side by side (`beam`)
//! if the request asks for [`Accuracy::Best`](voxline::engine::Accuracy). A text that repeats itself or that
//! the model itself doubts is decoded again, of sampled tokens (`fallback`), unless the request asks for
//! [`Accuracy::Fast`](voxline::engine::Accuracy) or a temperature of 0.
//!
//! A prompt is read as text before the audio. Keywords replace likelier tokens within a bound (`keywords`),
//! and are preferred within it by a beam search (`keyword_progress`). A text that keywords have changed is
//! decoded without them, too, and counts only if it keeps all other words (`keyword_check`).
//!
//! A multilingual model can translate into English as well. A translation has no words, as its order is not
//! that of the speech.
//!
//! Each session decodes on one thread; the windows of a recording on several, if these are idle. A partial
//! result decodes the open utterance again, as Whisper has no streaming mode. The work proceeds step by step,
//! so that it never delays the audio that arrives meanwhile.

mod alignment;
mod attempt;
mod attention;
mod beam;
mod bpe;
mod ct2;
mod decoded_text;
mod decoder;
mod decoding;
mod detection;
mod encoder;
mod fallback;
mod int8;
mod joined;
mod keyword_check;
mod keyword_progress;
mod keywords;
mod mel;
mod model;
mod next_token;
mod open_windows;
mod ops;
mod options;
mod recording;
mod recording_context;
mod row_scale;
mod sampler;
mod self_attention;
mod stream;
#[cfg(test)]
mod test_recording;
mod thread_pool;
mod tokens;
mod transcribe;
mod untold;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::ct2::ModelFile;
use self::decoder::Decoder;
use self::encoder::Encoder;
use self::mel::Mel;
use self::model::Model;
use self::ops::Kernels;
use self::options::DecodingOptions;
use self::recording::RecordingStream;
use self::stream::Stream;
use self::thread_pool::ThreadPools;
use self::tokens::{Config, Tokens};
use voxline::engine::{
    Capabilities, EngineError, Latency, ModelFault, RecognitionRequest, Recognizer, RecognizerStream, Task,
};

use crate::Endpointer;
use voxline_support::clock::now;

/// Largest file that is accepted as part of a model, in bytes: float32 weights of the largest Whisper
/// fit.
const LARGEST_FILE: u64 = 8 << 30;

/// Typical length of speech between two pauses, in seconds.
const USUAL_UTTERANCE: usize = 5;

/// A loaded Whisper model.
#[derive(Clone)]
pub struct Whisper {
    shared: Arc<Shared>,
}

/// State that all streams share.
struct Shared {
    name: String,
    model: Model,
    pools: ThreadPools,
    /// Held by each stream that hears windows, for their number.
    sharing: Arc<()>,
}

impl Whisper {
    /// Loads the model in `dir`: `model.bin`, `vocabulary.txt` or `vocabulary.json`, and `config.json`.
    /// The model is named after the directory.
    ///
    /// A model takes about half the size of its float16 file in memory.
    ///
    /// # Errors
    /// Returns [`EngineError::Model`] if a file is missing or damaged, or if the three files do not fit
    /// together.
    pub fn load(dir: &Path) -> Result<Whisper, EngineError> {
        let read = |file: &str| read_from(dir, file);
        let (vocabulary_path, vocabulary) = vocabulary(dir)?;
        let (config_path, config) = read("config.json")?;
        let (model_path, model) = read("model.bin")?;

        let mut tokens = Tokens::parse(&vocabulary).map_err(|reason| damaged(&vocabulary_path, reason))?;
        let kernels = Kernels::default();
        let (encoder, mut decoder) = ModelFile::parse(model)
            .and_then(|file| {
                let encoder = Encoder::load(&file, &kernels)?;
                let decoder = Decoder::load(&file, &kernels, encoder.width())?;
                let (known, named) = (decoder.vocabulary(), tokens.count());
                if known != named {
                    return Err(format!("knows {known} tokens, its vocabulary has {named}"));
                }
                if decoder.context_length() < 16 {
                    return Err(format!("has room for a text of {} tokens", decoder.context_length()));
                }
                Ok((encoder, decoder))
            })
            .map_err(|reason| damaged(&model_path, reason))?;
        let config: Config = serde_json::from_slice(&config)
            .map_err(|error| damaged(&config_path, ModelFault::parse(error)))?;
        tokens.suppress(&config).map_err(|reason| damaged(&config_path, reason))?;
        if let Some(heads) = &config.alignment_heads {
            decoder.align_by(heads);
        }

        let name = dir.file_name().map_or_else(|| "whisper".into(), |name| name.to_string_lossy());
        let mel = Mel::new(encoder.bands());
        let model = Model { mel, encoder, decoder, tokens };
        let (pools, sharing) = (ThreadPools::new(), Arc::default());
        let shared = Shared { name: name.into_owned(), model, pools, sharing };
        Ok(Whisper { shared: Arc::new(shared) })
    }
}

impl Whisper {
    /// Returns whether the utterances of a stream are heard together. Those to be translated are not: the
    /// words of a translation cannot be divided among them, as their order is not that of the speech.
    fn hears_together(request: &RecognitionRequest) -> bool {
        request.latency == Latency::Relaxed && request.task == Task::Transcribe
    }
}

impl fmt::Debug for Whisper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Whisper").field("name", &self.shared.name).finish_non_exhaustive()
    }
}

impl Recognizer for Whisper {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn capabilities(&self) -> Capabilities {
        options::capabilities(&self.shared.model.tokens)
    }

    fn start(&self, request: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        let options = DecodingOptions::new(&self.shared.model.tokens, request)?;
        let shared = Arc::clone(&self.shared);
        Ok(if Whisper::hears_together(request) {
            Box::new(RecordingStream::new(shared, options, request.context.as_deref()))
        } else {
            Box::new(Stream::new(shared, options))
        })
    }

    fn longest_pending(&self, request: &RecognitionRequest) -> Option<u64> {
        let is_together = Whisper::hears_together(request);
        Some(if is_together { recording::LONGEST_PENDING } else { Endpointer::LONGEST_PENDING })
    }

    fn batch_frames(&self, request: &RecognitionRequest) -> Option<u64> {
        let windows = open_windows::side_by_side(&self.shared.model) as u64;
        let is_batched = Whisper::hears_together(request) && windows > 1;
        is_batched.then_some(windows * recording::USUAL_EXTENT)
    }

    fn real_time_factor(&self) -> Option<f64> {
        let Shared { model, pools, .. } = &*self.shared;
        let exercise = |kernels: &mut Kernels| {
            let begun = now();
            model.exercise(kernels, USUAL_UTTERANCE);
            begun.elapsed().as_secs_f64() / USUAL_UTTERANCE as f64
        };
        // The first run finds memory and caches cold.
        let factors = pools.run(|kernels| [(); 3].map(|()| exercise(kernels))).ok()?;
        Some(factors[1].min(factors[2]))
    }
}

fn read_from(dir: &Path, file: &str) -> Result<(PathBuf, Vec<u8>), EngineError> {
    let path = dir.join(file);
    read(&path).map(|bytes| (path, bytes))
}

fn read(path: &Path) -> Result<Vec<u8>, EngineError> {
    let size = std::fs::metadata(path).map_err(|error| damaged(path, error))?.len();
    if size > LARGEST_FILE {
        return Err(damaged(path, format!("{size} bytes is more than a model holds")));
    }
    std::fs::read(path).map_err(|error| damaged(path, error))
}

/// Returns the tokens, one per line, from `vocabulary.txt`, or from `vocabulary.json`, which later models
/// have.
fn vocabulary(dir: &Path) -> Result<(PathBuf, String), EngineError> {
    let json = dir.join("vocabulary.json");
    if json.is_file() && !dir.join("vocabulary.txt").is_file() {
        let tokens: Vec<String> = serde_json::from_slice(&read(&json)?)
            .map_err(|error| damaged(&json, ModelFault::parse(error)))?;
        return Ok((json, tokens.join("\n")));
    }
    let (path, bytes) = read_from(dir, "vocabulary.txt")?;
    let text = String::from_utf8(bytes).map_err(|_| damaged(&path, "not UTF-8".to_owned()))?;
    Ok((path, text))
}

/// Returns the error of a file with a defect, which names the file and the command to get a good one.
fn damaged(path: &Path, reason: impl Into<ModelFault>) -> EngineError {
    let model = path
        .parent()
        .and_then(Path::file_name)
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    EngineError::Model {
        path: path.display().to_string(),
        reason: reason.into(),
        hint: format!("run `voxline models pull {model}`"),
    }
}
