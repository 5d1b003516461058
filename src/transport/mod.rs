//! Connections that carry a session: how to make them, and how messages travel on them.
//!
//! tungstenite, which handles the frames, logs each of them in full to the crate `log` at the level
//! TRACE: tokens, session keys and speech included. The voxline program has no receiver for those
//! records. A host program that records what is sent to `log` should exclude the target
//! `tungstenite::protocol`.

mod handshake;
#[cfg_attr(
    not(feature = "test-util"),
    expect(unreachable_pub, reason = "the simulated network dials as it does")
)]
pub(crate) mod websocket;
mod wire;

use std::future::Future;

use tokio::io::{AsyncRead, AsyncWrite};

pub use handshake::socket_limits;
pub use websocket::WebSocketConnector;
pub use wire::{Event, Wire};

use crate::auth::AccessToken;
use crate::recovery::Failure;

/// A connector to a recognition service.
pub trait Connect: Send + Sync {
    /// Byte stream under the WebSocket.
    type Io: AsyncRead + AsyncWrite + Unpin + Send;

    /// Dials the service, authenticates with the token, and returns the open connection. Dropping the
    /// future cancels the dial.
    ///
    /// `session` is the name of the service's session to resume; `None` to start a new one. A service at
    /// its limit of sessions still takes back those it has, and a load balancer may use the name to find
    /// the right server.
    ///
    /// # Errors
    /// Returns a [`Failure`], which says how to recover.
    fn connect(
        &self,
        token: &AccessToken,
        session: Option<&str>,
    ) -> impl Future<Output = Result<Wire<Self::Io>, Failure>> + Send;

    /// Dials a server that the service has named: the first of `endpoints` that may be shown the token.
    /// If no endpoint may, dials the service as [`connect`](Connect::connect) does. The default
    /// implementation ignores `endpoints`.
    ///
    /// # Errors
    /// Returns the errors of [`connect`](Connect::connect).
    fn connect_to(
        &self,
        endpoints: &[String],
        token: &AccessToken,
        session: Option<&str>,
    ) -> impl Future<Output = Result<Wire<Self::Io>, Failure>> + Send {
        let _ = endpoints;
        self.connect(token, session)
    }
}
