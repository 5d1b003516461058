//! Supervision of the streams of a client: revocation of its token, and the shutdown of the gateway.

use std::sync::Arc;
use std::time::Duration;

use futures::future::OptionFuture;
use tokio::time::{Instant, sleep_until};

use super::credential::OpeningToken;
use super::live::LiveEnd;
use super::manager::SessionManager;
use super::supervision::{Notice, Supervision};

/// Part of the time to drain that is kept for the last results, and the most that is kept.
const LAST_RESULTS_PART: u32 = 4;
const LAST_RESULTS: Duration = Duration::from_secs(5);

/// Supervision of a connection by the authority and by the shutdown of the gateway.
pub(crate) struct LiveSupervision<'a> {
    manager: &'a SessionManager,
    opener: Arc<OpeningToken>,
    supervision: Supervision<'a>,
    /// Time at which audio should end, while the gateway drains.
    finish_at: Option<Instant>,
}

impl<'a> LiveSupervision<'a> {
    /// Supervises a connection that was opened with the token of `opener`.
    pub(crate) fn new(manager: &'a SessionManager, opener: Arc<OpeningToken>) -> LiveSupervision<'a> {
        LiveSupervision { manager, opener, supervision: Supervision::new(manager), finish_at: None }
    }

    /// Waits until the gateway is about to stop, so that audio should end for its text still to arrive. That
    /// is told once. Cancel safe.
    ///
    /// # Errors
    /// Returns [`LiveEnd`] if the token is revoked, or the time to drain is over.
    #[expect(clippy::disallowed_methods, reason = "the time to drain is real time")]
    pub(crate) async fn drain(&mut self) -> Result<(), LiveEnd> {
        loop {
            let finish = OptionFuture::from(self.finish_at.map(sleep_until));
            let notice = tokio::select! {
                notice = self.supervision.notice() => notice,
                Some(()) = finish => {
                    self.finish_at = None;
                    return Ok(());
                }
            };
            match notice {
                Notice::Revocation => self.opener.check(&self.manager.authority).map_err(LiveEnd::Token)?,
                Notice::Drain => {
                    let now = Instant::now();
                    let left = self.manager.shutdown.drain_left(now);
                    let last_results = (left / LAST_RESULTS_PART).min(LAST_RESULTS);
                    self.finish_at = now.checked_add(left - last_results);
                }
                Notice::Close => return Err(LiveEnd::Stopping),
            }
        }
    }
}
