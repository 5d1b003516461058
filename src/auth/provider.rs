//! Provider of unexpired access tokens.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use secrecy::SecretString;

use super::error::AuthError;
#[cfg(feature = "oauth")]
use super::oauth::OAuthClient;
#[cfg(feature = "oauth")]
use super::refresher_handle::RefresherHandle;
use super::token::{AccessToken, TokenGeneration};
#[cfg(feature = "oauth")]
use super::vault::Vault;

/// Source of the access tokens of sessions and requests. Concurrent callers share one request to the
/// token endpoint and its outcome.
///
/// Tokens of an `OAuthClient` are renewed in the background, from the first call until the provider is
/// closed or dropped. During a renewal the old token is returned as long as it is unexpired. The renewal
/// task runs in the runtime of the first caller (tokio, with time and I/O enabled). That runtime must
/// keep running while other callers wait for a token; if it was dropped, the next caller starts the task
/// again.
///
/// Clones share the same provider.
#[derive(Clone)]
pub struct TokenProvider {
    source: Arc<Source>,
}

enum Source {
    Service(AccessToken),
    #[cfg(feature = "oauth")]
    OAuth(RefresherHandle),
    Other(Box<dyn TokenSource>),
}

/// An external token service, which a [`TokenProvider`] queries instead of the token endpoint.
pub trait TokenSource: Send + Sync {
    /// Returns an unexpired token. If `newer_than` is given, the token of that generation was refused or
    /// is about to expire, and the returned token has a higher generation. The source should send one
    /// request to its service for any number of concurrent callers that pass the same generation.
    fn token(&self, newer_than: Option<TokenGeneration>) -> TokenFuture<'_>;
}

/// Future that resolves to an access token.
pub type TokenFuture<'a> = Pin<Box<dyn Future<Output = Result<AccessToken, AuthError>> + Send + 'a>>;

impl TokenProvider {
    /// Creates a provider of one service token, which is valid for as long as the service accepts it.
    ///
    /// # Errors
    /// Returns [`AuthError::Token`] if the text cannot be a token.
    pub fn service(token: &SecretString) -> Result<TokenProvider, AuthError> {
        let token = AccessToken::new(token, TokenGeneration(0)).ok_or(AuthError::Token("service token"))?;
        Ok(TokenProvider::new(Source::Service(token)))
    }

    /// Creates a provider of access tokens that `client` obtains and `vault` stores. Processes that share
    /// the vault share its tokens.
    #[cfg(feature = "oauth")]
    #[must_use]
    pub fn oauth(client: OAuthClient, vault: Vault) -> TokenProvider {
        TokenProvider::new(Source::OAuth(RefresherHandle::new(client, vault)))
    }

    /// Creates a provider of the tokens of `source`.
    #[must_use]
    pub fn from_source(source: impl TokenSource + 'static) -> TokenProvider {
        TokenProvider::new(Source::Other(Box::new(source)))
    }

    fn new(source: Source) -> TokenProvider {
        TokenProvider { source: Arc::new(source) }
    }

    /// Returns an unexpired token. Waits only if no unexpired token is held. While the token endpoint is
    /// down, the old token is returned until it expires.
    ///
    /// # Errors
    /// Returns [`AuthError`] if no token can be obtained. An [`AuthError::Waiting`] means that no request
    /// was sent.
    pub async fn token(&self) -> Result<AccessToken, AuthError> {
        self.get(None).await
    }

    /// Returns a token newer than the one of `generation`, which was refused or is about to expire. A
    /// thousand sessions refused at once cause one renewal.
    ///
    /// # Errors
    /// Returns [`AuthError`] if no newer token can be obtained: [`AuthError::ServiceToken`] for a service
    /// token, which cannot be replaced, and [`AuthError::Rejected`] if the refused token was itself
    /// issued a moment ago because of a refusal.
    pub async fn newer_than(&self, generation: TokenGeneration) -> Result<AccessToken, AuthError> {
        self.get(Some(generation)).await
    }

    /// Stops renewing, and waits for a renewal in progress, since its response may hold the only copy of
    /// a new refresh token. Clones return the last token until it expires.
    pub async fn close(self) {
        #[cfg(feature = "oauth")]
        if let Source::OAuth(oauth) = &*self.source {
            oauth.close().await;
        }
    }

    async fn get(&self, newer_than: Option<TokenGeneration>) -> Result<AccessToken, AuthError> {
        match (&*self.source, newer_than) {
            (Source::Service(token), None) => Ok(token.clone()),
            (Source::Service(_), Some(_)) => Err(AuthError::ServiceToken),
            (Source::Other(source), _) => source.token(newer_than).await,
            #[cfg(feature = "oauth")]
            (Source::OAuth(oauth), _) => oauth.get(newer_than).await,
        }
    }
}

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.source {
            Source::Service(_) => f.write_str("TokenProvider(service token)"),
            Source::Other(_) => f.write_str("TokenProvider(another source)"),
            #[cfg(feature = "oauth")]
            Source::OAuth(oauth) => write!(f, "TokenProvider(client {})", oauth.client_id()),
        }
    }
}
