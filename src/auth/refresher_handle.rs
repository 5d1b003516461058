//! Access tokens that are renewed in the background.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::AuthError;
use super::oauth::OAuthClient;
use super::refresher::Refresher;
use super::renewal::TokenLookup;
use super::token::{AccessToken, TokenGeneration};
use super::vault::Vault;

/// State of a provider that renews tokens, as callers use it.
pub(super) struct RefresherHandle {
    refresher: Arc<Refresher>,
    /// Renewal task. It ends with the runtime in which it was started, and the next caller restarts the
    /// task in the caller's own runtime.
    task: Mutex<Option<JoinHandle<()>>>,
    /// Cancelled when the last clone of the provider is dropped, which ends the renewal task.
    stop: CancellationToken,
    _stop: DropGuard,
}

impl RefresherHandle {
    pub(super) fn new(client: OAuthClient, vault: Vault) -> RefresherHandle {
        let stop = CancellationToken::new();
        RefresherHandle {
            refresher: Arc::new(Refresher::new(client, vault)),
            task: Mutex::default(),
            _stop: stop.clone().drop_guard(),
            stop,
        }
    }

    pub(super) fn client_id(&self) -> &str {
        self.refresher.client_id()
    }

    pub(super) async fn get(&self, newer_than: Option<TokenGeneration>) -> Result<AccessToken, AuthError> {
        // Subscribe before asking, so that no completed renewal is missed.
        let mut outcomes = self.refresher.subscribe();
        let mut outcome = None;
        loop {
            self.ensure_task_runs();
            match (self.refresher.ask(newer_than), outcome) {
                (TokenLookup::Token(token), _) => return Ok(token),
                // The caller waited for this attempt: return its own error instead of `Waiting`.
                (TokenLookup::Failed(AuthError::Waiting { error, .. }), Some(_)) => return Err(*error),
                (TokenLookup::Failed(error), _) | (TokenLookup::Wait, Some(Some(error))) => {
                    return Err(error);
                }
                (TokenLookup::Wait, _) if self.stop.is_cancelled() => {
                    return Err(self.refresher.interrupted());
                }
                (TokenLookup::Wait, _) => {}
            }
            outcomes.changed().await.expect("the provider owns the sender");
            outcome = Some(outcomes.borrow_and_update().clone());
        }
    }

    pub(super) async fn close(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // The task may have ended with its runtime.
            let _ = task.await;
        }
    }

    /// Starts the renewal task if it is not running.
    #[expect(clippy::disallowed_methods, reason = "ends with the provider")]
    fn ensure_task_runs(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            *task = Some(tokio::spawn(self.refresher.clone().run(self.stop.clone())));
        }
    }
}
