//! Hands out access tokens that live.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::Mutex;

use super::oauth::{AuthError, OAuthClient, Refusal};
use super::token::{AccessToken, TokenGeneration, TokenSet};
use super::vault::Vault;
use crate::recovery::Recovery;

/// Where sessions and requests get their token. However many ask at once, one request goes to the token endpoint: the
/// others wait for its answer.
pub struct TokenProvider {
    source: Source,
}

enum Source {
    Service(AccessToken),
    OAuth(Box<OAuth>),
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

struct OAuth {
    client: OAuthClient,
    vault: Vault,
    held: Mutex<Held>,
}

/// A bug to commit, for tests of the tests.
#[cfg(feature = "test-util")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedTokenBug {
    /// A token is handed out before it is on the disk.
    PublishedBeforeSaved,
}

/// The tokens in force.
#[derive(Default)]
struct Held {
    tokens: Option<TokenSet>,
    generation: TokenGeneration,
    vault_read: bool,
    #[cfg(feature = "test-util")]
    planted: Option<PlantedTokenBug>,
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

    /// Hands out access tokens that `client` gets, keeping them in `vault`.
    #[must_use]
    pub fn oauth(client: OAuthClient, vault: Vault) -> TokenProvider {
        TokenProvider { source: Source::OAuth(Box::new(OAuth { client, vault, held: Mutex::default() })) }
    }

    /// Hands out the tokens of `source`.
    #[must_use]
    pub fn from_source(source: impl TokenSource + 'static) -> TokenProvider {
        TokenProvider { source: Source::Other(Box::new(source)) }
    }

    /// The same provider, committing this bug.
    #[cfg(feature = "test-util")]
    #[must_use]
    pub fn planted(mut self, bug: PlantedTokenBug) -> TokenProvider {
        if let Source::OAuth(oauth) = &mut self.source {
            oauth.held.get_mut().planted = Some(bug);
        }
        self
    }

    /// A token that has not expired. Fetches one only where none is held or its end is near; while the endpoint is
    /// down the old one is handed out as long as it lives.
    ///
    /// # Errors
    /// See [`AuthError`].
    pub async fn token(&self) -> Result<AccessToken, AuthError> {
        match &self.source {
            Source::Service(token) => Ok(token.clone()),
            Source::Other(source) => source.token(None).await,
            Source::OAuth(oauth) => oauth.token(None).await,
        }
    }

    /// A token newer than the refused one of this `generation`. A thousand sessions refused at once cause one refresh.
    ///
    /// # Errors
    /// See [`AuthError`]; [`AuthError::ServiceToken`] for a service token, which nothing can replace.
    pub async fn newer_than(&self, generation: TokenGeneration) -> Result<AccessToken, AuthError> {
        match &self.source {
            Source::Service(_) => Err(AuthError::ServiceToken),
            Source::Other(source) => source.token(Some(generation)).await,
            Source::OAuth(oauth) => oauth.token(Some(generation)).await,
        }
    }
}

impl OAuth {
    /// A token that lives, and is newer than the `refused` one.
    async fn token(&self, refused: Option<TokenGeneration>) -> Result<AccessToken, AuthError> {
        let OAuth { client, vault, held } = self;
        let mut held = held.lock().await;
        held.read_vault(vault)?;
        let now = client.clock().unix();
        let is_refused = refused.is_some_and(|refused| held.generation <= refused);
        match &held.tokens {
            Some(tokens) if !is_refused && !tokens.is_due(now) => {}
            Some(tokens) if !is_refused && !tokens.is_expired(now) => {
                let old = held.current(now);
                if let Err(error) = held.renew(client, vault).await {
                    tracing::warn!(%error, "token not renewed, the old one still lives");
                    return old;
                }
            }
            _ => held.renew(client, vault).await?,
        }
        held.current(client.clock().unix())
    }
}

impl Held {
    /// Takes up what an earlier run left, once.
    fn read_vault(&mut self, vault: &Vault) -> Result<(), AuthError> {
        if !self.vault_read {
            if let Some(tokens) = vault.load()? {
                self.tokens = Some(tokens);
                self.generation.0 += 1;
            }
            self.vault_read = true;
        }
        Ok(())
    }

    /// Gets new tokens: by the refresh token, or by the client's secret where that is missing or dead.
    async fn renew(&mut self, client: &OAuthClient, vault: &Vault) -> Result<(), AuthError> {
        let refresh = self.tokens.as_ref().and_then(|tokens| tokens.refresh.clone());
        let mut tokens = match &refresh {
            None => client.client_credentials().await?,
            Some(token) => match client.refresh(token).await {
                // A new pair costs the project a slot, so only a refresh token that is no good makes us ask for one.
                Err(AuthError::Refused { reason, recovery: Recovery::Fatal, .. })
                    if reason != Refusal::Limit =>
                {
                    tracing::info!("refresh token is dead, asking by client credentials");
                    client.client_credentials().await?
                }
                answer => answer?,
            },
        };
        tokens.refresh = tokens.refresh.or(refresh);
        #[cfg(feature = "test-util")]
        if self.planted == Some(PlantedTokenBug::PublishedBeforeSaved) {
            self.tokens = Some(tokens.clone());
            self.generation.0 += 1;
        }
        // On the disk before anybody uses it: a crash must not lose the project's slot.
        vault.save(&tokens)?;
        self.tokens = Some(tokens);
        self.generation.0 += 1;
        self.vault_read = true;
        Ok(())
    }

    /// The token in force, at `now` since the Unix epoch.
    fn current(&self, now: Duration) -> Result<AccessToken, AuthError> {
        let tokens = self.tokens.as_ref().expect("renewed or read before");
        let token = AccessToken::new(&tokens.access, self.generation);
        Ok(token.ok_or(AuthError::Token("access token"))?.living(tokens.left(now)))
    }
}

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::Service(_) => f.write_str("TokenProvider(service token)"),
            Source::Other(_) => f.write_str("TokenProvider(another source)"),
            Source::OAuth(oauth) => write!(f, "TokenProvider(client {})", oauth.client.client_id()),
        }
    }
}
