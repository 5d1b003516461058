//! The available voices, and their discovery.

mod espeak;
mod festival;
mod lazy;
mod loudness;
#[cfg(test)]
mod mutated_texts;
mod onnx;
mod piper;
mod reading;
mod safe_text;
mod stretch;
mod wave;

use std::path::Path;
use std::sync::Arc;

use voxline::engine::{TEMPOS, Voice, Voices};

pub use self::espeak::EspeakVoice;
pub use self::festival::FestivalVoice;
pub use self::piper::PiperVoice;

/// The parsers of texts and of other programs' answers, for fuzz targets.
#[cfg(feature = "test-util")]
pub mod parsers {
    /// Returns `text` as a voice of `language` is to read it: text normalisation.
    #[must_use]
    pub fn spelt_out(language: &str, text: &str) -> String {
        super::reading::spelt_out(language, text)
    }

    /// Returns the text as it is given to programs that stumble over words of dots and letters.
    #[must_use]
    pub fn broken_up(text: &str) -> String {
        super::safe_text::broken_up(text)
    }

    /// Returns the sample rate and the samples of a program's WAV.
    ///
    /// # Errors
    /// Returns a description of the fault of the WAV.
    pub fn program_wav(wav: &[u8]) -> Result<(u32, Vec<i16>), String> {
        super::wave::read(wav)
    }
}

/// Name of the English voice that is reported as missing if it is not installed.
const ENGLISH: &str = "joe";

/// Finds Piper voices in the `piper-*` directories under `models`, and the programs espeak-ng and
/// festival. Nothing is loaded yet: a Piper voice is loaded when it first speaks.
///
/// Runs both programs once, and so blocks for some milliseconds.
#[must_use]
pub fn discover(models: &Path) -> Voices {
    let mut found = Voices::new(Vec::new());
    let speaks = espeak::is_installed();
    let piper = if speaks { lazy::piper_voices(models) } else { Vec::new() };
    if !piper.iter().any(|voice| voice.info().name == ENGLISH) {
        let program = if speaks { String::new() } else { format!("{} && ", espeak::INSTALL) };
        found.add_unavailable(ENGLISH, "en", format!("{program}{}", piper::INSTALL));
    }
    for voice in piper {
        found.push(voice);
    }
    if festival::is_installed() {
        found.push(Arc::new(FestivalVoice::russian()));
    } else {
        found.add_unavailable("festival-ru", "ru", festival::INSTALL.to_owned());
    }
    if speaks {
        found.push(Arc::new(EspeakVoice::english()));
        found.push(Arc::new(EspeakVoice::russian()));
    } else {
        found.add_unavailable("espeak-en", "en", espeak::INSTALL.to_owned());
        found.add_unavailable("espeak-ru", "ru", espeak::INSTALL.to_owned());
    }
    found
}

/// Returns a tempo within [`TEMPOS`]; 1 for NaN.
fn clamped_tempo(tempo: f32) -> f32 {
    if tempo.is_nan() { 1.0 } else { tempo.clamp(*TEMPOS.start(), *TEMPOS.end()) }
}
