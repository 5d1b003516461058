//! The description of a voice that is a test double.

use voxline::engine::{Quality, VoiceInfo};

/// Returns the description of a voice with this name and language, with one speaker, at 24 kHz.
pub(crate) fn voice_info(name: &str, language: &str) -> VoiceInfo {
    VoiceInfo {
        name: name.to_owned(),
        language: language.to_owned(),
        sample_rate: 24_000,
        quality: Quality::Low,
        license: "none".to_owned(),
        speakers: Vec::new(),
    }
}
