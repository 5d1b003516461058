//! Byte streams under a connection.

use tokio::io::{AsyncRead, AsyncWrite};

/// A TCP or TLS stream.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}
