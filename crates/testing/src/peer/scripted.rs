//! A peer that says what it is told to.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};

use voxline::audio::FramePos;
use voxline::session::protocol::{self, ClientMessage, SUBPROTOCOL, ServerMessage};
use voxline::transport::{Wire, socket_limits};

/// What a scripted peer waits for. Audio that comes before anything else is heard and passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing: it speaks at once.
    Nothing,
    /// `start`.
    Start,
    /// `resume`.
    Resume,
    /// Audio up to here.
    Audio(FramePos),
    /// `gap`.
    Gap,
    /// `auth`.
    Auth,
    /// `flush`.
    Flush,
    /// `finish`.
    Finish,
    /// The client's close, or the end of the socket.
    End,
}

/// What it does then.
#[derive(Clone, Debug)]
pub enum Reply {
    /// Says a message.
    Say(ServerMessage),
    /// Sends this, be it a message of the protocol or not.
    Send(Message),
    /// Lets time pass; what it hears meanwhile is for the steps that follow.
    Wait(Duration),
    /// Closes with this code.
    Close(u16),
    /// Drops the socket.
    Drop,
}

/// A line of the script.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it waits for.
    pub expect: Expect,
    /// What it does then, in order.
    pub replies: Vec<Reply>,
}

impl Step {
    /// A line of the script.
    #[must_use]
    pub fn new(expect: Expect, replies: impl IntoIterator<Item = Reply>) -> Step {
        Step { expect, replies: replies.into_iter().collect() }
    }
}

/// Where the client left the script.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScriptError {
    /// It said something else.
    #[error("expected {expected:?}, heard {heard}")]
    Other {
        /// What the script says.
        expected: Expect,
        /// What came.
        heard: String,
    },
    /// The socket failed.
    #[error("expected {expected:?}: {reason}")]
    Socket {
        /// What the script says.
        expected: Expect,
        /// How it failed.
        reason: String,
    },
}

/// Says exactly what its script has, upon what the script expects: for tests of a single turn of the protocol.
///
/// ```
/// use voxline::session::close;
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
    /// A peer with this script, for one socket at a time.
    #[must_use]
    pub fn new(script: impl IntoIterator<Item = Step>) -> ScriptedPeer {
        ScriptedPeer { script: script.into_iter().collect() }
    }

    /// Plays the script on a socket, handshake first, and drops it at the end.
    ///
    /// # Errors
    /// Where the client doesn't keep to the script.
    pub async fn serve<Io: AsyncRead + AsyncWrite + Unpin>(&self, io: Io) -> Result<(), ScriptError> {
        #[expect(clippy::result_large_err, reason = "the library's")]
        let named = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            let name = http::HeaderValue::from_static(SUBPROTOCOL);
            response.headers_mut().insert(http::header::SEC_WEBSOCKET_PROTOCOL, name);
            Ok(response)
        };
        let socket = accept_hdr_async_with_config(io, named, Some(socket_limits())).await;
        let socket = socket.map_err(|error| ScriptError::Socket {
            expected: self.script.first().map_or(Expect::Nothing, |step| step.expect),
            reason: error.to_string(),
        })?;
        let mut line = Line { wire: Wire::new(socket), heard: VecDeque::new() };
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
    /// What came before it was waited for.
    heard: VecDeque<Heard>,
}

type Heard = Option<Result<Message, Error>>;

impl<Io: AsyncRead + AsyncWrite + Unpin> Line<Io> {
    /// Lets time pass, in which what was said is written.
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
        // Without an end in time, which is why it ends.
        let _ = timeout(time, hearing).await;
    }

    /// Waits for what is expected.
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
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
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
