//! The client of the token endpoint.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

use super::token::{RefreshToken, TokenSet};
use super::vault::VaultError;
use crate::clock::Clock;
use crate::net::{Endpoint, reason};
use crate::recovery::{Recovery, retry_after};

/// The token endpoint's path.
pub const TOKEN_PATH: &str = "/auth/oauth/v1/token";

/// How long one request to the token endpoint may take in all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer read: a real one has a few hundred bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// The lifetime assumed where the answer states none: the documented one.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);

/// Who asks.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The client id: an identifier, not a secret.
    pub client_id: String,
    /// Its secret.
    pub client_secret: SecretString,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The token endpoint could not be asked.
    #[error("token endpoint {endpoint}: {reason}")]
    Unreachable {
        /// Its address.
        endpoint: String,
        /// What happened.
        reason: String,
    },
    /// The token endpoint said no.
    #[error("token endpoint {endpoint} refused the grant {grant} (status {status}): {reason}")]
    Refused {
        /// Its address.
        endpoint: String,
        /// The grant: `client_credentials` or `refresh_token`.
        grant: &'static str,
        /// The HTTP status.
        status: u16,
        /// Why.
        reason: Refusal,
        /// What to do about it.
        recovery: Recovery,
    },
    /// The token endpoint's answer can't be understood.
    #[error("token endpoint {endpoint} answered without {missing}")]
    Answer {
        /// Its address.
        endpoint: String,
        /// What is missing from the answer.
        missing: &'static str,
    },
    /// The token can't be sent.
    #[error("{0} is not a token: it is empty or holds characters that can't be sent")]
    Token(&'static str),
    /// The service token was refused; nothing can replace it.
    #[error("service token refused, and a service token can't be refreshed: create a new one")]
    ServiceToken,
    /// Tokens can't be kept.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

/// Why the token endpoint said no. Told from its error code alone: the rest of its answer could hold anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The client id or secret is wrong.
    Client,
    /// The refresh token is dead.
    Grant,
    /// The project has no token left to give.
    Limit,
    /// It didn't say, or nothing that is known.
    Unknown,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Client => "client id or secret is wrong",
            Refusal::Grant => "token is dead",
            Refusal::Limit => "the project's limit of tokens is reached",
            Refusal::Unknown => "no reason known",
        })
    }
}

impl AuthError {
    /// What to do about it.
    #[must_use]
    pub fn recovery(&self) -> Recovery {
        match self {
            AuthError::Unreachable { .. } => Recovery::Retry,
            AuthError::Refused { recovery, .. } => *recovery,
            AuthError::Answer { .. }
            | AuthError::Token(_)
            | AuthError::ServiceToken
            | AuthError::Vault(_) => Recovery::Fatal,
        }
    }
}

/// Asks the token endpoint for tokens.
#[derive(Clone)]
pub struct OAuthClient {
    http: reqwest::Client,
    endpoint: Endpoint,
    credentials: Credentials,
    clock: Arc<dyn Clock>,
}

impl OAuthClient {
    /// A client of the token endpoint at `endpoint`.
    #[must_use]
    pub fn new(
        http: reqwest::Client,
        endpoint: Endpoint,
        credentials: Credentials,
        clock: Arc<dyn Clock>,
    ) -> OAuthClient {
        OAuthClient { http, endpoint, credentials, clock }
    }

    /// Who asks.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.credentials.client_id
    }

    /// The clock by which grants are dated.
    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Gets a first pair of tokens for the client's secret. Each call takes one of the project's 25 refresh tokens.
    ///
    /// # Errors
    /// See [`AuthError`]; [`AuthError::Refused`] where the id or secret is wrong, or no refresh token is left.
    pub async fn client_credentials(&self) -> Result<TokenSet, AuthError> {
        let body = json!({
            "client_id": self.credentials.client_id,
            "client_secret": self.credentials.client_secret.expose_secret(),
            "grant_type": "client_credentials",
        });
        self.ask("client_credentials", &body).await
    }

    /// Gets a new access token for a refresh token.
    ///
    /// # Errors
    /// See [`AuthError`]; [`AuthError::Refused`] where the refresh token is dead.
    pub async fn refresh(&self, token: &RefreshToken) -> Result<TokenSet, AuthError> {
        let body = json!({
            "client_id": self.credentials.client_id,
            "refresh_token": token.0.expose_secret(),
            "grant_type": "refresh_token",
        });
        self.ask("refresh_token", &body).await
    }

    async fn ask(&self, grant: &'static str, body: &Value) -> Result<TokenSet, AuthError> {
        let endpoint = || self.endpoint.to_string();
        let unreachable =
            |error: reqwest::Error| AuthError::Unreachable { endpoint: endpoint(), reason: reason(&error) };
        // The token's life began no later than the answer was written; counting from before the question is safe.
        let asked_at = self.clock.unix();
        let request = self.http.post(self.endpoint.url(TOKEN_PATH)).timeout(REQUEST_TIMEOUT).json(body);
        let mut response = request.send().await.map_err(unreachable)?;
        if !response.status().is_success() {
            let status = response.status();
            let recovery = match Recovery::from_status(status, retry_after(response.headers())) {
                // Here no token was refused but what should buy one.
                Recovery::RefreshToken => Recovery::Fatal,
                recovery => recovery,
            };
            let reason = refusal(&read(&mut response).await.unwrap_or_default());
            let status = status.as_u16();
            return Err(AuthError::Refused { endpoint: endpoint(), grant, status, reason, recovery });
        }
        let answer = read(&mut response).await.map_err(unreachable)?;
        let answer: Answer = serde_json::from_slice(&answer)
            .map_err(|_| AuthError::Answer { endpoint: endpoint(), missing: "an access token" })?;
        Ok(TokenSet {
            access: answer.access_token,
            refresh: answer.refresh_token.map(RefreshToken),
            granted_at: asked_at,
            lifetime: answer.expired_in.or(answer.expires_in).map_or(DEFAULT_LIFETIME, |seconds| seconds.0),
        })
    }
}

/// The body of an answer, as far as it may go.
async fn read(response: &mut reqwest::Response) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(part) = response.chunk().await? {
        body.extend_from_slice(&part[..part.len().min(MAX_ANSWER - body.len())]);
        if body.len() == MAX_ANSWER {
            break;
        }
    }
    Ok(body)
}

/// What an error code means: those of RFC 6749, section 5.2, and our gateway's own.
fn refusal(body: &[u8]) -> Refusal {
    let body: Option<Value> = serde_json::from_slice(body).ok();
    match body.as_ref().and_then(|body| body.get("error")?.as_str()) {
        Some("invalid_client") => Refusal::Client,
        Some("invalid_grant") => Refusal::Grant,
        Some("limit_exceeded") => Refusal::Limit,
        _ => Refusal::Unknown,
    }
}

/// The endpoint's answer, read tolerantly: the documented `expired_in` is a string, others send `expires_in` or numbers.
#[derive(Deserialize)]
struct Answer {
    access_token: SecretString,
    refresh_token: Option<SecretString>,
    expired_in: Option<Seconds>,
    expires_in: Option<Seconds>,
}

/// Seconds, as a number or as a string of one.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct Seconds(Duration);

impl TryFrom<Value> for Seconds {
    type Error = &'static str;

    fn try_from(value: Value) -> Result<Seconds, &'static str> {
        let seconds = match &value {
            Value::String(text) => text.trim().parse().ok(),
            Value::Number(number) => number.as_u64(),
            _ => None,
        };
        // No token lives for a century; a larger number would overflow sums with the time of day.
        seconds
            .map(|seconds: u64| Seconds(Duration::from_secs(seconds.min(100 * 365 * 86_400))))
            .ok_or("no seconds")
    }
}
