//! Test doubles and fault injection, for our own tests and for the tests of this library's users.
//!
//! The program uses nothing of this crate. A double is named for what it does, never for the real part that
//! it stands in for.
#![forbid(unsafe_code)]

mod clock;
mod conformance;
mod digest;
#[cfg(feature = "store")]
mod disk;
pub mod history;
pub mod network;
mod null;
pub mod peer;
mod planted;
mod proxy;
pub mod schedule;
mod tokens;
mod vault_disk;

pub use clock::ManualClock;
pub use conformance::{Nonconformance, check_recognizer};
pub use digest::{DigestRecognizer, digest};
#[cfg(feature = "store")]
pub use disk::FailingDisk;
pub use null::NullRecognizer;
/// For the proofs of voxline itself: each plants a bug that a proof must catch, or a fault of its vault.
#[doc(hidden)]
pub use planted::{Planted, PlantedConnector, PlantedPeer, Saboteur};
pub use proxy::{Cut, Fault, FaultProxy};
pub use tokens::ShortLivedTokens;
#[doc(hidden)]
pub use vault_disk::{FailingVaultDisk, PlantedTokenBug, PlantedVaultDisk, VaultStep};
