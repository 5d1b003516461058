//! `GET /asr_stream/ws`: the upgrade to the WebSocket of a resumable stream.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use crate::admission::pending::PendingPlace;
use crate::authority::{Amount, Identity, Scope};
use crate::gateway::Gateway;
use crate::http::client::{bearer, peer};
use crate::http::cors;
use crate::http::error::ApiError;
use crate::http::websocket::{self, Upgrade};
use crate::sessions::credential::Credential;
use crate::sessions::websocket::serve;
use voxline::protocol;

/// Answers the upgrade request. A refusal is sent in plain HTTP while that is still possible.
#[expect(clippy::disallowed_methods, reason = "a token's life is real time")]
pub(crate) async fn upgrade(State(gateway): State<Arc<Gateway>>, mut request: Request) -> Response {
    let admitted =
        admit(&gateway, &request).and_then(|admitted| Ok((admitted, Upgrade::take(&mut request)?)));
    let ((identity, place), upgrade) = match admitted {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal.into_response(),
    };
    // The token's life is counted from its check, not from the client's first message.
    let credential = Credential::new(identity, peer(&request), Instant::now());
    let response = upgrade.answer(Some(protocol::SUBPROTOCOL));
    let sessions = gateway.sessions.clone();
    gateway.sessions.shutdown.spawn(async move {
        if let Some(wire) = upgrade.socket().await {
            serve(&sessions, credential, place, wire).await;
        }
    });
    response
}

/// Checks an upgrade request: the client's authorisation first, then the requirements of a WebSocket, then
/// whether there is room.
fn admit(gateway: &Gateway, request: &Request) -> Result<(Identity, PendingPlace), ApiError> {
    let headers = request.headers();
    let authorise = |token: &str| gateway.authority.authorise(token, Scope::AsrStream, peer(request));
    let identity =
        gateway.identify(request, bearer(headers).or_else(|| offered_token(headers)), authorise)?;
    gateway.authority.afford(&identity, Amount::audio(1))?;
    cors::admit(headers, &gateway.options.cors_origins)?;
    if !websocket::offered(headers).any(|name| name == protocol::SUBPROTOCOL) {
        let expected = format!("Sec-WebSocket-Protocol should be {}", protocol::SUBPROTOCOL);
        return Err(ApiError::new(StatusCode::BAD_REQUEST, 400, expected));
    }
    websocket::check(headers)?;
    gateway.recognizer()?;
    if resumes(request) {
        gateway.sessions.admit_socket()?;
    } else {
        gateway.sessions.admit_session()?;
    }
    let place = gateway.sessions.place_for_socket(&identity)?;
    Ok((identity, place))
}

/// Returns the token that a browser offers as an additional subprotocol, since it can't set `Authorization`
/// on a WebSocket. That subprotocol is never selected in the answer.
fn offered_token(headers: &HeaderMap) -> Option<&str> {
    websocket::offered(headers).find_map(|name| name.strip_prefix(protocol::BEARER_PREFIX))
}

/// Returns whether the socket is for an existing session. The query says so, since the first message comes
/// later.
fn resumes(request: &Request) -> bool {
    let query = request.uri().query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == protocol::SESSION_PARAMETER)
}
