//! See `crates/fixtures/src/fuzz/decode.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| voxline_fixtures::fuzz::run("decode", input));
