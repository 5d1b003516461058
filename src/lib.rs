//! Live audio to text, and text to audio, without losing a sample.
#![forbid(unsafe_code)]

pub mod audio;
pub mod chunk;
pub mod decode;
#[cfg(feature = "engine")]
pub mod engine;
pub mod pipeline;
pub mod resample;
pub mod source;
pub mod transcript;
