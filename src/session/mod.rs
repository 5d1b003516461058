//! A recognition session that survives lost connections.
//!
//! A [`Session`] takes audio and emits [`TranscriptEvent`](crate::transcript::TranscriptEvent)s until its
//! end, whatever happens to sockets and tokens in between. The state machine in [`machine`] makes all
//! decisions; the driver behind [`Session::run`] performs them.

mod driver;
mod error;
mod journal;
mod ledger;
pub mod machine;
pub mod replay;
mod settings;

pub use crate::peer::CatchUp;
pub use crate::protocol::Violation;
pub use driver::Session;
pub use error::SessionError;
pub use journal::{Checkpoint, Journal, ServerSession};
pub use ledger::{Ended, Ledger};
pub use settings::{Overflow, ReplaySettings, RequestSettings, Settings, Timeouts};
