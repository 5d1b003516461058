//! Live audio to text, and text to audio, without losing a sample.
#![forbid(unsafe_code)]

pub mod audio;
pub mod auth;
pub mod clock;
#[cfg(feature = "engine")]
pub mod engine;
pub mod net;
pub mod recovery;
pub mod session;
pub mod transcript;
pub mod transport;
