//! The two files of a Piper voice, and the content of the settings file.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::broken;
use voxline::engine::{EngineError, ModelFault, Quality, VoiceInfo};

/// Paths of the two files of a voice.
pub(super) struct Files {
    pub(super) network: PathBuf,
    pub(super) settings: PathBuf,
}

impl Files {
    pub(super) fn find(directory: &Path) -> Result<Files, EngineError> {
        let network = fs::read_dir(directory)
            .map_err(|error| broken(directory, error))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "onnx"))
            .min()
            .ok_or_else(|| broken(directory, "holds no *.onnx file".to_owned()))?;
        let settings = network.with_added_extension("json");
        Ok(Files { network, settings })
    }

    pub(super) fn settings(&self) -> Result<Settings, EngineError> {
        let text = fs::read(&self.settings).map_err(|error| broken(&self.settings, error))?;
        let settings: Settings = serde_json::from_slice(&text)
            .map_err(|error| broken(&self.settings, ModelFault::parse(error)))?;
        settings.check().map_err(|reason| broken(&self.settings, reason))?;
        Ok(settings)
    }

    /// Returns the voice's name, from the name of its file, which Piper writes as `en_US-joe-medium`, and
    /// its language, from its settings.
    pub(super) fn info(&self, settings: &Settings) -> VoiceInfo {
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
            speakers: settings.speakers().into_iter().map(|(name, _)| name).collect(),
        }
    }
}

/// Returns the known terms of a voice's licence.
fn license(stem: &str) -> String {
    match stem {
        // MODEL_CARD of joe and of lessac in rhasspy/piper-voices. Lessac's card points to the Blizzard
        // 2013 licence,
        // https://www.cstr.ed.ac.uk/projects/blizzard/2013/lessac_blizzard2013/license.html, which
        // projects that ship lessac report as research only, without commercial speech products. It is
        // unsettled whether that licence extends to a voice tuned from lessac.
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
pub(super) struct Settings {
    audio: AudioSettings,
    pub(super) espeak: EspeakSettings,
    pub(super) inference: Inference,
    pub(super) phoneme_id_map: HashMap<String, Vec<i32>>,
    /// Speakers by name, if there are several. Older files leave the map out.
    #[serde(default)]
    speaker_id_map: HashMap<String, i32>,
    #[serde(default)]
    num_speakers: u16,
}

#[derive(Deserialize)]
struct AudioSettings {
    sample_rate: u32,
}

#[derive(Deserialize)]
pub(super) struct EspeakSettings {
    pub(super) voice: String,
}

/// Liveliness of the voice (two noise scales), and its slowness.
#[derive(Deserialize)]
pub(super) struct Inference {
    pub(super) noise_scale: f32,
    pub(super) length_scale: f32,
    pub(super) noise_w: f32,
}

impl Settings {
    /// Returns the names and numbers of the speakers, in the order of their numbers; empty if there is
    /// only one.
    pub(super) fn speakers(&self) -> Vec<(String, i32)> {
        let mut speakers: Vec<(String, i32)> =
            self.speaker_id_map.iter().map(|(name, &number)| (name.clone(), number)).collect();
        if speakers.is_empty() {
            speakers = (0..self.num_speakers).map(|number| (number.to_string(), i32::from(number))).collect();
        }
        speakers.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
        if speakers.len() > 1 { speakers } else { Vec::new() }
    }

    fn check(&self) -> Result<(), String> {
        let voice = &self.espeak.voice;
        // The value becomes an argument of espeak-ng, so it must be a name, never an option or a path.
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
