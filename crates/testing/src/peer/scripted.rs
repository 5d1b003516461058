//! A peer that follows a script.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use voxline::audio::FramePos;
use voxline::protocol::{self, ClientMessage, SUBPROTOCOL, ServerMessage};
use voxline::transport::{Message, Wire, WireError};

/// A message that a scripted peer waits for. Audio that comes before it is received and ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: the peer replies at once.
    Nothing,
    /// `start`.
    Start,
    /// `resume`.
    Resume,
    /// Audio up to this position.
    Audio(FramePos),
    /// `gap`.
    Gap,
    /// `auth`.
    Auth,
    /// `flush`.
    Flush,
    /// `finish`.
    Finish,
    /// A close from the client, or the end of the socket.
    End,
}

/// An action of a scripted peer.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Sends a message of the protocol.
    Say(ServerMessage),
    /// Sends any WebSocket message, whether the protocol has it or not.
    Send(Message),
    /// Lets time pass. Messages that arrive meanwhile are kept for the steps that follow.
    Wait(Duration),
    /// Closes the socket with this code.
    Close(u16),
    /// Drops the socket.
    Drop,
}

/// A step of the script.
#[derive(Clone, Debug)]
pub struct Step {
    /// Message that the peer waits for.
    pub expect: Expect,
    /// Actions that the peer then takes, in order.
    pub replies: Vec<Reply>,
}

impl Step {
    /// Creates a step of the script.
    #[must_use]
    pub fn new(expect: Expect, replies: impl IntoIterator<Item = Reply>) -> Step {
        Step { expect, replies: replies.into_iter().collect() }
    }
}

/// Reason why the client does not match the script.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// The client sent another message.
    #[error("expected {expected:?}, heard {heard}")]
    Other {
        /// Message that the script expects.
        expected: Expect,
        /// Message that came.
        heard: String,
    },
    /// The socket failed.
    #[error("expected {expected:?}: {reason}")]
    Socket {
        /// Message that the script expects.
        expected: Expect,
        /// Error of the socket.
        reason: String,
    },
}

/// A peer that sends exactly the messages of its script, each after the message that the script expects:
/// for tests of a single exchange of the protocol.
///
/// ```
/// use voxline::protocol::close;
/// use voxline_testing::peer::{Expect, Reply, ScriptedPeer, Step};
///
/// // A server that knows no session.
/// let peer = ScriptedPeer::new([Step::new(Expect::Resume, [Reply::Close(close::SESSION_UNKNOWN)])]);
/// ```
#[derive(Clone, Debug)]
pub struct ScriptedPeer {
    script: Vec<Step>,
}

impl ScriptedPeer {
    /// Creates a peer with this script, for one socket at a time.
    #[must_use]
    pub fn new(script: impl IntoIterator<Item = Step>) -> ScriptedPeer {
        ScriptedPeer { script: script.into_iter().collect() }
    }

    /// Plays the script on a socket, including the handshake, and drops the socket at the end.
    ///
    /// # Errors
    /// Returns [`ScriptError`] if the client does not keep to the script.
    pub async fn serve<Io: AsyncRead + AsyncWrite + Unpin>(&self, io: Io) -> Result<(), ScriptError> {
        #[expect(clippy::result_large_err, reason = "the library's")]
        let named = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            let name = http::HeaderValue::from_static(SUBPROTOCOL);
            response.headers_mut().insert(http::header::SEC_WEBSOCKET_PROTOCOL, name);
            Ok(response)
        };
        let socket = accept_hdr_async(io, named).await;
        let socket = socket.map_err(|error| ScriptError::Socket {
            expected: self.script.first().map_or(Expect::Nothing, |step| step.expect),
            reason: error.to_string(),
        })?;
        let mut line = Line { wire: Wire::server(socket.into_inner()).await, heard: VecDeque::new() };
        for Step { expect, replies } in &self.script {
            line.await_message(*expect).await?;
            for reply in replies {
                match reply {
                    Reply::Say(message) => {
                        let text = serde_json::to_string(message).expect("a message is strings and numbers");
                        line.wire.send(Message::text(text));
                    }
                    Reply::Send(message) => line.wire.send(message.clone()),
                    Reply::Wait(time) => line.pass(*time).await,
                    Reply::Close(code) => {
                        // Clients may leave without an answer.
                        let _ = line.wire.close(*code, "").await;
                        return Ok(());
                    }
                    Reply::Drop => {
                        line.pass(Duration::ZERO).await;
                        return Ok(());
                    }
                }
            }
        }
        line.pass(Duration::ZERO).await;
        Ok(())
    }
}

struct Line<Io> {
    wire: Wire<Io>,
    /// Messages that came before the script waited for them.
    heard: VecDeque<Heard>,
}

type Heard = Option<Result<Message, WireError>>;

impl<Io: AsyncRead + AsyncWrite + Unpin> Line<Io> {
    /// Lets time pass while queued messages are written.
    async fn pass(&mut self, time: Duration) {
        let Line { wire, heard } = self;
        let hearing = async {
            loop {
                let message = wire.next().await;
                let last = !matches!(message, Some(Ok(_)));
                heard.push_back(message);
                if last {
                    return std::future::pending::<()>().await;
                }
            }
        };
        // `hearing` never completes by itself: the timeout ends it.
        let _ = timeout(time, hearing).await;
    }

    /// Waits for the expected message.
    async fn await_message(&mut self, expected: Expect) -> Result<(), ScriptError> {
        if expected == Expect::Nothing {
            return Ok(());
        }
        loop {
            let message = match self.heard.pop_front() {
                Some(message) => message,
                None => self.wire.next().await,
            };
            let heard = match message {
                None | Some(Ok(Message::Close(_))) if expected == Expect::End => return Ok(()),
                None => "the end of the socket".to_owned(),
                Some(Err(error)) => {
                    return Err(ScriptError::Socket { expected, reason: error.to_string() });
                }
                Some(Ok(Message::Binary(frame))) => match (protocol::decode_audio(&frame), expected) {
                    (Ok(chunk), Expect::Audio(through)) if chunk.range().end >= through => return Ok(()),
                    (Ok(_), _) => continue,
                    (Err(error), _) => error.to_string(),
                },
                Some(Ok(Message::Text(text))) => match serde_json::from_str::<ClientMessage>(&text) {
                    Ok(message) if kind(&message) == Some(expected) => return Ok(()),
                    Ok(message) => format!("{message:?}"),
                    Err(error) => error.to_string(),
                },
                Some(Ok(Message::Close(frame))) => format!("a close: {frame:?}"),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
            };
            return Err(ScriptError::Other { expected, heard });
        }
    }
}

fn kind(message: &ClientMessage) -> Option<Expect> {
    Some(match message {
        ClientMessage::Unknown => return None,
        ClientMessage::Start(_) => Expect::Start,
        ClientMessage::Resume { .. } => Expect::Resume,
        ClientMessage::Gap { .. } => Expect::Gap,
        ClientMessage::Auth { .. } => Expect::Auth,
        ClientMessage::Flush { .. } => Expect::Flush,
        ClientMessage::Finish { .. } => Expect::Finish,
    })
}
