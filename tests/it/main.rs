//! The integration tests: one binary, a module for each part of the behaviour.

mod front_end;
mod random;
mod writers;
