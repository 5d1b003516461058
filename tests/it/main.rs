//! The integration tests: one binary, a module for each part of the behaviour.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod front_end;
mod random;
mod writers;
