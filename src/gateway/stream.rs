//! `GET /asr_stream/ws`: the resumable stream, from the upgrade to the last message of a socket.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::authority::Identity;
use super::error::ApiError;
use super::session::{Session, StartError, Violation};
use super::{BUSY_WAIT, Gateway};
use crate::audio::FramePos;
use crate::session::close;
use crate::session::protocol::{self, ClientMessage, Ready, ServerMessage, Start};
use crate::transport::{Wire, socket_limits};

/// How long a new socket may take to say `start` or `resume`.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a socket may be silent before it is asked for a sign of life, and how long before it counts as dead.
const PING_AFTER: Duration = Duration::from_secs(20);
const DEAD_AFTER: Duration = Duration::from_secs(60);
/// How long a closing handshake may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest binary frame taken, position included: a second of 48 kHz audio and some.
const MAX_AUDIO_BYTES: usize = 128 * 1024;
/// How many answers may wait for a client before it is no longer listened to.
const BACKLOG: usize = 1_000;

type Socket = Wire<TokioIo<Upgraded>>;

/// Answers the upgrade, or refuses it in plain HTTP while that is still possible.
pub(super) async fn upgrade(State(gateway): State<Arc<Gateway>>, mut request: Request) -> Response {
    let identity = match admit(&gateway, request.headers()) {
        Ok(identity) => identity,
        Err(refusal) => return refusal.into_response(),
    };
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned();
    let (Some(key), Some(upgrade)) = (key, request.extensions_mut().remove::<OnUpgrade>()) else {
        return ApiError::new(StatusCode::UPGRADE_REQUIRED, 426, "this is a WebSocket").into_response();
    };
    let socket = gateway.clone();
    gateway.sockets.spawn(async move {
        match upgrade.await {
            Ok(upgraded) => {
                let io = TokioIo::new(upgraded);
                let stream = WebSocketStream::from_raw_socket(io, Role::Server, Some(socket_limits())).await;
                serve(&socket, &identity, Wire::with_backlog(stream, BACKLOG)).await;
            }
            Err(error) => tracing::debug!(%error, "upgrade not completed"),
        }
    });
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

/// Authorisation before everything else, then what the socket must be, then whether there is room.
fn admit(gateway: &Gateway, headers: &HeaderMap) -> Result<Identity, ApiError> {
    let identity = gateway.authorise(headers)?;
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
    if gateway.is_draining() {
        return Err(ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping", BUSY_WAIT));
    }
    // Whether a socket starts a session or resumes one is known only later, and a full gateway must go on taking those
    // that resume. So `start` enforces the limit of sessions; sockets are limited to two a session, as while it moves.
    if gateway.sockets.len() >= gateway.options.max_sessions.saturating_mul(2) {
        return Err(ApiError::busy(StatusCode::TOO_MANY_REQUESTS, "no room for a session", BUSY_WAIT));
    }
    Ok(identity)
}

/// Why the gateway closes a socket.
struct Goodbye {
    code: u16,
    reason: String,
}

impl Goodbye {
    fn new(code: u16, reason: impl Into<String>) -> Goodbye {
        Goodbye { code, reason: reason.into() }
    }
}

impl From<Violation> for Goodbye {
    fn from(violation: Violation) -> Goodbye {
        Goodbye::new(close::PROTOCOL, violation.0)
    }
}

/// How a socket ended.
enum Ending {
    /// The session is complete and the client knows.
    Done,
    /// The client is gone; it may come back.
    Lost,
    /// We close.
    Close(Goodbye),
}

#[expect(clippy::disallowed_methods, reason = "deadlines of a socket are real time")]
async fn serve(gateway: &Gateway, identity: &Identity, mut wire: Socket) {
    let token_ends = identity.expires_in.map(|left| Instant::now() + left);
    let opening = timeout(OPENING_TIMEOUT, open(gateway, identity, &mut wire)).await;
    let (session, finals_seen) = match opening {
        Ok(Ok(opened)) => opened,
        Ok(Err(None)) => return,
        Ok(Err(Some(goodbye))) => return say_goodbye(wire, goodbye).await,
        Err(_) => {
            let late = Goodbye::new(close::PROTOCOL, "neither start nor resume came in time");
            return say_goodbye(wire, late).await;
        }
    };
    let attachment = session.board().attach();
    let link = Link {
        session: &session,
        attachment,
        finals_sent: finals_seen,
        acknowledged: FramePos::ZERO,
        partial_sent: None,
        done_sent: false,
    };
    let ending = link.run(gateway, &mut wire, token_ends).await;
    tracing::debug!(session = session.name(), ending = ending.name(), "socket ended");
    match ending {
        Ending::Done => {
            forget(gateway, &session, attachment);
            close_socket(wire, close::NORMAL, "").await;
        }
        Ending::Lost => {
            // A client that closed gets its answer, and the socket goes before the wait begins.
            close_socket(wire, close::NORMAL, "").await;
            linger(gateway, &session, attachment).await;
        }
        Ending::Close(goodbye) if goodbye.code == close::TOKEN => {
            say_goodbye(wire, goodbye).await;
            linger(gateway, &session, attachment).await;
        }
        Ending::Close(goodbye) => {
            forget(gateway, &session, attachment);
            say_goodbye(wire, goodbye).await;
        }
    }
}

/// Ends a session, unless a newer socket has it: what an old one came to is then no longer its concern.
fn forget(gateway: &Gateway, session: &Session, attachment: u64) {
    if session.board().lock().attachment == attachment {
        gateway.sessions.remove(session.name());
    }
}

/// Hears `start` or `resume` and answers `ready`. An error without a goodbye means that the client left.
async fn open(
    gateway: &Gateway,
    identity: &Identity,
    wire: &mut Socket,
) -> Result<(Arc<Session>, usize), Option<Goodbye>> {
    let message = loop {
        match wire.next().await {
            Some(Ok(Message::Text(text))) => break parse(&text)?,
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Binary(_))) => {
                return Err(Some(Goodbye::new(close::PROTOCOL, "audio came before start")));
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => return Err(None),
        }
    };
    let (session, finals_seen) = match message {
        ClientMessage::Start(start) => (begin(gateway, identity, &start)?, 0),
        ClientMessage::Resume { session, resume_key, finals_seen } => {
            let unknown = || Goodbye::new(close::SESSION_UNKNOWN, "no such session, or its window is over");
            let session = gateway.sessions.find(&session).ok_or_else(unknown)?;
            if !session.admits(&identity.client_id, &resume_key) {
                return Err(Some(unknown()));
            }
            let finals = session.board().lock().finals.len();
            let seen = usize::try_from(finals_seen).ok().filter(|seen| *seen <= finals);
            let seen = seen.ok_or_else(|| {
                Goodbye::new(close::PROTOCOL, format!("finals_seen {finals_seen}, but there are {finals}"))
            })?;
            (session, seen)
        }
        _ => {
            return Err(Some(Goodbye::new(close::PROTOCOL, "the first message is neither start nor resume")));
        }
    };
    let ready = {
        let state = session.board().lock();
        ServerMessage::Ready(Ready {
            session: session.name().to_owned(),
            resume_key: session.resume_key(),
            resume_window_ms: millis(gateway.options.resume_window),
            received: session.acknowledged(&state),
            final_: state.final_,
            finals: state.finals.len() as u64,
            token_expires_in_ms: identity.expires_in.map(millis),
            max_audio_bytes: MAX_AUDIO_BYTES,
            window_frames: session.window(),
            auth: false,
        })
    };
    wire.send(encode(&ready));
    Ok((session, finals_seen))
}

fn begin(gateway: &Gateway, identity: &Identity, start: &Start) -> Result<Arc<Session>, Goodbye> {
    let recognizer = gateway.recognizer().expect("asked before the upgrade");
    let session = Session::start(&**recognizer, &identity.client_id, start).map_err(|error| match error {
        StartError::Violation(violation) => Goodbye::from(violation),
        StartError::Unsupported(reason) => Goodbye::new(close::UNSUPPORTED, reason),
        error => {
            tracing::error!(%error, "session not started");
            Goodbye::new(close::SERVER_FAULT, "the recogniser can't start")
        }
    })?;
    let session = Arc::new(session);
    if !gateway.sessions.insert(&session) {
        return Err(Goodbye::new(close::TRY_LATER, "no room for a session"));
    }
    tracing::info!(session = session.name(), client = identity.client_id, "session started");
    Ok(session)
}

/// A socket and the session it carries.
struct Link<'a> {
    session: &'a Session,
    attachment: u64,
    finals_sent: usize,
    acknowledged: FramePos,
    /// Segment and revision of the last partial sent.
    partial_sent: Option<(u64, u64)>,
    done_sent: bool,
}

impl Link<'_> {
    #[expect(clippy::disallowed_methods, reason = "deadlines of a socket are real time")]
    async fn run(mut self, gateway: &Gateway, wire: &mut Socket, token_ends: Option<Instant>) -> Ending {
        let mut news = self.session.board().watch();
        let mut heard = Instant::now();
        let mut pinged = false;
        loop {
            if let Some(goodbye) = self.report(wire) {
                return Ending::Close(goodbye);
            }
            let patience = if pinged { DEAD_AFTER } else { PING_AFTER };
            tokio::select! {
                message = wire.next() => {
                    (heard, pinged) = (Instant::now(), false);
                    match message {
                        // Only a client that closes after the end has surely heard it.
                        Some(Ok(Message::Close(_))) if self.done_sent => return Ending::Done,
                        // Before the end the same code says that the rest is not wanted.
                        Some(Ok(Message::Close(Some(frame)))) if u16::from(frame.code) == close::NORMAL => {
                            return Ending::Done;
                        }
                        Some(Err(Error::Capacity(_))) => {
                            return Ending::Close(Goodbye::new(close::TOO_BIG, "message is too big"));
                        }
                        Some(Ok(Message::Close(_)) | Err(_)) | None => return Ending::Lost,
                        Some(Ok(message)) => if let Err(goodbye) = self.hear(message) {
                            return Ending::Close(goodbye);
                        },
                    }
                }
                changed = news.changed() => changed.expect("the session holds the board"),
                () = sleep_until(heard + patience) => {
                    if pinged {
                        return Ending::Lost;
                    }
                    pinged = true;
                    wire.send(Message::Ping(axum::body::Bytes::new()));
                }
                () = at(token_ends) => {
                    return Ending::Close(Goodbye::new(close::TOKEN, "the token has expired"));
                }
                () = gateway.closing.cancelled() => {
                    return Ending::Close(Goodbye::new(close::GOING_AWAY, "the gateway stops"));
                }
            }
        }
    }

    /// Brings the client up to date: acknowledgement, finals, the newest partial, the end.
    fn report(&mut self, wire: &mut Socket) -> Option<Goodbye> {
        let state = self.session.board().lock();
        if state.attachment != self.attachment {
            return Some(Goodbye::new(close::MOVED, "another socket has the session"));
        }
        if state.failed {
            return Some(Goodbye::new(close::SERVER_FAULT, "the recogniser failed"));
        }
        let acknowledged = self.session.acknowledged(&state);
        if acknowledged > self.acknowledged {
            self.acknowledged = acknowledged;
            wire.send(encode(&ServerMessage::Ack { received: acknowledged, final_: state.final_ }));
        }
        for segment in &state.finals[self.finals_sent..] {
            wire.send(encode(&ServerMessage::Final(segment.clone())));
        }
        self.finals_sent = state.finals.len();
        if let Some(partial) = &state.partial {
            let id = (self.finals_sent as u64, partial.revision);
            if self.partial_sent != Some(id) {
                self.partial_sent = Some(id);
                wire.send(encode(&ServerMessage::Partial {
                    segment: id.0,
                    revision: id.1,
                    start: partial.range.start,
                    end: partial.range.end,
                    text: partial.text.clone(),
                }));
            }
        }
        if state.done && !self.done_sent {
            self.done_sent = true;
            let finals = state.finals.len() as u64;
            wire.send(encode(&ServerMessage::Done { frames: state.final_, finals }));
        }
        None
    }

    fn hear(&self, message: Message) -> Result<(), Goodbye> {
        match message {
            Message::Binary(frame) if frame.len() > MAX_AUDIO_BYTES => {
                let size = frame.len();
                let reason = format!("audio frame of {size} bytes, the limit is {MAX_AUDIO_BYTES}");
                Err(Goodbye::new(close::TOO_BIG, reason))
            }
            Message::Binary(frame) => {
                let chunk = protocol::decode_audio(&frame).map_err(|error| Violation(error.to_string()))?;
                Ok(self.session.audio(&chunk)?)
            }
            Message::Text(text) => match parse(&text)? {
                ClientMessage::Flush => {
                    self.session.flush();
                    Ok(())
                }
                ClientMessage::Finish { through } => Ok(self.session.finish(through)?),
                ClientMessage::Gap { .. } | ClientMessage::Auth { .. } => {
                    Err(Goodbye::new(close::PROTOCOL, "not understood"))
                }
                ClientMessage::Start(_) | ClientMessage::Resume { .. } => {
                    Err(Goodbye::new(close::PROTOCOL, "this socket has a session already"))
                }
            },
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => Ok(()),
        }
    }
}

impl Ending {
    fn name(&self) -> &'static str {
        match self {
            Ending::Done => "done",
            Ending::Lost => "lost",
            Ending::Close(_) => "closed",
        }
    }
}

/// Keeps a session without a socket for its resume window.
async fn linger(gateway: &Gateway, session: &Session, attachment: u64) {
    let mut news = session.board().watch();
    let resumed = async {
        while session.board().lock().attachment == attachment {
            news.changed().await.expect("the session holds the board");
        }
    };
    tokio::select! {
        () = resumed => return,
        () = sleep(gateway.options.resume_window) => {}
        // A stopping gateway takes no sockets, so nobody can come back.
        () = gateway.draining.cancelled() => {}
    }
    tracing::info!(session = session.name(), "session not resumed");
    forget(gateway, session, attachment);
}

/// Says why, and closes.
async fn say_goodbye(mut wire: Socket, goodbye: Goodbye) {
    let Goodbye { code, reason } = goodbye;
    if code != close::MOVED {
        let number = if code == close::TOKEN { 4048 } else { u32::from(code) };
        wire.send(encode(&ServerMessage::Error { code: number, message: reason.clone() }));
    }
    // A close frame holds 123 bytes of reason (RFC 6455, section 5.5).
    let mut end = reason.len().min(123);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    close_socket(wire, code, &reason[..end]).await;
}

/// Closes in bounded time. How the peer takes it changes nothing.
async fn close_socket(wire: Socket, code: u16, reason: &str) {
    let _ = timeout(CLOSE_TIMEOUT, wire.close(code, reason)).await;
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

fn parse(text: &str) -> Result<ClientMessage, Goodbye> {
    serde_json::from_str(text)
        .map_err(|error| Goodbye::new(close::PROTOCOL, format!("message can't be read: {error}")))
}

fn encode(message: &ServerMessage) -> Message {
    Message::text(serde_json::to_string(message).expect("a message is strings and numbers"))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
