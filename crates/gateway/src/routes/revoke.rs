//! `POST /auth/oauth/v1/revoke`: token revocation by the client, in the manner of RFC 7009. The original
//! service has no such route: its tokens only expire.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::json;

use super::token::{OAuthError, read};
use crate::gateway::Gateway;
use crate::http::error::{ApiError, json_response};
use crate::http::request_log::spawn_blocking;

/// Path of token revocation, next to the documented path where tokens are granted.
pub(crate) const PATH: &str = "/auth/oauth/v1/revoke";

#[derive(Deserialize)]
struct Request {
    client_id: String,
    token: SecretString,
}

/// Revokes a token. A refresh token ends together with its access tokens, and its slot becomes free; an
/// access token ends alone. The answer is the same for a token that is unknown or of another client, so
/// that no client can probe for tokens (RFC 7009, section 2.2).
pub(crate) async fn revoke(
    State(gateway): State<Arc<Gateway>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    body: Body,
) -> Response {
    let request: Request = match read(&gateway, body, "client_id and token are strings").await {
        Ok(request) => request,
        Err(refusal) => return refusal.into_response(),
    };
    // Transactions of the store wait for the disk.
    let revoking = move || {
        let Request { client_id, token } = request;
        gateway.authority.revoke_shown_for(Some(peer.ip()), &client_id, &token)
    };
    match spawn_blocking(revoking).await {
        Ok(Ok(_)) => json_response(StatusCode::OK, &json!({})),
        Ok(Err(error)) => OAuthError::failed(&error).into_response(),
        Err(panic) => ApiError::internal(&panic).into_response(),
    }
}
