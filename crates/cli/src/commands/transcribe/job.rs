//! Settings and connections shared by all recordings of a run.

use std::sync::{Arc, OnceLock};

use futures::future::{BoxFuture, Shared};
use tokio_util::sync::CancellationToken;

use super::ledger::Form;
use super::spooling::Spooling;
use crate::exit_code::CliError;
use crate::input::Reading;
use crate::service::Connection;
use crate::signals::Stop;
use crate::target::Target;
use voxline::pace::Pace;
use voxline::session::Settings;
use voxline::transport::WebSocketConnector;

/// Settings shared by all recordings of a run.
pub(super) struct Job<'a> {
    pub(super) connection: &'a Connection,
    pub(super) connector: WebSocketConnector,
    pub(super) settings: Settings,
    pub(super) target: Target,
    pub(super) reading: Reading,
    pub(super) speakers: Vec<String>,
    pub(super) pace: Pace,
    pub(super) spooling: Option<Arc<Spooling>>,
    pub(super) ledger: Option<Form>,
    pub(super) interrupted: CancellationToken,
    /// The request that interrupted the run.
    pub(super) stopped: OnceLock<Stop>,
}

/// Result of reading a recording, for several waiters.
pub(super) type Verdict = Shared<BoxFuture<'static, Result<(), CliError>>>;
