//! Hands out access tokens that live.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::{AuthError, Refusal};
use super::oauth::OAuthClient;
use super::renewal::{Answer, Renewal, Renewed, Step};
use super::slots::{SlotState, SlotsError};
use super::token::{AccessToken, TokenGeneration, TokenSet};
use super::vault::{LockedVault, Vault};
use crate::clock::Moment;

/// How long the keeper sleeps at most. Timers stand still while the machine sleeps; the clocks it reads don't.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Where sessions and requests get their token. However many ask at once, one request goes to the token endpoint, and
/// its outcome is everybody's.
///
/// Tokens of an [`OAuthClient`] are renewed in the background, from the first call until the provider is closed or
/// dropped; the old one is handed out while it lives. That is done by a task in the runtime of the first caller (tokio's,
/// with time and I/O), which must go on running while others wait for a token; a runtime that was dropped is noticed.
pub struct TokenProvider {
    source: Source,
}

enum Source {
    Service(AccessToken),
    OAuth(OAuth),
    Other(Box<dyn TokenSource>),
}

/// A token service that is none of ours: what a [`TokenProvider`] asks instead.
pub trait TokenSource: Send + Sync {
    /// A token that has not expired. Where `newer_than` is given, the token of that generation was refused, or is about
    /// to end, and the answer's generation is higher. However many ask for a token newer than the same one, the source
    /// should ask its service once.
    fn token(&self, newer_than: Option<TokenGeneration>) -> TokenFuture<'_>;
}

/// A token on its way.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<AccessToken, AuthError>> + Send + 'a>>;

/// A bug to commit, for tests of the tests.
#[cfg(feature = "test-util")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedTokenBug {
    /// A token is handed out before it is on the disk.
    PublishedBeforeSaved,
}

impl TokenProvider {
    /// Hands out a service token, which lives as long as the service lets it.
    ///
    /// # Errors
    /// [`AuthError::Token`] for a text that can't be a token.
    pub fn service(token: &SecretString) -> Result<TokenProvider, AuthError> {
        let token = AccessToken::new(token, TokenGeneration(0)).ok_or(AuthError::Token("service token"))?;
        Ok(TokenProvider { source: Source::Service(token) })
    }

    /// Hands out access tokens that `client` gets, keeping them in `vault`. Other processes may share the vault, and
    /// share its tokens then.
    #[must_use]
    pub fn oauth(client: OAuthClient, vault: Vault) -> TokenProvider {
        TokenProvider { source: Source::OAuth(OAuth::new(client, vault)) }
    }

    /// Hands out the tokens of `source`.
    #[must_use]
    pub fn from_source(source: impl TokenSource + 'static) -> TokenProvider {
        TokenProvider { source: Source::Other(Box::new(source)) }
    }

    /// The same provider, committing this bug.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn planted(self, bug: PlantedTokenBug) -> TokenProvider {
        if let Source::OAuth(oauth) = &self.source {
            *oauth.keeper.planted.lock().unwrap_or_else(PoisonError::into_inner) = Some(bug);
        }
        self
    }

    /// A token that has not expired. Waits only where none is held that lives; while the endpoint is down the old one
    /// is handed out as long as it lives.
    ///
    /// # Errors
    /// See [`AuthError`]. One that says [`AuthError::Waiting`] asked nobody.
    pub async fn token(&self) -> Result<AccessToken, AuthError> {
        self.get(None).await
    }

    /// A token newer than the one of this `generation`, which was refused or is at its end. A thousand sessions refused
    /// at once cause one renewal.
    ///
    /// # Errors
    /// See [`AuthError`]; [`AuthError::ServiceToken`] for a service token, which nothing can replace, and
    /// [`AuthError::Rejected`] where the one refused was itself granted a moment ago because of a refusal.
    pub async fn newer_than(&self, generation: TokenGeneration) -> Result<AccessToken, AuthError> {
        self.get(Some(generation)).await
    }

    /// Stops renewing, and waits for a renewal under way: its answer may be the only one to hold a new refresh token.
    pub async fn close(self) {
        if let Source::OAuth(oauth) = self.source {
            oauth.close().await;
        }
    }

    async fn get(&self, newer_than: Option<TokenGeneration>) -> Result<AccessToken, AuthError> {
        match (&self.source, newer_than) {
            (Source::Service(token), None) => Ok(token.clone()),
            (Source::Service(_), Some(_)) => Err(AuthError::ServiceToken),
            (Source::Other(source), _) => source.token(newer_than).await,
            (Source::OAuth(oauth), _) => oauth.get(newer_than).await,
        }
    }
}

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Service(_) => f.write_str("TokenProvider(service token)"),
            Source::Other(_) => f.write_str("TokenProvider(another source)"),
            Source::OAuth(oauth) => write!(f, "TokenProvider(client {})", oauth.keeper.client.client_id()),
        }
    }
}

/// The callers' side of tokens that are renewed.
struct OAuth {
    keeper: Arc<Keeper>,
    /// The keeper's task. It ends with the runtime it was started in; then it is started again in the caller's.
    task: Mutex<Option<JoinHandle<()>>>,
    /// Ends the keeper's task with the provider.
    stop: CancellationToken,
    _stop: DropGuard,
}

impl OAuth {
    fn new(client: OAuthClient, vault: Vault) -> OAuth {
        let stop = CancellationToken::new();
        OAuth {
            keeper: Arc::new(Keeper::new(client, vault)),
            task: Mutex::default(),
            _stop: stop.clone().drop_guard(),
            stop,
        }
    }

    async fn get(&self, newer_than: Option<TokenGeneration>) -> Result<AccessToken, AuthError> {
        // Watched from before the question, so that no end of a renewal is missed.
        let mut ends = self.keeper.ends.subscribe();
        let mut ended = None;
        loop {
            self.see_to_the_keeper();
            let answer = self.keeper.lock().ask(newer_than, &self.keeper.now());
            // Also where a token is at hand: it may be due.
            self.keeper.asked.notify_one();
            match (answer, ended) {
                (Answer::Token(token), _) => return Ok(token),
                // It is the failure that this caller has waited for.
                (Answer::Failed(AuthError::Waiting { error, .. }), Some(_)) => return Err(*error),
                (Answer::Failed(error), _) | (Answer::Wait, Some(Some(error))) => return Err(error),
                (Answer::Wait, _) => {}
            }
            ends.changed().await.expect("the keeper is ours");
            ended = Some(ends.borrow_and_update().clone());
        }
    }

    async fn close(self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // It may have ended with its runtime.
            let _ = task.await;
        }
    }

    /// Sees to it that somebody renews.
    #[expect(clippy::disallowed_methods, reason = "ends with the provider")]
    fn see_to_the_keeper(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            *task = Some(tokio::spawn(self.keeper.clone().run(self.stop.clone())));
        }
    }
}

/// Renews tokens, one renewal at a time, in a task of its own: a caller that is dropped in the middle takes no renewal
/// with it, and so no refresh token that only the answer held.
struct Keeper {
    client: OAuthClient,
    vault: Vault,
    renewal: Mutex<Renewal>,
    /// Somebody asked.
    asked: Notify,
    /// How the last renewal ended. Also changes when the task ends, so that nobody waits for one that won't come.
    ends: watch::Sender<Option<AuthError>>,
    #[cfg(feature = "test-util")]
    planted: Mutex<Option<PlantedTokenBug>>,
}

impl Keeper {
    fn new(client: OAuthClient, vault: Vault) -> Keeper {
        let renewal = Renewal::new(client.endpoint().to_string(), seed());
        Keeper {
            client,
            vault,
            renewal: Mutex::new(renewal),
            asked: Notify::new(),
            ends: watch::Sender::new(None),
            #[cfg(feature = "test-util")]
            planted: Mutex::default(),
        }
    }

    fn now(&self) -> Moment {
        self.client.clock().moment()
    }

    fn lock(&self) -> MutexGuard<'_, Renewal> {
        self.renewal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self: Arc<Keeper>, stop: CancellationToken) {
        let _task = Task(&self);
        while !stop.is_cancelled() {
            let step = self.lock().next(&self.now());
            let sleep = match step {
                Step::Renew { stale } => {
                    let mut under_way = UnderWay { keeper: &self, outcome: None };
                    under_way.outcome = Some(self.renew(stale.as_ref()).await);
                    continue;
                }
                Step::Wait(time) => time.min(LONGEST_SLEEP),
                Step::Idle => LONGEST_SLEEP,
            };
            tokio::select! {
                () = self.asked.notified() => {}
                () = tokio::time::sleep(sleep) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    fn finish(&self, outcome: Result<Renewed, AuthError>) {
        let now = self.now();
        let (end, lives) = {
            let mut renewal = self.lock();
            (renewal.done(outcome, &now).err(), renewal.lives(&now))
        };
        match &end {
            // Nobody else hears of it, as long as the old one serves.
            Some(error) if lives => tracing::warn!(%error, "token not renewed, the old one still lives"),
            Some(error) => tracing::debug!(%error, "token not renewed"),
            None => {}
        }
        self.ends.send_replace(end);
    }

    /// A token other than `stale`: one that another process left in the vault, or else one from the token endpoint, by
    /// the refresh token, or by the client's secret where that is missing or dead.
    async fn renew(&self, stale: Option<&SecretString>) -> Result<Renewed, AuthError> {
        let mut vault = self.vault.lock().await?;
        let now = self.now();
        let held = vault.account.tokens.clone();
        if let Some(tokens) = held.clone().filter(|tokens| !tokens.is_expired(&now) && !is(tokens, stale)) {
            tracing::debug!("token taken from the vault");
            return Ok(Renewed { tokens, shared: true });
        }
        let Some(refresh) = held.and_then(|tokens| tokens.refresh) else {
            return self.ask_for_slot(vault).await;
        };
        // The disk must be able to keep what is asked for; and whether the answer was kept is known to whoever is next.
        let unanswered = std::mem::replace(&mut vault.account.refreshing, true);
        let mut vault = vault.save().await?;
        match self.client.refresh(&refresh).await {
            Ok(tokens) => {
                let tokens = TokenSet { refresh: tokens.refresh.or(Some(refresh)), ..tokens };
                self.keep(vault, tokens).await
            }
            Err(error) if error.is_dead_grant() => {
                tracing::info!(%error, "asking by client credentials");
                // The service is sure that it is dead only where it says so, and no successor of it was lost on the way.
                let sure = matches!(error, AuthError::Refused { reason: Refusal::Grant, .. }) && !unanswered;
                vault.account.slots.leave(if sure { SlotState::Free } else { SlotState::Abandoned });
                vault.account.tokens = None;
                vault.account.refreshing = false;
                self.ask_for_slot(vault.save().await?).await
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

    /// A new pair of tokens, which takes one of the project's slots. The request is on the disk before it is made.
    async fn ask_for_slot(&self, mut vault: LockedVault) -> Result<Renewed, AuthError> {
        vault.account.slots.ask(&self.now())?;
        let mut vault = vault.save().await?;
        match self.client.client_credentials().await {
            Ok(tokens) => {
                vault.account.slots.answer(Some(SlotState::Held));
                self.keep(vault, tokens).await
            }
            Err(error) if error.may_be_granted() => Err(error),
            Err(error) => {
                vault.account.slots.answer(None);
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

    /// Puts tokens on the disk before anybody uses them: a crash must not lose the project's slot.
    async fn keep(&self, mut vault: LockedVault, tokens: TokenSet) -> Result<Renewed, AuthError> {
        #[cfg(feature = "test-util")]
        if *self.planted.lock().unwrap_or_else(PoisonError::into_inner)
            == Some(PlantedTokenBug::PublishedBeforeSaved)
        {
            self.finish(Ok(Renewed { tokens: tokens.clone(), shared: false }));
        }
        vault.account.tokens = Some(tokens.clone());
        vault.account.refreshing = false;
        vault.save().await?;
        Ok(Renewed { tokens, shared: false })
    }
}

/// The keeper's task: whoever waits is told when it ends, however that comes.
struct Task<'a>(&'a Keeper);

impl Drop for Task<'_> {
    fn drop(&mut self) {
        self.0.ends.send_modify(|_| ());
    }
}

/// A renewal, whose end is told to all that wait for it, however it comes.
struct UnderWay<'a> {
    keeper: &'a Keeper,
    outcome: Option<Result<Renewed, AuthError>>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let endpoint = || self.keeper.client.endpoint().to_string();
        let interrupted = || Err(AuthError::Interrupted { endpoint: endpoint() });
        self.keeper.finish(self.outcome.take().unwrap_or_else(interrupted));
    }
}

fn is(tokens: &TokenSet, stale: Option<&SecretString>) -> bool {
    stale.is_some_and(|stale| stale.expose_secret() == tokens.access.expose_secret())
}

/// What spreads the waits of many clients.
#[expect(clippy::disallowed_methods, reason = "spread must differ from process to process")]
fn seed() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system has a random generator");
    u64::from_le_bytes(bytes)
}
