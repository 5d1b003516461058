//! Connections: accepting them, how long each may take, and how they end.
//!
//! `axum::serve` has no deadlines: whoever sends a byte a second holds a connection for ever.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Options;

/// The longest request line and headers. A text of the documented length fits into the query, which is what makes it
/// long: an address has 64 KiB at most.
const MAX_HEAD: usize = 96 * 1024;
/// How long to wait where no connection can be accepted, as there is no file descriptor or memory for one.
const EXHAUSTED_WAIT: Duration = Duration::from_secs(1);

/// Answers the requests on `listener` until `stop` is cancelled; then those under way. Connections end with this
/// future, where it is dropped earlier. A WebSocket is no longer a connection of ours.
pub(super) async fn serve(listener: TcpListener, router: Router, options: &Options, stop: CancellationToken) {
    let router = TowerToHyperService::new(router);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(options.header_timeout).max_buf_size(MAX_HEAD);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            (socket, peer) = accept(&listener), if connections.len() < options.max_connections => {
                connections.spawn(converse(socket, peer, http.clone(), router.clone(), stop.clone()));
            }
        }
    }
    // Who comes now is told at once that nobody is here.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// The next connection. No error ends the server: each concerns one connection, or passes when others end.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                // Finals and acknowledgements are small and wanted at once: Nagle's algorithm would hold each back for
                // 40 ms.
                let _ = socket.set_nodelay(true);
                return (socket, peer);
            }
            Err(error) if concerns_one(&error) => {}
            Err(error) => {
                tracing::error!(%error, "connection not accepted");
                // The connection is still there to be accepted: to try at once would be to try without end.
                tokio::time::sleep(EXHAUSTED_WAIT).await;
            }
        }
    }
}

/// Whether the connection that was to be accepted broke, and the next may well be sound.
fn concerns_one(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
    )
}

/// Serves one connection until it ends, or after `stop` until the request under way is answered.
async fn converse(
    socket: TcpStream,
    peer: SocketAddr,
    http: http1::Builder,
    router: TowerToHyperService<Router>,
    stop: CancellationToken,
) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(socket), service).with_upgrades());
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection failed");
    }
}
