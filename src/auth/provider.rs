//! Hands out access tokens that live.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use secrecy::SecretString;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::error::AuthError;
use super::keeper::Keeper;
#[cfg(feature = "test-util")]
use super::keeper::PlantedTokenBug;
use super::oauth::OAuthClient;
use super::renewal::Answer;
use super::token::{AccessToken, TokenGeneration};
use super::vault::Vault;

/// Where sessions and requests get their token. However many ask at once, one request goes to the token endpoint, and
/// its outcome is everybody's.
///
/// Tokens of an [`OAuthClient`] are renewed in the background, from the first call until the provider is closed or
/// dropped; the old one is handed out while it lives. That is done by a task in the runtime of the first caller (tokio's,
/// with time and I/O), which must go on running while others wait for a token; a runtime that was dropped is noticed.
///
/// Clones share it.
#[derive(Clone)]
pub struct TokenProvider {
    source: Arc<Source>,
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

impl TokenProvider {
    /// Hands out a service token, which lives as long as the service lets it.
    ///
    /// # Errors
    /// [`AuthError::Token`] for a text that can't be a token.
    pub fn service(token: &SecretString) -> Result<TokenProvider, AuthError> {
        let token = AccessToken::new(token, TokenGeneration(0)).ok_or(AuthError::Token("service token"))?;
        Ok(TokenProvider::new(Source::Service(token)))
    }

    /// Hands out access tokens that `client` gets, keeping them in `vault`. Other processes may share the vault, and
    /// share its tokens then.
    #[must_use]
    pub fn oauth(client: OAuthClient, vault: Vault) -> TokenProvider {
        TokenProvider::new(Source::OAuth(OAuth::new(client, vault)))
    }

    /// Hands out the tokens of `source`.
    #[must_use]
    pub fn from_source(source: impl TokenSource + 'static) -> TokenProvider {
        TokenProvider::new(Source::Other(Box::new(source)))
    }

    fn new(source: Source) -> TokenProvider {
        TokenProvider { source: Arc::new(source) }
    }

    /// The same provider, committing this bug.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn planted(self, bug: PlantedTokenBug) -> TokenProvider {
        if let Source::OAuth(oauth) = &*self.source {
            oauth.keeper.commit(bug);
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
    /// Clones hand out the last token for as long as it lives.
    pub async fn close(self) {
        if let Source::OAuth(oauth) = &*self.source {
            oauth.close().await;
        }
    }

    async fn get(&self, newer_than: Option<TokenGeneration>) -> Result<AccessToken, AuthError> {
        match (&*self.source, newer_than) {
            (Source::Service(token), None) => Ok(token.clone()),
            (Source::Service(_), Some(_)) => Err(AuthError::ServiceToken),
            (Source::Other(source), _) => source.token(newer_than).await,
            (Source::OAuth(oauth), _) => oauth.get(newer_than).await,
        }
    }
}

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.source {
            Source::Service(_) => f.write_str("TokenProvider(service token)"),
            Source::Other(_) => f.write_str("TokenProvider(another source)"),
            Source::OAuth(oauth) => write!(f, "TokenProvider(client {})", oauth.keeper.client_id()),
        }
    }
}

/// The callers' side of tokens that are renewed.
struct OAuth {
    keeper: Arc<Keeper>,
    /// The keeper's task. It ends with the runtime it was started in; then it is started again in the caller's.
    task: Mutex<Option<JoinHandle<()>>>,
    /// Ends the keeper's task with the last clone of the provider.
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
        let mut ends = self.keeper.ends();
        let mut ended = None;
        loop {
            self.see_to_the_keeper();
            match (self.keeper.ask(newer_than), ended) {
                (Answer::Token(token), _) => return Ok(token),
                // It is the failure that this caller has waited for.
                (Answer::Failed(AuthError::Waiting { error, .. }), Some(_)) => return Err(*error),
                (Answer::Failed(error), _) | (Answer::Wait, Some(Some(error))) => return Err(error),
                (Answer::Wait, _) if self.stop.is_cancelled() => return Err(self.keeper.interrupted()),
                (Answer::Wait, _) => {}
            }
            ends.changed().await.expect("the keeper is ours");
            ended = Some(ends.borrow_and_update().clone());
        }
    }

    async fn close(&self) {
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
