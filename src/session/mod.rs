//! A recognition session over connections that die.
//!
//! [`run`] drives one to its end: audio in, [`TranscriptEvent`](crate::transcript::TranscriptEvent)s out, whatever
//! happens to sockets and tokens in between. The decisions are all in [`core`]; [`driver`](run) performs them.

pub mod backoff;
pub mod close;
pub mod core;
mod driver;
mod error;
mod events;
mod journal;
mod ledger;
pub mod protocol;
pub mod replay;
mod settings;

pub use driver::run;
pub use error::{Failure, FailureKind, SessionError};
pub use journal::{Checkpoint, Journal, ServerSession};
pub use ledger::Ledger;
pub use settings::Settings;
