//! Stand-in for TLS in a build without it, in which every [`Endpoint`](super::Endpoint) is on loopback.

use std::error::Error;
use std::io;

use tokio::net::TcpStream;

use super::Stream;

/// Error setting up TLS: none, without the feature `tls`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {}

/// Trusted roots of a TLS client: none, without the feature `tls`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trust {}

impl Trust {
    /// Trusts nothing: without the feature `tls` there are no encrypted connections.
    ///
    /// # Errors
    /// Never, without the feature `tls`.
    pub fn system() -> Result<Trust, TlsError> {
        Ok(Trust {})
    }

    pub(super) async fn encrypt(&self, _: &str, _: TcpStream) -> io::Result<Box<dyn Stream>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Returns the TLS failure that caused an error: none, without TLS.
pub(super) fn tls_failure(_: &(dyn Error + 'static)) -> Option<String> {
    None
}
