//! Background task that renews tokens.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::error::{AuthError, Refusal};
use super::oauth::OAuthClient;
use super::renewal::{Renewal, Renewed, Step, TokenLookup};
use super::slots::{SlotState, SlotsError};
use super::token::{TokenGeneration, TokenSet};
use super::vault::{LockedVault, Vault};
use crate::error::chain;
use voxline_support::clock::Moment;
use voxline_support::random;

/// Longest sleep of the task. Timers stand still while the machine sleeps; the clocks that the task reads
/// do not.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Renews tokens, one renewal at a time, in a task of its own. A caller that is dropped midway therefore
/// cancels no renewal, and loses no refresh token that only the response holds.
pub(super) struct Refresher {
    client: OAuthClient,
    vault: Vault,
    renewal: Mutex<Renewal>,
    /// Notified when a caller asks for a token.
    requested: Notify,
    /// Outcome of the last renewal. Also changes when the task ends, so that no caller waits for a
    /// renewal that will not happen.
    outcome: watch::Sender<Option<AuthError>>,
}

impl Refresher {
    pub(super) fn new(client: OAuthClient, vault: Vault) -> Refresher {
        let renewal = Renewal::new(client.endpoint().to_string(), random::seed());
        Refresher {
            client,
            vault,
            renewal: Mutex::new(renewal),
            requested: Notify::new(),
            outcome: watch::Sender::new(None),
        }
    }

    pub(super) fn client_id(&self) -> &str {
        self.client.client_id()
    }

    /// Returns the error of a renewal that was never completed.
    pub(super) fn interrupted(&self) -> AuthError {
        AuthError::Interrupted { endpoint: self.client.endpoint().to_string() }
    }

    /// Returns a receiver that changes whenever a renewal ends.
    pub(super) fn subscribe(&self) -> watch::Receiver<Option<AuthError>> {
        self.outcome.subscribe()
    }

    /// Returns a token to a caller, if there is one. Wakes the task, which renews the token if it is
    /// missing or due.
    pub(super) fn ask(&self, newer_than: Option<TokenGeneration>) -> TokenLookup {
        let answer = self.lock().ask(newer_than, &self.now());
        self.requested.notify_one();
        answer
    }

    fn now(&self) -> Moment {
        self.client.clock().moment()
    }

    fn lock(&self) -> MutexGuard<'_, Renewal> {
        self.renewal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Renews tokens until it is stopped. A renewal in progress is completed first.
    pub(super) async fn run(self: Arc<Refresher>, stop: CancellationToken) {
        let _task = TaskGuard(&self);
        while !stop.is_cancelled() {
            let step = self.lock().next(&self.now());
            let sleep = match step {
                Step::Renew { stale } => {
                    let mut guard = RenewalGuard { refresher: &self, outcome: None };
                    guard.outcome = Some(self.renew(stale.as_ref()).await);
                    continue;
                }
                Step::Wait(time) => time.min(LONGEST_SLEEP),
                Step::Idle => LONGEST_SLEEP,
            };
            tokio::select! {
                () = self.requested.notified() => {}
                () = tokio::time::sleep(sleep) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    fn finish(&self, outcome: Result<Renewed, AuthError>) {
        let now = self.now();
        let (error, still_valid) = {
            let mut renewal = self.lock();
            (renewal.done(outcome, &now).err(), renewal.is_token_valid(&now))
        };
        match &error {
            // Log a warning: no caller sees the error while the old token is valid.
            Some(error) if still_valid => {
                tracing::warn!(
                    error = %chain(error),
                    "access token not renewed, the current one is still valid"
                );
            }
            Some(error) => tracing::debug!(error = %chain(error), "access token not renewed"),
            None => {}
        }
        self.outcome.send_replace(error);
    }

    /// Obtains a token other than `stale`: one that another process left in the vault, or else one from
    /// the token endpoint, by the refresh token, or by the client secret if the refresh token is missing
    /// or invalid.
    async fn renew(&self, stale: Option<&SecretString>) -> Result<Renewed, AuthError> {
        let mut vault = self.vault.lock().await?;
        let now = self.now();
        let held = vault.account.tokens.clone();
        if let Some(tokens) =
            held.clone().filter(|tokens| !tokens.is_expired(&now) && !is_same(tokens, stale))
        {
            tracing::debug!("access token read from the token file");
            return Ok(Renewed { tokens, shared: true });
        }
        let Some(refresh) = held.and_then(|tokens| tokens.refresh) else {
            return self.request_slot(vault).await;
        };
        // Save before the request: the disk must be able to keep the response, and after a crash the next
        // process must know that no response was kept.
        let unanswered = std::mem::replace(&mut vault.account.refreshing, true);
        let mut vault = vault.save().await?;
        match self.client.refresh(&refresh).await {
            Ok(tokens) => {
                let tokens = TokenSet { refresh: tokens.refresh.or(Some(refresh)), ..tokens };
                self.save(vault, tokens).await
            }
            Err(error) if error.is_dead_grant() => {
                tracing::info!(
                    error = %chain(&error),
                    "refresh token refused, requesting new tokens by client credentials"
                );
                // The slot is certainly free only if the service says that the grant is invalid and no
                // successor token was lost earlier.
                let sure = matches!(error, AuthError::Refused { reason: Refusal::Grant, .. }) && !unanswered;
                vault.account.slots.release(if sure { SlotState::Free } else { SlotState::Abandoned });
                vault.account.tokens = None;
                vault.account.refreshing = false;
                self.request_slot(vault.save().await?).await
            }
            Err(error) => {
                if !error.may_be_granted() {
                    vault.account.refreshing = unanswered;
                    vault.save().await?;
                }
                Err(error)
            }
        }
    }

    /// Obtains a new pair of tokens, which takes one of the project's slots. The request is saved before
    /// it is sent.
    async fn request_slot(&self, mut vault: LockedVault) -> Result<Renewed, AuthError> {
        vault.account.slots.begin_request(&self.now())?;
        let mut vault = vault.save().await?;
        match self.client.client_credentials().await {
            Ok(tokens) => {
                vault.account.slots.record_outcome(Some(SlotState::Held));
                self.save(vault, tokens).await
            }
            Err(error) if error.may_be_granted() => Err(error),
            Err(error) => {
                vault.account.slots.record_outcome(None);
                let held = vault.account.slots.to_string();
                vault.save().await?;
                match error {
                    AuthError::Refused { reason: Refusal::Limit, .. } => {
                        Err(SlotsError::Refused { held }.into())
                    }
                    error => Err(error),
                }
            }
        }
    }

    /// Saves tokens before any caller gets them: a crash must not lose the project's slot.
    async fn save(&self, mut vault: LockedVault, tokens: TokenSet) -> Result<Renewed, AuthError> {
        vault.account.tokens = Some(tokens.clone());
        vault.account.refreshing = false;
        vault.save().await?;
        Ok(Renewed { tokens, shared: false })
    }
}

/// Guard of the renewal task, which notifies waiting callers when the task ends for any reason.
struct TaskGuard<'a>(&'a Refresher);

impl Drop for TaskGuard<'_> {
    fn drop(&mut self) {
        self.0.outcome.send_modify(|_| ());
    }
}

/// Guard of a renewal, which reports the outcome to waiting callers even if the renewal is dropped.
struct RenewalGuard<'a> {
    refresher: &'a Refresher,
    outcome: Option<Result<Renewed, AuthError>>,
}

impl Drop for RenewalGuard<'_> {
    fn drop(&mut self) {
        let interrupted = || Err(self.refresher.interrupted());
        self.refresher.finish(self.outcome.take().unwrap_or_else(interrupted));
    }
}

fn is_same(tokens: &TokenSet, stale: Option<&SecretString>) -> bool {
    stale.is_some_and(|stale| stale.expose_secret() == tokens.access.expose_secret())
}
