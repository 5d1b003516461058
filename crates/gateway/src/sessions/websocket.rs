//! The WebSocket of a resumable stream: attaches a session to the socket, and decides on the fate of the
//! session when the socket ends.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::close_reason::CloseReason;
use super::credential::Credential;
use super::manager::{BeginError, SessionManager};
use super::messages::{encode, millis, parse, unreadable};
use super::session::{AttachError, Attached, Session, StartError};
use super::socket::{API, MAX_AUDIO_BYTES, SessionSocket, SocketEnd};
use crate::admission::pending::PendingPlace;
use crate::admission::reject::Full;
use crate::authority::Identity;
use crate::http::websocket::{Socket, close as close_socket};
use voxline::protocol::{ClientMessage, Ready, ServerMessage, Start, close};
use voxline::transport::Message;

/// Longest wait for `start` or `resume` on a new socket.
const OPENING_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for the closing handshake of a socket whose place was given to another: enough to write the
/// reason.
const DISPLACED_TIMEOUT: Duration = Duration::from_millis(100);

/// Serves a socket under `credential`, from `start` or `resume` to the end of its session's resume window.
pub(crate) async fn serve(
    manager: &SessionManager,
    credential: Credential,
    place: PendingPlace,
    mut wire: Socket,
) {
    let (session, attached) = match open_in_time(manager, &credential, &place, &mut wire).await {
        Ok(opened) => opened,
        Err(None) => return,
        Err(Some(close_reason)) => return leave(&place, close_with(wire, close_reason)).await,
    };
    place.begin();
    let attachment = attached.attachment;
    let ending = SessionSocket::new(manager, &session, &attached, credential).run(&mut wire).await;
    place.leave();
    tracing::debug!(session = session.name(), ending = ending.name(), "socket ended");
    let may_resume = match ending {
        SocketEnd::Done => {
            forget(manager, &session, attachment);
            leave(&place, close_socket(wire, close::NORMAL, "")).await;
            false
        }
        SocketEnd::Lost => {
            // A client that sent a close gets its reply, and the socket is freed before the wait begins.
            leave(&place, close_socket(wire, close::NORMAL, "")).await;
            true
        }
        SocketEnd::Close(close_reason) => {
            let resumable = close_reason.resumable;
            let held = if resumable {
                session.is_held_by(attachment)
            } else {
                forget(manager, &session, attachment)
            };
            // If another socket has the session, the fault of this one no longer concerns it.
            leave(&place, close_with(wire, if held { close_reason } else { CloseReason::moved() })).await;
            resumable
        }
    };
    drop(place);
    if may_resume {
        linger(manager, &session, attachment).await;
    }
}

/// Waits for the client to open its session, while there is time and no other client needs the place.
///
/// # Errors
/// Returns [`CloseReason`] with the reason for a close, or `None` if the client left.
async fn open_in_time(
    manager: &SessionManager,
    credential: &Credential,
    place: &PendingPlace,
    wire: &mut Socket,
) -> Result<(Arc<Session>, Attached), Option<CloseReason>> {
    tokio::select! {
        // A client that has opened a session in time keeps it.
        biased;
        opening = timeout(OPENING_TIMEOUT, open(manager, credential, wire)) => opening.unwrap_or_else(|_| {
            Err(Some(CloseReason::new(close::PROTOCOL, "neither start nor resume came in time")))
        }),
        () = place.displaced() => {
            let reason = "the place of this socket is needed: it has waited longest to start";
            Err(Some(CloseReason::new(close::TRY_LATER, reason)))
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
fn forget(manager: &SessionManager, session: &Session, attachment: u64) -> bool {
    let ended = session.end(attachment);
    if ended {
        manager.registry.remove(session.name());
    }
    ended
}

/// Waits for `start` or `resume`, attaches the session to this socket and answers `ready`.
///
/// # Errors
/// Returns [`CloseReason`] with the reason for a close, or `None` if the client left.
#[expect(clippy::disallowed_methods, reason = "a token's life is real time")]
async fn open(
    manager: &SessionManager,
    credential: &Credential,
    wire: &mut Socket,
) -> Result<(Arc<Session>, Attached), Option<CloseReason>> {
    let (session, finals_seen) = match first_message(wire).await? {
        ClientMessage::Start(start) => (begin(manager, &credential.identity, &start)?, 0),
        ClientMessage::Resume { session, resume_key, finals_seen } => {
            let found = manager.registry.find(&session);
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
        manager.metrics.sessions.resumed.inc();
    }
    let mut ready = Ready::new(attached.received, 0, session.window())
        .resumable(session.name(), session.resume_key(), manager.options.resume_window)
        .resumed_at(attached.received, attached.final_, attached.finals);
    ready.token_expires_in_ms = credential.expiry.left(Instant::now()).map(millis);
    ready.max_audio_bytes = MAX_AUDIO_BYTES;
    ready.auth = manager.options.in_band_auth;
    ready.max_unfinal_frames = session.max_unfinal();
    ready.task = session.task();
    wire.send(encode(&ServerMessage::Ready(ready)));
    Ok((session, attached))
}

/// Returns the first message of the client that has a known type.
///
/// # Errors
/// Returns [`CloseReason`] if the client sends audio or what is no message, or `None` if it left.
async fn first_message(wire: &mut Socket) -> Result<ClientMessage, Option<CloseReason>> {
    loop {
        match wire.next().await {
            Some(Ok(Message::Text(text))) => match parse(&text)? {
                ClientMessage::Unknown => {}
                message => return Ok(message),
            },
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Binary(_))) => {
                return Err(Some(CloseReason::new(close::PROTOCOL, "audio came before start")));
            }
            Some(Err(error)) => return Err(unreadable(&error)),
            Some(Ok(Message::Close(_))) | None => return Err(None),
        }
    }
}

fn unknown_session() -> CloseReason {
    CloseReason::new(close::SESSION_UNKNOWN, "no such session, or its window is over")
}

fn begin(manager: &SessionManager, identity: &Identity, start: &Start) -> Result<Arc<Session>, CloseReason> {
    let options = manager.recognition_request(Some(identity), start.language.clone());
    manager.begin(identity, API, start, options).map_err(|error| match error {
        BeginError::Start(StartError::Violation(violation)) => violation.into(),
        error => {
            let code = match &error {
                BeginError::Rejected(_) | BeginError::Full(Full::Gateway) => close::TRY_LATER,
                BeginError::Full(Full::Token) => close::QUOTA,
                BeginError::Start(StartError::Unsupported(_)) => close::UNSUPPORTED,
                BeginError::Start(_) | BeginError::NoRecognizer => close::SERVER_FAULT,
            };
            CloseReason::new(code, error.told())
        }
    })
}

/// Keeps a session without a socket for its resume window.
async fn linger(manager: &SessionManager, session: &Session, attachment: u64) {
    let mut changes = session.state().watch();
    let resumed = async {
        while session.is_held_by(attachment) {
            changes.changed().await.expect("the session holds the state");
        }
    };
    tokio::select! {
        () = resumed => return,
        () = sleep(manager.options.resume_window) => {}
        // A draining gateway accepts no sockets, so no client can come back.
        () = manager.shutdown.draining.cancelled() => {}
    }
    tracing::info!(session = session.name(), "session ended, it was not resumed in time");
    forget(manager, session, attachment);
}

/// Sends the reason, then closes the socket.
async fn close_with(mut wire: Socket, close_reason: CloseReason) {
    let CloseReason { code, error, reason, .. } = close_reason;
    if code != close::MOVED {
        wire.send(encode(&ServerMessage::Error { code: error, message: reason.clone() }));
    }
    close_socket(wire, code, &reason).await;
}
