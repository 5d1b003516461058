//! Tokens that live for seconds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use voxline::auth::{AccessToken, AuthError, TokenFuture, TokenGeneration, TokenSource};

/// A source of tokens that end after a fixed time of tokio's clock, and the record of which tokens are
/// valid. A client takes its tokens from it, and the client's peer checks tokens against it. Clones share
/// it.
#[derive(Clone, Debug)]
pub struct ShortLivedTokens {
    life: Duration,
    /// Time at which each token ends. A token's index is its generation.
    ends: Arc<Mutex<Vec<Instant>>>,
}

impl ShortLivedTokens {
    /// Creates a source whose tokens live for `life`. A token in the last quarter of its life is not handed
    /// out any more.
    #[must_use]
    pub fn new(life: Duration) -> ShortLivedTokens {
        ShortLivedTokens { life, ends: Arc::default() }
    }

    fn ends(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the lifetime of a token.
    #[must_use]
    pub fn life(&self) -> Duration {
        self.life
    }

    /// Returns the number of tokens granted.
    #[must_use]
    pub fn granted(&self) -> usize {
        self.ends().len()
    }

    /// Returns the time from `now` to the end of the token with this text, or `None` if the token is not
    /// valid or was never granted.
    #[must_use]
    pub fn left(&self, token: &str, now: Instant) -> Option<Duration> {
        let end = *self.ends().get(number(token)?)?;
        end.checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Revokes the token with this text.
    pub fn revoke(&self, token: &str, now: Instant) {
        if let Some(end) = number(token).and_then(|number| self.ends().get(number).map(|end| (number, *end)))
        {
            self.ends()[end.0] = end.1.min(now);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the clock of the runtime, which tests stop")]
    fn grant(&self, newer_than: Option<TokenGeneration>) -> Result<AccessToken, AuthError> {
        let now = Instant::now();
        let mut ends = self.ends();
        let fresh = ends.last().is_some_and(|end| now + self.life / 4 < *end);
        let newer = newer_than.is_none_or(|generation| ends.len() as u64 > generation.0 + 1);
        if !(fresh && newer) {
            ends.push(now + self.life);
        }
        let generation = ends.len() as u64 - 1;
        let text = format!("token-{generation}").into();
        AccessToken::new(&text, TokenGeneration(generation)).ok_or(AuthError::Token("token of a test"))
    }
}

impl TokenSource for ShortLivedTokens {
    fn token(&self, newer_than: Option<TokenGeneration>) -> TokenFuture<'_> {
        Box::pin(std::future::ready(self.grant(newer_than)))
    }
}

fn number(token: &str) -> Option<usize> {
    token.strip_prefix("token-")?.parse().ok()
}
