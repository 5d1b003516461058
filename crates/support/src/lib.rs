//! What all crates of voxline use and none is about: clocks, seeded randomness, hexadecimal, files of one's own.
//!
//! It is published because they depend on it, not for use by itself: nothing here is stable.
#![forbid(unsafe_code)]

pub mod clock;
mod hex;
pub mod private_file;
pub mod random;

pub use hex::hex;
