//! Utilities shared by all crates of voxline: clocks, seeded randomness, hexadecimal, and files private
//! to their owner.
//!
//! This crate is published because the others depend on it, and not for use by itself: nothing here is
//! stable.
#![forbid(unsafe_code)]

pub mod clock;
mod hex;
pub mod private_file;
pub mod random;

pub use hex::hex;
