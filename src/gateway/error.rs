//! Refusals, in the shape of the Cloud Voice API.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use super::attempts::Failed;
use super::authority::{AuthorityError, random_bytes};

/// An answer other than 200: the documented number of the error, and its HTTP status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    /// One of the service's documented codes, or the status where it has none.
    pub(super) code: u16,
    pub(super) message: String,
    pub(super) retry_after: Option<Duration>,
}

impl ApiError {
    pub(super) fn new(status: StatusCode, code: u16, message: impl Into<String>) -> ApiError {
        ApiError { status, code, message: message.into(), retry_after: None }
    }

    /// Missing, unknown or expired token. The documentation says status 400, the service answered 401, and every
    /// client seen understands 401.
    pub(super) fn token() -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, 4048, "token is missing, unknown or expired")
    }

    pub(super) fn internal(reason: &dyn std::fmt::Display) -> ApiError {
        tracing::error!(%reason, "request failed");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, 500, "the gateway failed")
    }

    /// Try again after `wait`.
    pub(super) fn busy(status: StatusCode, message: &str, wait: Duration) -> ApiError {
        ApiError { retry_after: Some(wait), ..ApiError::new(status, status.as_u16(), message) }
    }
}

impl From<AuthorityError> for ApiError {
    fn from(error: AuthorityError) -> ApiError {
        ApiError::internal(&error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = json!({ "qid": qid(), "error": { "code": self.code, "message": self.message } });
        let mut response = json_response(self.status, &body);
        if self.status == StatusCode::UNAUTHORIZED {
            response.extensions_mut().insert(Failed);
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            // Who comes back a moment too early is refused again.
            let seconds = wait.as_millis().div_ceil(1_000).clamp(1, u32::MAX.into()) as u32;
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A query's id: a version 4 UUID without hyphens, as the service writes it.
pub(super) fn qid() -> String {
    let mut bytes: [u8; 16] = random_bytes();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn json_response(status: StatusCode, body: &serde_json::Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
