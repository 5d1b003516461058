//! The integration tests: one binary, a module per behaviour.

mod support;

#[cfg(feature = "whisper")]
mod recognition;
