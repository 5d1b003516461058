//! `GET /asr_stream/ws`: the upgrade to the WebSocket of a resumable stream.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::Instrument;

use crate::admission::pending::PendingPlace;
use crate::authority::{Amount, Identity, Scope};
use crate::gateway::Gateway;
use crate::http::client::{bearer, peer};
use crate::http::cors;
use crate::http::error::ApiError;
use crate::sessions::credential::Credential;
use crate::sessions::websocket;
use voxline::protocol;
use voxline::transport::Wire;

/// Number of queued answers above which no more messages are read from the client.
const BACKLOG: usize = 1_000;

/// Answers the upgrade request. A refusal is sent in plain HTTP while that is still possible.
#[expect(clippy::disallowed_methods, reason = "a token's life is real time")]
pub(crate) async fn upgrade(State(gateway): State<Arc<Gateway>>, mut request: Request) -> Response {
    let (identity, place) = match admit(&gateway, &request) {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal.into_response(),
    };
    let peer = peer(&request);
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned();
    let (Some(key), Some(upgrade)) = (key, request.extensions_mut().remove::<OnUpgrade>()) else {
        return ApiError::new(StatusCode::UPGRADE_REQUIRED, 426, "this is a WebSocket").into_response();
    };
    // The token's life is counted from its check, not from the client's first message.
    let credential = Credential::new(identity, peer, Instant::now());
    let socket = gateway.clone();
    let talking = async move {
        let sessions = &socket.sessions;
        match upgrade.await {
            Ok(upgraded) => {
                let wire = Wire::server(TokioIo::new(upgraded)).await.with_backlog(BACKLOG);
                websocket::serve(sessions, credential, place, wire).await;
                sessions.shutdown.client_ended.notify_one();
            }
            Err(error) => tracing::debug!(%error, "WebSocket upgrade failed"),
        }
    };
    gateway.sessions.shutdown.clients.spawn(talking.in_current_span());
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64 fits a header");
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol::SUBPROTOCOL));
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
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
    if !offered.is_some_and(|offered| offered.split(',').any(|name| name.trim() == protocol::SUBPROTOCOL)) {
        let expected = format!("Sec-WebSocket-Protocol should be {}", protocol::SUBPROTOCOL);
        return Err(ApiError::new(StatusCode::BAD_REQUEST, 400, expected));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err(ApiError::new(StatusCode::UPGRADE_REQUIRED, 426, "Sec-WebSocket-Version should be 13"));
    }
    if !headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"))
    {
        return Err(ApiError::new(StatusCode::UPGRADE_REQUIRED, 426, "Upgrade should be websocket"));
    }
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
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    offered.split(',').find_map(|name| name.trim().strip_prefix(protocol::BEARER_PREFIX))
}

/// Returns whether the socket is for an existing session. The query says so, since the first message comes
/// later.
fn resumes(request: &Request) -> bool {
    let query = request.uri().query().unwrap_or_default();
    url::form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == protocol::SESSION_PARAMETER)
}
