//! Live audio to text, and text to audio, without losing a sample.
#![forbid(unsafe_code)]

pub mod audio;
pub mod auth;
pub mod chunk;
#[cfg(feature = "cli")]
pub mod cli;
pub mod clock;
#[cfg(feature = "cli")]
pub mod config;
pub mod decode;
#[cfg(feature = "engine")]
pub mod engine;
#[cfg(feature = "gateway")]
pub mod gateway;
#[cfg(feature = "models")]
pub mod models;
pub mod net;
pub mod pipeline;
#[cfg(feature = "voices")]
mod program;
pub mod recovery;
pub mod resample;
pub mod session;
pub mod source;
pub mod speech;
#[cfg(feature = "test-util")]
pub mod testing;
pub mod transcript;
pub mod transport;
