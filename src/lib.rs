//! Live audio to text, and text to audio, without losing a sample.
#![forbid(unsafe_code)]

pub mod audio;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(feature = "models")]
pub mod models;
#[cfg(any(feature = "voices", feature = "models"))]
mod program;
pub mod transcript;
