//! Connections: accepting them, their TLS, their deadlines, and their end.
//!
//! `axum::serve` has no deadlines: a client that sends one byte a second would hold a connection for ever.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use ipnet::IpNet;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Timeout, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::{Accept, TlsAcceptor};
use tokio_util::sync::CancellationToken;

use super::client::AddressIsKnown;
use super::connection_limiter::{ConnectionLimiter, ConnectionPermit};
use super::proxies::{self, TrustedProxies, is_forwarded};
use super::tls::{Door, Listener, Tls};
use voxline::net::InProcessListener;

/// Longest request line and headers, in bytes. A text of the documented length fits into the query, which
/// makes up most of this: an address has 64 KiB at most.
const MAX_HEAD: usize = 96 * 1024;
/// Wait before the next attempt after a connection could not be accepted for lack of a file descriptor or
/// memory.
pub(crate) const EXHAUSTED_WAIT: Duration = Duration::from_secs(1);

/// Limits of connections, and the proxies in front of them.
#[derive(Clone, Debug)]
pub struct ConnectionOptions {
    /// Maximum number of open connections, without those that have become WebSockets. One more connection
    /// takes the place of a connection without a request under a valid token; if there is none, the new
    /// connection waits until another one ends. The default, together with the sockets of the default
    /// number of sessions, fits into the 1,024 file descriptors that a process commonly has, and leaves
    /// some for the store and for engines.
    pub max: usize,
    /// Maximum number of these connections for one client address (for IPv6, a network of 64 bits) while
    /// other addresses have none. The value is capped at three quarters of all connections, and one more
    /// connection is closed at once. The share of an address shrinks as free connections become few, so
    /// that some are left for new addresses. Beyond its share, an address takes the places of addresses
    /// that have more idle connections than it has. 0 allows any number and closes no connection in favour
    /// of another address; use 0 behind a proxy that the gateway doesn't know as
    /// [trusted](ConnectionOptions::trusted_proxies).
    pub max_per_address: usize,
    /// Longest time for a TLS handshake and for the request line and headers to arrive, longest wait for
    /// the next request on a connection, and longest time for the body of a token request.
    pub header_timeout: Duration,
    /// Longest time for a whole recording or text to arrive.
    pub body_timeout: Duration,
    /// Longest time that an answer waits for its client to read more of it. The connection is then closed.
    /// The same limit applies to a WebSocket, whose session may be resumed.
    pub write_timeout: Duration,
    /// Networks of proxies that are trusted to name the addresses of their clients, by a PROXY protocol
    /// version 2 header at the start of a connection, by `X-Forwarded-For` or by `Forwarded` (RFC 7239).
    /// All limits by address, the networks of service tokens and the log then refer to the client, and a
    /// request with a malformed header is refused. A trusted proxy must set one of these headers itself,
    /// and must not pass on another one as its client wrote it. The headers are ignored if any other peer
    /// sends them.
    pub trusted_proxies: Vec<IpNet>,
}

impl Default for ConnectionOptions {
    fn default() -> ConnectionOptions {
        ConnectionOptions {
            max: 800,
            max_per_address: 600,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(120),
            write_timeout: Duration::from_secs(60),
            trusted_proxies: Vec::new(),
        }
    }
}

/// Answers requests on `listener` until `stop` is cancelled, then those under way. If this future is
/// dropped earlier, its connections end with it. A WebSocket no longer belongs to this server.
///
/// A request has its client's address as an extension (`ConnectInfo<SocketAddr>`): that of the connection, or
/// of the client of a trusted proxy. A router of one's own should refuse requests of proxies that it does not
/// understand, as the gateway's does.
pub async fn serve(listener: Listener, router: Router, options: &ConnectionOptions, stop: CancellationToken) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(options.header_timeout).max_buf_size(MAX_HEAD);
    let server = Server {
        http,
        router: TowerToHyperService::new(router),
        stop,
        proxies: TrustedProxies::new(&options.trusted_proxies),
        limiter: ConnectionLimiter::new(options.max_per_address, options.max),
        max: options.max,
        header_timeout: options.header_timeout,
        write_timeout: options.write_timeout,
    };
    match listener.0 {
        Door::Tcp(tcp, tls) => serve_tcp(tcp, tls, server).await,
        Door::InProcess(listener) => serve_in_process(listener, server).await,
    }
}

async fn serve_tcp(tcp: TcpListener, tls: Option<Arc<Tls>>, server: Server) {
    let mut connections = JoinSet::new();
    loop {
        // A connection that is closed for a new one ends a moment after the new one was accepted.
        let has_place = server.has_place(&connections);
        tokio::select! {
            () = server.stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            () = server.limiter.idle_appeared(), if !has_place => {}
            (socket, peer) = accept(&tcp), if has_place => {
                let permit = if server.proxies.trusts(peer.ip()) {
                    server.limiter.admit_proxy()
                } else {
                    server.limiter.admit(peer.ip())
                };
                let Some(permit) = permit else { continue };
                let peer = Peer { address: peer, permit };
                let acceptor = tls.as_ref().map(|tls| tls.acceptor());
                connections.spawn(server.clone().serve_or_evict(socket, peer, acceptor));
            }
        }
    }
    // Close the listener, so that later connections are refused at once.
    drop(tcp);
    while connections.join_next().await.is_some() {}
}

/// Serves connections within this process. None gives way to another.
async fn serve_in_process(mut listener: InProcessListener, server: Server) {
    let mut connections = JoinSet::new();
    loop {
        let has_place = server.has_place(&connections);
        tokio::select! {
            () = server.stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if has_place => {
                let Some(stream) = accepted else { break };
                let Some(permit) = server.limiter.admit_proxy() else { continue };
                let peer = Peer { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), permit };
                connections.spawn(server.clone().serve_http(stream, peer));
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Accepts the next connection. No error ends the server: each concerns one connection, or passes when
/// other connections end.
pub async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => {
                // Finals and acknowledgements are small and latency-sensitive. Nagle's algorithm would hold
                // each back for 40 ms.
                let _ = socket.set_nodelay(true);
                return (socket, peer);
            }
            Err(error) if concerns_one(&error) => {}
            Err(error) => {
                tracing::error!(%error, "connection could not be accepted");
                // The connection is still in the accept queue: an immediate retry would be a busy loop.
                tokio::time::sleep(EXHAUSTED_WAIT).await;
            }
        }
    }
}

/// Returns whether the error concerns only the connection that was to be accepted, so that the next one may
/// be sound.
fn concerns_one(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
    )
}

/// Wraps a socket so that writes fail once the client has read nothing for `patience`.
pub(crate) fn with_write_timeout<Io: AsyncRead + AsyncWrite>(
    patience: Duration,
    socket: Io,
) -> Pin<Box<TimeoutStream<Io>>> {
    let mut socket = TimeoutStream::new(socket);
    socket.set_write_timeout(Some(patience));
    Box::pin(socket)
}

/// The remote address of a connection, and the connection's place in the connection limiter.
struct Peer {
    address: SocketAddr,
    permit: ConnectionPermit,
}

/// State that all connections share.
#[derive(Clone)]
struct Server {
    http: http1::Builder,
    router: TowerToHyperService<Router>,
    stop: CancellationToken,
    proxies: TrustedProxies,
    limiter: ConnectionLimiter,
    /// Maximum number of connections.
    max: usize,
    header_timeout: Duration,
    write_timeout: Duration,
}

impl Server {
    /// Returns whether one more connection may be accepted beside these.
    fn has_place(&self, connections: &JoinSet<()>) -> bool {
        connections.len() <= self.max && self.limiter.has_place()
    }

    /// Serves a connection until it ends, or until another connection needs its place.
    async fn serve_or_evict(self, socket: TcpStream, peer: Peer, tls: Option<TlsAcceptor>) {
        let closing = peer.permit.closing();
        tokio::select! {
            () = closing.cancelled() => {}
            () = self.establish(socket, peer, tls) => {}
        }
    }

    /// Serves a connection: reads the header of its proxy, completes its TLS handshake and answers its
    /// requests.
    async fn establish(self, mut socket: TcpStream, mut peer: Peer, tls: Option<TlsAcceptor>) {
        if self.proxies.trusts(peer.address.ip()) {
            let reading = timeout(self.header_timeout, proxies::read_header(&mut socket));
            let read = tokio::select! {
                read = reading => read,
                () = self.stop.cancelled() => return,
            };
            match read {
                Ok(Ok(None)) => {}
                Ok(Ok(Some(client))) => {
                    if !self.proxies.trusts(client.ip()) {
                        let Some(permit) = peer.permit.of_client(client.ip()) else { return };
                        peer.permit = permit;
                    }
                    peer.address = client;
                }
                Ok(Err(error)) => {
                    return tracing::debug!(peer = %peer.address, %error, "PROXY protocol header could not be read");
                }
                Err(_) => return tracing::debug!(peer = %peer.address, "timeout before the first byte"),
            }
        }
        let socket = with_write_timeout(self.write_timeout, socket);
        match tls {
            None => self.serve_http(socket, peer).await,
            Some(tls) => {
                let handshake = timeout(self.header_timeout, tls.accept(socket));
                self.serve_tls(handshake, peer).await;
            }
        }
    }

    /// Serves a connection once its TLS handshake is complete.
    async fn serve_tls<Io: Connection>(self, handshake: Timeout<Accept<Io>>, peer: Peer) {
        let address = peer.address;
        let agreed = tokio::select! {
            agreed = handshake => agreed,
            () = self.stop.cancelled() => return,
        };
        match agreed {
            Ok(Ok(socket)) => self.serve_http(socket, peer).await,
            Ok(Err(error)) => tracing::debug!(peer = %address, %error, "TLS handshake failed"),
            Err(_) => tracing::debug!(peer = %address, "TLS handshake timed out"),
        }
    }

    /// Serves one connection until it ends. After `stop`, serves it until the request under way is
    /// answered.
    async fn serve_http(self, socket: impl Connection, peer: Peer) {
        let Server { http, router, stop, proxies, .. } = self;
        let Peer { address, permit } = peer;
        let slot = permit.slot();
        let service = service_fn(move |mut request: Request<Incoming>| {
            let client = match proxies.client(address.ip(), request.headers()) {
                // The port is unknown if the client is named by its address alone.
                Ok(client) if client != address.ip() => SocketAddr::new(client, 0),
                Ok(_) => address,
                Err(bad) => {
                    request.extensions_mut().insert(bad);
                    address
                }
            };
            let is_known = client != address || !is_forwarded(request.headers());
            request.extensions_mut().insert(AddressIsKnown(is_known));
            request.extensions_mut().insert(ConnectInfo(client));
            request.extensions_mut().insert(slot.clone());
            router.call(request)
        });
        let connection = http.serve_connection(TokioIo::new(socket), service).with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(peer = %address, %error, "connection failed");
        }
    }
}

/// A byte stream to a client, encrypted or not.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<Io: AsyncRead + AsyncWrite + Send + Unpin + 'static> Connection for Io {}
