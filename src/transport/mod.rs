//! Connections that carry a session: how one is made, and how messages travel on it.
//!
//! The frames are tungstenite's, which says each of them to the crate `log` at the level TRACE, whole: with the tokens and
//! session keys in it, and the speech. Nobody hears that in the program. A host that takes what is said to `log` should
//! leave out the target `tungstenite::protocol`.

mod handshake;
#[cfg_attr(
    not(feature = "test-util"),
    expect(unreachable_pub, reason = "the simulated network dials as it does")
)]
pub(crate) mod websocket;
mod wire;

use std::future::Future;

use tokio::io::{AsyncRead, AsyncWrite};

pub use websocket::{WebSocketConnector, socket_limits};
pub use wire::{Event, Wire};

use crate::auth::AccessToken;
use crate::session::Failure;

/// Makes connections to a recognition service.
pub trait Connect: Send + Sync {
    /// The byte stream under the WebSocket.
    type Io: AsyncRead + AsyncWrite + Unpin + Send;

    /// Dials the service, shows it the token, and returns the open connection. Dropping the future gives up.
    ///
    /// `session` is the name of the service's session that is to be resumed; none where one is to start. A service that
    /// takes no more sessions still takes back those it has, and a load balancer may find the server that has it.
    ///
    /// # Errors
    /// A [`Failure`], which says what to do about it.
    fn connect(
        &self,
        token: &AccessToken,
        session: Option<&str>,
    ) -> impl Future<Output = Result<Wire<Self::Io>, Failure>> + Send;

    /// [`connect`](Connect::connect), to a server that the service has named: the first of `endpoints` that
    /// may be shown the token. Where none may, as where there are none, it is the service as it is known. The
    /// default knows no other.
    ///
    /// # Errors
    /// As [`connect`](Connect::connect).
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
