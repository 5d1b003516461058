//! The routes of the API, a file for each. A handler reads a request, calls the rooms below, and writes the
//! answer.
//!
//! This room may import every other room.

pub(crate) mod asr;
pub(crate) mod asr_chunks;
pub(crate) mod demo;
pub(crate) mod openapi;
pub(crate) mod revoke;
pub(crate) mod token;
pub(crate) mod tts;
