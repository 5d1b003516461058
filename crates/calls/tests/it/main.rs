//! Integration tests of calls: one binary, with a module for each behaviour.
#![allow(clippy::unwrap_used, reason = "in a test an unwrap is an assertion, in its fixtures too")]

mod peers;

// Counts what threads allocate that ask for it.
#[global_allocator]
static ALLOCATOR: voxline_fixtures::allocations::Counting = voxline_fixtures::allocations::Counting;
