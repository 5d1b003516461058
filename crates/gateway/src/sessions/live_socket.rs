//! A WebSocket of a dialect, and the live recognitions behind it: what all dialects on WebSockets have in
//! common, so that each is left with its messages.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{OptionFuture, select_all};
use tokio::time::{Instant, sleep_until};

use super::credential::OpeningToken;
use super::live::{LiveEnd, LiveEvent, LiveSession};
use super::live_supervision::LiveSupervision;
use super::manager::SessionManager;
use super::message_rate_limiter::MessageRateLimiter;
use super::supervision::Liveness;
use crate::http::websocket::{self, Socket};
use crate::scheduler;
use voxline::transport::{Event, Message, WireError, WireErrorKind};

/// Most bytes of audio in one message: half a minute of G.711, which is what a session takes at once.
pub(crate) const MAX_AUDIO_BYTES: usize = 240_000;
/// Number of messages waiting for a client from which no more are queued, and no more audio is read.
const QUEUE_HIGH: usize = 32;
/// Number of waiting messages down to which the queue drains before more are added.
const QUEUE_LOW: usize = 16;

/// Input of a dialect.
pub(crate) enum LiveInput {
    Text(String),
    Audio(Bytes),
    /// An event of the recognition with this number.
    Event(usize, LiveEvent),
    /// The client has sent neither text nor audio for the time that the dialect allows, while it waited for
    /// no result.
    Idle,
    /// The gateway is about to stop. The audio should end here, so that its text still arrives.
    Drain,
}

/// A WebSocket of a dialect.
pub(crate) struct LiveSocket<'a> {
    wire: Socket,
    manager: &'a SessionManager,
    /// API that the audio is counted for in the metrics.
    api: &'static str,
    supervision: LiveSupervision<'a>,
    liveness: Liveness,
    /// Longest time without text and audio, while the client waits for no result.
    patience: Option<Duration>,
    /// Time of the last text or audio, or of the last result that the client waited for.
    active: Instant,
    /// False while the client has to wait, and its silence means nothing.
    is_reading: bool,
    opened: std::time::Instant,
    /// `None` if texts carry audio, and are limited by the dialect.
    message_limiter: Option<MessageRateLimiter>,
}

impl<'a> LiveSocket<'a> {
    /// Takes over a socket that was opened with the token of `opener`. With `patience`, a client that sends
    /// nothing for that long is reported.
    #[expect(clippy::disallowed_methods, reason = "deadlines of a socket are real time")]
    pub(crate) fn new(
        manager: &'a SessionManager,
        opener: Arc<OpeningToken>,
        api: &'static str,
        wire: Socket,
        patience: Option<Duration>,
    ) -> LiveSocket<'a> {
        let now = Instant::now();
        LiveSocket {
            wire,
            manager,
            api,
            supervision: LiveSupervision::new(manager, opener),
            liveness: Liveness::since(now),
            patience,
            active: now,
            is_reading: true,
            opened: scheduler::now(),
            message_limiter: Some(MessageRateLimiter::default()),
        }
    }

    /// Returns the socket of a dialect whose texts carry the audio. It counts the bytes of the audio, and
    /// limits the other texts.
    pub(crate) fn with_audio_in_texts(self) -> LiveSocket<'a> {
        LiveSocket { message_limiter: None, ..self }
    }

    /// Queues a message in JSON.
    pub(crate) fn send(&mut self, message: &impl serde::Serialize) {
        let text = serde_json::to_string(message).expect("a message is strings and numbers");
        self.wire.send(Message::text(text));
    }

    /// Queues a message of audio, and waits while the client takes what is queued before. Returns whether the
    /// gateway is about to stop. Cancel safe but for the message.
    ///
    /// # Errors
    /// Returns [`LiveEnd`] if the client, its token or the gateway ends the socket.
    pub(crate) async fn send_audio(&mut self, audio: Bytes) -> Result<bool, LiveEnd> {
        self.wire.send(Message::Binary(audio));
        let mut is_draining = false;
        while self.wire.queued() >= QUEUE_HIGH {
            let input = self.wait(&mut [], false, true).await?;
            is_draining |= matches!(input, Some(LiveInput::Drain));
        }
        Ok(is_draining)
    }

    /// Waits for the next input. Results come before messages of the client. Messages are read only if
    /// `reads` says so, while the client takes its results, and while all recognitions have room. Cancel
    /// safe.
    ///
    /// # Errors
    /// Returns [`LiveEnd`] if the client, its token, the recogniser or the gateway ends the socket.
    #[expect(clippy::disallowed_methods, reason = "deadlines of a socket are real time")]
    pub(crate) async fn next(
        &mut self,
        sessions: &mut [LiveSession],
        reads: bool,
    ) -> Result<LiveInput, LiveEnd> {
        loop {
            let is_behind = self.wire.queued() >= QUEUE_HIGH;
            if !is_behind {
                for (number, session) in sessions.iter_mut().enumerate() {
                    let was_awaited = session.owes_results();
                    if let Some(event) = session.next_event()? {
                        if was_awaited {
                            self.active = Instant::now();
                        }
                        return Ok(LiveInput::Event(number, event));
                    }
                }
            }
            let reads = reads && !is_behind && sessions.iter().all(LiveSession::has_room);
            if let Some(input) = self.wait(sessions, reads, is_behind).await? {
                return Ok(input);
            }
        }
    }

    /// Waits until something happens. Returns the input that it is, if any.
    #[expect(clippy::disallowed_methods, reason = "deadlines of a socket are real time")]
    async fn wait(
        &mut self,
        sessions: &mut [LiveSession],
        reads: bool,
        is_behind: bool,
    ) -> Result<Option<LiveInput>, LiveEnd> {
        if reads && !self.is_reading {
            self.active = Instant::now();
            self.liveness = Liveness::since(self.active);
        }
        self.is_reading = reads;
        let idle_at = self.patience.and_then(|patience| self.active.checked_add(patience));
        let wire = &mut self.wire;
        let messages = async move {
            if reads {
                Event::Message(wire.next().await)
            } else {
                wire.drained(is_behind.then_some(QUEUE_LOW)).await
            }
        };
        tokio::select! {
            // A message that came in time counts, however late it is looked at.
            biased;
            drain = self.supervision.drain() => return drain.map(|()| Some(LiveInput::Drain)),
            event = messages => if let Event::Message(message) = event {
                return self.receive(message, Instant::now());
            },
            () = any_changed(sessions), if !is_behind => {}
            () = sleep_until(self.liveness.deadline()), if reads => {
                if !self.liveness.expire(&mut self.wire) {
                    return Err(LiveEnd::Unanswered);
                }
            }
            Some(()) = OptionFuture::from(idle_at.map(sleep_until)), if reads => {
                self.active = Instant::now();
                // A client that waits for an answer may be silent meanwhile.
                if !sessions.iter().any(LiveSession::owes_results) {
                    return Ok(Some(LiveInput::Idle));
                }
            }
        }
        Ok(None)
    }

    fn receive(
        &mut self,
        message: Option<Result<Message, WireError>>,
        now: Instant,
    ) -> Result<Option<LiveInput>, LiveEnd> {
        self.liveness = Liveness::since(now);
        let input = match message {
            None | Some(Ok(Message::Close(_))) => return Err(LiveEnd::Lost),
            Some(Err(error)) => {
                return Err(match error.kind() {
                    WireErrorKind::TooBig => LiveEnd::TooBig,
                    WireErrorKind::Malformed => LiveEnd::Malformed,
                    _ => LiveEnd::Lost,
                });
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => return Ok(None),
            Some(Ok(Message::Binary(audio))) if audio.len() > MAX_AUDIO_BYTES => {
                return Err(LiveEnd::TooBig);
            }
            Some(Ok(Message::Binary(audio))) => {
                self.manager.metrics.count_bytes(self.api, "in", audio.len());
                LiveInput::Audio(audio)
            }
            Some(Ok(Message::Text(text))) => {
                let age = scheduler::now().saturating_duration_since(self.opened);
                if self.message_limiter.as_mut().is_some_and(|limiter| !limiter.allows(age)) {
                    return Err(LiveEnd::Flood);
                }
                LiveInput::Text(text)
            }
        };
        self.active = now;
        Ok(Some(input))
    }

    /// Sends what is queued, and closes the socket in bounded time.
    pub(crate) async fn close(self, code: u16, reason: &str) {
        websocket::close(self.wire, code, reason).await;
    }
}

/// Waits for a change of any session; for ever without sessions. Cancel safe.
async fn any_changed(sessions: &mut [LiveSession]) {
    match sessions {
        [] => std::future::pending().await,
        [session] => session.changed().await,
        sessions => drop(select_all(sessions.iter_mut().map(|session| Box::pin(session.changed()))).await),
    }
}
