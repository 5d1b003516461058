//! A connection: its settings, and one session of the recogniser after the other.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::API;
use super::bad_event::{BadEvent, error};
use super::items::{AudioClock, Items};
use super::messages::{ClientEvent, Request, parse};
use super::settings::{AudioFormat, Generation, Settings, Transcription};
use crate::admission::pending::PendingPlace;
use crate::authority::new_id;
use crate::dialects::audio::PcmInput;
use crate::dialects::live::{close_code, refusal_code};
use crate::scheduler;
use crate::sessions::credential::OpeningToken;
use crate::sessions::live::{LiveEnd, LiveEvent, LiveSession, LiveSettings};
use crate::sessions::live_socket::{LiveInput, LiveSocket};
use crate::sessions::manager::{BeginError, SessionManager};
use crate::sessions::message_rate_limiter::MessageRateLimiter;
use crate::sessions::session::StartError;
use voxline::protocol::close;

/// Most audio in one event, in seconds: what a session takes at once.
const MAX_SECONDS: usize = 30;

/// Reason for the end of a connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Live(#[from] LiveEnd),
    #[error("{}", .0.told())]
    Begin(#[from] BeginError),
    #[error("the place of this socket is needed: it has waited longest to start")]
    Displaced,
}

impl Failure {
    /// Returns the close code.
    fn code(&self) -> u16 {
        match self {
            Failure::Live(end) => close_code(end),
            Failure::Begin(error) => refusal_code(error),
            Failure::Displaced => close::TRY_LATER,
        }
    }

    /// Returns the type and the code of the errors about the failure.
    fn kind(&self) -> (&'static str, Option<&'static str>) {
        match self {
            Failure::Live(LiveEnd::Token(_)) => ("invalid_request_error", Some("invalid_api_key")),
            Failure::Live(LiveEnd::Exhausted(_)) => ("insufficient_quota", Some("insufficient_quota")),
            Failure::Live(LiveEnd::Flood) | Failure::Displaced => ("requests", Some("rate_limit_exceeded")),
            Failure::Begin(BeginError::Rejected(_) | BeginError::Full(_)) => {
                ("requests", Some("rate_limit_exceeded"))
            }
            Failure::Live(LiveEnd::TooBig | LiveEnd::Malformed) => ("invalid_request_error", None),
            Failure::Begin(BeginError::Start(_)) => ("invalid_request_error", Some("invalid_value")),
            Failure::Live(_) | Failure::Begin(BeginError::NoRecognizer) => ("server_error", None),
        }
    }
}

/// Reason why an event of the client is not done.
enum Refusal {
    /// The client is told, and the connection goes on.
    Event(BadEvent),
    /// The connection ends.
    End(Failure),
}

impl From<BadEvent> for Refusal {
    fn from(bad: BadEvent) -> Refusal {
        Refusal::Event(bad)
    }
}

impl From<LiveEnd> for Refusal {
    fn from(end: LiveEnd) -> Refusal {
        Refusal::End(end.into())
    }
}

impl From<BeginError> for Refusal {
    fn from(error: BeginError) -> Refusal {
        Refusal::End(error.into())
    }
}

/// A session of the recogniser, with the settings that can't change within it.
struct CurrentSession {
    format: AudioFormat,
    transcription: Transcription,
    input: PcmInput,
    /// Kind of its end, once its audio has ended. Later audio is for another session.
    ending: Option<Ending>,
}

/// Meaning of the audio of a session after the last commit, once the session ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Heard,
    Cleared,
}

/// A socket, and what was said on it.
pub(super) struct Connection<'a> {
    manager: &'a Arc<SessionManager>,
    opener: Arc<OpeningToken>,
    place: PendingPlace,
    socket: LiveSocket<'a>,
    /// The session of `current`.
    sessions: Vec<LiveSession>,
    current: Option<CurrentSession>,
    settings: Settings,
    items: Items,
    id: String,
    /// Milliseconds of audio of the sessions that are over.
    heard_before: u64,
    limiter: MessageRateLimiter,
    opened: std::time::Instant,
    is_draining: bool,
}

impl<'a> Connection<'a> {
    pub(super) fn new(
        manager: &'a Arc<SessionManager>,
        opener: Arc<OpeningToken>,
        place: PendingPlace,
        socket: LiveSocket<'a>,
        settings: Settings,
    ) -> Connection<'a> {
        Connection {
            manager,
            opener,
            place,
            socket,
            sessions: Vec::new(),
            current: None,
            settings,
            items: Items::new(),
            id: format!("sess_{}", new_id()),
            heard_before: 0,
            limiter: MessageRateLimiter::default(),
            opened: scheduler::now(),
            is_draining: false,
        }
    }

    /// Serves the connection to its end, and closes it.
    pub(super) async fn serve(mut self) {
        let failure = self.run().await;
        let reason = failure.to_string();
        if !matches!(failure, Failure::Live(LiveEnd::Lost)) {
            let (kind, code) = failure.kind();
            let failed = self.items.failed(kind, code, &reason);
            self.tell(failed);
            self.tell([error(kind, code, &reason, None, None)]);
        }
        let Connection { socket, sessions, place, .. } = self;
        // The places are free before the client learns of the end.
        drop((sessions, place));
        let code = failure.code();
        tracing::debug!(code, reason, "socket ended");
        socket.close(code, &reason).await;
    }

    /// Runs until the client closes, as there is no other end, or something fails.
    async fn run(&mut self) -> Failure {
        let session = self.settings.told(&self.id, Generation::Current);
        self.tell([json!({ "type": "session.created", "session": session })]);
        loop {
            match self.next().await {
                Ok(()) if self.is_draining && self.current.is_none() => return LiveEnd::Stopping.into(),
                Ok(()) => {}
                Err(failure) => return failure,
            }
        }
    }

    async fn next(&mut self) -> Result<(), Failure> {
        // Audio for the next session waits until this one is over.
        let reads = self.current.as_ref().is_none_or(|current| current.ending.is_none());
        let displaced = self.place.displacement();
        let draining = &self.manager.shutdown.draining;
        let input = tokio::select! {
            input = self.socket.next(&mut self.sessions, reads) => input?,
            () = displaced.cancelled() => return Err(Failure::Displaced),
            // Without audio there is nothing to wait for.
            () = draining.cancelled(), if self.current.is_none() => return Err(LiveEnd::Stopping.into()),
        };
        match input {
            LiveInput::Text(text) => self.text(&text)?,
            LiveInput::Audio(_) => {
                self.count()?;
                self.tell_error(None, &BadEvent::binary());
            }
            LiveInput::Event(_, event) => self.event(event),
            LiveInput::Drain => self.drain()?,
            LiveInput::Idle => {}
        }
        Ok(())
    }

    /// Takes an event of the client.
    fn text(&mut self, text: &str) -> Result<(), Failure> {
        let ClientEvent { id, request } = parse(text);
        // Audio that is taken is limited by itself.
        let is_audio = matches!(&request, Ok(Request::Append(audio)) if !audio.is_empty());
        let done = match request {
            Ok(Request::Update(generation, session)) => self.update(generation, &session),
            Ok(Request::Append(audio)) => self.append(audio),
            Ok(Request::Commit) => self.commit(),
            Ok(Request::Clear) => {
                self.clear();
                Ok(())
            }
            Err(bad) => Err(bad.into()),
        };
        if !is_audio || done.is_err() {
            self.count()?;
        }
        match done {
            Ok(()) => Ok(()),
            Err(Refusal::End(failure)) => Err(failure),
            Err(Refusal::Event(bad)) => {
                self.tell_error(id.as_deref(), &bad);
                Ok(())
            }
        }
    }

    /// Counts an event that carries no audio.
    fn count(&mut self) -> Result<(), LiveEnd> {
        let age = scheduler::now().saturating_duration_since(self.opened);
        if self.limiter.allows(age) { Ok(()) } else { Err(LiveEnd::Flood) }
    }

    fn update(&mut self, generation: Generation, session: &Value) -> Result<(), Refusal> {
        let settings = self.settings.updated(session)?;
        let is_another = |current: &CurrentSession| {
            current.format != settings.format || current.transcription != settings.transcription
        };
        // The audio before is heard as it was sent.
        if self.current.as_ref().is_some_and(is_another) {
            self.end_heard()?;
        }
        self.settings = settings;
        self.items.generation = generation;
        let kind = match generation {
            Generation::Beta => "transcription_session.updated",
            Generation::Current => "session.updated",
        };
        let session = self.settings.told(&self.id, generation);
        self.tell([json!({ "type": kind, "session": session })]);
        Ok(())
    }

    fn append(&mut self, audio: Bytes) -> Result<(), Refusal> {
        self.manager.metrics.count_bytes(API, "in", audio.len());
        let format = self.settings.format;
        if audio.len() > MAX_SECONDS * format.sample_rate() as usize * format.sample_bytes() {
            return Err(BadEvent::long_audio(MAX_SECONDS).into());
        }
        if audio.is_empty() {
            return Ok(());
        }
        if self.current.is_none() {
            self.begin()?;
        }
        if let (Some(current), Some(session)) = (&mut self.current, self.sessions.first_mut()) {
            session.push(current.input.push(audio).remove(0))?;
        }
        Ok(())
    }

    /// Begins a session with the settings. What the recogniser doesn't support can be changed by an update.
    fn begin(&mut self) -> Result<(), Refusal> {
        let format = self.settings.format;
        let usual = self.manager.recognition_request(Some(&self.opener.identity), None);
        let request = self.settings.request(usual);
        let settings = LiveSettings { api: API, sample_rate: format.sample_rate(), request, partials: true };
        let session = match LiveSession::begin(self.manager, &self.opener, settings) {
            Ok(session) => session,
            Err(BeginError::Start(StartError::Unsupported(reason))) => {
                return Err(BadEvent::unsupported(reason).into());
            }
            Err(error) => return Err(error.into()),
        };
        self.sessions.push(session);
        self.place.begin();
        self.items.begin(AudioClock::new(self.heard_before, format.sample_rate()));
        self.current = Some(CurrentSession {
            format,
            transcription: self.settings.transcription.clone(),
            input: PcmInput::new(format.encoding(), 1, false),
            ending: None,
        });
        Ok(())
    }

    fn commit(&mut self) -> Result<(), Refusal> {
        if self.commit_rest()? { Ok(()) } else { Err(BadEvent::empty_commit().into()) }
    }

    /// Commits the audio that is not committed. Returns whether there was any.
    fn commit_rest(&mut self) -> Result<bool, LiveEnd> {
        let Some(session) = self.sessions.first_mut().filter(|session| self.items.has_audio(session.end()))
        else {
            return Ok(false);
        };
        let events = self.items.commit(session.end(), self.settings.detects_turns());
        session.flush()?;
        self.tell(events);
        Ok(true)
    }

    fn clear(&mut self) {
        let end = self.sessions.first().map(LiveSession::end).unwrap_or_default();
        let has_audio = self.items.has_audio(end);
        let cleared = self.items.clear(end);
        if has_audio {
            self.end_session(Ending::Cleared);
        }
        self.tell([cleared]);
    }

    /// Ends the session, so that all of its audio is heard.
    fn end_heard(&mut self) -> Result<(), LiveEnd> {
        if !self.settings.detects_turns() {
            self.commit_rest()?;
        }
        self.end_session(Ending::Heard);
        Ok(())
    }

    /// Ends the session. If no text is to come, it is over at once.
    fn end_session(&mut self, ending: Ending) {
        let end = self.sessions.first().map(LiveSession::end).unwrap_or_default();
        if !self.items.is_pending() && !self.items.has_audio(end) {
            return self.session_over();
        }
        if let (Some(current), Some(session)) = (&mut self.current, self.sessions.first_mut()) {
            current.ending = Some(ending);
            session.finish();
        }
    }

    fn session_over(&mut self) {
        for session in self.sessions.drain(..) {
            let clock = AudioClock::new(self.heard_before, session.sample_rate());
            self.heard_before = clock.milliseconds(session.end());
        }
        self.current = None;
        self.place.leave();
    }

    /// Takes an event of the recogniser.
    fn event(&mut self, event: LiveEvent) {
        let ending = self.current.as_ref().and_then(|current| current.ending);
        // What follows the committed audio of a session that ends was cleared, or was to be detected.
        let is_cleared = ending == Some(Ending::Cleared) && !self.items.is_pending();
        let detects = self.settings.detects_turns() || ending == Some(Ending::Heard);
        let events = match event {
            LiveEvent::End => {
                let mut events = Vec::new();
                while self.items.is_pending() {
                    events.extend(self.items.flushed());
                }
                self.session_over();
                events
            }
            _ if is_cleared => Vec::new(),
            LiveEvent::Partial(partial) => self.items.partial(&partial, detects),
            LiveEvent::Final { segment, ends_flush } => self.items.heard(&segment, ends_flush, detects),
            LiveEvent::Flushed => self.items.flushed(),
        };
        self.tell(events);
    }

    /// Ends the audio, since the gateway is about to stop.
    fn drain(&mut self) -> Result<(), Failure> {
        self.is_draining = true;
        Ok(self.end_heard()?)
    }

    fn tell_error(&mut self, id: Option<&str>, bad: &BadEvent) {
        let BadEvent { code, message, param } = bad;
        self.tell([error("invalid_request_error", Some(code), message, param.as_deref(), id)]);
    }

    /// Sends events, each with an id.
    fn tell(&mut self, events: impl IntoIterator<Item = Value>) {
        for mut event in events {
            event["event_id"] = format!("event_{}", new_id()).into();
            self.socket.send(&event);
        }
    }
}
