//! Connections of the Wyoming protocol: accepting them, and admitting their clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::connection::{Connection, Failure};
use super::listener::{Accepted, WyomingListener};
use super::socket::FrameSocket;
use crate::authority::new_id;
use crate::dialects::clients::{Origin, open_identity};
use crate::gateway::Gateway;
use crate::http::connection_limiter::{ConnectionLimiter, ConnectionPermit};
use crate::http::error::ApiError;
use crate::http::proxies::{self, TrustedProxies};
use crate::http::server::with_write_timeout;
use crate::sessions::credential::OpeningToken;

/// Serves connections until `stop` is cancelled, then those that are busy. If this future is dropped earlier,
/// its connections end with it.
pub(crate) async fn serve(listener: WyomingListener, gateway: &Arc<Gateway>, stop: CancellationToken) {
    let options = &gateway.options.connections;
    let server = Server {
        gateway: gateway.clone(),
        proxies: TrustedProxies::new(&options.trusted_proxies),
        limiter: ConnectionLimiter::new(options.max_per_address, options.max),
    };
    let mut connections = JoinSet::new();
    loop {
        // A connection that is closed for a new one ends a moment after the new one was accepted.
        let has_place = connections.len() <= options.max && server.limiter.has_place();
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            () = server.limiter.idle_appeared(), if !has_place => {}
            accepted = listener.accept(), if has_place => {
                let Some(permit) = server.permit(&accepted) else { continue };
                let id = new_id();
                let span = tracing::error_span!(parent: None, "wyoming", %id);
                let connection = server.clone().serve_or_evict(accepted, permit).instrument(span);
                connections.spawn(gateway.sessions.shutdown.track(connection));
            }
        }
    }
    // Close the listener, so that later connections are refused at once.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// State that all connections share.
#[derive(Clone)]
struct Server {
    gateway: Arc<Gateway>,
    proxies: TrustedProxies,
    limiter: ConnectionLimiter,
}

impl Server {
    /// Returns a place for a connection, unless its address has as many as it may.
    fn permit(&self, accepted: &Accepted) -> Option<ConnectionPermit> {
        match accepted {
            Accepted::Tcp(_, peer) if self.proxies.trusts(peer.ip()) => self.limiter.admit_proxy(),
            Accepted::Tcp(_, peer) => self.limiter.admit(peer.ip()),
            #[cfg(unix)]
            Accepted::Unix(_) => self.limiter.admit_proxy(),
        }
    }

    /// Serves a connection until it ends, or until another connection needs its place.
    async fn serve_or_evict(self, accepted: Accepted, permit: ConnectionPermit) {
        let closing = permit.closing();
        tokio::select! {
            () = closing.cancelled() => {}
            () = self.establish(accepted, permit) => {}
        }
    }

    async fn establish(self, accepted: Accepted, permit: ConnectionPermit) {
        let patience = self.gateway.options.connections.write_timeout;
        match accepted {
            Accepted::Tcp(mut socket, peer) => {
                // An event must not wait until the one before it is acknowledged.
                let _ = socket.set_nodelay(true);
                let Some((client, permit)) = self.client(&mut socket, peer, permit).await else { return };
                self.serve(socket, patience, Origin::Address(Some(client.ip())), permit).await;
            }
            #[cfg(unix)]
            Accepted::Unix(socket) => self.serve(socket, patience, Origin::File, permit).await,
        }
    }

    /// Returns the address of the client, which a trusted proxy may report, and its place.
    async fn client(
        &self,
        socket: &mut TcpStream,
        peer: SocketAddr,
        permit: ConnectionPermit,
    ) -> Option<(SocketAddr, ConnectionPermit)> {
        if !self.proxies.trusts(peer.ip()) {
            return Some((peer, permit));
        }
        let patience = self.gateway.options.connections.header_timeout;
        match timeout(patience, proxies::read_header(socket)).await {
            Ok(Ok(None)) => Some((peer, permit)),
            Ok(Ok(Some(client))) if self.proxies.trusts(client.ip()) => Some((client, permit)),
            Ok(Ok(Some(client))) => Some((client, permit.of_client(client.ip())?)),
            Ok(Err(error)) => {
                tracing::debug!(%peer, %error, "PROXY protocol header could not be read");
                None
            }
            Err(_) => {
                tracing::debug!(%peer, "timeout before the first byte");
                None
            }
        }
    }

    /// Serves a client, if it may connect from its origin.
    async fn serve<Io: AsyncRead + AsyncWrite + Send + 'static>(
        &self,
        io: Io,
        patience: Duration,
        origin: Origin,
        permit: ConnectionPermit,
    ) {
        let mut socket = FrameSocket::new(with_write_timeout(patience, io));
        tracing::debug!(?origin, "connection of a Wyoming client");
        match open_identity(&self.gateway, origin) {
            Ok(identity) => {
                let opener = OpeningToken::new(identity, Duration::ZERO);
                Connection::new(&self.gateway, Arc::new(opener), socket, permit.slot()).serve().await;
            }
            Err(refusal) => {
                if let Some((kind, data)) = Failure::from(ApiError::from(refusal)).told() {
                    socket.send(kind, &data, &[]);
                }
                socket.close().await;
            }
        }
    }
}
