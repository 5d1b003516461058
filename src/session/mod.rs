//! A recognition session that survives lost connections.
//!
//! [`run`] drives one session to its end: it takes audio and emits
//! [`TranscriptEvent`](crate::transcript::TranscriptEvent)s, whatever happens to sockets and tokens in
//! between. The state machine in [`machine`] makes all decisions; the [`driver`](run) performs them.

pub mod backoff;
mod catch_up;
mod connection;
mod driver;
mod error;
mod events;
mod journal;
mod ledger;
pub mod machine;
pub mod replay;
mod settings;

pub use crate::peer::CatchUp;
pub use crate::protocol::Violation;
pub use driver::{run, run_journalled};
pub use error::SessionError;
pub use journal::{Checkpoint, Journal, ServerSession};
pub use ledger::{Ended, Ledger};
pub use settings::{Overflow, Settings};
