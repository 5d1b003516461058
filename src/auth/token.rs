//! Token types. None of them prints its secret.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use voxline_support::clock::Moment;

/// Counts the access tokens a provider has handed out: a later token has a higher generation, so that a refusal can
/// be told to concern the token in force or one already replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenGeneration(pub u64);

/// An access or service token: what goes into `Authorization: Bearer`.
#[derive(Clone)]
pub struct AccessToken {
    bearer: HeaderValue,
    generation: TokenGeneration,
    life: Option<Duration>,
}

impl AccessToken {
    /// The token with this text; `None` where the text could not travel in a header.
    #[must_use]
    pub fn new(secret: &SecretString, generation: TokenGeneration) -> Option<AccessToken> {
        let text = secret.expose_secret();
        let token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !token {
            return None;
        }
        let mut bearer = HeaderValue::try_from(format!("Bearer {text}")).ok()?;
        // Kept out of logs and of the compression state of HTTP/2.
        bearer.set_sensitive(true);
        Some(AccessToken { bearer, generation, life: None })
    }

    /// The same, known to live for so long from now.
    #[must_use]
    pub fn living(self, life: Duration) -> AccessToken {
        AccessToken { life: Some(life), ..self }
    }

    /// How long it lived from when it was handed out, where that is known.
    #[must_use]
    pub fn life(&self) -> Option<Duration> {
        self.life
    }

    /// The value of the `Authorization` header, marked sensitive.
    #[must_use]
    pub fn bearer(&self) -> HeaderValue {
        self.bearer.clone()
    }

    /// Its text: for a message that carries it on a socket that its predecessor opened.
    #[must_use]
    pub fn expose(&self) -> &str {
        let bearer = self.bearer.to_str().expect("graphic characters");
        bearer.strip_prefix("Bearer ").expect("put there")
    }

    /// Which of its provider's tokens it is.
    #[must_use]
    pub fn generation(&self) -> TokenGeneration {
        self.generation
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessToken(generation {})", self.generation.0)
    }
}

/// What buys the next access token.
#[derive(Clone)]
pub struct RefreshToken(pub SecretString);

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken([redacted])")
    }
}

/// What a token opens, by the service's names: `asr_short`, `asr_stream`, `tts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope(pub BTreeSet<String>);

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(String::as_str).collect();
        f.write_str(&names.join(" "))
    }
}

/// What the token endpoint granted.
#[derive(Clone, Debug)]
pub struct TokenSet {
    /// The access token's text.
    pub access: SecretString,
    /// The refresh token; an answer may leave it out, then the one used stays in force.
    pub refresh: Option<RefreshToken>,
    /// When the access token was granted, or a little before.
    pub granted: Moment,
    /// How long the access token lives from then.
    pub lifetime: Duration,
    /// What the access token opens, where the endpoint said so.
    pub scope: Option<Scope>,
}

impl TokenSet {
    /// How long before its end an access token is to be replaced: a fifth of its life, and at most five minutes.
    #[must_use]
    pub fn margin(&self) -> Duration {
        (self.lifetime / 5).min(Duration::from_secs(300))
    }

    /// How long the access token still lives at `now`. Nothing is left of one whose age no clock can tell.
    #[must_use]
    pub fn left(&self, now: &Moment) -> Duration {
        self.granted.age(now).map_or(Duration::ZERO, |age| self.lifetime.saturating_sub(age))
    }

    /// Whether the access token is known to be of no use any more at `now`.
    #[must_use]
    pub fn is_expired(&self, now: &Moment) -> bool {
        self.left(now).is_zero()
    }
}
