//! A recognition session that survives lost connections.
//!
//! [`run`] drives one session to its end: it takes audio and emits
//! [`TranscriptEvent`](crate::transcript::TranscriptEvent)s, whatever happens to sockets and tokens in
//! between. The state machine in [`core`] makes all decisions; the [`driver`](run) performs them.

pub mod backoff;
mod catch_up;
pub mod close;
pub mod core;
mod driver;
mod error;
mod events;
mod journal;
mod ledger;
mod links;
#[cfg(feature = "test-util")]
mod planted;
pub mod protocol;
pub mod replay;
mod settings;

pub use catch_up::CatchUp;
pub use driver::{run, run_journalled};
pub use error::{Failure, FailureKind, SessionError};
pub use journal::{Checkpoint, Journal, ServerSession};
pub use ledger::{Ended, Ledger};
#[cfg(feature = "test-util")]
pub use planted::Planted;
pub use protocol::Latency;
pub use settings::{Overflow, Settings};
