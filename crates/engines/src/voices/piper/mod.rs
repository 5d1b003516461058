//! Piper voices: VITS networks in ONNX, run by rten.
//!
//! A voice is two files: `NAME.onnx`, from phoneme ids to samples, and `NAME.onnx.json`, which says how phonemes are
//! numbered and which espeak-ng voice they come from. The format is that of <https://github.com/rhasspy/piper>.

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
use voxline::engine::{EngineError, Voice, VoiceInfo};
use voxline::sentences::{clauses, sentences};

/// The command that brings the voice voxline is tested with.
pub(super) const BRINGS: &str = "voxline models pull piper-joe";

/// The most phoneme signs for one run of the network: some 12 seconds of speech at tempo 1. A bound on the text would
/// not do: `999` is six times as long when spoken.
const MAX_PHONEMES: usize = 240;

/// A sentence of more signs than this has its first clause spoken by itself: how long a listener waits grows with all
/// that is spoken at once, while what comes later has time.
const LONG: usize = 70;

/// A first clause of fewer signs takes the next one along: "Well," is over before the rest is there.
const SHORTEST: usize = 25;

/// What a voice's loudness is measured by, in any language: digits, which espeak-ng knows in all.
const MEASURE: &str = "1 2 3 4 5 6 7 8 9";

/// Loudnesses measured before, in LUFS, so that the voice everybody has starts at once.
const MEASURED: &[(&str, f64)] = &[("joe", -25.0)];

/// A Piper voice, loaded.
pub struct PiperVoice {
    info: VoiceInfo,
    numbering: Numbering,
    inference: Inference,
    phonemizer: Phonemizer,
    network: Network,
    speakers: Vec<(String, i32)>,
    /// Those of the speakers who have spoken.
    gains: Mutex<HashMap<i32, Gain>>,
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

    /// What [`load`](PiperVoice::load) would load, from the small file alone.
    ///
    /// # Errors
    /// As [`load`](PiperVoice::load), as far as the small file shows it.
    pub fn describe(directory: &Path) -> Result<VoiceInfo, EngineError> {
        let files = Files::find(directory)?;
        Ok(files.info(&files.settings()?))
    }

    /// As [`Voice::speak_in_pieces`], by the speaker of that name; without a name, or by one that isn't there, the
    /// first.
    ///
    /// # Errors
    /// As [`Voice::speak`].
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
        // A caller who passes more than a sentence still gets bounded runs of the network.
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

    /// The phonemes of the clauses of one sentence, as far as there is something to pronounce in them.
    ///
    /// espeak-ng drops punctuation, and the network hears it: a question rises, a comma waits. So each clause goes to
    /// espeak-ng by itself, and its mark is put back behind its phonemes.
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

    /// The ids of each run of the network for these clauses.
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

    /// By how much to raise a speaker's samples: measured when they speak first.
    fn gain(&self, speaker: i32) -> Result<Gain, EngineError> {
        if let Some((_, loudness)) = MEASURED.iter().find(|(name, _)| *name == self.info.name) {
            return Ok(Gain::of(*loudness));
        }
        // Held while measuring, so that two first sentences don't measure twice.
        let mut gains = self.gains.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&gain) = gains.get(&speaker) {
            return Ok(gain);
        }
        let gain = Gain::of(self.measure(speaker)?);
        gains.insert(speaker, gain);
        Ok(gain)
    }

    /// The loudness of a speaker, as the network has it.
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

/// How many clauses of a long sentence are spoken before the rest of it: enough to last until that is there.
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

fn broken(path: &Path, reason: String) -> EngineError {
    EngineError::Model { path: path.display().to_string(), reason, hint: format!("run: {BRINGS}") }
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
