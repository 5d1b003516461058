//! Test doubles and fault injection, for our tests and for yours.
//!
//! Nothing here is used by the program. A double is named for what it does, never for the real part it stands in for.
#![forbid(unsafe_code)]

mod clock;
mod digest;
mod disk;
pub mod history;
pub mod network;
mod null;
pub mod peer;
mod proxy;
pub mod schedule;
mod tokens;

pub use clock::ManualClock;
pub use digest::{DigestRecognizer, digest};
pub use disk::FailingDisk;
pub use null::NullRecognizer;
pub use proxy::{Cut, Fault, FaultProxy};
pub use tokens::ShortLivedTokens;
