//! An implementation of the Cloud Voice API to run on one's own machine: tokens, recognition of files and
//! streams, and speech synthesis.
//!
//! A [`Gateway`] holds the state that all requests share. [`serve`] answers requests on a listener until it
//! is told to stop.

pub mod admin;
mod admission;
pub mod authority;
mod console;
mod http;
mod metrics;
mod routes;
mod scheduler;
mod sessions;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{io, thread};

use ::http::{HeaderMap, StatusCode, header};
use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use ipnet::IpNet;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::admin::AdminSocket;
use self::admission::capacity::{DecodePool, RequestCapacity};
use self::admission::pending::PendingClients;
use self::admission::reject::RejectReason;
pub use self::admission::reject::capacity;
use self::authority::{Authority, AuthorityError, Identity, Scope};
use self::http::auth_rate_limiter::{self, AuthRateLimiter};
pub use self::http::cors::{BadOrigin, Origin};
use self::http::error::{self, ApiError, json_response};
pub use self::http::tls::{BadTls, Listener, Tls, TlsFiles};
use self::http::{connection_limiter, cors, proxies, request_log, server};
use self::metrics::Metrics;
use self::routes::{asr, asr_chunks, demo, openapi, revoke, token, tts};
use self::scheduler::Scheduler;
use self::sessions::chunked_registry::{self, ChunkedRegistry};
use self::sessions::registry::SessionRegistry;
use self::sessions::websocket;
use voxline::engine::{Recognizer, RecognitionRequest, Voices};
use voxline::language::Languages;
use voxline::net::Endpoint;
use voxline::protocol;

/// Path of token revocation, next to the documented path where tokens are granted.
const REVOKE_PATH: &str = "/auth/oauth/v1/revoke";
/// Longest time that pending requests may take after the sessions have ended.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// Longest interval between writes of usage to disk. A gateway that is killed loses at most the usage of
/// this interval and of the short time that a write takes.
const USAGE_INTERVAL: Duration = Duration::from_secs(5);
/// Wait that a refused client is asked for.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Settings of a gateway that the operator may change.
#[derive(Clone, Debug)]
pub struct Options {
    /// Number of recognition threads. The default is the number of threads that the machine runs at once.
    pub threads: NonZero<usize>,
    /// Maximum number of live streaming sessions and tasks of numbered chunks. One more is refused with
    /// status 429. See [`capacity`].
    pub max_sessions: usize,
    /// Maximum number of recordings and texts in work at once. More are refused with status 429.
    pub max_requests: usize,
    /// Maximum number of open connections, without those that have become WebSockets. One more connection
    /// takes the place of a connection without a request under a valid token; if there is none, the new
    /// connection waits until another one ends. The default, together with the sockets of the default
    /// number of sessions, fits into the 1,024 file descriptors that a process commonly has, and leaves
    /// some for the store and for engines.
    pub max_connections: usize,
    /// Maximum number of these connections for one client address (for IPv6, a network of 64 bits) while
    /// other addresses have none. The value is capped at three quarters of all connections, and one more
    /// connection is closed at once. The share of an address shrinks as free connections become few, so
    /// that some are left for new addresses. Beyond its share, an address takes the places of addresses
    /// that have more idle connections than it has. 0 allows any number and closes no connection in favour
    /// of another address; use 0 behind a proxy that the gateway doesn't know as
    /// [trusted](Options::trusted_proxies).
    pub max_connections_per_address: usize,
    /// Longest time for a TLS handshake and for the request line and headers to arrive, longest wait for
    /// the next request on a connection, and longest time for the body of a token request.
    pub header_timeout: Duration,
    /// Longest time for a whole recording or text to arrive.
    pub body_timeout: Duration,
    /// Longest time that an answer waits for its client to read more of it. The connection is then closed.
    /// The same limit applies to a WebSocket, whose session may be resumed.
    pub write_timeout: Duration,
    /// Number of wrong tokens and secrets that a client address (for IPv6, a network of 64 bits) may send
    /// at once; one more is allowed every three seconds. Beyond this limit every request of the address is
    /// refused with status 429, even one with a valid token; only health, metrics, the API description and
    /// the console's pages stay open. 0 allows any number; use 0 behind a proxy that the gateway doesn't
    /// know as [trusted](Options::trusted_proxies).
    pub max_failures: u32,
    /// Networks of proxies that are trusted to name the addresses of their clients, by a PROXY protocol
    /// version 2 header at the start of a connection, by `X-Forwarded-For` or by `Forwarded` (RFC 7239).
    /// All limits by address, the networks of service tokens and the log then refer to the client, and a
    /// request with a malformed header is refused. A trusted proxy must set one of these headers itself,
    /// and must not pass on another one as its client wrote it. The headers are ignored if any other peer
    /// sends them.
    pub trusted_proxies: Vec<IpNet>,
    /// Time that a session outlives its socket.
    pub resume_window: Duration,
    /// Longest time that sessions may go on after the gateway was told to stop.
    pub drain: Duration,
    /// Base addresses of gateways that take over the sessions of this one when it is told to stop. Clients
    /// are asked to start again there from the final position, while their sessions here still run. Clients
    /// send their tokens only to hosts that they trust, which by default is the host of this gateway at
    /// another port. If the list is empty, sessions end here, as far as the drain time allows.
    pub successors: Vec<Endpoint>,
    /// Longest wait of a task of numbered chunks for its first chunk.
    pub task_opening: Duration,
    /// Longest wait of a task for its next chunk, after which the task is done. The documentation says five
    /// seconds.
    pub task_gap: Duration,
    /// Time that the result of a task is kept after the task is done.
    pub task_kept: Duration,
    /// Languages expected in the audio if neither the client nor its project names one.
    pub languages: Languages,
    /// Origins, other than the gateway's own, whose pages may use the gateway from a browser.
    pub cors_origins: Vec<Origin>,
    /// Allows a socket to go on under a fresh token that its client sends in band. Switch this off behind a
    /// proxy that checks tokens at the handshake: such a proxy sees no later token, and may cut a socket
    /// whose first token has expired.
    pub in_band_auth: bool,
    /// Answers a bad token with status 400, as the documentation prints, instead of 401 or 403, as the
    /// original service did and as clients expect.
    pub documented_status: bool,
    /// Serves the console at `/`: a page to try the gateway with, and to see one's sessions and usage.
    pub console: bool,
    /// Lets `/tts_demo` and `/asr_demo` answer every client, without a token.
    pub demo: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            threads: thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN),
            max_sessions: 64,
            max_requests: 16,
            max_connections: 800,
            max_connections_per_address: 600,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(60),
            max_failures: 20,
            trusted_proxies: Vec::new(),
            resume_window: Duration::from_secs(60),
            drain: Duration::from_secs(30),
            successors: Vec::new(),
            task_opening: Duration::from_secs(60),
            task_gap: Duration::from_secs(5),
            task_kept: Duration::from_secs(10 * 60),
            languages: Languages::default(),
            cors_origins: Vec::new(),
            in_band_auth: true,
            documented_status: false,
            console: true,
            demo: false,
        }
    }
}

/// Engines that a gateway recognises and synthesises speech with.
#[derive(Default)]
pub struct Engines {
    /// The recogniser. Without one, requests for recognition are answered with status 501.
    pub recognizer: Option<Arc<dyn Recognizer>>,
    /// Voices for synthesis.
    pub voices: Voices,
}

/// State that all requests share.
pub struct Gateway {
    authority: Authority,
    engines: Engines,
    options: Options,
    /// Time of creation, on the authority's monotonic clock.
    started: Duration,
    metrics: Arc<Metrics>,
    scheduler: Scheduler,
    sessions: SessionRegistry,
    chunked: ChunkedRegistry,
    auth_limiter: AuthRateLimiter,
    /// Capacity for requests with a token.
    authenticated: RequestCapacity,
    /// Capacity for requests of the demo, which have no token.
    demo: RequestCapacity,
    /// Threads that decode numbered chunks, which clients wait for live.
    chunk_decoders: DecodePool,
    /// Places for sockets that have not begun a session.
    pending_sockets: PendingClients,
    /// Places for tasks of numbered chunks that have not received a chunk.
    pending_tasks: PendingClients,
    /// Tasks that serve sockets and that watch over tasks of numbered chunks.
    sockets: TaskTracker,
    /// Notified when a socket or a task has ended, so that its usage is written.
    socket_ended: Notify,
    /// Cancelled when the gateway begins to drain; no new sockets are accepted from then on.
    draining: CancellationToken,
    /// Time at which sockets will be closed. It is set before `draining` is cancelled.
    drain_ends: OnceLock<Instant>,
    /// Cancelled when all sockets must close.
    closing: CancellationToken,
}

impl Gateway {
    /// Creates a gateway that trusts `authority`.
    #[must_use]
    pub fn new(authority: Authority, engines: Engines, options: Options) -> Gateway {
        let metrics = Metrics::new(options.max_sessions, options.threads.get(), authority.audit());
        let metrics = Arc::new(metrics);
        Gateway {
            started: authority.clock().monotonic(),
            authority,
            engines,
            scheduler: Scheduler::new(options.threads, metrics.clone()),
            metrics,
            sessions: SessionRegistry::new(options.max_sessions),
            chunked: ChunkedRegistry::new(options.task_kept),
            auth_limiter: AuthRateLimiter::new(options.max_failures),
            authenticated: RequestCapacity::authenticated(&options),
            demo: RequestCapacity::demo(&options),
            chunk_decoders: DecodePool::beside(options.threads.get()),
            // One place for each session that the gateway can hold.
            pending_sockets: PendingClients::new(options.max_sessions),
            pending_tasks: PendingClients::new(chunked_registry::MAX_PENDING),
            options,
            sockets: TaskTracker::new(),
            socket_ended: Notify::new(),
            draining: CancellationToken::new(),
            drain_ends: OnceLock::new(),
            closing: CancellationToken::new(),
        }
    }

    /// Returns the authority that decides which clients may use the gateway.
    #[must_use]
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Returns the identity behind the request's token, if the token is valid for `scope`.
    fn authorise(&self, request: &Request, scope: Scope) -> Result<Identity, ApiError> {
        let authorise = |token: &str| self.authority.authorise(token, scope, peer(request));
        self.identify(request, bearer(request.headers()), authorise)
    }

    /// Returns the identity behind `token`, the token of the request, if `check` accepts it.
    fn identify(
        &self,
        request: &Request,
        token: Option<&str>,
        check: impl FnOnce(&str) -> Result<Identity, AuthorityError>,
    ) -> Result<Identity, ApiError> {
        let identity = token.ok_or_else(ApiError::token).and_then(|token| Ok(check(token)?));
        if identity.is_ok() {
            connection_limiter::mark_busy(request);
        }
        match self.options.documented_status {
            true => identity.map_err(ApiError::documented),
            false => identity,
        }
    }

    /// Writes usage to disk. After a failure, the next call tries again.
    async fn keep_usage(self: &Arc<Gateway>) {
        let gateway = self.clone();
        let kept = tokio::task::spawn_blocking(move || gateway.authority.keep_usage()).await;
        match kept {
            // The failure was logged when the outage began, and the usage stays counted.
            Ok(Ok(()) | Err(AuthorityError::Unavailable { .. })) | Err(_) => {}
            Ok(Err(error)) => tracing::error!(%error, "usage not kept"),
        }
    }

    fn recognizer(&self) -> Result<&Arc<dyn Recognizer>, ApiError> {
        let none = || ApiError::new(StatusCode::NOT_IMPLEMENTED, 501, "this gateway has no recogniser");
        self.engines.recognizer.as_ref().ok_or_else(none)
    }

    /// Returns the capacity for requests of this client. Clients without a token share a separate, smaller
    /// one.
    fn capacity(&self, identity: Option<&Identity>) -> &RequestCapacity {
        if identity.is_some() { &self.authenticated } else { &self.demo }
    }

    /// Returns a request with the language that the client names, or else with the languages of its
    /// project or of the gateway.
    fn stream_options(&self, identity: Option<&Identity>, language: Option<String>) -> RecognitionRequest {
        if let Some(language) = language {
            return RecognitionRequest::new().language(language);
        }
        let project = identity.and_then(|identity| identity.languages.as_ref());
        RecognitionRequest::from(project.unwrap_or(&self.options.languages))
    }

    fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Returns the time for which the sockets of a draining gateway still serve.
    fn drain_left(&self, now: Instant) -> Duration {
        let left = |ends: &Instant| ends.saturating_duration_since(now);
        self.drain_ends.get().map_or(self.options.drain, left)
    }

    /// Drains the gateway: announces the shutdown to clients, waits for sessions to end for as long as the
    /// options allow, then closes their sockets.
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

/// Returns the refusal of a request for which there is no capacity.
fn busy() -> ApiError {
    ApiError::busy(StatusCode::TOO_MANY_REQUESTS, "too many requests", BUSY_WAIT)
}

/// Returns the token of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Returns the address that the request comes from: that of the connection, or of the client of a trusted
/// proxy.
fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip())
}

/// Answers requests on `listener` until `shutdown` is cancelled, then shuts down gracefully: no new
/// sessions are accepted, live sessions may end (see [`Options::drain`]), and pending requests are
/// answered, unless that takes long.
///
/// A gateway whose state is on disk may be administered meanwhile: see [`admin::administer`].
///
/// # Errors
/// Returns [`io::Error`] if the socket for the operator can't be created or fails.
pub fn serve(
    listener: impl Into<Listener>,
    gateway: Arc<Gateway>,
    shutdown: CancellationToken,
) -> impl Future<Output = io::Result<()>> {
    // Bind before `serve` returns, so that the operator's socket exists before any caller can learn that
    // the gateway is up.
    let admin = gateway.authority.directory().map(AdminSocket::bind).transpose();
    serve_with(listener.into(), gateway, shutdown, admin)
}

async fn serve_with(
    listener: Listener,
    gateway: Arc<Gateway>,
    shutdown: CancellationToken,
    admin: io::Result<Option<AdminSocket>>,
) -> io::Result<()> {
    let admin = admin?;
    let administering = async {
        match &admin {
            Some(socket) => socket.serve(&gateway).await,
            None => std::future::pending().await,
        }
    };
    let drained = CancellationToken::new();
    let draining = {
        let (gateway, drained) = (gateway.clone(), drained.clone());
        async move {
            shutdown.cancelled().await;
            gateway.drain().await;
            drained.cancel();
            // Any connection still open after this time has a request that never ends, or an answer that
            // its client doesn't read.
            tokio::time::sleep(LAST_REQUESTS).await;
        }
    };
    let serving = server::serve(listener, router(gateway.clone()), &gateway.options, drained);
    let counting = async {
        loop {
            let woken = async {
                tokio::select! {
                    () = gateway.socket_ended.notified() => {}
                    () = gateway.authority.outage_began() => {}
                }
            };
            let recovery = gateway.authority.recovery_wait().unwrap_or(USAGE_INTERVAL);
            let _ = tokio::time::timeout(recovery.min(USAGE_INTERVAL), woken).await;
            gateway.keep_usage().await;
            gateway.chunked.forget_old();
        }
    };
    let served = tokio::select! {
        () = serving => Ok(()),
        () = draining => Ok(()),
        never = counting => never,
        failed = administering => failed,
    };
    // This is the last attempt to write usage.
    gateway.authority.retry_now();
    gateway.keep_usage().await;
    if let Some(error) = gateway.authority.outage() {
        tracing::error!(%error, "usage since the store failed is lost");
    }
    served
}

/// A path and the handlers of its methods.
type Route = (&'static str, MethodRouter<Arc<Gateway>>);

/// Returns the routes that authenticate the client, or that do costly work without authentication.
fn guarded_routes(options: &Options) -> Vec<Route> {
    let mut routes = vec![
        (voxline::auth::TOKEN_PATH, post(token::token)),
        (REVOKE_PATH, post(revoke::revoke)),
        (protocol::PATH, get(websocket::upgrade)),
        ("/asr_stream/create_task", post(asr_chunks::create_task)),
        ("/asr_stream/add_chunk", post(asr_chunks::add_chunk)),
        ("/asr_stream/get_result", get(asr_chunks::get_result)),
        ("/asr", post(asr::recognise)),
        (voxline::speech::PATH, get(tts::get).head(tts::head).post(tts::post)),
    ];
    if options.demo {
        routes.extend([("/tts_demo", post(demo::speak)), ("/asr_demo", post(demo::recognise))]);
    }
    if options.console {
        routes.extend(console::data());
    }
    routes
}

/// Returns the routes that every client may use, without authentication or rate limit.
fn open_routes(options: &Options) -> Vec<Route> {
    let mut routes = vec![
        ("/healthz", get(health)),
        ("/readyz", get(readiness)),
        (metrics::PATH, get(metrics::report)),
        (openapi::PATH, get(openapi::describe)),
    ];
    if options.console {
        routes.extend(console::pages());
    }
    routes
}

fn router(gateway: Arc<Gateway>) -> Router {
    let add = |router: Router<Arc<Gateway>>, (path, methods): Route| router.route(path, methods);
    let guarded = guarded_routes(&gateway.options).into_iter().fold(Router::new(), add);
    let guarded = guarded
        // Set here, too: an address over the rate limit is refused without being told of methods.
        .method_not_allowed_fallback(error::wrong_method)
        .route_layer(from_fn_with_state(gateway.clone(), auth_rate_limiter::limit_failures));
    let all = open_routes(&gateway.options).into_iter().fold(guarded, add);
    let all = all.method_not_allowed_fallback(error::wrong_method).fallback(error::unknown_path);
    let all = match cors::layer(&gateway.options.cors_origins) {
        Some(cors) => all.layer(cors),
        None => all,
    };
    all.layer(from_fn(proxies::refuse))
        .layer(from_fn_with_state(gateway.clone(), metrics::count))
        .layer(from_fn_with_state(gateway.clone(), request_log::log_request))
        .with_state(gateway)
}

/// Reports liveness. The answer is positive also while the gateway drains, when it must not be killed.
async fn health(State(gateway): State<Arc<Gateway>>) -> Response {
    let body = json!({
        "status": if gateway.is_draining() { "draining" } else { "ok" },
        "recognizer": gateway.engines.recognizer.as_ref().map(|recognizer| recognizer.name()),
        "sessions": gateway.sessions.count(),
    });
    json_response(StatusCode::OK, &body)
}

/// Reports readiness for a new session, for a load balancer that decides where to send the next one.
async fn readiness(State(gateway): State<Arc<Gateway>>) -> Response {
    if let Some(AuthorityError::Unavailable { reason, wait, .. }) = gateway.authority.outage() {
        let message = format!("the token store is unavailable: {reason}");
        return ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, &message, wait).into_response();
    }
    match gateway.recognizer().and_then(|_| gateway.room_for_session().map_err(RejectReason::error)) {
        Ok(()) => json_response(StatusCode::OK, &json!({ "status": "ready" })),
        // Any refusal means that no client should be sent here now.
        Err(refusal) => {
            ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, &refusal.message, BUSY_WAIT).into_response()
        }
    }
}
