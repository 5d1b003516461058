//! Client of the token endpoint.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::error::{AuthError, Refusal};
use super::token::{AccessToken, RefreshToken, Scope, TokenGeneration, TokenSet};
use super::{REVOCATION_PATH, TOKEN_PATH};
use crate::net::{self, Endpoint, HttpClient, HttpError};
use crate::recovery::{Recovery, retry_after};
use voxline_support::clock::Clock;

const REFRESH_TOKEN: &str = "refresh_token";
/// Total time limit of one request to the token endpoint.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest response that is read, in bytes. Real responses have a few hundred bytes.
const MAX_ANSWER: usize = 64 * 1024;
/// Lifetime assumed if the response states none: the documented one.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(3600);

/// Credentials of an OAuth client.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// Client id: an identifier, not a secret.
    pub client_id: String,
    /// Client secret.
    pub client_secret: SecretString,
}

/// Client of the token endpoint.
#[derive(Clone)]
pub struct OAuthClient {
    http: HttpClient,
    endpoint: Endpoint,
    credentials: Credentials,
    clock: Arc<dyn Clock>,
}

impl OAuthClient {
    /// Creates a client of the token endpoint at `endpoint`.
    #[must_use]
    pub fn new(
        http: HttpClient,
        endpoint: Endpoint,
        credentials: Credentials,
        clock: Arc<dyn Clock>,
    ) -> OAuthClient {
        OAuthClient { http, endpoint, credentials, clock }
    }

    /// Returns the client id.
    #[must_use]
    pub fn client_id(&self) -> &str {
        &self.credentials.client_id
    }

    /// Returns the address of the service.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Returns the clock that dates the grants.
    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Obtains a first pair of tokens by the client secret. Each call takes one of the project's 25
    /// refresh tokens.
    ///
    /// # Errors
    /// Returns [`AuthError`] if no tokens are obtained: [`AuthError::Refused`] if the id or secret is
    /// wrong, or if no refresh token is left.
    pub async fn client_credentials(&self) -> Result<TokenSet, AuthError> {
        let body = json!({
            "client_id": self.credentials.client_id,
            "client_secret": self.credentials.client_secret.expose_secret(),
            "grant_type": "client_credentials",
        });
        self.ask("client_credentials", &body).await
    }

    /// Obtains a new access token by a refresh token.
    ///
    /// # Errors
    /// Returns [`AuthError`] if no token is obtained: [`AuthError::Refused`] if the refresh token is no
    /// longer valid.
    pub async fn refresh(&self, token: &RefreshToken) -> Result<TokenSet, AuthError> {
        let body = json!({
            "client_id": self.credentials.client_id,
            "refresh_token": token.0.expose_secret(),
            "grant_type": REFRESH_TOKEN,
        });
        self.ask(REFRESH_TOKEN, &body).await
    }

    /// Asks the service to revoke a refresh token and all access tokens obtained by it. Returns `false`
    /// if the service does not support revocation, as the original service does not.
    ///
    /// # Errors
    /// Returns [`AuthError`] if the service cannot be reached or refuses the request.
    pub async fn revoke(&self, token: &RefreshToken) -> Result<bool, AuthError> {
        let body = json!({ "client_id": self.credentials.client_id, "token": token.0.expose_secret() });
        let reply = self.post(REVOCATION_PATH, &body).await?;
        match reply.status.as_u16() {
            200 => Ok(true),
            404 | 405 | 501 => Ok(false),
            _ => Err(self.refusal("revocation", reply, &body)),
        }
    }

    async fn ask(&self, grant: &'static str, body: &Value) -> Result<TokenSet, AuthError> {
        // The lifetime began no later than the response was written, so it is safe to count from before
        // the request.
        let granted = self.clock.moment();
        let reply = self.post(TOKEN_PATH, body).await?;
        if !reply.status.is_success() {
            return Err(self.refusal(grant, reply, body));
        }
        let answer: Option<TokenResponse> = serde_json::from_slice(&reply.body?).ok();
        let usable =
            |answer: &TokenResponse| AccessToken::new(&answer.access_token, TokenGeneration(0)).is_some();
        let answer = answer.filter(usable).ok_or_else(|| AuthError::InvalidResponse {
            endpoint: self.endpoint.to_string(),
            missing: "an access token",
        })?;
        let refresh = answer.refresh_token.filter(|token| !token.expose_secret().is_empty());
        let lifetime = [answer.expired_in, answer.expires_in].iter().flatten().find_map(seconds);
        Ok(TokenSet {
            access: answer.access_token,
            refresh: refresh.map(RefreshToken),
            granted,
            lifetime: lifetime.unwrap_or(DEFAULT_LIFETIME),
            scope: answer.scope.and_then(scope),
        })
    }

    async fn post(&self, path: &str, body: &Value) -> Result<Reply, AuthError> {
        let json = (CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let exchange = async {
            let mut response = self.http.post(&self.endpoint, path, [json], body.to_string().into()).await?;
            let body = response.read(MAX_ANSWER).await.map_err(|error| self.unreachable(error));
            Ok(Reply { status: response.status, headers: response.headers, body })
        };
        let replied =
            timeout(REQUEST_TIMEOUT, exchange).await.unwrap_or_else(|_| Err(HttpError::timed_out()));
        replied.map_err(|error| self.unreachable(error))
    }

    fn unreachable(&self, error: HttpError) -> AuthError {
        let HttpError { reason, may_have_arrived } = error;
        AuthError::Unreachable {
            endpoint: self.endpoint.to_string(),
            source: reason.into(),
            may_have_arrived,
        }
    }

    /// Returns the error for `reply`, which is not a success, to `request`.
    fn refusal(&self, grant: &'static str, reply: Reply, request: &Value) -> AuthError {
        let Reply { status, headers, body } = reply;
        let suggested = Recovery::from_status(status, retry_after(&headers));
        let (reason, message) = match body {
            Ok(body) => {
                let mut secrets = vec![self.credentials.client_secret.expose_secret()];
                secrets
                    .extend(["refresh_token", "token"].into_iter().filter_map(|key| request[key].as_str()));
                (refusal(&body), net::refusal::Refusal::parse(&body, &secrets).message)
            }
            Err(error) => return error,
        };
        let recovery = match suggested {
            // Access tokens expire by themselves, which makes room for new ones.
            Recovery::Fatal if grant == REFRESH_TOKEN && reason == Refusal::Limit => Recovery::Retry,
            // A 401 of this endpoint refuses the credentials or the refresh token, not an access token.
            Recovery::RefreshToken => Recovery::Fatal,
            recovery => recovery,
        };
        let endpoint = self.endpoint.to_string();
        AuthError::Refused { endpoint, grant, status: status.as_u16(), reason, message, recovery }
    }
}

/// A response of the endpoint. Its body may have been lost after its head.
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Result<Vec<u8>, AuthError>,
}

/// Maps an error code of RFC 6749, section 5.2, or of our own gateway. A body that is neither empty nor
/// JSON of that form comes from an intermediary.
fn refusal(body: &[u8]) -> Refusal {
    let body: Value = match body.trim_ascii() {
        [] => return Refusal::Unknown,
        body => serde_json::from_slice(body).unwrap_or_default(),
    };
    match body.get("error").and_then(Value::as_str) {
        Some("invalid_client") => Refusal::Client,
        Some("invalid_grant") => Refusal::Grant,
        Some("limit_exceeded") => Refusal::Limit,
        Some("invalid_request" | "unauthorized_client" | "unsupported_grant_type" | "invalid_scope") => {
            Refusal::Request
        }
        _ if body.is_object() => Refusal::Unknown,
        _ => Refusal::Request,
    }
}

/// Response of the token endpoint, parsed leniently: the documented `expired_in` is a string; other
/// services send `expires_in`, or numbers.
#[derive(Deserialize)]
struct TokenResponse {
    access_token: SecretString,
    refresh_token: Option<SecretString>,
    expired_in: Option<Value>,
    expires_in: Option<Value>,
    scope: Option<Value>,
}

/// Parses the scope of a token: documented as an object of numbers, elsewhere (RFC 6749, section 3.3) as
/// names separated by spaces.
fn scope(value: Value) -> Option<Scope> {
    match value {
        Value::Object(names) => {
            let granted = |value: &Value| value.as_i64() != Some(0) && value.as_bool() != Some(false);
            Some(Scope(names.into_iter().filter(|(_, value)| granted(value)).map(|(name, _)| name).collect()))
        }
        Value::String(names) => Some(Scope(names.split_whitespace().map(str::to_owned).collect())),
        _ => None,
    }
}

/// Parses seconds, given as a number or as a string of one.
fn seconds(value: &Value) -> Option<Duration> {
    let seconds: f64 = match value {
        Value::String(text) => text.trim().parse().ok()?,
        value => value.as_f64()?,
    };
    // Limit lifetimes to a century: larger numbers would overflow sums with the time of day.
    let century = 100.0 * 365.0 * 86_400.0;
    (!seconds.is_nan()).then(|| Duration::from_secs_f64(seconds.clamp(0.0, century)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_read_tolerantly() {
        let read = |value: Value| seconds(&value).map(|time| time.as_secs());
        assert_eq!(read(json!("3600")), Some(3600));
        assert_eq!(read(json!(" 60 ")), Some(60));
        assert_eq!(read(json!(59.9)), Some(59));
        assert_eq!(read(json!(-5)), Some(0));
        assert_eq!(read(json!("inf")), Some(100 * 365 * 86_400));
        for nothing in [json!("NaN"), json!("soon"), json!(null), json!({})] {
            assert_eq!(read(nothing.clone()), None, "{nothing}");
        }
    }

    #[test]
    fn scopes_are_an_object_or_words() {
        let words = |value| scope(value).map(|scope| scope.to_string());
        assert_eq!(words(json!({ "tts": 1, "asr_short": 0, "asr_stream": true })).unwrap(), "asr_stream tts");
        assert_eq!(words(json!("tts asr_short")).unwrap(), "asr_short tts");
        assert_eq!(words(json!(7)), None);
    }

    #[test]
    fn only_the_service_itself_says_that_a_grant_is_dead() {
        assert_eq!(refusal(br#"{"error":"invalid_grant"}"#), Refusal::Grant);
        assert_eq!(refusal(br#"{"error":"invalid_client"}"#), Refusal::Client);
        assert_eq!(refusal(br#"{"error":"limit_exceeded"}"#), Refusal::Limit);
        // The service may report an invalid grant without a reason.
        for body in ["", " ", r#"{"message":"no"}"#, r#"{"error":{"code":4048}}"#] {
            assert_eq!(refusal(body.as_bytes()), Refusal::Unknown, "{body}");
        }
        // Responses of intermediaries, or about something else.
        for body in ["<html>bad request</html>", "[]", r#"{"error":"invalid_request"}"#] {
            assert_eq!(refusal(body.as_bytes()), Refusal::Request, "{body}");
        }
    }
}
