//! Error answers, in the format of the Cloud Voice API.

use std::time::Duration;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::request_log::request_id;
use crate::authority::{AuthorityError, Exhausted};

/// `WWW-Authenticate` challenge for a missing or invalid token.
const BEARER: &str = "Bearer";

/// Wait that a refused client is asked for.
pub(crate) const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Response extension that marks an answer as failed authentication.
#[derive(Clone, Copy)]
pub(crate) struct AuthFailed;

/// An error answer: its HTTP status and the documented error code. The answer carries the error as an
/// extension, from which a dialect makes an answer of its own shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiError {
    pub(crate) status: StatusCode,
    /// One of the service's documented codes, or the HTTP status if the service has no code for the error.
    pub(crate) code: u16,
    pub(crate) message: String,
    pub(crate) retry_after: Option<Duration>,
    /// Value of `WWW-Authenticate` (RFC 6750, section 3).
    challenge: Option<&'static str>,
}

impl ApiError {
    /// Creates an error. A value of the client's may stand in the message.
    pub fn new(status: StatusCode, code: u16, message: impl Into<String>) -> ApiError {
        // A value of the client's in the message must not break its line.
        let message = message.into().replace(char::is_control, " ");
        ApiError { status, code, message, retry_after: None, challenge: None }
    }

    /// Returns the description for the client.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns the error for a malformed or unacceptable request, with one of the service's codes.
    pub(crate) fn bad_request(code: u16, message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// Returns the refusal of a request for which there is no capacity.
    pub(crate) fn too_many_requests() -> ApiError {
        ApiError::busy(StatusCode::TOO_MANY_REQUESTS, "too many requests", BUSY_WAIT)
    }

    /// Returns the error for a missing, unknown or expired token. The documentation says status 400, the
    /// service answered 401, and all known clients understand 401.
    pub(crate) fn token() -> ApiError {
        let refusal = ApiError::new(StatusCode::UNAUTHORIZED, 4048, "token is missing, unknown or expired");
        ApiError { challenge: Some(BEARER), ..refusal }
    }

    /// Returns the same error with the status that the documentation prints for its code.
    pub(crate) fn documented(self) -> ApiError {
        match self.code {
            4048 => ApiError { status: StatusCode::BAD_REQUEST, ..self },
            _ => self,
        }
    }

    pub(crate) fn internal(reason: &dyn std::fmt::Display) -> ApiError {
        tracing::error!(%reason, "request failed");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, 500, "the gateway failed")
    }

    /// Returns the error for a token store whose disk fails. The log and `/readyz` give the reason.
    pub(crate) fn store_unavailable(wait: Duration) -> ApiError {
        ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, "the gateway's token store is unavailable", wait)
    }

    /// Returns an error that asks the client to try again after `wait`.
    pub(crate) fn busy(status: StatusCode, message: &str, wait: Duration) -> ApiError {
        ApiError { retry_after: Some(wait), ..ApiError::new(status, status.as_u16(), message) }
    }
}

impl From<AuthorityError> for ApiError {
    fn from(error: AuthorityError) -> ApiError {
        let forbidden = |challenge| {
            let refusal = ApiError::new(StatusCode::FORBIDDEN, 4048, error.to_string());
            ApiError { challenge, ..refusal }
        };
        match &error {
            AuthorityError::Token => ApiError::token(),
            AuthorityError::Inactive => ApiError::new(StatusCode::BAD_REQUEST, 4049, error.to_string()),
            AuthorityError::Scope(_) | AuthorityError::ShortLived => {
                forbidden(Some(r#"Bearer error="insufficient_scope""#))
            }
            AuthorityError::Address | AuthorityError::NotOpen => forbidden(None),
            AuthorityError::Unavailable { wait, .. } => ApiError::store_unavailable(*wait),
            error => ApiError::internal(error),
        }
    }
}

impl From<Exhausted> for ApiError {
    fn from(exhausted: Exhausted) -> ApiError {
        let message = exhausted.to_string();
        match exhausted {
            Exhausted::Daily { wait, .. } => ApiError::busy(StatusCode::TOO_MANY_REQUESTS, &message, wait),
            Exhausted::Total { .. } => ApiError::new(StatusCode::FORBIDDEN, 403, message),
        }
    }
}

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, 400, format!("query can't be read: {}", rejection.body_text()))
    }
}

/// Answers requests for unknown paths.
pub(crate) async fn unknown_path() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, 404, "no such path")
}

/// Answers requests with a method that the path doesn't have. The router adds `Allow`.
pub(crate) async fn wrong_method() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, 405, "the path has no such method")
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "qid": request_id(), "error": { "code": self.code, "message": self.message } });
        let mut response = json_response(self.status, &body);
        if self.challenge == Some(BEARER) {
            response.extensions_mut().insert(AuthFailed);
        }
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if self.status == StatusCode::UPGRADE_REQUIRED {
            // RFC 9110, section 15.5.22, and RFC 6455, section 4.4.
            response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            response.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        if let Some(wait) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, retry_after(wait));
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// Returns the value of `Retry-After` for `wait`, in seconds. The value is rounded up, since a client that
/// comes back a moment too early is refused again.
pub(crate) fn retry_after(wait: Duration) -> HeaderValue {
    HeaderValue::from(wait.as_millis().div_ceil(1_000).clamp(1, u32::MAX.into()) as u32)
}

pub(crate) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
