//! Live audio to text, and text to audio, without losing a sample.
#![forbid(unsafe_code)]

pub mod audio;
#[cfg(feature = "engine")]
pub mod engine;
pub mod transcript;
