//! An implementation of the Cloud Voice API to run on one's own machine: tokens, recognition of files and
//! streams, and speech synthesis.
//!
//! A [`Gateway`] holds the state that all requests share. [`serve`] answers requests on a listener until it
//! is told to stop.
//!
//! # Rooms
//!
//! Each module is a room, and imports only rooms below it. From the top:
//!
//! - `routes`: the handlers of the API, a file for each route.
//! - `console`: the page at `/`.
//! - `dialects`: APIs of other speech services, a room for each.
//! - `gateway`: the state that handlers share. No room below takes it: each is passed what it needs.
//! - `sessions`: live sessions, their recognition, and the sockets, numbered chunks and dialects that feed
//!   them.
//! - `recordings`: storage, decoding and recognition of recordings.
//! - `speech`: synthesis of texts, and the encoders of its audio.
//! - `admission`: reasons to refuse work, places for clients that wait, capacity for recordings and speech.
//! - `options`: the settings that the operator may change.
//! - [`admin`]: commands of the operator.
//! - `http`: connections, TLS, proxies, the request log, limits by client address, bodies and error answers.
//! - `scheduler`: the worker pool of recognition.
//! - [`authority`]: projects, clients and tokens.
//! - `metrics`: counters, and their text formats.

pub mod admin;
mod admission;
pub mod authority;
#[cfg(test)]
mod batch_log;
mod console;
mod dialects;
#[cfg(feature = "test-util")]
pub mod fuzz;
mod gateway;
mod http;
mod metrics;
mod options;
mod recordings;
mod routes;
mod scheduler;
mod sessions;
mod speech;

/// WebSockets of routes that other packages add: see [`serve_router`].
pub mod websocket {
    pub use crate::http::client::known_address;
    pub use crate::http::websocket::{Socket, Upgrade, check, close, offered};
}

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures::future::OptionFuture;
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use self::admin::AdminSocket;
pub use self::admission::load::capacity;
pub use self::dialects::wyoming::WyomingListener;
pub use self::gateway::{Engines, Gateway};
pub use self::http::cors::{BadOrigin, Origin};
pub use self::http::error::ApiError;
use self::http::server;
pub use self::http::server::{ConnectionOptions, accept, serve as serve_router};
pub use self::http::tls::{BadTls, Listener, Tls, TlsFiles};
pub use self::http::url_host::{BadUrlHost, UrlHost};
pub use self::options::{
    BadVoiceAlias, ChunkedOptions, Dialect, OpenAccess, OpenAiOptions, Options, RecordingOptions,
    UnknownDialect, VoiceAlias, WyomingAddress,
};

/// Longest time that pending requests may take after the sessions have ended.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// Longest interval between writes of usage to disk. A gateway that is killed loses at most the usage of
/// this interval and of the short time that a write takes.
const USAGE_INTERVAL: Duration = Duration::from_secs(5);

/// Answers requests on the listeners until `shutdown` is cancelled, then shuts down gracefully: no new
/// sessions are accepted, live sessions may end (see [`Options::drain`]), and pending requests are
/// answered, unless that takes long.
///
/// A gateway whose state is on disk may be administered meanwhile: see [`admin::administer`].
///
/// # Errors
/// Returns [`io::Error`] if the socket for the operator can't be created or fails.
pub fn serve(
    listeners: impl Into<Listeners>,
    gateway: Arc<Gateway>,
    shutdown: CancellationToken,
) -> impl Future<Output = io::Result<()>> {
    // Bind before `serve` returns, so that the operator's socket exists before any caller can learn that
    // the gateway is up.
    let admin = gateway.authority.directory().map(AdminSocket::bind).transpose();
    serve_with(listeners.into(), gateway, shutdown, admin)
}

/// Listeners of a gateway.
pub struct Listeners {
    main: Listener,
    vosk: Option<TcpListener>,
    wyoming: Option<WyomingListener>,
}

impl Listeners {
    /// Adds a listener that speaks Vosk's protocol at every path, in plain text, with clients that have no
    /// token. [`Options::open`] says whose account they use; without it all are refused.
    #[must_use]
    pub fn with_open_vosk(self, vosk: TcpListener) -> Listeners {
        Listeners { vosk: Some(vosk), ..self }
    }

    /// Adds a listener for the Wyoming protocol, whose clients have no token. [`Options::open`] says whose
    /// account they use; without it all are refused.
    #[must_use]
    pub fn with_wyoming(self, wyoming: WyomingListener) -> Listeners {
        Listeners { wyoming: Some(wyoming), ..self }
    }
}

impl From<Listener> for Listeners {
    fn from(main: Listener) -> Listeners {
        Listeners { main, vosk: None, wyoming: None }
    }
}

/// Creates a listener for plain connections: see [`Listener`].
impl From<TcpListener> for Listeners {
    fn from(main: TcpListener) -> Listeners {
        Listener::from(main).into()
    }
}

async fn serve_with(
    listeners: Listeners,
    gateway: Arc<Gateway>,
    shutdown: CancellationToken,
    admin: io::Result<Option<AdminSocket>>,
) -> io::Result<()> {
    let admin = admin?;
    let drained = CancellationToken::new();
    let served = tokio::select! {
        () = answer(listeners, &gateway, drained.clone()) => Ok(()),
        () = drain(&gateway, shutdown, drained) => Ok(()),
        never = write_usage(&gateway) => never,
        failed = serve_operator(admin.as_ref(), &gateway) => failed,
    };
    // This is the last attempt to write usage.
    gateway.authority.retry_now();
    gateway.keep_usage().await;
    if let Some(error) = gateway.authority.outage() {
        tracing::error!(%error, "usage since the failure of the store is lost");
    }
    served
}

/// Answers requests on all listeners until `drained` is cancelled.
async fn answer(listeners: Listeners, gateway: &Arc<Gateway>, drained: CancellationToken) {
    let Listeners { main, vosk, wyoming } = listeners;
    let options = &gateway.options.connections;
    let main = server::serve(main, routes::router(gateway.clone()), options, drained.clone());
    let vosk = vosk.map(|vosk| {
        server::serve(vosk.into(), routes::open_vosk_router(gateway.clone()), options, drained.clone())
    });
    let wyoming = wyoming.map(|wyoming| dialects::wyoming::serve(wyoming, gateway, drained.clone()));
    tokio::join!(main, OptionFuture::from(vosk), OptionFuture::from(wyoming));
}

/// Waits for `shutdown`, then for the end of all sessions and of the requests that are still under way.
async fn drain(gateway: &Gateway, shutdown: CancellationToken, drained: CancellationToken) {
    shutdown.cancelled().await;
    gateway.sessions.shutdown.drain().await;
    drained.cancel();
    // Any connection still open after this time has a request that never ends, or an answer that its client
    // doesn't read.
    sleep(LAST_REQUESTS).await;
}

/// Writes usage at intervals, when a session has ended, and when the store is due to be tried again. Forgets
/// old results of chunked sessions on the way.
async fn write_usage(gateway: &Gateway) -> ! {
    let authority = &gateway.authority;
    loop {
        let woken = async {
            tokio::select! {
                () = gateway.sessions.shutdown.client_ended.notified() => {}
                () = authority.outage_began() => {}
            }
        };
        let recovery = authority.recovery_wait().unwrap_or(USAGE_INTERVAL);
        let _ = timeout(recovery.min(USAGE_INTERVAL), woken).await;
        gateway.keep_usage().await;
        gateway.sessions.chunked.forget_old();
    }
}

/// Serves commands of the operator, without end unless the socket fails.
async fn serve_operator(admin: Option<&AdminSocket>, gateway: &Gateway) -> io::Result<()> {
    match admin {
        Some(socket) => socket.serve(&gateway.authority).await,
        None => std::future::pending().await,
    }
}
