//! See `crates/fixtures/src/fuzz/vault.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| voxline_fixtures::fuzz::run("vault", input));
