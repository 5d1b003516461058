//! `POST /auth/oauth/v1/token`: both grants, in the documented formats.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::authority::{AuthorityError, Granted};
use crate::gateway::Gateway;
use crate::http::body;
use crate::http::error::{ApiError, AuthFailed, json_response, retry_after};
use crate::http::request_log::spawn_blocking;

/// Body of a token request. Clients send JSON, as documented, or a form with the same fields.
#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    client_id: String,
    client_secret: Option<SecretString>,
    refresh_token: Option<SecretString>,
    #[serde(default)]
    grant_type: String,
}

/// Longest body that is read, in bytes. A real one has a few hundred bytes.
const MAX_BODY: usize = 16 * 1024;

pub(crate) async fn token(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Body,
) -> Response {
    let request: Request = match read(&gateway, body, "its fields are strings").await {
        Ok(request) => request,
        Err(refusal) => return refusal.into_response(),
    };
    // Transactions of the store wait for the disk.
    let granted = spawn_blocking(move || grant(&gateway, peer.ip(), request)).await;
    match granted {
        Ok(Ok(granted)) => answer(&granted),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(panic) => ApiError::internal(&panic).into_response(),
    }
}

/// An error answer. The service's own error body is unknown, so this is the one of RFC 6749 (section 5.2).
pub(crate) struct OAuthError {
    status: StatusCode,
    error: &'static str,
    description: String,
    retry_after: Option<Duration>,
}

impl OAuthError {
    fn new(status: StatusCode, error: &'static str, description: impl Into<String>) -> OAuthError {
        OAuthError { status, error, description: description.into(), retry_after: None }
    }

    /// Returns the answer to a fault of the gateway itself. The client learns no more than whether to try
    /// again.
    pub(crate) fn failed(error: &AuthorityError) -> OAuthError {
        match error {
            AuthorityError::Unavailable { wait, .. } => {
                let description = "the gateway's token store is unavailable";
                let status = StatusCode::SERVICE_UNAVAILABLE;
                let refusal = OAuthError::new(status, "temporarily_unavailable", description);
                OAuthError { retry_after: Some(*wait), ..refusal }
            }
            error => {
                tracing::error!(%error, "token request failed");
                OAuthError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "the gateway failed")
            }
        }
    }
}

impl IntoResponse for OAuthError {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error, "error_description": self.description });
        let mut response = json_response(self.status, &body);
        if matches!(self.error, "invalid_client" | "invalid_grant") {
            response.extensions_mut().insert(AuthFailed);
        }
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after(wait));
        }
        response
    }
}

/// Reads a request for or about tokens.
///
/// # Errors
/// Returns [`OAuthError`], which describes the body that was `expected`, if the body is malformed, too large
/// or late.
pub(crate) async fn read<T: DeserializeOwned>(
    gateway: &Gateway,
    body: Body,
    expected: &str,
) -> Result<T, OAuthError> {
    let unreadable = |why: &str| OAuthError::new(StatusCode::BAD_REQUEST, "invalid_request", why);
    // Every client may send a body here without authentication, and the body is no longer than headers are.
    let body = body::read(body, MAX_BODY, gateway.options.connections.header_timeout).await;
    let body = body.map_err(|_| unreadable("body is too large, or did not arrive"))?;
    parse(&body).ok_or_else(|| unreadable(&format!("body should be JSON or a form, where {expected}")))
}

/// Parses a JSON or form body. Clients send both under many content types, so the first byte decides.
fn parse<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    if body.trim_ascii_start().starts_with(b"{") {
        return serde_json::from_slice(body).ok();
    }
    if !body.contains(&b'=') {
        return None;
    }
    let mut fields = serde_json::Map::new();
    for (name, value) in url::form_urlencoded::parse(body) {
        // The first value of a repeated field counts.
        fields.entry(name).or_insert_with(|| value.into_owned().into());
    }
    serde_json::from_value(fields.into()).ok()
}

fn grant(gateway: &Gateway, peer: IpAddr, request: Request) -> Result<Granted, OAuthError> {
    let missing = |field: &str| {
        OAuthError::new(StatusCode::BAD_REQUEST, "invalid_request", format!("{field} is missing"))
    };
    let authority = gateway.authority();
    let granted = match request.grant_type.as_str() {
        "client_credentials" => {
            let secret = request.client_secret.ok_or_else(|| missing("client_secret"))?;
            authority.client_credentials_for(Some(peer), &request.client_id, &secret)
        }
        "refresh_token" => {
            let token = request.refresh_token.ok_or_else(|| missing("refresh_token"))?;
            authority.refresh_for(Some(peer), &request.client_id, token)
        }
        _ => {
            let expected = "grant_type should be client_credentials or refresh_token";
            return Err(OAuthError::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", expected));
        }
    };
    granted.map_err(|error| {
        let reason = error.to_string();
        match error {
            AuthorityError::Client => OAuthError::new(StatusCode::UNAUTHORIZED, "invalid_client", reason),
            AuthorityError::RefreshToken | AuthorityError::Replaced => {
                OAuthError::new(StatusCode::BAD_REQUEST, "invalid_grant", reason)
            }
            // RFC 6749 has no code for this. With `invalid_grant` clients would discard their refresh
            // token.
            AuthorityError::Limit(_) => OAuthError::new(StatusCode::FORBIDDEN, "limit_exceeded", reason),
            error => OAuthError::failed(&error),
        }
    })
}

/// Returns the documented answer. `expired_in` is a string, and that is its documented spelling.
fn answer(granted: &Granted) -> Response {
    let scope: serde_json::Map<_, _> =
        granted.scopes.iter().map(|scope| (scope.name().to_owned(), json!(1))).collect();
    let body = json!({
        "refresh_token": granted.refresh_token.expose_secret(),
        "access_token": granted.access_token.expose_secret(),
        "expired_in": granted.lifetime.as_secs().to_string(),
        "scope": scope,
    });
    json_response(StatusCode::OK, &body)
}
