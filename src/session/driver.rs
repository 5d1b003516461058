//! Performs what the session's core asks for.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::core::{Core, Input, Output};
use super::error::{Failure, FailureKind, SessionError};
use super::ledger::Ledger;
use super::protocol::{self, ClientMessage, ServerMessage};
use super::settings::Settings;
use crate::audio::Feed;
use crate::auth::{AuthError, Refusal, TokenGeneration, TokenProvider};
use crate::recovery::Recovery;
use crate::transcript::TranscriptEvent;
use crate::transport::{Connect, Wire};

/// How long a goodbye may take: the peer has everything by then, or never will.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs one session to its end: reads `audio`, connects by `connector` with a token from `tokens`, and tells `events`
/// what was recognised. Connections that die are replaced without losing or repeating audio.
///
/// `audio` is read only while the replay buffer has room, so a slow service slows the source. A channel that closes
/// without [`Feed::End`] ends the session where it stands. `events` may be slow: a partial result that waits is
/// replaced by the next, finals wait. When its receiver is dropped, the session goes on to its end in silence.
///
/// # Errors
/// See [`SessionError`]. Events emitted before the error stay true.
pub async fn run<C: Connect>(
    connector: &C,
    tokens: &TokenProvider,
    settings: Settings,
    audio: mpsc::Receiver<Feed>,
    events: mpsc::Sender<TranscriptEvent>,
) -> Result<Ledger, SessionError> {
    let driver = Driver {
        connector,
        tokens,
        core: Core::new(settings),
        generation: TokenGeneration::default(),
        dial: None,
        wire: None,
        goodbye: None,
        audio,
        audio_open: true,
        events,
        waiting: VecDeque::new(),
    };
    driver.run().await
}

type Dial<'a, Io> = Pin<Box<dyn Future<Output = Dialled<Io>> + Send + 'a>>;
type Goodbye<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The answer to a dial.
struct Dialled<Io> {
    /// The token that was shown, if it came to that: a refusal is about this one.
    generation: Option<TokenGeneration>,
    wire: Result<Wire<Io>, Failure>,
}

struct Driver<'a, C: Connect> {
    connector: &'a C,
    tokens: &'a TokenProvider,
    core: Core,
    /// The token last shown to the peer.
    generation: TokenGeneration,
    dial: Option<Dial<'a, C::Io>>,
    wire: Option<Wire<C::Io>>,
    /// The closing handshake of the connection before, which nobody waits for while the session goes on.
    goodbye: Option<Goodbye<'a>>,
    audio: mpsc::Receiver<Feed>,
    audio_open: bool,
    events: mpsc::Sender<TranscriptEvent>,
    /// Events that the user has not taken yet.
    waiting: VecDeque<TranscriptEvent>,
}

impl<C: Connect> Driver<'_, C> {
    #[expect(clippy::disallowed_methods, reason = "the driver is where a session meets the clock")]
    async fn run(mut self) -> Result<Ledger, SessionError> {
        let start = Instant::now();
        self.core.handle(Input::Tick, Duration::ZERO);
        loop {
            if let Some(result) = self.perform().await {
                return result;
            }
            // A patience too long for the clock is patience without end.
            let wake = self.core.wake_at().and_then(|at| start.checked_add(at));
            let input = tokio::select! {
                dialled = finished(&mut self.dial) => {
                    self.dial = None;
                    self.generation = dialled.generation.unwrap_or(self.generation);
                    match dialled.wire {
                        Ok(wire) => {
                            self.wire = Some(wire);
                            Input::Connected
                        }
                        Err(failure) => Input::DialFailed(failure),
                    }
                }
                () = finished(&mut self.goodbye) => {
                    self.goodbye = None;
                    continue;
                }
                message = heard(&mut self.wire) => {
                    let Some(input) = understood(message) else { continue };
                    if matches!(input, Input::Closed(..) | Input::Lost(_)) {
                        self.wire = None;
                    }
                    input
                }
                feed = self.audio.recv(), if self.audio_open && self.core.wants_audio() => match feed {
                    Some(Feed::Audio(chunk)) => Input::Audio(chunk),
                    Some(Feed::Flush) => Input::Flush,
                    Some(Feed::End) | None => {
                        self.audio_open = false;
                        Input::Finish
                    }
                },
                permit = self.events.reserve(), if !self.waiting.is_empty() => {
                    match (permit, self.waiting.pop_front()) {
                        (Ok(permit), Some(event)) => permit.send(event),
                        // Nobody listens any more.
                        _ => self.waiting.clear(),
                    }
                    continue;
                }
                () = wake_at(wake) => Input::Tick,
            };
            self.core.handle(input, start.elapsed());
        }
    }

    /// Does what the core asked for; the result, once there is one.
    async fn perform(&mut self) -> Option<Result<Ledger, SessionError>> {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Dial { fresh_token } => self.dial = Some(self.begin_dial(fresh_token)),
                Output::Send(message) => self.send(Message::text(encode(&message))),
                Output::SendAudio(chunk) => self.send(Message::binary(protocol::encode_audio(&chunk))),
                Output::Close(code) => {
                    if let Some(wire) = self.wire.take() {
                        self.goodbye = Some(Box::pin(async move {
                            // The peer's answer changes nothing, nor does its absence.
                            let _ = tokio::time::timeout(CLOSE_TIMEOUT, wire.close(code, "")).await;
                        }));
                    }
                }
                Output::Emit(event) => self.emit(event),
                Output::End(result) => {
                    self.take_leave().await;
                    return Some(result);
                }
            }
        }
        None
    }

    /// Tells the user what is left to tell, while the peer is told that this was all.
    async fn take_leave(&mut self) {
        let telling = async {
            for event in self.waiting.drain(..) {
                if self.events.send(event).await.is_err() {
                    break;
                }
            }
        };
        let closing = async {
            if let Some(goodbye) = self.goodbye.take() {
                goodbye.await;
            }
        };
        tokio::join!(telling, closing);
    }

    fn begin_dial<'d>(&self, fresh_token: bool) -> Dial<'d, C::Io>
    where
        Self: 'd,
    {
        let (connector, tokens, generation) = (self.connector, self.tokens, self.generation);
        Box::pin(async move {
            let token = match fresh_token {
                true => tokens.newer_than(generation).await,
                false => tokens.token().await,
            };
            match token {
                Ok(token) => {
                    let wire = connector.connect(&token).await;
                    Dialled { generation: Some(token.generation()), wire }
                }
                Err(error) => Dialled { generation: None, wire: Err(no_token(error)) },
            }
        })
    }

    fn send(&mut self, message: Message) {
        if let Some(wire) = &mut self.wire {
            wire.send(message);
        }
    }

    /// Queues an event for the user. A partial that nobody has taken is outdated by whatever comes next.
    fn emit(&mut self, event: TranscriptEvent) {
        if matches!(self.waiting.back(), Some(TranscriptEvent::Partial { .. })) {
            self.waiting.pop_back();
        }
        self.waiting.push_back(event);
    }
}

/// What comes of `future`, if there is one.
async fn finished<T>(future: &mut Option<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn heard<Io>(wire: &mut Option<Wire<Io>>) -> Option<Result<Message, Error>>
where
    Io: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    match wire {
        Some(wire) => wire.next().await,
        None => std::future::pending().await,
    }
}

/// What the core should know of a message from the socket, or of the socket's end.
fn understood(message: Option<Result<Message, Error>>) -> Option<Input> {
    Some(match message {
        Some(Ok(Message::Text(text))) => match serde_json::from_str::<ServerMessage>(&text) {
            Ok(message) => Input::Peer(message),
            Err(error) => Input::Garbage(format!("message can't be read: {error}")),
        },
        Some(Ok(Message::Binary(_))) => Input::Garbage("peer sent a binary frame".to_owned()),
        Some(Ok(Message::Close(Some(frame)))) => Input::Closed(frame.code.into(), frame.reason.to_string()),
        Some(Ok(Message::Close(None))) => {
            Input::Lost("the peer closed the connection without a code".to_owned())
        }
        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Input::Alive,
        Some(Ok(Message::Frame(_))) => return None,
        Some(Err(error)) => Input::Lost(error.to_string()),
        None => Input::Lost("the connection ended".to_owned()),
    })
}

async fn wake_at(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn encode(message: &ClientMessage) -> String {
    serde_json::to_string(message).expect("a message is strings and numbers")
}

fn no_token(error: AuthError) -> Failure {
    let recovery = error.recovery();
    let kind = match error {
        AuthError::Unreachable { .. } => FailureKind::Unreachable,
        AuthError::Refused { reason: Refusal::Limit, .. } => FailureKind::Limit,
        _ if matches!(recovery, Recovery::RetryAfter(_)) => FailureKind::Limit,
        _ => FailureKind::Authentication,
    };
    Failure { recovery, kind, reason: error.to_string() }
}
