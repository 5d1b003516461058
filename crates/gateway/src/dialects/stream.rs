//! A WebSocket of one recognition, which begins when its client has said how: what the dialects without
//! parameters in their address share.

use std::sync::Arc;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};

use super::live::{admit, close_code, refusal_code};
use crate::admission::pending::PendingPlace;
use crate::authority::{Amount, Identity};
use crate::gateway::Gateway;
use crate::http::error::ApiError;
use crate::http::websocket::{Socket, Upgrade};
use crate::sessions::credential::OpeningToken;
use crate::sessions::live::{LiveEnd, LiveSession, LiveSettings};
use crate::sessions::live_socket::{LiveInput, LiveSocket};
use crate::sessions::manager::{BeginError, SessionManager};
use voxline::protocol::close;

/// Reason why a stream is closed before its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Live(#[from] LiveEnd),
    #[error(transparent)]
    Begin(#[from] BeginError),
    #[error("the place of this socket is needed: it has waited longest to start")]
    Displaced,
    /// A message that makes no sense, described for the client.
    #[error("{0}")]
    Request(String),
}

impl Failure {
    /// Returns the description for the client.
    pub(super) fn told(&self) -> String {
        if let Failure::Begin(error) = self { error.told() } else { self.to_string() }
    }

    /// Returns the close code.
    fn code(&self) -> u16 {
        match self {
            Failure::Live(end) => close_code(end),
            Failure::Begin(error) => refusal_code(error),
            Failure::Displaced => close::TRY_LATER,
            // RFC 6455, section 7.4.1: data that can't be accepted.
            Failure::Request(_) => 1003,
        }
    }
}

/// A client that was admitted, and has no socket yet.
pub(super) struct Admitted {
    manager: Arc<SessionManager>,
    opener: Arc<OpeningToken>,
    place: PendingPlace,
    upgrade: Upgrade,
}

impl Admitted {
    /// Admits a client that was identified.
    ///
    /// # Errors
    /// Returns [`ApiError`] if the client was refused, the request is not for a WebSocket, or there is no
    /// room.
    pub(super) fn enter(
        gateway: &Gateway,
        request: &mut Request,
        identified: Result<OpeningToken, ApiError>,
    ) -> Result<Admitted, ApiError> {
        let opener = identified?;
        gateway.authority.afford(&opener.identity, Amount::audio(1))?;
        admit(gateway, request)?;
        let place = gateway.sessions.place_for_socket(&opener.identity)?;
        let upgrade = Upgrade::take(request)?;
        Ok(Admitted { manager: gateway.sessions.clone(), opener: Arc::new(opener), place, upgrade })
    }

    /// Answers the upgrade request, and runs `serve` on the socket.
    pub(super) fn answer<F: Future<Output = ()> + Send + 'static>(
        self,
        serve: impl FnOnce(Arc<SessionManager>, Arc<OpeningToken>, PendingPlace, Socket) -> F + Send + 'static,
    ) -> Response {
        let Admitted { manager, opener, place, upgrade } = self;
        let response = upgrade.answer(None);
        manager.clone().shutdown.spawn(async move {
            if let Some(wire) = upgrade.socket().await {
                serve(manager, opener, place, wire).await;
            }
        });
        response
    }
}

/// Answers an upgrade request that was admitted or refused.
pub(super) fn answered(answer: Result<Response, ApiError>) -> Response {
    answer.unwrap_or_else(ApiError::into_response)
}

/// A socket and its recognition.
pub(super) struct Stream<'a> {
    manager: &'a Arc<SessionManager>,
    opener: Arc<OpeningToken>,
    place: PendingPlace,
    api: &'static str,
    socket: LiveSocket<'a>,
    /// The recognition, once it has begun.
    sessions: Vec<LiveSession>,
}

impl<'a> Stream<'a> {
    pub(super) fn new(
        manager: &'a Arc<SessionManager>,
        opener: Arc<OpeningToken>,
        place: PendingPlace,
        api: &'static str,
        wire: Socket,
    ) -> Stream<'a> {
        let socket = LiveSocket::new(manager, opener.clone(), api, wire, None);
        Stream { manager, opener, place, api, socket, sessions: Vec::new() }
    }

    pub(super) fn manager(&self) -> &SessionManager {
        self.manager
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.opener.identity
    }

    /// Begins the recognition.
    pub(super) fn begin(
        &mut self,
        sample_rate: u32,
        request: voxline::engine::RecognitionRequest,
        partials: bool,
    ) -> Result<(), Failure> {
        let settings = LiveSettings { api: self.api, sample_rate, request, partials };
        let session = LiveSession::begin(self.manager, &self.opener, settings)?;
        self.place.begin();
        self.sessions.push(session);
        Ok(())
    }

    /// Returns the recognition, if it has begun.
    pub(super) fn session(&mut self) -> Option<&mut LiveSession> {
        self.sessions.first_mut()
    }

    pub(super) fn send(&mut self, message: &impl serde::Serialize) {
        self.socket.send(message);
    }

    /// Waits for the next input: see [`LiveSocket::next`].
    pub(super) async fn next(&mut self, reads: bool) -> Result<LiveInput, Failure> {
        let (displaced, is_idle) = (self.place.displacement(), self.sessions.is_empty());
        let draining = &self.manager.shutdown.draining;
        tokio::select! {
            input = self.socket.next(&mut self.sessions, reads) => Ok(input?),
            () = displaced.cancelled() => Err(Failure::Displaced),
            // Without audio there is nothing to wait for.
            () = draining.cancelled(), if is_idle => Ok(LiveInput::Drain),
        }
    }

    /// Ends the stream, and closes the socket. Before the close of a failure, sends the `message` about it,
    /// if the dialect has one.
    pub(super) async fn close(
        self,
        end: Result<Ending, Failure>,
        message: impl FnOnce(&str) -> Option<serde_json::Value>,
    ) {
        let Stream { mut socket, sessions, .. } = self;
        // The place is free before the client learns of the end.
        drop(sessions);
        let (code, reason) = match end {
            Ok(Ending::Done) => (close::NORMAL, String::new()),
            Ok(Ending::Drained) => (close::GOING_AWAY, LiveEnd::Stopping.to_string()),
            Err(failure) => {
                let reason = failure.told();
                if let Some(message) = message(&reason) {
                    socket.send(&message);
                }
                (failure.code(), reason)
            }
        };
        tracing::debug!(code, reason, "socket ended");
        socket.close(code, &reason).await;
    }
}

/// Way in which a stream ends well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Done,
    /// The gateway stops.
    Drained,
}
