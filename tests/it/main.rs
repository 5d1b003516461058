//! The tests of the library from outside: one binary, a module for each behaviour. Those that need a
//! gateway are in `crates/gateway/tests`, and those that need the program in `crates/cli/tests`.
#![allow(clippy::unwrap_used, reason = "in a test an unwrap is an assertion, in its fixtures too")]

mod errors;
mod foreign_service;
mod front_end;
mod hostile_peer;
mod machine_turns;
mod network;
mod proxy;
mod restart;
mod schedule;
mod sentences;
mod spool;
mod vosk;
mod writers;

use voxline_fixtures::allocations::Counting;

/// Allocator that counts for the tests of memory. For all other tests it is the system's allocator.
#[global_allocator]
static ALLOCATOR: Counting = Counting;
