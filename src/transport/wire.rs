//! A WebSocket that is written while it is read.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
#[cfg(doc)]
use std::io;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::{self, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Error};

/// A message of a WebSocket (RFC 6455).
#[derive(Clone, PartialEq, Eq)]
pub enum Message {
    /// Text.
    Text(String),
    /// Bytes.
    Binary(Bytes),
    /// A ping, with its payload. [`Wire`] answers the pings of the peer by itself.
    Ping(Bytes),
    /// The answer to a ping, with the payload of the ping.
    Pong(Bytes),
    /// The start or the answer of a closing handshake; `None` if it has no code.
    Close(Option<CloseFrame>),
}

impl Message {
    /// Returns a message of text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Message {
        Message::Text(text.into())
    }

    /// Returns a message of bytes.
    #[must_use]
    pub fn binary(bytes: impl Into<Bytes>) -> Message {
        Message::Binary(bytes.into())
    }

    /// Returns a message that was received; `None` for a bare frame, which is never received.
    fn received(message: tungstenite::Message) -> Option<Message> {
        Some(match message {
            tungstenite::Message::Text(text) => Message::Text(text.as_str().to_owned()),
            tungstenite::Message::Binary(bytes) => Message::Binary(bytes),
            tungstenite::Message::Ping(payload) => Message::Ping(payload),
            tungstenite::Message::Pong(payload) => Message::Pong(payload),
            tungstenite::Message::Close(frame) => Message::Close(frame.map(|frame| CloseFrame {
                code: frame.code.into(),
                reason: frame.reason.as_str().to_owned(),
            })),
            tungstenite::Message::Frame(_) => return None,
        })
    }

    /// Returns the message as it is sent.
    fn into_sent(self) -> tungstenite::Message {
        match self {
            Message::Text(text) => tungstenite::Message::text(text),
            Message::Binary(bytes) => tungstenite::Message::Binary(bytes),
            Message::Ping(payload) => tungstenite::Message::Ping(payload),
            Message::Pong(payload) => tungstenite::Message::Pong(payload),
            Message::Close(frame) => {
                let frame = frame.map(|CloseFrame { code, reason }| protocol::CloseFrame {
                    code: code.into(),
                    reason: reason.into(),
                });
                tungstenite::Message::Close(frame)
            }
        }
    }
}

/// Prints the kind and the length of a message but none of its contents, which may be a token.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Text(text) => write!(f, "Text({} bytes)", text.len()),
            Message::Binary(bytes) => write!(f, "Binary({} bytes)", bytes.len()),
            Message::Ping(payload) => write!(f, "Ping({} bytes)", payload.len()),
            Message::Pong(payload) => write!(f, "Pong({} bytes)", payload.len()),
            Message::Close(None) => f.write_str("Close"),
            Message::Close(Some(frame)) => write!(f, "Close({}, {} bytes)", frame.code, frame.reason.len()),
        }
    }
}

/// The code and the reason of a close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// Close code.
    pub code: u16,
    /// Reason; may be empty.
    pub reason: String,
}

/// Failure of a WebSocket, which is then of no further use. If the connection failed, it has the message and
/// the source of that [`io::Error`].
pub struct WireError(Error);

impl std::error::Error for WireError {
    /// Returns the source of an error that the connection had. tungstenite's own errors repeat their sources.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0 {
            Error::Io(error) => error.source(),
            _ => None,
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Error::Io(error) => fmt::Display::fmt(error, f),
            error => fmt::Display::fmt(error, f),
        }
    }
}

/// Prints the description alone: an error of a full buffer has the message that didn't fit, which may be a
/// token.
impl fmt::Debug for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WireError({self})")
    }
}

/// The kinds of failure of a WebSocket, by what the other end should be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireErrorKind {
    /// The peer sent a message that is too big.
    TooBig,
    /// The peer sent something that is no WebSocket message.
    Malformed,
    /// The connection failed, or ended without a closing handshake.
    Lost,
}

impl WireError {
    /// Returns the kind of the failure.
    #[must_use]
    pub fn kind(&self) -> WireErrorKind {
        match &self.0 {
            Error::Capacity(_) => WireErrorKind::TooBig,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => WireErrorKind::Lost,
            Error::Protocol(_) | Error::Utf8(_) => WireErrorKind::Malformed,
            _ => WireErrorKind::Lost,
        }
    }
}

/// Returns buffer sizes and limits for either end of a session's socket. The defaults of the library are
/// a read buffer of 128 KiB per socket and unlimited writes. A final holds an utterance of half a minute
/// at most, an audio frame less than a second.
pub(super) fn socket_limits() -> WebSocketConfig {
    const MESSAGE: usize = 256 * 1024;
    WebSocketConfig::default()
        .read_buffer_size(16 * 1024)
        .write_buffer_size(16 * 1024)
        .max_write_buffer_size(2 * MESSAGE)
        .max_message_size(Some(MESSAGE))
        .max_frame_size(Some(MESSAGE))
}

/// An event of a socket.
#[derive(Debug)]
pub enum Event {
    /// Result of [`Wire::next`].
    Message(Option<Result<Message, WireError>>),
    /// Notice that the queue has drained, so that more can be sent.
    Drained,
}

/// A WebSocket owned by one task. Messages are queued, and are sent while [`next`](Wire::next) waits for
/// the peer, so neither direction can block the other: two peers that both insist on writing first would
/// deadlock.
pub struct Wire<Io> {
    socket: WebSocketStream<Io>,
    outgoing: VecDeque<tungstenite::Message>,
    unflushed: bool,
    /// Number of queued messages above which nothing more is read.
    backlog: usize,
    /// Error after which nothing can be written any more.
    broken: Option<Error>,
}

impl<Io: AsyncRead + AsyncWrite + Unpin> Wire<Io> {
    /// Takes over an open WebSocket, with the limits of a session.
    pub(super) fn new(socket: WebSocketStream<Io>) -> Wire<Io> {
        Wire { socket, outgoing: VecDeque::new(), unflushed: false, backlog: usize::MAX, broken: None }
    }

    /// Takes over a stream whose opening handshake is complete, as the client. A message that is received
    /// has at most 256 KiB.
    pub async fn client(io: Io) -> Wire<Io> {
        Wire::new(WebSocketStream::from_raw_socket(io, Role::Client, Some(socket_limits())).await)
    }

    /// Takes over a stream whose opening handshake is complete, as the server. A message that is received
    /// has at most 256 KiB.
    pub async fn server(io: Io) -> Wire<Io> {
        Wire::new(WebSocketStream::from_raw_socket(io, Role::Server, Some(socket_limits())).await)
    }

    /// Takes over a stream like [`server`](Wire::server), for a protocol whose received messages have at most
    /// `max_message` bytes.
    pub async fn server_for(io: Io, max_message: usize) -> Wire<Io> {
        let limits = socket_limits().max_message_size(Some(max_message)).max_frame_size(Some(max_message));
        Wire::new(WebSocketStream::from_raw_socket(io, Role::Server, Some(limits)).await)
    }

    /// Sets a limit for a peer that must read its answers: while more than `backlog` messages are queued,
    /// nothing is read, so a peer that sends but never reads can't fill the memory. Only one end of a
    /// connection may have a backlog limit, or both could wait for the other to read. By default there is
    /// none.
    #[must_use]
    pub fn with_backlog(self, backlog: usize) -> Wire<Io> {
        Wire { backlog, ..self }
    }

    /// Queues a message. The caller bounds the queue: a session by its window, a gateway by the number of
    /// its answers.
    pub fn send(&mut self, message: Message) {
        self.outgoing.push_back(message.into_sent());
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
    /// Returns [`WireError`] if the socket fails. Messages that the peer sent before it stopped reading come
    /// first, since they may tell why.
    pub async fn next(&mut self) -> Option<Result<Message, WireError>> {
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

    /// Writes queued messages without reading, for a caller that has no room for another message. Ends once
    /// at most `queued` messages wait to be written, if `queued` is given, or when the socket fails. Cancel
    /// safe, like `next`.
    pub async fn drained(&mut self, queued: Option<usize>) -> Event {
        poll_fn(|cx| {
            if self.broken.is_none()
                && let Poll::Ready(Err(error)) = self.poll_write(cx)
            {
                self.outgoing.clear();
                return Poll::Ready(Event::Message(Some(Err(WireError(error)))));
            }
            match queued {
                Some(queued) if self.outgoing.len() <= queued => Poll::Ready(Event::Drained),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Polls for the next message, like [`next`](Wire::next), for callers that wait for several sockets.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, WireError>>> {
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
        loop {
            return match self.socket.poll_next_unpin(cx) {
                Poll::Pending => match self.broken.take() {
                    Some(error) => Poll::Ready(Some(Err(WireError(error)))),
                    None => Poll::Pending,
                },
                Poll::Ready(Some(Ok(message))) => match Message::received(message) {
                    Some(message) => Poll::Ready(Some(Ok(message))),
                    None => continue,
                },
                Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(WireError(error)))),
                Poll::Ready(None) => Poll::Ready(None),
            };
        }
    }

    /// Writes the queued messages and the close frame, then waits for the peer's answer or the end of the
    /// socket.
    ///
    /// # Errors
    /// Returns [`WireError`] if the socket fails first.
    pub async fn close(mut self, code: u16, reason: &str) -> Result<(), WireError> {
        let frame = CloseFrame { code, reason: reason.to_owned() };
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

    use super::*;

    async fn pair(backlog: usize) -> (WebSocketStream<DuplexStream>, Wire<DuplexStream>) {
        let (near, far) = duplex(1_024);
        let peer = WebSocketStream::from_raw_socket(near, Role::Client, None).await;
        (peer, Wire::server(far).await.with_backlog(backlog))
    }

    #[tokio::test]
    async fn what_was_said_before_the_end_is_heard_though_nothing_can_be_written() {
        let (mut peer, mut wire) = pair(usize::MAX).await;
        peer.send(Message::text("the reason").into_sent()).await.unwrap();
        drop(peer);
        wire.send(Message::text("too late"));
        assert_eq!(wire.next().await.unwrap().unwrap(), Message::text("the reason"));
        assert!(wire.next().await.is_none_or(|end| end.is_err()));
    }

    #[tokio::test]
    async fn a_peer_that_takes_no_answers_is_not_heard() {
        let (mut peer, mut wire) = pair(2).await;
        peer.send(Message::text("again").into_sent()).await.unwrap();
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
