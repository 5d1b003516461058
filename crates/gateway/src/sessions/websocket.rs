//! `GET /asr_stream/ws`: the resumable stream. This module admits sockets, attaches sessions to them, and
//! decides on the fate of a session when its socket ends.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};
use tracing::Instrument;

use super::registry::Full;
use super::session::{AttachError, Attached, Session, StartError};
use super::socket::{CloseReason, Credential, MAX_AUDIO_BYTES, SessionSocket, SocketEnd};
use crate::Gateway;
use crate::admission::pending::PendingPlace;
use crate::authority::{Amount, Identity, Scope};
use crate::bearer;
use crate::http::cors;
use crate::http::error::ApiError;
use crate::peer;
use voxline::protocol::close;
use voxline::protocol::{self, ClientMessage, Ready, ServerMessage, Start};
use voxline::transport::{Wire, socket_limits};

/// Longest wait for `start` or `resume` on a new socket.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for a closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time for the closing handshake of a socket whose place was given to another: enough to write the
/// reason.
const DISPLACED_TIMEOUT: Duration = Duration::from_millis(100);
/// Number of queued answers above which no more messages are read from the client.
const BACKLOG: usize = 1_000;

pub(crate) type Socket = Wire<TokioIo<Upgraded>>;

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
        match upgrade.await {
            Ok(upgraded) => {
                let io = TokioIo::new(upgraded);
                let stream = WebSocketStream::from_raw_socket(io, Role::Server, Some(socket_limits())).await;
                serve(&socket, credential, place, Wire::with_backlog(stream, BACKLOG)).await;
                socket.socket_ended.notify_one();
            }
            Err(error) => tracing::debug!(%error, "upgrade not completed"),
        }
    };
    gateway.sockets.spawn(talking.in_current_span());
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
        gateway.admit_socket()?;
    } else {
        gateway.admit_session()?;
    }
    let place = gateway.place_for_socket(&identity)?;
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

async fn serve(gateway: &Gateway, credential: Credential, place: PendingPlace, mut wire: Socket) {
    let opening = tokio::select! {
        // A client that has opened a session in time keeps it.
        biased;
        opening = timeout(OPENING_TIMEOUT, open(gateway, &credential, &mut wire)) => opening,
        () = place.displaced() => {
            let reason = "the place of this socket is needed: it has waited longest to start";
            return leave(&place, close_with(wire, CloseReason::new(close::TRY_LATER, reason))).await;
        }
    };
    let (session, attached) = match opening {
        Ok(Ok(opened)) => opened,
        Ok(Err(None)) => return,
        Ok(Err(Some(close_reason))) => return leave(&place, close_with(wire, close_reason)).await,
        Err(_) => {
            let late = CloseReason::new(close::PROTOCOL, "neither start nor resume came in time");
            return leave(&place, close_with(wire, late)).await;
        }
    };
    place.begin();
    let attachment = attached.attachment;
    let ending = SessionSocket::new(gateway, &session, &attached, credential).run(&mut wire).await;
    place.leave();
    tracing::debug!(session = session.name(), ending = ending.name(), "socket ended");
    match ending {
        SocketEnd::Done => {
            forget(gateway, &session, attachment);
            leave(&place, close_socket(wire, close::NORMAL, "")).await;
        }
        SocketEnd::Lost => {
            // A client that sent a close gets its reply, and the socket is freed before the wait begins.
            leave(&place, close_socket(wire, close::NORMAL, "")).await;
            drop(place);
            linger(gateway, &session, attachment).await;
        }
        SocketEnd::Close(close_reason) => {
            let resumable = close_reason.resumable;
            let held = match resumable {
                true => session.is_held_by(attachment),
                false => forget(gateway, &session, attachment),
            };
            // If another socket has the session, the fault of this one no longer concerns it.
            leave(&place, close_with(wire, if held { close_reason } else { CloseReason::moved() })).await;
            drop(place);
            if resumable {
                linger(gateway, &session, attachment).await;
            }
        }
    }
}

/// Performs `closing` on a socket that has no session, until it is done, or for a moment longer once
/// another client needs the place.
async fn leave(place: &PendingPlace, closing: impl Future<Output = ()>) {
    let needed = async {
        place.displaced().await;
        sleep(DISPLACED_TIMEOUT).await;
    };
    tokio::select! {
        () = closing => {}
        () = needed => {}
    }
}

/// Ends a session and removes it from the registry, unless a newer socket has it; a fault of the old socket
/// no longer concerns the session then. Returns whether it was ended.
fn forget(gateway: &Gateway, session: &Session, attachment: u64) -> bool {
    let ended = session.end(attachment);
    if ended {
        gateway.sessions.remove(session.name());
    }
    ended
}

/// Waits for `start` or `resume`, attaches the session to this socket and answers `ready`.
///
/// # Errors
/// Returns [`CloseReason`] with the reason for a close, or `None` if the client left.
#[expect(clippy::disallowed_methods, reason = "a token's life is real time")]
async fn open(
    gateway: &Gateway,
    credential: &Credential,
    wire: &mut Socket,
) -> Result<(Arc<Session>, Attached), Option<CloseReason>> {
    let message = loop {
        match wire.next().await {
            Some(Ok(Message::Text(text))) => match parse(&text)? {
                ClientMessage::Unknown => {}
                message => break message,
            },
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Binary(_))) => {
                return Err(Some(CloseReason::new(close::PROTOCOL, "audio came before start")));
            }
            Some(Err(error)) => return Err(unreadable(&error)),
            Some(Ok(Message::Close(_))) | None => return Err(None),
        }
    };
    let (session, finals_seen) = match message {
        ClientMessage::Start(start) => (begin(gateway, &credential.identity, &start)?, 0),
        ClientMessage::Resume { session, resume_key, finals_seen } => {
            let found = gateway.sessions.find(&session);
            let admitted = found.filter(|session| session.admits(&credential.identity.project, &resume_key));
            let session = admitted.ok_or_else(unknown_session)?;
            session.count_resume().map_err(CloseReason::from)?;
            (session, finals_seen)
        }
        _ => {
            return Err(Some(CloseReason::new(
                close::PROTOCOL,
                "the first message is neither start nor resume",
            )));
        }
    };
    let attached = session.attach(finals_seen).map_err(|error| match error {
        AttachError::Over => unknown_session(),
        AttachError::Violation(violation) => violation.into(),
    })?;
    if attached.attachment > 1 {
        gateway.metrics.resumed.inc();
    }
    wire.send(encode(&ServerMessage::Ready(Ready {
        session: session.name().to_owned(),
        resume_key: session.resume_key(),
        resume_window_ms: millis(gateway.options.resume_window),
        received: attached.received,
        final_: attached.final_,
        finals: attached.finals,
        token_expires_in_ms: credential.expiry.left(Instant::now()).map(millis),
        max_audio_bytes: MAX_AUDIO_BYTES,
        window_frames: session.window(),
        auth: gateway.options.in_band_auth,
        max_unfinal_frames: session.max_unfinal(),
    })));
    Ok((session, attached))
}

/// Returns the close reason for a client that sends a malformed or oversized message; `None` for an error
/// of the connection itself.
pub(crate) fn unreadable(error: &Error) -> Option<CloseReason> {
    match error {
        Error::Capacity(_) => Some(CloseReason::new(close::TOO_BIG, "message is too big")),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => None,
        Error::Protocol(_) | Error::Utf8(_) => {
            // The message may have been damaged on the way, which should not end a session.
            Some(CloseReason::resumable(close::PROTOCOL, format!("message can't be read: {error}")))
        }
        _ => None,
    }
}

fn unknown_session() -> CloseReason {
    CloseReason::new(close::SESSION_UNKNOWN, "no such session, or its window is over")
}

fn begin(gateway: &Gateway, identity: &Identity, start: &Start) -> Result<Arc<Session>, CloseReason> {
    // The socket may have been admitted for another session.
    gateway
        .takes_sessions()
        .map_err(|reason| CloseReason::new(close::TRY_LATER, gateway.reject(reason).message))?;
    let recognizer = gateway.recognizer().expect("asked before the upgrade");
    let options = gateway.stream_options(Some(identity), start.language.clone());
    let session = Session::start(recognizer, &gateway.scheduler, identity, start, options).map_err(
        |error| match error {
            StartError::Violation(violation) => CloseReason::from(violation),
            StartError::Unsupported(reason) => CloseReason::new(close::UNSUPPORTED, reason),
            error => {
                tracing::error!(%error, "session not started");
                CloseReason::new(close::SERVER_FAULT, "the recogniser can't start")
            }
        },
    )?;
    let session = Arc::new(session);
    gateway.sessions.insert(&session, identity.terms.max_sessions).map_err(|full| match full {
        Full::Gateway => CloseReason::new(close::TRY_LATER, full.tell(gateway)),
        Full::Token => CloseReason::new(close::QUOTA, full.tell(gateway)),
    })?;
    gateway.metrics.started.inc();
    tracing::info!(session = session.name(), token = identity.token, "session started");
    Ok(session)
}

/// Keeps a session without a socket for its resume window.
async fn linger(gateway: &Gateway, session: &Session, attachment: u64) {
    let mut changes = session.state().watch();
    let resumed = async {
        while session.is_held_by(attachment) {
            changes.changed().await.expect("the session holds the state");
        }
    };
    tokio::select! {
        () = resumed => return,
        () = sleep(gateway.options.resume_window) => {}
        // A draining gateway accepts no sockets, so no client can come back.
        () = gateway.draining.cancelled() => {}
    }
    tracing::info!(session = session.name(), "session not resumed");
    forget(gateway, session, attachment);
}

/// Sends the reason, then closes the socket.
async fn close_with(mut wire: Socket, close_reason: CloseReason) {
    let CloseReason { code, error, reason, .. } = close_reason;
    if code != close::MOVED {
        wire.send(encode(&ServerMessage::Error { code: error, message: reason.clone() }));
    }
    // A close frame holds 123 bytes of reason (RFC 6455, section 5.5).
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    close_socket(wire, code, &reason[..end]).await;
}

/// Closes the socket in bounded time, whatever the peer does.
async fn close_socket(wire: Socket, code: u16, reason: &str) {
    let _ = timeout(CLOSE_TIMEOUT, wire.close(code, reason)).await;
}

pub(crate) fn parse(text: &str) -> Result<ClientMessage, CloseReason> {
    serde_json::from_str(text)
        .map_err(|error| CloseReason::new(close::PROTOCOL, format!("message can't be read: {error}")))
}

pub(crate) fn encode(message: &ServerMessage) -> Message {
    Message::text(serde_json::to_string(message).expect("a message is strings and numbers"))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
