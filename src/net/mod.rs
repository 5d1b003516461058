//! Addresses of services, and the connections to them: one way to connect, and one set of trusted roots,
//! for HTTP and WebSocket.

#[cfg(any(feature = "oauth", feature = "speech"))]
mod client;
mod connect;
mod endpoint;
mod error;
mod in_process;
pub(crate) mod refusal;
mod stream;
#[cfg_attr(not(feature = "tls"), path = "without_tls.rs")]
mod tls;
#[cfg(any(feature = "download", feature = "url-source"))]
mod web;

use std::time::Duration;

#[cfg(any(feature = "oauth", feature = "speech"))]
pub use client::HttpClient;
#[cfg(feature = "oauth")]
pub(crate) use client::HttpError;
#[cfg(feature = "speech")]
pub(crate) use client::Response;
pub(crate) use connect::{Way, connect};
pub(crate) use endpoint::query;
pub use endpoint::{Endpoint, EndpointError, HostName, HostNameError};
#[cfg(any(feature = "oauth", feature = "speech"))]
pub use error::RequestError;
pub use error::{ConnectError, UriError};
pub use in_process::{InProcess, InProcessListener, in_process};
pub use stream::Stream;
#[cfg(feature = "tls")]
pub use tls::check_server_certificate;
use tls::tls_failure;
pub use tls::{TlsError, Trust};
#[cfg(feature = "url-source")]
pub(crate) use web::blocking_client;
#[cfg(feature = "download")]
pub use web::{client_builder, download_client};

/// Time limit of a TCP connection and its TLS handshake together.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest time that a server may send nothing.
#[cfg(any(feature = "oauth", feature = "speech", feature = "download", feature = "url-source"))]
const READ_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(any(feature = "oauth", feature = "speech", feature = "download", feature = "url-source"))]
const USER_AGENT: &str = concat!("voxline/", env!("CARGO_PKG_VERSION"));
