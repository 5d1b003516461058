//! See `crates/fixtures/src/fuzz/calls.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| voxline_fixtures::fuzz::run("calls", input));
