//! Connections to services, encrypted or on loopback.

use std::io;

use tokio::net::TcpStream;

use super::{Endpoint, Stream, Trust};

/// Connects to the service at `endpoint`. The caller limits the time, usually to
/// [`CONNECT_TIMEOUT`](super::CONNECT_TIMEOUT).
pub(crate) async fn connect(endpoint: &Endpoint, trust: &Trust) -> io::Result<Box<dyn Stream>> {
    let tcp = TcpStream::connect((endpoint.host(), endpoint.port())).await?;
    // Audio is sent as soon as it is ready, in frames that are already as large as they will get.
    tcp.set_nodelay(true)?;
    if endpoint.is_tls() { trust.encrypt(endpoint.host(), tcp).await } else { Ok(Box::new(tcp)) }
}
