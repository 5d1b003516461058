//! Conditions and close codes that dialects of live recognition have in common.

use std::time::Duration;

use axum::extract::Request;
use http::StatusCode;

use super::clients::{self, Origin, is_page, open_identity};
use crate::admission::reject::Full;
use crate::authority::Scope;
use crate::gateway::Gateway;
use crate::http::client::peer;
use crate::http::connection_limiter::mark_busy;
use crate::http::error::ApiError;
use crate::http::{cors, websocket};
use crate::sessions::credential::OpeningToken;
use crate::sessions::live::LiveEnd;
use crate::sessions::manager::BeginError;
use crate::sessions::messages::millis;
use crate::sessions::session::StartError;

/// Returns the token of a request for a live recognition, if it is valid for one.
pub(super) fn authorise(
    gateway: &Gateway,
    request: &Request,
    token: Option<&str>,
) -> Result<OpeningToken, ApiError> {
    // Rounded down to milliseconds, like the expiry times of tokens, and taken before the check.
    let checked = Duration::from_millis(millis(gateway.authority.clock().unix()));
    Ok(OpeningToken::new(clients::authorise(gateway, request, token, Scope::AsrStream)?, checked))
}

/// Returns the identity of a client that needs no token, if the operator admits such clients from its
/// address.
pub(super) fn admit_open(gateway: &Gateway, request: &Request) -> Result<OpeningToken, ApiError> {
    if is_page(request) {
        return Err(ApiError::new(StatusCode::FORBIDDEN, 403, "pages may not connect without a token"));
    }
    let identity = open_identity(gateway, Origin::Address(peer(request)))?;
    mark_busy(request);
    Ok(OpeningToken::new(identity, Duration::ZERO))
}

/// Checks that a request is for a WebSocket, and that there is room for its session.
pub(super) fn admit(gateway: &Gateway, request: &Request) -> Result<(), ApiError> {
    cors::admit(request.headers(), &gateway.options.cors_origins)?;
    websocket::check(request.headers())?;
    gateway.recognizer()?;
    gateway.sessions.admit_session()
}

/// Returns the WebSocket close code (RFC 6455, section 7.4) for the end of a recognition.
pub(super) fn close_code(end: &LiveEnd) -> u16 {
    match end {
        LiveEnd::Lost => 1000,
        LiveEnd::Stopping => 1001,
        LiveEnd::Malformed => 1002,
        LiveEnd::TooBig => 1009,
        LiveEnd::Token(_) | LiveEnd::Exhausted(_) | LiveEnd::Flood => 1008,
        LiveEnd::Unanswered | LiveEnd::Failed => 1011,
    }
}

/// Returns the WebSocket close code for a session that could not begin.
pub(super) fn refusal_code(error: &BeginError) -> u16 {
    match error {
        BeginError::Rejected(_) | BeginError::Full(Full::Gateway | Full::Token) => 1013,
        BeginError::Start(StartError::Unsupported(_) | StartError::Violation(_)) => 1003,
        BeginError::Start(_) | BeginError::NoRecognizer => 1011,
    }
}
