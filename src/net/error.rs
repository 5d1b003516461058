//! Errors of connections and of the requests over them.

use std::io;

use super::{CONNECT_TIMEOUT, tls_failure};
use crate::error::Cause;

/// Reason a service could not be connected to. A later attempt may succeed, unless the service's certificate
/// is refused: then its operator has a new one made, or the caller trusts its issuer.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The TLS handshake failed, for most causes over the service's certificate.
    #[error("{reason}")]
    Tls {
        /// Description of the failure.
        reason: String,
    },
    /// The service did not answer within [`CONNECT_TIMEOUT`].
    #[error("no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    TimedOut,
    /// The host is unknown, or the connection failed.
    #[error("connection failed")]
    Io(
        /// Underlying error: an [`io::Error`].
        #[source]
        Cause,
    ),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> ConnectError {
        match tls_failure(&error) {
            Some(reason) => ConnectError::Tls { reason },
            None => ConnectError::Io(error.into()),
        }
    }
}

/// Reason an HTTP request to a service has no response, or only a part of it. Unless the connection failed
/// for its certificate, the request may be tried again.
#[cfg(any(feature = "oauth", feature = "speech"))]
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There is no connection to the service.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The address of the request can't be sent.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// The connection ended before the response did.
    #[error("connection lost")]
    Lost(
        /// Error of the connection.
        #[source]
        Cause,
    ),
    /// The service sent no response, or no more of it, in time.
    #[error("no answer in time")]
    TimedOut,
}

#[cfg(any(feature = "oauth", feature = "speech"))]
impl RequestError {
    /// Returns whether the TLS handshake failed, which no retry mends.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self, RequestError::Connect(ConnectError::Tls { .. }))
    }
}

/// Error of a request whose address is no URL, or too long for one (65,534 bytes).
#[derive(Clone, Debug, thiserror::Error)]
#[error("address of {bytes} bytes")]
pub struct UriError {
    pub(super) bytes: usize,
    #[source]
    pub(super) error: Cause,
}
