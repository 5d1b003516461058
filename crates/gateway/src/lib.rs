//! The Cloud Voice API on one's own machine: tokens, recognition of files and streams, synthesis.
//!
//! A [`Gateway`] holds what all requests share; [`serve`] answers them on a listener until told to stop.

mod access;
pub mod admin;
mod admission;
mod arrivals;
mod asr;
mod attempts;
pub mod authority;
mod board;
mod body;
mod capacity;
mod chunks;
mod console;
mod cors;
mod demo;
mod error;
mod hearing;
mod households;
mod limit;
mod link;
mod metrics;
mod openapi;
mod pending;
mod proxies;
mod queue;
mod recording;
mod revoke;
mod scheduler;
mod server;
mod session;
mod sessions;
mod stream;
mod task;
mod tasks;
mod tls;
mod token;
mod tts;
mod worker;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZero;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use std::{io, thread};

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use http::{HeaderMap, StatusCode, header};
use ipnet::IpNet;
use serde_json::json;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::admin::AdminSocket;
use self::admission::Obstacle;
pub use self::admission::capacity;
use self::attempts::Attempts;
use self::authority::{Authority, AuthorityError, Identity, Scope};
use self::capacity::{Capacity, DecodePool};
pub use self::cors::{BadOrigin, Origin};
use self::error::{ApiError, json_response};
use self::metrics::Metrics;
use self::pending::Pending;
use self::scheduler::Scheduler;
use self::sessions::Sessions;
use self::tasks::Tasks;
pub use self::tls::{BadTls, Listener, Tls, TlsFiles};
use voxline::engine::{Recognizer, StreamOptions, Voices};
use voxline::language::Languages;
use voxline::net::Endpoint;
use voxline::session::protocol;

/// Where a token is revoked: beside the documented path where it is granted.
const REVOKE_PATH: &str = "/auth/oauth/v1/revoke";
/// How long requests under way may take once the sessions have ended.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// How often usage is put on the disk: what a gateway that is killed forgets at most, apart from that of a moment.
const USAGE_INTERVAL: Duration = Duration::from_secs(5);
/// What a refused client is asked to wait.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many threads recognise; by default as many as the machine runs at once.
    pub threads: NonZero<usize>,
    /// How many streaming sessions and tasks of numbered chunks may live at once; one more is refused with 429. See
    /// [`capacity`].
    pub max_sessions: usize,
    /// How many recordings and texts may be worked on at once; more are refused with 429.
    pub max_requests: usize,
    /// How many connections may be open at once, those that have become WebSockets apart; one more takes the
    /// place of one without a request under a good token, or waits until another ends where there is none. By
    /// default they and the sockets of the default number of sessions fit into the 1,024 file descriptors
    /// that a process commonly has, and leave some for the store and for engines.
    pub max_connections: usize,
    /// How many of them an address (of IPv6: a network of 64 bits) may have while the others have none, three
    /// quarters of all at most; one more is closed at once. The share shrinks as connections become few, so
    /// that there are some for whoever comes next; beyond it an address takes the places of those that have
    /// more idle connections than it has. 0 allows any number, and closes none for others: for a gateway
    /// behind a proxy that it doesn't know as [trusted](Options::trusted_proxies).
    pub max_connections_per_address: usize,
    /// How long a handshake of TLS, and the line and the headers of a request, may take to arrive, how long the next request on a connection
    /// may be waited for, and how long a request for a token may take.
    pub header_timeout: Duration,
    /// How long a whole recording or text may take to arrive.
    pub body_timeout: Duration,
    /// How long an answer waits for its client to take any more of it; then the connection ends. So does a WebSocket,
    /// whose session may be resumed.
    pub write_timeout: Duration,
    /// How many wrong tokens and secrets an address (of IPv6: a network of 64 bits) may send at once; one more is
    /// allowed every three seconds. Beyond that whatever it asks is refused with 429, right or wrong. 0 allows any
    /// number: for a gateway behind a proxy that it doesn't know as [trusted](Options::trusted_proxies).
    pub max_failures: u32,
    /// Networks of proxies that are believed about their clients' addresses: by the header of PROXY protocol
    /// version 2 at the start of a connection, by `X-Forwarded-For` and by `Forwarded` (RFC 7239). All limits
    /// by address, the networks of service tokens and the log then mean the client; what names it badly is
    /// refused. A proxy here must set one of these itself, and pass on no other as its client wrote it. From
    /// anybody else they are ignored.
    pub trusted_proxies: Vec<IpNet>,
    /// How long a session outlives its socket.
    pub resume_window: Duration,
    /// How long sessions may go on once the gateway is told to stop.
    pub drain: Duration,
    /// Base addresses of gateways that take this one's sessions when it is told to stop: its clients are
    /// asked to start anew there at what is final, while their sessions here still run. They show their
    /// tokens to hosts that they trust only, which by default is the host of this gateway at another port.
    /// None: sessions end here, as far as the time goes.
    pub successors: Vec<Endpoint>,
    /// How long a task of numbered chunks waits for its first chunk.
    pub task_opening: Duration,
    /// How long it waits for another: then it is done. The documentation says five seconds.
    pub task_gap: Duration,
    /// How long its result is kept once it is done.
    pub task_kept: Duration,
    /// The languages of which one is spoken where neither the client nor its project says.
    pub languages: Languages,
    /// Origins whose pages may use the gateway from a browser, apart from its own.
    pub cors_origins: Vec<Origin>,
    /// Whether a socket may go on under a fresh token that its client sends in band. To be switched off behind a proxy
    /// that checks tokens at the handshake: it sees no later one, and may cut a socket whose first token has expired.
    pub in_band_auth: bool,
    /// Whether a bad token is answered with status 400, as the documentation prints, and not with 401 or 403, as the
    /// service did and clients expect.
    pub documented_status: bool,
    /// Whether `/` serves the console: a page to try the gateway with, and to see one's sessions and usage.
    pub console: bool,
    /// Whether `/tts_demo` and `/asr_demo` answer anybody, without a token.
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
    /// When it was made, by the authority's monotonic clock.
    since: Duration,
    metrics: Arc<Metrics>,
    scheduler: Scheduler,
    sessions: Sessions,
    tasks: Tasks,
    attempts: Attempts,
    /// What requests with a token have, and those of the demo.
    paying: Capacity,
    demo: Capacity,
    /// Decodes numbered chunks, which somebody waits for live.
    chunk_decoders: DecodePool,
    /// Places for sockets that have not begun a session.
    pending_sockets: Pending,
    /// Places for tasks of numbered chunks that have no chunk.
    pending_tasks: Pending,
    /// What serves sockets, and watches over tasks of numbered chunks.
    sockets: TaskTracker,
    /// A socket or a task has ended, and what was used on it is to be kept.
    socket_ended: Notify,
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
        let metrics = Metrics::new(options.max_sessions, options.threads.get(), authority.audit());
        let metrics = Arc::new(metrics);
        Gateway {
            since: authority.clock().monotonic(),
            authority,
            engines,
            scheduler: Scheduler::new(options.threads, metrics.clone()),
            metrics,
            sessions: Sessions::new(options.max_sessions),
            tasks: Tasks::new(options.task_kept),
            attempts: Attempts::new(options.max_failures),
            paying: Capacity::paying(&options),
            demo: Capacity::demo(&options),
            chunk_decoders: DecodePool::beside(options.threads.get()),
            // As many as can get a session.
            pending_sockets: Pending::new(options.max_sessions),
            pending_tasks: Pending::new(tasks::MAX_PENDING),
            options,
            sockets: TaskTracker::new(),
            socket_ended: Notify::new(),
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

    /// Whose token the request carries, where that opens `scope`.
    fn authorise(&self, request: &Request, scope: Scope) -> Result<Identity, ApiError> {
        let authorise = |token: &str| self.authority.authorise(token, scope, peer(request));
        self.identify(request, bearer(request.headers()), authorise)
    }

    /// Whose `token` the request came with, where `check` takes it.
    fn identify(
        &self,
        request: &Request,
        token: Option<&str>,
        check: impl FnOnce(&str) -> Result<Identity, AuthorityError>,
    ) -> Result<Identity, ApiError> {
        let identity = token.ok_or_else(ApiError::token).and_then(|token| Ok(check(token)?));
        if identity.is_ok() {
            households::hold(request);
        }
        match self.options.documented_status {
            true => identity.map_err(ApiError::documented),
            false => identity,
        }
    }

    /// Puts on the disk what was used. Should that fail, the next time may not.
    async fn keep_usage(self: &Arc<Gateway>) {
        let gateway = self.clone();
        let kept = tokio::task::spawn_blocking(move || gateway.authority.keep_usage()).await;
        match kept {
            // Told when it began, and it stays counted.
            Ok(Ok(()) | Err(AuthorityError::Unavailable { .. })) | Err(_) => {}
            Ok(Err(error)) => tracing::error!(%error, "usage not kept"),
        }
    }

    fn recognizer(&self) -> Result<&Arc<dyn Recognizer>, ApiError> {
        let none = || ApiError::new(StatusCode::NOT_IMPLEMENTED, 501, "this gateway has no recogniser");
        self.engines.recognizer.as_ref().ok_or_else(none)
    }

    /// The capacity for requests of whoever this is. Who shows no token has another, which is smaller.
    fn capacity(&self, identity: Option<&Identity>) -> &Capacity {
        if identity.is_some() { &self.paying } else { &self.demo }
    }

    /// Options of a stream in the language that its client names; else in those of its project, or of the
    /// gateway.
    fn stream_options(&self, identity: Option<&Identity>, language: Option<String>) -> StreamOptions {
        if language.is_some() {
            return StreamOptions { language, ..StreamOptions::default() };
        }
        let project = identity.and_then(|identity| identity.languages.as_ref());
        StreamOptions::from(project.unwrap_or(&self.options.languages))
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

/// The refusal of a request for which there is no place.
fn busy() -> ApiError {
    ApiError::busy(StatusCode::TOO_MANY_REQUESTS, "too many requests", BUSY_WAIT)
}

/// The token of `Authorization: Bearer`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Returns where the request comes from: the connection, or the client of a trusted proxy.
fn peer(request: &Request) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip())
}

/// Answers requests on `listener` until `shutdown` is cancelled; then no new sessions are taken, the live ones may end
/// (see [`Options::drain`]), and requests under way are answered, unless that takes long.
///
/// A gateway whose state is on disk may be administered meanwhile: see [`admin::administer`].
///
/// # Errors
/// Where the listener fails, or the socket for the operator can't be made.
pub fn serve(
    listener: impl Into<Listener>,
    gateway: Arc<Gateway>,
    shutdown: CancellationToken,
) -> impl Future<Output = io::Result<()>> {
    // Before anybody can be told that the gateway is here.
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
            // What is still open is a request that never ends, or an answer that nobody takes.
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
            gateway.tasks.forget_old();
        }
    };
    let served = tokio::select! {
        () = serving => Ok(()),
        () = draining => Ok(()),
        never = counting => never,
        failed = administering => failed,
    };
    // No attempt comes after this one.
    gateway.authority.retry_now();
    gateway.keep_usage().await;
    if let Some(error) = gateway.authority.outage() {
        tracing::error!(%error, "usage since the store failed is lost");
    }
    served
}

/// A path, and what answers its methods.
type Route = (&'static str, MethodRouter<Arc<Gateway>>);

/// What asks who it is, or works for anybody.
fn guarded_routes(options: &Options) -> Vec<Route> {
    let mut routes = vec![
        (voxline::auth::TOKEN_PATH, post(token::token)),
        (REVOKE_PATH, post(revoke::revoke)),
        (protocol::PATH, get(stream::upgrade)),
        ("/asr_stream/create_task", post(chunks::create_task)),
        ("/asr_stream/add_chunk", post(chunks::add_chunk)),
        ("/asr_stream/get_result", get(chunks::get_result)),
        ("/asr", post(asr::recognise)),
        (voxline::speech::PATH, get(tts::from_query).head(tts::unspoken).post(tts::from_body)),
    ];
    if options.demo {
        routes.extend([("/tts_demo", post(demo::speak)), ("/asr_demo", post(demo::recognise))]);
    }
    if options.console {
        routes.extend(console::data());
    }
    routes
}

/// What anybody may ask, at any rate.
fn open_routes(options: &Options) -> Vec<Route> {
    let mut routes = vec![
        ("/healthz", get(health)),
        ("/readyz", get(readiness)),
        (metrics::PATH, get(metrics::tell)),
        (openapi::PATH, get(openapi::tell)),
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
        // Here, too: whoever is wrong too often is told nothing of methods.
        .method_not_allowed_fallback(error::wrong_method)
        .route_layer(from_fn_with_state(gateway.clone(), attempts::limit));
    let all = open_routes(&gateway.options).into_iter().fold(guarded, add);
    let all = all.method_not_allowed_fallback(error::wrong_method).fallback(error::unknown_path);
    let all = match cors::layer(&gateway.options.cors_origins) {
        Some(cors) => all.layer(cors),
        None => all,
    };
    all.layer(from_fn(proxies::refuse))
        .layer(from_fn_with_state(gateway.clone(), metrics::count))
        .layer(from_fn_with_state(gateway.clone(), access::tell))
        .with_state(gateway)
}

/// Whether it lives: also while it is draining, when it must not be killed.
async fn health(State(gateway): State<Arc<Gateway>>) -> Response {
    let body = json!({
        "status": if gateway.is_draining() { "draining" } else { "ok" },
        "recognizer": gateway.engines.recognizer.as_ref().map(|recognizer| recognizer.name()),
        "sessions": gateway.sessions.count(),
    });
    json_response(StatusCode::OK, &body)
}

/// Whether it can take a new session, for whoever decides where to send the next.
async fn readiness(State(gateway): State<Arc<Gateway>>) -> Response {
    if let Some(AuthorityError::Unavailable { reason, wait, .. }) = gateway.authority.outage() {
        let message = format!("the token store is unavailable: {reason}");
        return ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, &message, wait).into_response();
    }
    match gateway.recognizer().and_then(|_| gateway.room_for_session().map_err(Obstacle::refusal)) {
        Ok(()) => json_response(StatusCode::OK, &json!({ "status": "ready" })),
        // Whatever it is, nobody should be sent here now.
        Err(refusal) => {
            ApiError::busy(StatusCode::SERVICE_UNAVAILABLE, &refusal.message, BUSY_WAIT).into_response()
        }
    }
}
