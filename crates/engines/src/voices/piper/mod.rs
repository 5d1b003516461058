//! Piper voices: VITS networks in ONNX, run by rten.
//!
//! A voice is two files: `NAME.onnx`, from phoneme IDs to samples, and `NAME.onnx.json`, which states the
//! numbers of the phonemes and the espeak-ng voice that they come from. The format is that of
//! <https://github.com/rhasspy/piper>.

mod files;
mod network;
mod phonemes;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use self::files::{Files, Inference};
use self::network::{Manner, Network};
use self::phonemes::{Numbering, pieces};
use super::espeak::Phonemizer;
use super::loudness::{Gain, loudness};
use super::reading::spelt_out;
use crate::voices::clamped_tempo;
use voxline::engine::{EngineError, ModelFault, Voice, VoiceInfo};
use voxline::sentences::{clauses, sentences};

/// Command that installs the voice that voxline is tested with.
pub(super) const INSTALL: &str = "voxline models pull piper-joe";

/// Largest number of phoneme signs for one run of the network: some 12 seconds of speech at tempo 1. A
/// bound on the text would not do: `999` is six times as long when spoken.
const MAX_PHONEMES: usize = 240;

/// Number of signs above which the first clause of a sentence is spoken by itself. A listener's wait
/// grows with the length of the run, while later clauses have time.
const LONG: usize = 70;

/// Number of signs below which a first clause is joined with the next one: "Well," is over before the
/// rest is ready.
const SHORTEST: usize = 25;

/// Text by which a voice's loudness is measured in any language: digits, which espeak-ng knows in all
/// languages.
const MEASURE: &str = "1 2 3 4 5 6 7 8 9";

/// Loudnesses measured beforehand, in LUFS, so that the default voice starts without a measurement.
const MEASURED: &[(&str, f64)] = &[("joe", -25.0)];

/// A loaded Piper voice.
pub struct PiperVoice {
    info: VoiceInfo,
    numbering: Numbering,
    inference: Inference,
    phonemizer: Phonemizer,
    network: Network,
    speakers: Vec<(String, i32)>,
    /// Gains of the speakers that have spoken.
    gains: Mutex<HashMap<i32, Gain>>,
}

impl PiperVoice {
    /// Loads the voice in `directory`: its `*.onnx`, the first by name if there are several, and the
    /// `.onnx.json` beside it. Takes about a tenth of a second.
    ///
    /// # Errors
    /// Returns [`EngineError::Model`] if a file is missing or is not a Piper voice's.
    pub fn load(directory: &Path) -> Result<PiperVoice, EngineError> {
        let files = Files::find(directory)?;
        let settings = files.settings()?;
        let network = Network::load(&files.network).map_err(|reason| broken(&files.network, reason))?;
        Ok(PiperVoice {
            info: files.info(&settings),
            numbering: Numbering::new(&settings.phoneme_id_map)
                .map_err(|reason| broken(&files.settings, reason))?,
            phonemizer: Phonemizer::new(&settings.espeak.voice),
            speakers: settings.speakers(),
            inference: settings.inference,
            network,
            gains: Mutex::default(),
        })
    }

    /// Returns the description of the voice that [`load`](PiperVoice::load) would load, from the settings
    /// file alone.
    ///
    /// # Errors
    /// Returns the errors of [`load`](PiperVoice::load) that the settings file shows.
    pub fn describe(directory: &Path) -> Result<VoiceInfo, EngineError> {
        let files = Files::find(directory)?;
        Ok(files.info(&files.settings()?))
    }

    /// Speaks as [`Voice::speak_in_pieces`] does, with the speaker of that name. Without a name, or with
    /// an unknown one, the first speaker is used.
    ///
    /// # Errors
    /// Returns the errors of [`Voice::speak`].
    pub fn speak_as(
        &self,
        speaker: Option<&str>,
        sentence: &str,
        tempo: f32,
        take: &mut dyn FnMut(&[i16]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        let named = self.speakers.iter().find(|(name, _)| Some(name.as_str()) == speaker);
        let (speaker, tempo) = (named.map_or(0, |&(_, number)| number), clamped_tempo(tempo));
        let sentence = spelt_out(&self.info.language, sentence);
        let (mut gain, mut spoken) = (None, false);
        // If a caller passes more than a sentence, the runs of the network are still bounded.
        for sentence in sentences(&sentence) {
            let clauses = self.phonemes(sentence)?;
            for ids in self.runs(&clauses, tempo, !spoken) {
                spoken = true;
                let gain = match gain {
                    Some(gain) => gain,
                    None => *gain.insert(self.gain(speaker)?),
                };
                let mut pass = |samples: &[f32]| take(&gain.to_pcm(samples));
                if self.network.speak(ids, &self.manner(speaker, tempo), &mut pass)?.is_break() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Returns the phonemes of the clauses of one sentence, without clauses that have nothing to
    /// pronounce.
    ///
    /// espeak-ng drops punctuation, but the network is sensitive to it: a question rises, a comma pauses.
    /// So each clause goes to espeak-ng by itself, and its mark is put back after its phonemes.
    fn phonemes(&self, sentence: &str) -> Result<Vec<String>, EngineError> {
        let mut spoken = Vec::new();
        for clause in clauses(sentence) {
            let mut phonemes = self.phonemizer.phonemes(clause.text)?;
            if !phonemes.is_empty() {
                phonemes.extend(clause.mark);
                spoken.push(phonemes);
            }
        }
        Ok(spoken)
    }

    /// Returns the IDs of each run of the network for these clauses.
    fn runs(&self, clauses: &[String], tempo: f32, waited_for: bool) -> Vec<Vec<i32>> {
        // Slower speech is longer speech.
        let scaled = |phonemes: usize| (phonemes as f32 * tempo.min(1.0)) as usize;
        let first = if waited_for { opening(clauses, scaled(LONG)) } else { 0 };
        let parts = [clauses[..first].join(" "), clauses[first..].join(" ")];
        parts
            .iter()
            .flat_map(|part| pieces(part, scaled(MAX_PHONEMES)))
            .filter_map(|piece| self.numbering.ids(piece))
            .collect()
    }

    /// Returns the gain of a speaker, which is measured when the speaker is first used.
    fn gain(&self, speaker: i32) -> Result<Gain, EngineError> {
        if let Some((_, loudness)) = MEASURED.iter().find(|(name, _)| *name == self.info.name) {
            return Ok(Gain::of(*loudness));
        }
        // The lock is held while measuring, so that two concurrent first sentences do not measure twice.
        let mut gains = self.gains.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&gain) = gains.get(&speaker) {
            return Ok(gain);
        }
        let gain = Gain::of(self.measure(speaker)?);
        gains.insert(speaker, gain);
        Ok(gain)
    }

    /// Returns the loudness of a speaker in the network's output, in LUFS.
    fn measure(&self, speaker: i32) -> Result<f64, EngineError> {
        let mut said = Vec::new();
        if let Some(ids) = self.numbering.ids(&self.phonemizer.phonemes(MEASURE)?) {
            let _ = self.network.speak(ids, &self.manner(speaker, 1.0), &mut |samples| {
                said.extend_from_slice(samples);
                ControlFlow::Continue(())
            })?;
        }
        Ok(loudness(&said, self.info.sample_rate))
    }

    fn manner(&self, speaker: i32, tempo: f32) -> Manner {
        let Inference { noise_scale, length_scale, noise_w } = self.inference;
        Manner { scales: [noise_scale, length_scale / tempo, noise_w], speaker }
    }
}

impl Voice for PiperVoice {
    fn info(&self) -> &VoiceInfo {
        &self.info
    }

    fn speak_in_pieces(
        &self,
        sentence: &str,
        tempo: f32,
        take: &mut dyn FnMut(&[i16]) -> ControlFlow<()>,
    ) -> Result<(), EngineError> {
        self.speak_as(None, sentence, tempo, take)
    }
}

/// Returns the number of clauses of a long sentence that are spoken before the rest of it: enough to last
/// until the rest is ready.
fn opening(clauses: &[String], long: usize) -> usize {
    let lengths = clauses.iter().map(|clause| clause.chars().count());
    if lengths.clone().sum::<usize>() <= long {
        return 0;
    }
    let reached = |so_far: &mut usize, length| {
        *so_far += length;
        Some(*so_far)
    };
    lengths.scan(0, reached).position(|so_far| so_far >= SHORTEST).map_or(0, |last| last + 1)
}

fn broken(path: &Path, reason: impl Into<ModelFault>) -> EngineError {
    let (path, hint) = (path.display().to_string(), format!("run: {INSTALL}"));
    EngineError::Model { path, reason: reason.into(), hint }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_sentence_opens_with_a_clause_that_lasts_for_a_while() {
        let clauses =
            |lengths: &[usize]| -> Vec<String> { lengths.iter().map(|&n| "ə".repeat(n)).collect() };
        for (lengths, expected) in [
            (&[][..], 0),
            (&[40, 60], 0),
            (&[40, 61], 1),
            (&[10, 50, 61], 2),
            (&[24, 1, 90], 2),
            (&[25, 1, 90], 1),
            (&[101], 1),
        ] {
            assert_eq!(opening(&clauses(lengths), 100), expected, "{lengths:?}");
        }
    }
}
