//! `POST /auth/oauth/v1/token`: both grants, in the documented shapes.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;

use super::Gateway;
use super::attempts::Failed;
use super::authority::{AuthorityError, Granted};
use super::body;
use super::error::{ApiError, json_response};

/// The body of a request. Clients send JSON, as documented, or a form with the same fields.
#[derive(Deserialize)]
struct Request {
    #[serde(default)]
    client_id: String,
    client_secret: Option<SecretString>,
    refresh_token: Option<SecretString>,
    #[serde(default)]
    grant_type: String,
}

/// The longest body read: a real one has a few hundred bytes.
const MAX_BODY: usize = 16 * 1024;

pub(super) async fn token(State(gateway): State<Arc<Gateway>>, body: Body) -> Response {
    let unreadable =
        |why: &str| Refusal::new(StatusCode::BAD_REQUEST, "invalid_request", why).into_response();
    let Ok(body) = body::read(body, MAX_BODY).await else {
        return unreadable("body is too large, or did not arrive");
    };
    let Some(request) = parse(&body) else {
        return unreadable("body is neither JSON nor a form with the fields as strings");
    };
    // The store's transactions wait for the disk.
    let granted = tokio::task::spawn_blocking(move || grant(&gateway, request)).await;
    match granted {
        Ok(Ok(granted)) => answer(&granted),
        Ok(Err(refusal)) => refusal.into_response(),
        Err(panic) => ApiError::internal(&panic).into_response(),
    }
}

/// The service's own error body is unknown; this is RFC 6749's (section 5.2).
struct Refusal {
    status: StatusCode,
    error: &'static str,
    description: String,
}

impl Refusal {
    fn new(status: StatusCode, error: &'static str, description: impl Into<String>) -> Refusal {
        Refusal { status, error, description: description.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!({ "error": self.error, "error_description": self.description });
        let mut response = json_response(self.status, &body);
        if matches!(self.error, "invalid_client" | "invalid_grant") {
            response.extensions_mut().insert(Failed);
        }
        response
    }
}

/// A content type says little: clients send JSON and forms under all sorts. The first byte tells them apart.
fn parse(body: &[u8]) -> Option<Request> {
    if body.trim_ascii_start().starts_with(b"{") {
        return serde_json::from_slice(body).ok();
    }
    if !body.contains(&b'=') {
        return None;
    }
    let field = |name: &str| {
        url::form_urlencoded::parse(body).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    };
    Some(Request {
        client_id: field("client_id").unwrap_or_default(),
        client_secret: field("client_secret").map(SecretString::from),
        refresh_token: field("refresh_token").map(SecretString::from),
        grant_type: field("grant_type").unwrap_or_default(),
    })
}

fn grant(gateway: &Gateway, request: Request) -> Result<Granted, Refusal> {
    let missing =
        |field: &str| Refusal::new(StatusCode::BAD_REQUEST, "invalid_request", format!("{field} is missing"));
    let authority = gateway.authority();
    let granted = match request.grant_type.as_str() {
        "client_credentials" => {
            let secret = request.client_secret.ok_or_else(|| missing("client_secret"))?;
            authority.client_credentials(&request.client_id, &secret)
        }
        "refresh_token" => {
            let token = request.refresh_token.ok_or_else(|| missing("refresh_token"))?;
            authority.refresh(&request.client_id, token)
        }
        _ => {
            let expected = "grant_type should be client_credentials or refresh_token";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "unsupported_grant_type", expected));
        }
    };
    granted.map_err(|error| {
        let reason = error.to_string();
        // Who asks is not known to be who they say, so their words stay out of the log.
        tracing::info!(%reason, "token refused");
        match error {
            AuthorityError::Client => Refusal::new(StatusCode::UNAUTHORIZED, "invalid_client", reason),
            AuthorityError::RefreshToken => Refusal::new(StatusCode::BAD_REQUEST, "invalid_grant", reason),
            // No code of RFC 6749 says this; `invalid_grant` would make clients throw their refresh token away.
            AuthorityError::Limit(_) => Refusal::new(StatusCode::FORBIDDEN, "limit_exceeded", reason),
            _ => {
                let failed = "the gateway failed";
                Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", failed)
            }
        }
    })
}

/// The documented answer: `expired_in` is a string, and that is its spelling.
fn answer(granted: &Granted) -> Response {
    let body = json!({
        "refresh_token": granted.refresh_token.expose_secret(),
        "access_token": granted.access_token.expose_secret(),
        "expired_in": granted.lifetime.as_secs().to_string(),
        "scope": { "tts": 1, "asr_short": 1, "asr_stream": 1 },
    });
    json_response(StatusCode::OK, &body)
}
