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

use super::error::AuthError;
use super::oauth::OAuthClient;
use super::renewal::{Answer, Renewal, Step};
use super::slots::SlotState;
use super::token::{AccessToken, TokenGeneration, TokenSet};
use super::vault::{LockedVault, Vault, VaultError};
use crate::clock::Moment;

/// How long the keeper sleeps at most. Timers stand still while the machine sleeps; the clocks it reads don't.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Where sessions and requests get their token. However many ask at once, one request goes to the token endpoint, and
/// its outcome is everybody's.
///
/// Tokens of an [`OAuthClient`] are renewed in the background, from the first call until the provider is dropped; the
/// old one is handed out while it lives. So it must be used inside a tokio runtime with time and I/O.
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
        self.keep();
        // Watched from before the question, so that no outcome is missed.
        let mut outcomes = self.keeper.outcomes.subscribe();
        loop {
            let answer = self.keeper.lock().ask(newer_than, &self.keeper.now());
            // Also where a token is at hand: it may be due.
            self.keeper.asked.notify_one();
            match answer {
                Answer::Token(token) => return Ok(token),
                Answer::Failed(error) => return Err(error),
                Answer::Wait => {}
            }
            outcomes.changed().await.expect("the keeper is ours");
            if let Some(error) = outcomes.borrow_and_update().clone() {
                return Err(error);
            }
        }
    }

    /// Sees to it that somebody renews.
    #[expect(clippy::disallowed_methods, reason = "ends with the provider")]
    fn keep(&self) {
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
    /// How each renewal ended.
    outcomes: watch::Sender<Option<AuthError>>,
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
            outcomes: watch::Sender::new(None),
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

    fn finish(&self, outcome: Result<TokenSet, AuthError>) {
        let error = outcome.as_ref().err().cloned();
        let now = self.now();
        let mut renewal = self.lock();
        renewal.done(outcome, &now);
        match &error {
            // Nobody else hears of it, as long as the old one serves.
            Some(error) if renewal.lives(&now) => {
                tracing::warn!(%error, "token not renewed, the old one still lives");
            }
            Some(error) => tracing::debug!(%error, "token not renewed"),
            None => {}
        }
        drop(renewal);
        self.outcomes.send_replace(error);
    }

    /// A token other than `stale`: one that another process left in the vault, or else one from the token endpoint, by
    /// the refresh token, or by the client's secret where that is missing or dead.
    async fn renew(&self, stale: Option<&SecretString>) -> Result<TokenSet, AuthError> {
        let mut vault = self.vault.lock().await?;
        let now = self.now();
        let held = vault.account.tokens.clone();
        if let Some(tokens) = held.clone().filter(|tokens| !tokens.is_expired(&now) && !is(tokens, stale)) {
            tracing::debug!("token taken from the vault");
            return Ok(tokens);
        }
        if let Some(refresh) = held.and_then(|tokens| tokens.refresh) {
            match self.client.refresh(&refresh).await {
                Ok(mut tokens) => {
                    tokens.refresh = tokens.refresh.or(Some(refresh));
                    vault.account.tokens = Some(tokens.clone());
                    self.save(vault, &tokens).await?;
                    return Ok(tokens);
                }
                Err(error) if error.is_dead_grant() => {
                    tracing::info!("refresh token is dead, asking by client credentials");
                    vault.account.tokens = None;
                    vault.account.slots.leave(SlotState::Free);
                }
                Err(error) => return Err(error),
            }
        }
        self.ask_for_slot(vault).await
    }

    /// A new pair of tokens, which takes one of the project's slots. The request is on the disk before it is made.
    async fn ask_for_slot(&self, mut vault: LockedVault) -> Result<TokenSet, AuthError> {
        vault.account.slots.ask(&self.now())?;
        let mut vault = saved(vault).await?;
        let outcome = self.client.client_credentials().await;
        match &outcome {
            Ok(tokens) => {
                vault.account.slots.answer(Some(SlotState::Held));
                vault.account.tokens = Some(tokens.clone());
                self.save(vault, tokens).await?;
            }
            Err(error) if error.may_be_granted() => {}
            Err(_) => {
                vault.account.slots.answer(None);
                saved(vault).await?;
            }
        }
        outcome
    }

    /// On the disk before anybody uses them: a crash must not lose the project's slot.
    async fn save(&self, vault: LockedVault, tokens: &TokenSet) -> Result<(), AuthError> {
        #[cfg(feature = "test-util")]
        if *self.planted.lock().unwrap_or_else(PoisonError::into_inner)
            == Some(PlantedTokenBug::PublishedBeforeSaved)
        {
            self.finish(Ok(tokens.clone()));
        }
        let _ = tokens;
        saved(vault).await.map(drop).map_err(AuthError::from)
    }
}

/// A renewal, whose end is told to all that wait for it, however it comes.
struct UnderWay<'a> {
    keeper: &'a Keeper,
    outcome: Option<Result<TokenSet, AuthError>>,
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

/// Saves, on a thread that may wait for the disk.
async fn saved(vault: LockedVault) -> Result<LockedVault, VaultError> {
    let saving = tokio::task::spawn_blocking(move || vault.save().map(|()| vault));
    saving.await.expect("saving doesn't panic")
}

/// What spreads the waits of many clients.
#[expect(clippy::disallowed_methods, reason = "spread must differ from process to process")]
fn seed() -> u64 {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).expect("the system has a random generator");
    u64::from_le_bytes(bytes)
}
