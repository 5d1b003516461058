//! Piper voices: VITS networks in ONNX, run by rten.
//!
//! A voice is two files: `NAME.onnx`, from phoneme ids to samples, and `NAME.onnx.json`, which says how phonemes are
//! numbered and which espeak-ng voice they come from. The format is that of <https://github.com/rhasspy/piper>.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rten::{Model, NodeId, RunOptions, ThreadPool, ValueOrView};
use rten_tensor::prelude::*;
use rten_tensor::{NdTensor, Tensor};
use serde::Deserialize;

use super::sentences::{clauses, sentences};
use super::{EngineError, Quality, Voice, VoiceInfo, clamped_tempo, espeak};

/// The command that brings the voice voxline is tested with.
pub(super) const BRINGS: &str = "voxline models pull piper-joe";

/// What the loudest sample becomes: Piper brings every utterance to full scale (`audio_float_to_int16`), so quiet
/// and loud sentences don't alternate.
const FULL_SCALE: f32 = 32_767.0;

/// Utterances quieter than this are not amplified to full scale: there is nothing but noise in them.
const QUIETEST_PEAK: f32 = 0.01;

/// The most phoneme signs for one run of the network: some 12 seconds of speech at tempo 1, for which it takes up to half
/// a gigabyte. A bound on the text would not do: `999` is six times as long when spoken.
const MAX_PHONEMES: usize = 240;

/// A Piper voice, loaded.
pub struct PiperVoice {
    info: VoiceInfo,
    numbering: Numbering,
    settings: Settings,
    model: Model,
    nodes: Nodes,
}

impl PiperVoice {
    /// Loads the voice in `directory`: its `*.onnx`, the first by name if there are several, and the `.onnx.json`
    /// beside it. Takes about a tenth of a second.
    ///
    /// # Errors
    /// [`EngineError::Model`] if a file is missing or not a Piper voice's.
    pub fn load(directory: &Path) -> Result<PiperVoice, EngineError> {
        let files = Files::find(directory)?;
        let settings = files.settings()?;
        let model =
            Model::load_file(&files.network).map_err(|error| broken(&files.network, error.to_string()))?;
        Ok(PiperVoice {
            info: files.info(&settings),
            numbering: Numbering::new(&settings.phoneme_id_map)
                .map_err(|reason| broken(&files.settings, reason))?,
            nodes: Nodes::find(&model).map_err(|reason| broken(&files.network, reason))?,
            settings,
            model,
        })
    }

    /// What [`load`](PiperVoice::load) would load, from the small file alone.
    ///
    /// # Errors
    /// As [`load`](PiperVoice::load), as far as the small file shows it.
    pub fn describe(directory: &Path) -> Result<VoiceInfo, EngineError> {
        let files = Files::find(directory)?;
        Ok(files.info(&files.settings()?))
    }

    /// The phonemes of one sentence; empty if there is nothing to pronounce in it.
    ///
    /// espeak-ng drops punctuation, and the network hears it: a question rises, a comma waits. So each clause goes to
    /// espeak-ng by itself, and its mark is put back behind its phonemes.
    fn phonemes(&self, sentence: &str) -> Result<String, EngineError> {
        let mut phonemes = String::new();
        for clause in clauses(sentence) {
            let spoken = espeak::phonemes(&self.settings.espeak.voice, clause.text)?;
            if spoken.is_empty() {
                continue;
            }
            if !phonemes.is_empty() {
                phonemes.push(' ');
            }
            phonemes.push_str(&spoken);
            phonemes.extend(clause.mark);
        }
        Ok(phonemes)
    }

    /// Runs the network.
    fn synthesize(&self, ids: Vec<i32>, tempo: f32) -> Result<Vec<f32>, EngineError> {
        let failed = |reason: String| EngineError::Inference { engine: "piper", reason };
        let length = i32::try_from(ids.len()).map_err(|error| failed(error.to_string()))?;
        let inference = &self.settings.inference;
        let scales = vec![inference.noise_scale, inference.length_scale / tempo, inference.noise_w];
        let mut inputs: Vec<(NodeId, ValueOrView)> = vec![
            (self.nodes.ids, NdTensor::from_data([1, ids.len()], ids).into()),
            (self.nodes.lengths, NdTensor::from_data([1], vec![length]).into()),
            (self.nodes.scales, NdTensor::from_data([3], scales).into()),
        ];
        if let Some(speaker) = self.nodes.speaker {
            inputs.push((speaker, NdTensor::from_data([1], vec![0i32]).into()));
        }
        // One thread for each sentence: a second one gains about a tenth on an idle machine and nothing on a busy one.
        // Callers who speak at once still use all cores.
        let options = RunOptions::default().with_thread_pool(Some(Arc::new(ThreadPool::with_num_threads(1))));
        let [output] = self
            .model
            .run_n(inputs, [self.nodes.output], Some(options))
            .map_err(|error| failed(error.to_string()))?;
        let samples: Tensor<f32> =
            output.try_into().map_err(|_| failed("its output is not f32".to_owned()))?;
        Ok(samples.to_vec())
    }
}

impl Voice for PiperVoice {
    fn info(&self) -> &VoiceInfo {
        &self.info
    }

    fn speak(&self, sentence: &str, tempo: f32) -> Result<Vec<i16>, EngineError> {
        let tempo = clamped_tempo(tempo);
        let mut pcm = Vec::new();
        // Slower speech is longer speech.
        let at_once = (MAX_PHONEMES as f32 * tempo.min(1.0)) as usize;
        // A caller who passes more than a sentence still gets bounded runs of the network.
        for sentence in sentences(sentence) {
            for phonemes in pieces(&self.phonemes(sentence)?, at_once) {
                if let Some(ids) = self.numbering.ids(phonemes) {
                    pcm.extend(to_pcm(&self.synthesize(ids, tempo)?));
                }
            }
        }
        Ok(pcm)
    }
}

/// The two files of a voice.
struct Files {
    network: PathBuf,
    settings: PathBuf,
}

impl Files {
    fn find(directory: &Path) -> Result<Files, EngineError> {
        let network = fs::read_dir(directory)
            .map_err(|error| broken(directory, error.to_string()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
            .min()
            .ok_or_else(|| broken(directory, "holds no *.onnx file".to_owned()))?;
        let settings = network.with_added_extension("json");
        Ok(Files { network, settings })
    }

    fn settings(&self) -> Result<Settings, EngineError> {
        let text = fs::read(&self.settings).map_err(|error| broken(&self.settings, error.to_string()))?;
        let settings: Settings =
            serde_json::from_slice(&text).map_err(|error| broken(&self.settings, error.to_string()))?;
        settings.check().map_err(|reason| broken(&self.settings, reason))?;
        Ok(settings)
    }

    /// The voice's name and language from the file's, which Piper writes as `en_US-joe-medium`.
    fn info(&self, settings: &Settings) -> VoiceInfo {
        let stem = self.network.file_stem().unwrap_or_default().to_string_lossy();
        let mut parts = stem.split('-');
        let (first, second) = (parts.next().unwrap_or_default(), parts.next());
        let name = second.unwrap_or(first).to_owned();
        let language = settings.espeak.voice.split('-').next().unwrap_or_default().to_owned();
        VoiceInfo {
            license: license(&stem),
            name,
            language,
            sample_rate: settings.audio.sample_rate,
            quality: Quality::Natural,
        }
    }
}

/// What is known about a voice's terms.
fn license(stem: &str) -> String {
    match stem {
        // MODEL_CARD of joe and of lessac in rhasspy/piper-voices. Lessac's card points to the Blizzard 2013 licence,
        // https://www.cstr.ed.ac.uk/projects/blizzard/2013/lessac_blizzard2013/license.html, which projects that ship
        // lessac report as research only, without commercial speech products. Whether that reaches a voice tuned from
        // it nobody has settled.
        "en_US-joe-medium" => {
            "dataset CC0; fine-tuned from Piper's lessac voice, whose recordings (Blizzard 2013) are \
                               licensed for research only: settle that before commercial use"
                .to_owned()
        }
        _ => "see the voice's MODEL_CARD".to_owned(),
    }
}

/// The part of `NAME.onnx.json` that synthesis needs.
#[derive(Deserialize)]
struct Settings {
    audio: AudioSettings,
    espeak: EspeakSettings,
    inference: Inference,
    phoneme_id_map: HashMap<String, Vec<i32>>,
}

#[derive(Deserialize)]
struct AudioSettings {
    sample_rate: u32,
}

#[derive(Deserialize)]
struct EspeakSettings {
    voice: String,
}

/// How lively the voice is (two noise scales), and how slow.
#[derive(Deserialize)]
struct Inference {
    noise_scale: f32,
    length_scale: f32,
    noise_w: f32,
}

impl Settings {
    fn check(&self) -> Result<(), String> {
        let voice = &self.espeak.voice;
        // It becomes an argument of espeak-ng: a name there, never an option or a path.
        let is_name = voice.starts_with(|c: char| c.is_ascii_alphanumeric())
            && voice.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+'));
        if !is_name {
            return Err(format!("espeak voice {voice:?} is not a voice's name"));
        }
        if !(8_000..=48_000).contains(&self.audio.sample_rate) {
            return Err(format!("sample rate {} Hz instead of 8000 to 48000", self.audio.sample_rate));
        }
        if !(0.1..=10.0).contains(&self.inference.length_scale) {
            return Err(format!("length scale {} instead of 0.1 to 10", self.inference.length_scale));
        }
        Ok(())
    }
}

/// The places where the network is fed and tapped.
struct Nodes {
    ids: NodeId,
    lengths: NodeId,
    scales: NodeId,
    /// Only networks with several speakers have it; the first speaks.
    speaker: Option<NodeId>,
    output: NodeId,
}

impl Nodes {
    fn find(model: &Model) -> Result<Nodes, String> {
        let node =
            |name| model.find_node(name).ok_or_else(|| format!("has no node '{name}': not a Piper voice"));
        Ok(Nodes {
            ids: node("input")?,
            lengths: node("input_lengths")?,
            scales: node("scales")?,
            speaker: model.find_node("sid"),
            output: node("output")?,
        })
    }
}

/// Phonemes to the numbers the network was trained with.
struct Numbering {
    begin: Vec<i32>,
    end: Vec<i32>,
    pad: Vec<i32>,
    phonemes: HashMap<char, Vec<i32>>,
}

impl Numbering {
    fn new(map: &HashMap<String, Vec<i32>>) -> Result<Numbering, String> {
        let sign =
            |sign: &str| map.get(sign).cloned().ok_or_else(|| format!("phoneme_id_map lacks '{sign}'"));
        let (begin, end, pad) = (sign("^")?, sign("$")?, sign("_")?);
        let phonemes = map
            .iter()
            .filter(|(key, _)| !matches!(key.as_str(), "^" | "$" | "_"))
            .filter_map(|(key, ids)| {
                let mut characters = key.chars();
                Some((characters.next()?, ids.clone())).filter(|_| characters.next().is_none())
            })
            .collect();
        Ok(Numbering { begin, end, pad, phonemes })
    }

    /// The ids of one utterance: begin, a pad, each phoneme and a pad behind it, end, as piper-phonemize numbers them
    /// for training (Piper's Python runtime leaves out the first pad). A phoneme the voice was not trained with is
    /// left out too. `None` if none is left.
    fn ids(&self, phonemes: &str) -> Option<Vec<i32>> {
        let mut ids = [&self.begin[..], &self.pad].concat();
        let empty = ids.len();
        for phoneme in phonemes.chars().filter_map(|phoneme| self.phonemes.get(&phoneme)) {
            ids.extend_from_slice(phoneme);
            ids.extend_from_slice(&self.pad);
        }
        let spoken = ids.len() > empty;
        ids.extend_from_slice(&self.end);
        spoken.then_some(ids)
    }
}

/// `phonemes` in pieces of at most `at_once` signs, cut between words where there are any.
fn pieces(phonemes: &str, at_once: usize) -> Vec<&str> {
    let mut pieces = Vec::new();
    let mut rest = phonemes;
    while let Some((bound, _)) = rest.char_indices().nth(at_once) {
        let cut = rest[..bound].rfind(' ').filter(|&space| space > 0).unwrap_or(bound);
        let (piece, after) = rest.split_at(cut);
        pieces.push(piece);
        rest = after.trim_start();
    }
    if !rest.is_empty() {
        pieces.push(rest);
    }
    pieces
}

/// 16-bit samples, the loudest at full scale.
fn to_pcm(samples: &[f32]) -> Vec<i16> {
    let peak = samples.iter().fold(QUIETEST_PEAK, |peak, sample| peak.max(sample.abs()));
    // `as` saturates, and takes NaN for 0.
    samples.iter().map(|sample| (sample * FULL_SCALE / peak) as i16).collect()
}

fn broken(path: &Path, reason: String) -> EngineError {
    EngineError::Model { path: path.display().to_string(), reason, hint: format!("run: {BRINGS}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_phonemes_are_cut_between_words() {
        assert_eq!(pieces("", 5), Vec::<&str>::new());
        assert_eq!(pieces("ˈaː, b", 6), ["ˈaː, b"]);
        assert_eq!(pieces("ˈaː, bəd", 6), ["ˈaː,", "bəd"]);
        assert_eq!(pieces("əəəəəəəəəəə əə", 5), ["əəəəə", "əəəəə", "ə əə"]);
    }

    #[test]
    fn each_phoneme_has_a_pad_behind_it_and_strangers_are_left_out() {
        let map = [("^", 1), ("$", 2), ("_", 0), ("a", 14), (".", 10)];
        let map = map.into_iter().map(|(sign, id)| (sign.to_owned(), vec![id])).collect();
        let numbering = Numbering::new(&map).unwrap();
        assert_eq!(numbering.ids("aӜ."), Some(vec![1, 0, 14, 0, 10, 0, 2]));
        assert_eq!(numbering.ids("Ӝ"), None);
        assert_eq!(numbering.ids(""), None);
    }

    #[test]
    fn the_loudest_sample_is_full_scale_and_noise_is_not_raised_to_it() {
        assert_eq!(to_pcm(&[0.0, 0.5, -0.25]), [0, 32_767, -16_383]);
        assert_eq!(to_pcm(&[0.001, f32::NAN]), [3_276, 0]);
        assert!(to_pcm(&[]).is_empty());
    }
}
