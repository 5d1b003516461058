//! The recogniser and the voices that voxline brings: Whisper and Piper in Rust on the CPU, and installed speech programs
//! (espeak-ng, festival); with the store of their models.
//!
//! All of them stand behind the traits of [`voxline::engine`], which is all that a gateway knows of them.
#![forbid(unsafe_code)]

mod endpoint;
pub mod models;
mod modulation;
mod program;
pub mod voices;
pub mod wer;
pub mod whisper;

pub use endpoint::{Endpointer, Open, Span};
pub use voices::{EspeakVoice, FestivalVoice, PiperVoice};
pub use whisper::Whisper;
