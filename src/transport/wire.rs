//! A WebSocket that is written while it is read.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

/// An event of a socket.
pub enum Event {
    /// Result of [`Wire::next`].
    Message(Option<Result<Message, Error>>),
    /// Notice that the queue has drained, so that more can be sent.
    Drained,
}

/// A WebSocket owned by one task. Messages are queued, and are sent while [`next`](Wire::next) waits for
/// the peer, so neither direction can block the other: two peers that both insist on writing first would
/// deadlock.
pub struct Wire<Io> {
    socket: WebSocketStream<Io>,
    outgoing: VecDeque<Message>,
    unflushed: bool,
    /// Number of queued messages above which nothing more is read.
    backlog: usize,
    /// Error after which nothing can be written any more.
    broken: Option<Error>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Wire<Io> {
    /// Takes over an open WebSocket.
    pub fn new(socket: WebSocketStream<Io>) -> Wire<Io> {
        Wire::with_backlog(socket, usize::MAX)
    }

    /// Takes over an open WebSocket whose peer must read its answers: while more than `backlog` messages
    /// are queued, nothing is read, so a peer that sends but never reads can't fill the memory. Only one
    /// end of a connection may have a backlog limit, or both could wait for the other to read.
    pub fn with_backlog(socket: WebSocketStream<Io>, backlog: usize) -> Wire<Io> {
        Wire { socket, outgoing: VecDeque::new(), unflushed: false, backlog, broken: None }
    }

    /// Queues a message. The caller bounds the queue: a session by its window, a gateway by the number of
    /// its answers.
    pub fn send(&mut self, message: Message) {
        self.outgoing.push_back(message);
    }

    /// Returns the number of messages waiting to be written.
    pub fn queued(&self) -> usize {
        self.outgoing.len()
    }

    /// Returns the next message from the peer, or `None` once the socket is closed. Writes queued
    /// messages while it waits. Cancel safe: the future may be dropped at any time without losing
    /// anything.
    ///
    /// # Errors
    /// Returns [`Error`] if the socket fails; the socket is then of no further use. Messages that the
    /// peer sent before it stopped reading come first, since they may tell why.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Waits like [`next`](Wire::next), but if `queued` is given, only until at most that many messages
    /// wait to be written. Cancel safe, like `next`.
    pub async fn next_or_drained(&mut self, queued: Option<usize>) -> Event {
        poll_fn(|cx| match self.poll_next(cx) {
            Poll::Ready(message) => Poll::Ready(Event::Message(message)),
            Poll::Pending if queued.is_some_and(|queued| self.outgoing.len() <= queued) => {
                Poll::Ready(Event::Drained)
            }
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    /// Polls for the next message, like [`next`](Wire::next), for callers that wait for several sockets.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, Error>>> {
        if self.broken.is_none()
            && let Poll::Ready(Err(error)) = self.poll_write(cx)
        {
            self.outgoing.clear();
            self.broken = Some(error);
        }
        if self.broken.is_none() && self.outgoing.len() > self.backlog {
            // invariant: a queue that is not empty has asked to be woken when the socket can be written
            return Poll::Pending;
        }
        match self.socket.poll_next_unpin(cx) {
            Poll::Pending => match self.broken.take() {
                Some(error) => Poll::Ready(Some(Err(error))),
                None => Poll::Pending,
            },
            ready => ready,
        }
    }

    /// Writes the queued messages and the close frame, then waits for the peer's answer or the end of the
    /// socket.
    ///
    /// # Errors
    /// Returns [`Error`] if the socket fails first.
    pub async fn close(mut self, code: u16, reason: &str) -> Result<(), Error> {
        let frame = CloseFrame { code: code.into(), reason: reason.to_owned().into() };
        self.send(Message::Close(Some(frame)));
        while let Some(message) = self.next().await {
            message?;
        }
        // TLS needs a close of its own, or the peer can't tell this end from a truncated connection.
        let _ = self.socket.get_mut().shutdown().await;
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

/// Prints the number of queued messages but none of their contents, which may be tokens.
impl<Io> fmt::Debug for Wire<Io> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Wire({} messages queued)", self.outgoing.len())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{DuplexStream, duplex};
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::*;
    use crate::transport::socket_limits;

    async fn pair(backlog: usize) -> (WebSocketStream<DuplexStream>, Wire<DuplexStream>) {
        let (near, far) = duplex(1_024);
        let peer = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        let socket = WebSocketStream::from_raw_socket(far, Role::Server, Some(socket_limits())).await;
        (peer, Wire::with_backlog(socket, backlog))
    }

    #[tokio::test]
    async fn what_was_said_before_the_end_is_heard_though_nothing_can_be_written() {
        let (mut peer, mut wire) = pair(usize::MAX).await;
        peer.send(Message::text("the reason")).await.unwrap();
        drop(peer);
        wire.send(Message::text("too late"));
        assert_eq!(wire.next().await.unwrap().unwrap(), Message::text("the reason"));
        assert!(wire.next().await.is_none_or(|end| end.is_err()));
    }

    #[tokio::test]
    async fn a_peer_that_takes_no_answers_is_not_heard() {
        let (mut peer, mut wire) = pair(2).await;
        peer.send(Message::text("again")).await.unwrap();
        for _ in 0..4 {
            wire.send(Message::binary(vec![0; 32_000]));
        }
        tokio::select! {
            biased;
            _ = wire.next() => panic!("heard a peer that doesn't listen"),
            () = std::future::ready(()) => {}
        }
        assert!(wire.outgoing.len() > 2);
        // Once the peer reads its answers, its messages are read again.
        let heard = async {
            for _ in 0..4 {
                peer.next().await.unwrap().unwrap();
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            message = wire.next() => assert_eq!(message.unwrap().unwrap(), Message::text("again")),
            () = heard => unreachable!(),
        }
    }
}
