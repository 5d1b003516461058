//! Piper voices found on the disk, which are loaded when they first speak.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::PiperVoice;
use voxline::engine::{EngineError, Voice, VoiceInfo};

/// Prefix of the name of a Piper voice's directory, in the directory of models.
const PIPER_PREFIX: &str = "piper-";

/// Returns the Piper voices under `models`, in the order of their directories' names. A directory whose
/// settings file cannot be read is left out here; `models verify` reports the fault.
pub(super) fn piper_voices(models: &Path) -> Vec<Arc<LazyPiper>> {
    let Ok(entries) = fs::read_dir(models) else { return Vec::new() };
    let mut directories: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PIPER_PREFIX)))
        .collect();
    directories.sort();
    directories
        .into_iter()
        .filter_map(|directory| {
            let info = PiperVoice::describe(&directory).ok()?;
            Some(Arc::new(LazyPiper {
                info,
                speaker: None,
                network: Arc::new(LazyNetwork { directory, loaded: Mutex::default() }),
            }))
        })
        .collect()
}

/// A Piper voice that is loaded on first use. A speaker of the voice shares the loaded network.
pub(super) struct LazyPiper {
    info: VoiceInfo,
    speaker: Option<String>,
    network: Arc<LazyNetwork>,
}

/// A network that is loaded on first use. A failed load is tried again the next time, since the file may
/// have arrived meanwhile.
struct LazyNetwork {
    directory: PathBuf,
    loaded: Mutex<Option<Arc<PiperVoice>>>,
}

impl LazyNetwork {
    fn voice(&self) -> Result<Arc<PiperVoice>, EngineError> {
        // The lock is held while loading, so that two concurrent first uses do not load the voice twice.
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(voice) = loaded.as_ref() {
            return Ok(Arc::clone(voice));
        }
        let voice = Arc::new(PiperVoice::load(&self.directory)?);
        *loaded = Some(Arc::clone(&voice));
        Ok(voice)
    }
}

impl Voice for LazyPiper {
    fn info(&self) -> &VoiceInfo {
        &self.info
    }

    fn speak_in_pieces(
        &self,
        sentence: &str,
        tempo: f32,
        take: &mut dyn FnMut(&[i16]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        self.network.voice()?.speak_as(self.speaker.as_deref(), sentence, tempo, take)
    }

    fn speaker(&self, name: &str) -> Option<Arc<dyn Voice>> {
        let speaker = self.info.speakers.iter().find(|speaker| *speaker == name)?.clone();
        let name = format!("{}:{speaker}", self.info.name);
        let info = VoiceInfo { name, speakers: Vec::new(), ..self.info.clone() };
        Some(Arc::new(LazyPiper { info, speaker: Some(speaker), network: Arc::clone(&self.network) }))
    }
}
