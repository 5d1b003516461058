//! The recogniser and the voices that come with voxline: Whisper and Piper in Rust on the CPU, and
//! installed speech programs (espeak-ng, festival). The crate also holds the store of their models.
//!
//! All engines implement the traits of [`voxline::engine`], which is the only interface that a gateway
//! uses.
#![forbid(unsafe_code)]

#[cfg(test)]
#[path = "../../fixtures/src/clips.rs"]
#[allow(dead_code, unreachable_pub, reason = "a fixture, as a file: its package would link this one twice")]
mod clips;
mod endpoint;
#[cfg(test)]
#[path = "../../fixtures/src/knob.rs"]
#[allow(unreachable_pub, reason = "the same")]
mod knob;
pub mod models;
#[cfg(test)]
#[path = "../../fixtures/src/models_dir.rs"]
#[allow(unreachable_pub, reason = "the same")]
mod models_dir;
mod modulation;
mod program;
pub mod voices;
pub mod wer;
pub mod whisper;

pub use endpoint::{Endpointer, Open, Span};
pub use voices::{EspeakVoice, FestivalVoice, PiperVoice};
pub use whisper::Whisper;
