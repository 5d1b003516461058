//! A connection of the Wyoming protocol that is written while it is read.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::frames::{FrameDecoder, FrameError, Piece, encode};
use crate::http::server::Connection;

/// Bytes that are read at once.
const READ: usize = 16 * 1024;
/// Longest wait for the client to close its end after the gateway has closed its own.
const LINGER: Duration = Duration::from_secs(2);

/// An event of a socket.
#[derive(Debug)]
pub(super) enum SocketEvent {
    Piece(Piece),
    /// The end of what the client sends.
    End,
    /// Notice that no more than the given number of bytes wait to be written.
    Drained,
}

/// Failure of a socket.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("the connection ended within an event")]
    Truncated,
}

/// A connection that is owned by one task. Frames are queued, and written while [`next`](FrameSocket::next)
/// waits.
pub(super) struct FrameSocket<Io> {
    io: Io,
    decoder: FrameDecoder,
    outgoing: VecDeque<Bytes>,
    /// Number of bytes in `outgoing`.
    queued: usize,
    is_flushed: bool,
    has_ended: bool,
}

impl<Io: Connection> FrameSocket<Io> {
    pub(super) fn new(io: Io) -> FrameSocket<Io> {
        FrameSocket {
            io,
            decoder: FrameDecoder::new(),
            outgoing: VecDeque::new(),
            queued: 0,
            is_flushed: true,
            has_ended: false,
        }
    }

    /// Queues an event.
    pub(super) fn send(&mut self, kind: &str, data: &Value, payload: &[u8]) {
        let frame = encode(kind, data, payload);
        self.queued += frame.len();
        self.outgoing.push_back(frame);
    }

    /// Returns the number of bytes waiting to be written.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Waits for the next event, and writes what is queued meanwhile. The client is read only if `reads` says
    /// so. With `low`, ends when at most that many bytes are queued. Cancel safe.
    ///
    /// # Errors
    /// Returns [`SocketError`] if the connection failed, or its frames make no sense.
    pub(super) async fn next(&mut self, reads: bool, low: Option<usize>) -> Result<SocketEvent, SocketError> {
        poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                return Poll::Ready(Err(error.into()));
            }
            if low.is_some_and(|low| self.queued <= low) {
                return Poll::Ready(Ok(SocketEvent::Drained));
            }
            if reads { self.poll_read(cx) } else { Poll::Pending }
        })
        .await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<SocketEvent, SocketError>> {
        loop {
            if let Some(piece) = self.decoder.next_piece()? {
                return Poll::Ready(Ok(SocketEvent::Piece(piece)));
            }
            if self.has_ended {
                let is_whole = self.decoder.is_between_events();
                return Poll::Ready(if is_whole {
                    Ok(SocketEvent::End)
                } else {
                    Err(SocketError::Truncated)
                });
            }
            let mut bytes = [0; READ];
            let mut bytes = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut bytes))?;
            self.has_ended = bytes.filled().is_empty();
            self.decoder.feed(bytes.filled());
        }
    }

    /// Writes what is queued.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(frame) = self.outgoing.front_mut() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, frame))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.is_flushed = false;
            self.queued -= written;
            frame.advance(written);
            if frame.is_empty() {
                self.outgoing.pop_front();
            }
        }
        if !self.is_flushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.is_flushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes what is queued, as long as the client takes it, and closes the connection. What the client
    /// still sends is dropped for a moment: it would otherwise lose the last events to a reset of the
    /// connection.
    pub(super) async fn close(mut self) {
        let written = poll_fn(|cx| self.poll_write(cx)).await;
        if written.is_err() || self.io.shutdown().await.is_err() {
            return;
        }
        let mut rest = [0; 1_024];
        let reading = async { while matches!(self.io.read(&mut rest).await, Ok(1..)) {} };
        let _ = timeout(LINGER, reading).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn both_directions_move_at_once() {
        // Neither end has room for all that the other one sends.
        let (mut client, server) = tokio::io::duplex(64);
        let mut socket = FrameSocket::new(server);
        for number in 0..100 {
            socket.send("pong", &json!({ "text": number.to_string() }), &[]);
        }
        let sent = encode("ping", &json!({ "text": "x".repeat(1_000) }), &[]);
        let serving = async move {
            let Ok(SocketEvent::Piece(Piece::Event(event))) = socket.next(true, None).await else { panic!() };
            assert_eq!(event.kind, "ping");
            assert!(matches!(socket.next(true, None).await, Ok(SocketEvent::End)));
            socket.close().await;
        };
        let asking = async move {
            client.write_all(&sent).await.unwrap();
            let (mut read, mut write) = tokio::io::split(client);
            write.shutdown().await.unwrap();
            let mut answer = String::new();
            read.read_to_string(&mut answer).await.unwrap();
            assert_eq!(answer.matches("pong").count(), 100);
        };
        tokio::join!(serving, asking);
    }

    #[tokio::test]
    async fn a_client_that_is_not_read_has_to_wait() {
        let (mut client, server) = tokio::io::duplex(1 << 20);
        let mut socket = FrameSocket::new(server);
        client.write_all(&encode("describe", &json!({}), &[])).await.unwrap();
        socket.send("info", &json!({}), &[0; 1_000]);
        assert!(matches!(socket.next(false, Some(0)).await, Ok(SocketEvent::Drained)));
        assert_eq!(socket.queued(), 0);
        assert!(matches!(socket.next(true, None).await, Ok(SocketEvent::Piece(_))));
        client.write_all(b"{\"type\":").await.unwrap();
        drop(client);
        assert!(matches!(socket.next(true, None).await, Err(SocketError::Truncated)));
    }
}
