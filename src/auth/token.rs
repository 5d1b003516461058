//! Token types. None of them prints its secret.

use std::fmt;
use std::time::Duration;

use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

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

/// What the token endpoint granted.
#[derive(Clone, Debug)]
pub struct TokenSet {
    /// The access token's text.
    pub access: SecretString,
    /// The refresh token; an answer may leave it out, then the one used stays in force.
    pub refresh: Option<RefreshToken>,
    /// When the access token was granted, since the Unix epoch by this machine's clock.
    pub granted_at: Duration,
    /// How long the access token lives from then.
    pub lifetime: Duration,
}

impl TokenSet {
    /// Whether the access token should be replaced at `now` (since the Unix epoch): in its last fifth, or last five
    /// minutes where that is less. Also when the clock has been set back to before the grant, since its age is unknown
    /// then.
    #[must_use]
    pub fn is_due(&self, now: Duration) -> bool {
        let margin = (self.lifetime / 5).min(Duration::from_secs(300));
        now < self.granted_at || now.saturating_add(margin) >= self.ends_at()
    }

    /// How long the access token still lives at `now` (since the Unix epoch).
    #[must_use]
    pub fn left(&self, now: Duration) -> Duration {
        self.ends_at().saturating_sub(now)
    }

    fn ends_at(&self) -> Duration {
        self.granted_at.saturating_add(self.lifetime)
    }

    /// Whether the access token can no longer be used at `now` (since the Unix epoch).
    #[must_use]
    pub fn is_expired(&self, now: Duration) -> bool {
        now < self.granted_at || now >= self.ends_at()
    }
}
