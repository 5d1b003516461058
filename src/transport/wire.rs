//! A WebSocket that is written while it is read.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

/// One WebSocket, owned by one task. Messages to send are queued and leave while [`next`](Wire::next) waits for the
/// peer, so neither direction can block the other: two peers that both insist on writing first would deadlock.
#[derive(Debug)]
pub struct Wire<Io> {
    socket: WebSocketStream<Io>,
    outgoing: VecDeque<Message>,
    unflushed: bool,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Wire<Io> {
    /// Takes over an open WebSocket.
    pub fn new(socket: WebSocketStream<Io>) -> Wire<Io> {
        Wire { socket, outgoing: VecDeque::new(), unflushed: false }
    }

    /// Queues a message. The caller bounds the queue: a session by its window, a gateway by what it answers.
    pub fn send(&mut self, message: Message) {
        self.outgoing.push_back(message);
    }

    /// How many messages are queued.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.outgoing.len()
    }

    /// The next message from the peer; `None` once the socket is closed. Writes what is queued meanwhile. May be
    /// dropped at any time without losing anything.
    ///
    /// # Errors
    /// When the socket fails; it is then of no further use.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.poll_write(cx) {
                return Poll::Ready(Some(Err(error)));
            }
            self.socket.poll_next_unpin(cx)
        })
        .await
    }

    /// Writes what is queued, then the close frame, and waits for the peer's answer or the end of the socket.
    ///
    /// # Errors
    /// When the socket fails first.
    pub async fn close(mut self, code: u16, reason: &str) -> Result<(), Error> {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        self.send(Message::Close(Some(frame)));
        while let Some(message) = self.next().await {
            message?;
        }
        Ok(())
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        while !self.outgoing.is_empty() {
            ready!(self.socket.poll_ready_unpin(cx))?;
            let message = self.outgoing.pop_front().expect("checked above");
            self.socket.start_send_unpin(message)?;
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(self.socket.poll_flush_unpin(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}
