//! The Cloud Voice API on one's own machine: tokens, recognition of files and streams, synthesis.
//!
//! A [`Gateway`] holds what all requests share; [`serve`] answers them on a listener until told to stop.

mod asr;
mod attempts;
pub mod authority;
mod board;
mod body;
mod error;
mod hearing;
mod limit;
mod link;
mod queue;
mod session;
mod sessions;
mod stream;
mod token;
mod tts;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use http::{HeaderMap, StatusCode, header};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::attempts::Attempts;
use self::authority::{Authority, Identity};
use self::error::{ApiError, json_response};
use self::sessions::Sessions;
use crate::engine::{Recognizer, Voices};
use crate::session::protocol;

/// How long requests under way may take once the sessions have ended.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// What a refused client is asked to wait.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many streaming sessions may live at once; the `start` of one more is closed with 1013.
    pub max_sessions: usize,
    /// How many recordings and texts may be worked on at once; more are refused with 429.
    pub max_requests: usize,
    /// How many wrong tokens and secrets an address (of IPv6: a network of 64 bits) may send at once; one more is
    /// allowed every three seconds. Beyond that whatever it asks is refused with 429, right or wrong. 0 allows any
    /// number: for a gateway behind a proxy, whose address all clients share.
    pub max_failures: u32,
    /// How long a session outlives its socket.
    pub resume_window: Duration,
    /// How long sessions may go on once the gateway is told to stop.
    pub drain: Duration,
    /// Whether a socket may go on under a fresh token that its client sends in band. To be switched off behind a proxy
    /// that checks tokens at the handshake: it sees no later one, and may cut a socket whose first token has expired.
    pub in_band_auth: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            max_sessions: 64,
            max_requests: 16,
            max_failures: 20,
            resume_window: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            in_band_auth: true,
        }
    }
}

/// What a gateway hears and speaks with.
#[derive(Default)]
pub struct Engines {
    /// The recogniser; without one, requests for recognition are answered with status 501.
    pub recognizer: Option<Arc<dyn Recognizer>>,
    /// The voices.
    pub voices: Voices,
}

/// What all requests share.
pub struct Gateway {
    authority: Authority,
    engines: Engines,
    options: Options,
    sessions: Sessions,
    attempts: Attempts,
    /// Places for requests that keep an engine busy: recordings and speech.
    places: Arc<Semaphore>,
    /// The tasks that serve sockets.
    sockets: TaskTracker,
    /// No new sockets are taken once this is cancelled.
    draining: CancellationToken,
    /// When sockets will close; set before `draining` is cancelled.
    drain_ends: OnceLock<Instant>,
    /// Sockets close when this is cancelled.
    closing: CancellationToken,
}

impl Gateway {
    /// A gateway that trusts `authority`.
    #[must_use]
    pub fn new(authority: Authority, engines: Engines, options: Options) -> Gateway {
        Gateway {
            authority,
            engines,
            sessions: Sessions::new(options.max_sessions),
            attempts: Attempts::new(options.max_failures),
            places: Arc::new(Semaphore::new(options.max_requests)),
            options,
            sockets: TaskTracker::new(),
            draining: CancellationToken::new(),
            drain_ends: OnceLock::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Who may use it.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Whose token the request carries.
    fn authorise(&self, headers: &HeaderMap) -> Result<Identity, ApiError> {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let (scheme, token) = value.and_then(|value| value.split_once(' ')).ok_or_else(ApiError::token)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(ApiError::token());
        }
        self.authority.check(token.trim())?.ok_or_else(ApiError::token)
    }

    fn recognizer(&self) -> Result<&Arc<dyn Recognizer>, ApiError> {
        let none = || ApiError::new(StatusCode::NOT_IMPLEMENTED, 501, "this gateway has no recogniser");
        self.engines.recognizer.as_ref().ok_or_else(none)
    }

    /// A place for a request that keeps an engine busy, held until it is dropped.
    fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        let busy = |_| ApiError::busy(StatusCode::TOO_MANY_REQUESTS, "too many requests", BUSY_WAIT);
        self.places.clone().try_acquire_owned().map_err(busy)
    }

    fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// How long the sockets of a draining gateway still serve.
    fn drain_left(&self, now: Instant) -> Duration {
        let left = |ends: &Instant| ends.saturating_duration_since(now);
        self.drain_ends.get().map_or(self.options.drain, left)
    }

    /// Tells the clients, lets sessions end by themselves for as long as the options allow, then closes their sockets.
    #[expect(clippy::disallowed_methods, reason = "the time to drain is real time")]
    async fn drain(&self) {
        if let Some(ends) = Instant::now().checked_add(self.options.drain) {
            self.drain_ends.get_or_init(|| ends);
        }
        self.draining.cancel();
        self.sockets.close();
        tracing::info!(sockets = self.sockets.len(), "draining");
        if tokio::time::timeout(self.options.drain, self.sockets.wait()).await.is_err() {
            tracing::warn!(sockets = self.sockets.len(), "closing sessions that did not end in time");
        }
        self.closing.cancel();
        self.sockets.wait().await;
    }
}

/// Answers requests on `listener` until `shutdown` is cancelled; then no new sessions are taken, the live ones may end
/// (see [`Options::drain`]), and requests under way are answered, unless that takes long.
///
/// # Errors
/// Where the listener fails.
pub async fn serve(
    listener: TcpListener,
    gateway: Arc<Gateway>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let drained = CancellationToken::new();
    let draining = {
        let (gateway, drained) = (gateway.clone(), drained.clone());
        async move {
            shutdown.cancelled().await;
            gateway.drain().await;
            drained.cancel();
            // What is still open is a request that never ends, or an answer that nobody takes.
            tokio::time::sleep(LAST_REQUESTS).await;
        }
    };
    // Finals and acknowledgements are small and wanted at once: Nagle's algorithm would hold each back for 40 ms.
    let listener = listener.tap_io(|socket| {
        let _ = socket.set_nodelay(true);
    });
    let service = router(gateway).into_make_service_with_connect_info::<SocketAddr>();
    let serving = axum::serve(listener, service).with_graceful_shutdown(drained.cancelled_owned());
    tokio::select! {
        served = serving => served,
        () = draining => Ok(()),
    }
}

fn router(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route(crate::auth::TOKEN_PATH, post(token::token))
        .route(protocol::PATH, get(stream::upgrade))
        .route("/asr", post(asr::recognise))
        .route(crate::speech::PATH, get(tts::from_query).post(tts::from_body))
        .route_layer(from_fn_with_state(gateway.clone(), attempts::limit))
        .route("/healthz", get(health))
        .with_state(gateway)
}

async fn health(State(gateway): State<Arc<Gateway>>) -> Response {
    let (status, state) = match gateway.is_draining() {
        false => (StatusCode::OK, "ok"),
        true => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    let body = json!({
        "status": state,
        "recognizer": gateway.engines.recognizer.as_ref().map(|recognizer| recognizer.name()),
        "sessions": gateway.sessions.count(),
    });
    json_response(status, &body)
}
