//! A connection of the Wyoming protocol: one transcription or speech after the other.
//!
//! Clients wait for their answer alone, and take a close for a failure. So a failure is told by an `error`,
//! and the connection is closed.

use std::sync::Arc;
use std::time::Duration;

use futures::future::OptionFuture;
use tokio::time::{Instant, sleep_until};

use super::API;
use super::frames::{Event, Piece};
use super::info::info;
use super::messages::{AudioFormat, BadEvent, Reply, Request, Transcribe, error, parse, pong};
use super::socket::{FrameSocket, SocketError, SocketEvent};
use super::speaking::{Frame, Speaking, Spoken};
use super::transcription::Transcription;
use crate::gateway::Gateway;
use crate::http::connection_limiter::ConnectionSlot;
use crate::http::error::ApiError;
use crate::http::server;
use crate::scheduler;
use crate::sessions::credential::OpeningToken;
use crate::sessions::live::{LiveEnd, LiveEvent, LiveSession, LiveSettings};
use crate::sessions::live_supervision::LiveSupervision;
use crate::sessions::manager::BeginError;
use crate::sessions::message_rate_limiter::MessageRateLimiter;

/// Longest time without an event of a client whose audio or text is expected.
const PATIENCE: Duration = Duration::from_secs(60);
/// Number of bytes waiting for a client from which no more are queued, and nothing is read.
const QUEUE_HIGH: usize = 64 * 1024;
/// Number of waiting bytes down to which the queue drains before more are added.
const QUEUE_LOW: usize = 32 * 1024;

/// Reason for the end of a connection that is not the client's own.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error(transparent)]
    Event(#[from] BadEvent),
    #[error(transparent)]
    Live(#[from] LiveEnd),
    #[error(transparent)]
    Begin(#[from] BeginError),
    #[error("{}", .0.message)]
    Refused(ApiError),
    #[error("nothing came for {} seconds", PATIENCE.as_secs())]
    Idle,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Failure {
        Failure::Refused(error)
    }
}

impl Failure {
    /// Returns the event about the failure, or `None` if the client is gone.
    pub(super) fn told(&self) -> Option<Reply> {
        let code = match self {
            Failure::Socket(SocketError::Io(_) | SocketError::Truncated) => return None,
            Failure::Socket(SocketError::Frame(_)) => "bad-frame",
            Failure::Event(_) => "bad-event",
            Failure::Begin(error) => return Some(begin_error(error)),
            Failure::Refused(refusal) if refusal.retry_after.is_some() => "busy",
            Failure::Refused(refusal) if refusal.status.is_server_error() => "failed",
            Failure::Refused(_) => "refused",
            Failure::Live(LiveEnd::Stopping) => "stopping",
            Failure::Live(LiveEnd::Failed) => "failed",
            Failure::Live(_) => "refused",
            Failure::Idle => "idle",
        };
        Some(error(code, &self.to_string()))
    }
}

fn begin_error(failure: &BeginError) -> Reply {
    let code = match failure {
        BeginError::Rejected(_) | BeginError::Full(_) => "busy",
        BeginError::NoRecognizer | BeginError::Start(_) => "refused",
    };
    error(code, &failure.told())
}

/// A connection of a client that was admitted.
pub(super) struct Connection<'a, Io> {
    gateway: &'a Arc<Gateway>,
    opener: Arc<OpeningToken>,
    socket: FrameSocket<Io>,
    /// Place of the connection, which is busy while there is a transcription or a speech.
    slot: Arc<ConnectionSlot>,
    supervision: LiveSupervision<'a>,
    limiter: MessageRateLimiter,
    opened: std::time::Instant,
    /// Parameters of the next transcription.
    asked: Transcribe,
    transcription: Option<Transcription>,
    speaking: Option<Speaking>,
    /// True if the payload that comes is audio.
    takes_payload: bool,
    /// Time of the last event, or of that from which on the client is read again.
    active: Instant,
    is_reading: bool,
    is_draining: bool,
    has_ended: bool,
}

/// Next thing that happens on a connection.
enum Input {
    Socket(SocketEvent),
    Heard(LiveEvent),
    Spoken(Spoken),
    /// The gateway is about to stop.
    Drain,
}

impl<'a, Io: server::Connection> Connection<'a, Io> {
    #[expect(clippy::disallowed_methods, reason = "deadlines of a connection are real time")]
    pub(super) fn new(
        gateway: &'a Arc<Gateway>,
        opener: Arc<OpeningToken>,
        socket: FrameSocket<Io>,
        slot: Arc<ConnectionSlot>,
    ) -> Connection<'a, Io> {
        Connection {
            gateway,
            supervision: LiveSupervision::new(&gateway.sessions, opener.clone()),
            opener,
            socket,
            slot,
            limiter: MessageRateLimiter::default(),
            opened: scheduler::now(),
            asked: Transcribe::default(),
            transcription: None,
            speaking: None,
            takes_payload: false,
            active: Instant::now(),
            is_reading: true,
            is_draining: false,
            has_ended: false,
        }
    }

    /// Serves the connection to its end, and closes it.
    pub(super) async fn serve(mut self) {
        let served = self.run().await;
        // The places are free before the client learns of the end.
        (self.transcription, self.speaking) = (None, None);
        if let Err(failure) = served {
            tracing::debug!(%failure, "connection ended");
            match failure.told() {
                Some((kind, data)) => self.socket.send(kind, &data, &[]),
                None => return,
            }
        }
        self.socket.close().await;
    }

    async fn run(&mut self) -> Result<(), Failure> {
        loop {
            if !self.is_busy() && (self.has_ended || self.is_draining) {
                return Ok(());
            }
            match self.next().await? {
                Input::Socket(SocketEvent::Piece(Piece::Event(event))) => self.event(event)?,
                Input::Socket(SocketEvent::Piece(Piece::Payload(bytes))) => {
                    if let Some(transcription) = self.transcription.as_mut().filter(|_| self.takes_payload) {
                        self.gateway.metrics.count_bytes(API, "in", bytes.len());
                        transcription.push(bytes)?;
                    }
                }
                Input::Socket(SocketEvent::End) => self.end()?,
                Input::Socket(SocketEvent::Drained) => {}
                Input::Heard(event) => self.heard(event),
                Input::Spoken(Spoken::Piece(frames)) => self.send(frames),
                Input::Spoken(Spoken::End(frames)) => {
                    self.send(frames);
                    self.speaking = None;
                    self.rest();
                }
                Input::Drain => self.drain(),
            }
        }
    }

    /// Returns whether the client is expected to send something: whatever it wants while nothing is under
    /// way, or else more audio, or more text.
    fn reads(&self) -> bool {
        let hears = self.transcription.as_ref();
        !self.has_ended
            && self.socket.queued() < QUEUE_HIGH
            && hears
                .is_none_or(|transcription| !transcription.is_finishing && transcription.session.has_room())
            && self.speaking.as_ref().is_none_or(Speaking::takes_text)
    }

    /// Waits for the next input. Results come before events of the client.
    #[expect(clippy::disallowed_methods, reason = "deadlines of a connection are real time")]
    async fn next(&mut self) -> Result<Input, Failure> {
        let is_behind = self.socket.queued() >= QUEUE_HIGH;
        if let Some(transcription) = self.transcription.as_mut().filter(|_| !is_behind)
            && let Some(event) = transcription.session.next_event()?
        {
            return Ok(Input::Heard(event));
        }
        let reads = self.reads();
        if reads && !self.is_reading {
            self.active = Instant::now();
        }
        self.is_reading = reads;
        let is_busy = self.is_busy();
        let Connection { gateway, opener, socket, supervision, transcription, speaking, .. } = self;
        let transcription = transcription.as_mut().filter(|_| !is_behind);
        let speaking = speaking.as_mut().filter(|_| !is_behind);
        tokio::select! {
            // An event that came in time counts, however late it is looked at.
            biased;
            drained = supervision.drain() => {
                drained?;
                Ok(Input::Drain)
            }
            // Without work there is nothing to wait for.
            () = gateway.sessions.shutdown.draining.cancelled(), if !is_busy => Ok(Input::Drain),
            event = socket.next(reads, is_behind.then_some(QUEUE_LOW)) => {
                self.active = Instant::now();
                Ok(Input::Socket(event?))
            }
            Some(()) = OptionFuture::from(transcription.map(|transcription| transcription.session.changed())) => {
                Ok(Input::Socket(SocketEvent::Drained))
            }
            Some(spoken) = OptionFuture::from(speaking.map(|text| text.next(gateway, &opener.identity))) => {
                Ok(Input::Spoken(spoken?))
            }
            () = sleep_until(self.active + PATIENCE), if reads && is_busy => Err(Failure::Idle),
        }
    }

    fn event(&mut self, event: Event) -> Result<(), Failure> {
        let has_payload = event.payload_length > 0;
        let request = parse(event)?;
        // Audio and text are limited by themselves.
        let is_content = match &request {
            Request::AudioChunk(_) => has_payload,
            Request::SynthesizeChunk(text) => !text.is_empty(),
            _ => false,
        };
        let age = scheduler::now().saturating_duration_since(self.opened);
        if !is_content && !self.limiter.allows(age) {
            return Err(LiveEnd::Flood.into());
        }
        self.takes_payload = matches!(request, Request::AudioChunk(_));
        match request {
            Request::Describe => self.reply(&("info", info(self.gateway, &self.opener.identity))),
            Request::Ping(text) => self.reply(&pong(text.as_deref())),
            Request::Transcribe(asked) => self.asked = asked,
            Request::AudioStart(format) => self.hear(format)?,
            Request::AudioChunk(format) => match &self.transcription {
                None => self.hear(format)?,
                Some(transcription) if transcription.format == format => {}
                Some(_) => return Err(bad("the format of the audio has changed")),
            },
            Request::AudioStop => match &mut self.transcription {
                Some(transcription) => transcription.finish(),
                // Without audio, nothing was said.
                None => self.reply(&("transcript", serde_json::json!({ "text": "" }))),
            },
            Request::Synthesize { text, voice } => match &self.speaking {
                // The whole text, for servers that don't understand its pieces.
                Some(_) => {}
                None => self.speak(Speaking::whole(text, voice)?)?,
            },
            Request::SynthesizeStart(voice) => self.speak(Speaking::in_pieces(voice))?,
            Request::SynthesizeChunk(text) => self.text()?.add(&text),
            Request::SynthesizeStop => self.text()?.complete(),
            Request::Other => {}
        }
        Ok(())
    }

    /// Begins a transcription.
    fn hear(&mut self, format: AudioFormat) -> Result<(), Failure> {
        self.check_idle()?;
        let manager = &self.gateway.sessions;
        let language = self.asked.language().map(str::to_owned);
        let request = manager.recognition_request(Some(&self.opener.identity), language);
        let request = request.keywords(self.asked.keywords());
        let settings = LiveSettings { api: API, sample_rate: format.rate, request, partials: false };
        let session = LiveSession::begin(manager, &self.opener, settings)?;
        self.transcription = Some(Transcription::new(session, format, &std::mem::take(&mut self.asked)));
        self.slot.mark_busy();
        Ok(())
    }

    /// Begins a speech.
    fn speak(&mut self, speaking: Speaking) -> Result<(), Failure> {
        self.check_idle()?;
        self.speaking = Some(speaking);
        self.slot.mark_busy();
        Ok(())
    }

    /// Returns the speech whose text comes in pieces.
    fn text(&mut self) -> Result<&mut Speaking, Failure> {
        self.speaking.as_mut().ok_or_else(|| bad("a piece of text came before synthesize-start"))
    }

    /// Returns whether a transcription or a speech is under way.
    fn is_busy(&self) -> bool {
        self.transcription.is_some() || self.speaking.is_some()
    }

    fn check_idle(&self) -> Result<(), Failure> {
        if self.is_busy() {
            return Err(bad("another transcription or speech is under way"));
        }
        Ok(())
    }

    fn heard(&mut self, event: LiveEvent) {
        let Some(transcription) = &mut self.transcription else { return };
        let replies = match event {
            LiveEvent::Final { segment, .. } => transcription.heard(&segment),
            LiveEvent::Partial(_) | LiveEvent::Flushed => Vec::new(),
            LiveEvent::End => {
                let replies = transcription.ended();
                self.transcription = None;
                self.rest();
                replies
            }
        };
        replies.iter().for_each(|reply| self.reply(reply));
    }

    /// Notes the end of what the client sends. A client that leaves within its audio or text has no use for
    /// the answer.
    fn end(&mut self) -> Result<(), Failure> {
        self.has_ended = true;
        let hears = self.transcription.as_ref().is_some_and(|transcription| !transcription.is_finishing);
        let speaks = self.speaking.as_ref().is_some_and(Speaking::is_open);
        if hears || speaks { Err(SocketError::Truncated.into()) } else { Ok(()) }
    }

    /// Ends what is under way, so that its answer still arrives.
    fn drain(&mut self) {
        self.is_draining = true;
        if let Some(transcription) = &mut self.transcription {
            transcription.finish();
        }
        if let Some(speaking) = &mut self.speaking {
            speaking.complete();
        }
    }

    /// Notes that nothing is under way.
    fn rest(&self) {
        self.slot.mark_idle();
    }

    fn reply(&mut self, (kind, data): &Reply) {
        self.socket.send(kind, data, &[]);
    }

    fn send(&mut self, frames: Vec<Frame>) {
        for ((kind, data), payload) in frames {
            self.socket.send(kind, &data, &payload);
        }
    }
}

fn bad(message: &str) -> Failure {
    BadEvent(message.to_owned()).into()
}
