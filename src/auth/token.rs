//! Token types, which never print their secrets.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use voxline_support::clock::Moment;

/// Number of an access token of one provider. Later tokens have higher generations, which tells whether a
/// refusal concerns the token in force or one already replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TokenGeneration(pub u64);

/// An access or service token, as sent in `Authorization: Bearer`.
#[derive(Clone)]
pub struct AccessToken {
    bearer: HeaderValue,
    generation: TokenGeneration,
    lifetime: Option<Duration>,
}

impl AccessToken {
    /// Creates a token from its text, or returns `None` if the text cannot be sent in a header.
    #[must_use]
    pub fn new(secret: &SecretString, generation: TokenGeneration) -> Option<AccessToken> {
        let text = secret.expose_secret();
        let token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if !token {
            return None;
        }
        let mut bearer = HeaderValue::try_from(format!("Bearer {text}")).ok()?;
        // Keeps the value out of logs and of the HTTP/2 compression state.
        bearer.set_sensitive(true);
        Some(AccessToken { bearer, generation, lifetime: None })
    }

    /// Sets the remaining lifetime of the token.
    #[must_use]
    pub fn with_lifetime(self, lifetime: Duration) -> AccessToken {
        AccessToken { lifetime: Some(lifetime), ..self }
    }

    /// Returns the remaining lifetime at the time the token was handed out, if known.
    #[must_use]
    pub fn lifetime(&self) -> Option<Duration> {
        self.lifetime
    }

    /// Returns the value of the `Authorization` header, marked sensitive. The type is of the crate `http` on
    /// purpose: it is what clients of HTTP take, and it keeps the mark on its way there.
    #[must_use]
    pub fn bearer(&self) -> HeaderValue {
        self.bearer.clone()
    }

    /// Returns the text of the token, for a message on a socket that was opened with a preceding token.
    #[must_use]
    pub fn expose(&self) -> &str {
        let bearer = self.bearer.to_str().expect("graphic characters");
        bearer.strip_prefix("Bearer ").expect("put there")
    }

    /// Returns the generation of the token within its provider.
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

/// A refresh token, which obtains further access tokens.
#[derive(Clone)]
pub struct RefreshToken(pub SecretString);

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken([redacted])")
    }
}

/// Scope of a token, by the service's names: `asr_short`, `asr_stream`, `tts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope(pub BTreeSet<String>);

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.iter().map(String::as_str).collect();
        f.write_str(&names.join(" "))
    }
}

/// Returns the time before expiry at which a token of this lifetime is to be replaced: a fifth of its
/// lifetime, at most five minutes.
pub(crate) fn renewal_margin(lifetime: Duration) -> Duration {
    (lifetime / 5).min(Duration::from_secs(300))
}

/// Tokens that the token endpoint granted.
#[derive(Clone, Debug)]
pub struct TokenSet {
    /// Text of the access token.
    pub access: SecretString,
    /// Refresh token. A response may leave it out; the one that was used then stays in force.
    pub refresh: Option<RefreshToken>,
    /// Time of the grant, or slightly earlier.
    pub granted: Moment,
    /// Lifetime of the access token from `granted` on.
    pub lifetime: Duration,
    /// Scope of the access token, if the endpoint stated it.
    pub scope: Option<Scope>,
}

impl TokenSet {
    /// Returns the time before expiry at which an access token is to be replaced: a fifth of its
    /// lifetime, at most five minutes.
    #[must_use]
    pub fn margin(&self) -> Duration {
        renewal_margin(self.lifetime)
    }

    /// Returns the remaining lifetime at `now`; zero if no clock can tell the token's age.
    #[must_use]
    pub fn left(&self, now: &Moment) -> Duration {
        self.granted.age(now).map_or(Duration::ZERO, |age| self.lifetime.saturating_sub(age))
    }

    /// Returns whether the access token has expired at `now`, or no clock can tell its age.
    #[must_use]
    pub fn is_expired(&self, now: &Moment) -> bool {
        self.left(now).is_zero()
    }
}
