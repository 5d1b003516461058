//! The logic of a recognition session, without sockets, clock or randomness.
//!
//! [`Core::handle`] takes what happened and when; [`Core::poll_output`] tells what to do about it. The driver performs
//! that and decides nothing, so everything that can go wrong on a network can be played through here in microseconds.
//!
//! Four cursors carry the whole logic, `final <= received <= sent <= accepted`:
//!
//! - *accepted*: taken from the source;
//! - *sent*: handed to a socket, which proves nothing;
//! - *received*: held by the live session on the server, safe to skip when it is resumed;
//! - *final*: the end of the last final that arrived here. Only this cursor frees audio.
//!
//! A dropped socket costs nothing (resume from `received`); a dead server costs recognition time (start a new session
//! at `final`).

use std::collections::VecDeque;
use std::time::Duration;

use super::backoff::Backoff;
use super::close;
use super::error::{Failure, FailureKind, SessionError};
pub use super::events::{Input, Output};
use super::ledger::Ledger;
use super::protocol::{ClientMessage, Final, POSITION_BYTES, Ready, Secret, ServerMessage, Start};
use super::replay::ReplayBuffer;
use super::settings::Settings;
use crate::audio::{AudioChunk, FRAME_BYTES, FramePos, FrameRange};
use crate::recovery::Recovery;
use crate::transcript::{FinalSegment, TranscriptEvent};

/// The state of the connection.
#[derive(Debug)]
enum Link {
    /// Between two tries.
    Waiting { until: Duration },
    /// A dial is under way.
    Dialing,
    /// `start` or `resume` is sent, `ready` has not come.
    Opening { since: Duration },
    /// Audio flows.
    Live { since: Duration },
    /// The session is over.
    Ended,
}

/// The server's session that ours is connected to, or will be again.
#[derive(Debug)]
struct ServerSession {
    name: String,
    resume_key: Secret,
    /// Our index of its first final.
    first_index: u64,
    window: u64,
    max_chunk_frames: u64,
}

/// Where a session stands: `final <= received <= sent <= accepted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursors {
    /// The end of the last final that arrived.
    pub final_: FramePos,
    /// Held by the live session on the server.
    pub received: FramePos,
    /// Handed to the socket.
    pub sent: FramePos,
    /// Taken from the source.
    pub accepted: FramePos,
}

/// A recognition session. See the module's documentation.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    link: Link,
    server: Option<ServerSession>,
    backoff: Backoff,
    replay: ReplayBuffer,
    received: FramePos,
    sent: FramePos,
    /// The farthest that was ever sent: what lies below and is sent again is a replay.
    sent_once: FramePos,
    /// The farthest that was ever acknowledged: a server that takes again what it lost makes no progress.
    received_once: FramePos,
    /// The index of the next final.
    next_index: u64,
    /// Where the user asked for a flush that no final has answered yet, and whether this socket knows.
    flush: Option<(FramePos, bool)>,
    finished: bool,
    finish_sent: bool,
    /// The last token was refused; another refusal is fatal.
    token_refused: bool,
    /// When the trouble began that no progress has ended yet.
    failing_since: Option<Duration>,
    /// When the peer last acknowledged or said something new.
    last_progress: Duration,
    ever_ready: bool,
    outputs: VecDeque<Output>,
    ledger: Ledger,
}

impl Core {
    /// A session that has not dialled yet: hand it a [`Input::Tick`] to begin. Audio may come before that.
    #[must_use]
    pub fn new(settings: Settings) -> Core {
        Core {
            backoff: Backoff::new(settings.seed),
            replay: ReplayBuffer::new(FramePos::ZERO, settings.replay_frames.max(1)),
            settings,
            link: Link::Waiting { until: Duration::ZERO },
            server: None,
            received: FramePos::ZERO,
            sent: FramePos::ZERO,
            sent_once: FramePos::ZERO,
            received_once: FramePos::ZERO,
            next_index: 0,
            flush: None,
            finished: false,
            finish_sent: false,
            token_refused: false,
            failing_since: None,
            last_progress: Duration::ZERO,
            ever_ready: false,
            outputs: VecDeque::new(),
            ledger: Ledger::default(),
        }
    }

    /// Whether the source should be read: not at its end, and the replay buffer has room.
    #[must_use]
    pub fn wants_audio(&self) -> bool {
        !self.finished && !self.replay.is_full() && !matches!(self.link, Link::Ended)
    }

    /// Where the session stands.
    #[must_use]
    pub fn cursors(&self) -> Cursors {
        Cursors {
            final_: self.final_pos(),
            received: self.received,
            sent: self.sent,
            accepted: self.replay.end(),
        }
    }

    /// Every frame that was accepted and is not final.
    #[must_use]
    pub fn replay(&self) -> &ReplayBuffer {
        &self.replay
    }

    /// When to hand in a [`Input::Tick`], unless something else happens first.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        match self.link {
            Link::Waiting { until } => Some(until),
            Link::Opening { since } => Some(since.saturating_add(self.settings.opening_timeout)),
            Link::Live { since } if self.awaits_progress() => {
                Some(since.max(self.last_progress).saturating_add(self.settings.progress_timeout))
            }
            Link::Live { .. } | Link::Dialing | Link::Ended => None,
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes note of what happened at `now`, a time that never steps back, counted from any fixed moment. What comes
    /// late, from a dial or a socket that is no longer of interest, is ignored.
    ///
    /// # Panics
    /// If audio doesn't start where the last chunk ended.
    pub fn handle(&mut self, input: Input, now: Duration) {
        let in_time = match input {
            Input::Connected | Input::DialFailed(_) => matches!(self.link, Link::Dialing),
            Input::Peer(_) | Input::Garbage(_) | Input::Closed(..) | Input::Lost(_) | Input::Alive => {
                matches!(self.link, Link::Opening { .. } | Link::Live { .. })
            }
            Input::Audio(_) | Input::Flush | Input::Finish | Input::Tick => !matches!(self.link, Link::Ended),
        };
        if !in_time {
            return;
        }
        match input {
            Input::Audio(chunk) => self.accept(chunk, now),
            Input::Flush => {
                // No final would ever answer a flush of nothing.
                if self.replay.end() > self.final_pos() {
                    self.flush = Some((self.replay.end(), false));
                    self.pump();
                }
            }
            Input::Finish => {
                self.finished = true;
                self.last_progress = self.last_progress.max(now);
                self.pump();
            }
            Input::Connected => self.open(now),
            Input::DialFailed(failure) => self.retry(&failure, now),
            Input::Peer(message) => {
                if let Err(reason) = self.hear(message, now) {
                    self.fail_protocol(reason);
                }
            }
            Input::Garbage(reason) => self.fail_protocol(reason),
            Input::Closed(code, reason) => self.closed(code, &reason, now),
            Input::Lost(reason) => self.lost(reason, now),
            Input::Alive => {
                // Recognition may take its time; taking audio must not.
                if self.sent == self.received {
                    self.last_progress = now;
                }
            }
            Input::Tick => self.tick(now),
        }
        self.check_invariants();
    }

    fn check_invariants(&self) {
        // invariant: final <= received <= sent <= accepted
        debug_assert!(self.final_pos() <= self.received, "{self:?}");
        debug_assert!(self.received <= self.sent, "{self:?}");
        debug_assert!(self.sent <= self.replay.end(), "{self:?}");
    }

    /// The end of the last final that arrived.
    fn final_pos(&self) -> FramePos {
        self.replay.start()
    }

    /// How many finals of the server's session arrived.
    fn finals_seen(&self) -> u64 {
        self.next_index - self.server.as_ref().map_or(0, |server| server.first_index)
    }

    /// Whether nothing goes on unless the peer says something. A full buffer waits for a final.
    fn awaits_progress(&self) -> bool {
        self.sent > self.received || self.finish_sent || self.replay.is_full()
    }

    fn accept(&mut self, chunk: AudioChunk, now: Duration) {
        if !self.awaits_progress() {
            // The watchdog counts from when there is something to acknowledge.
            self.last_progress = now;
        }
        self.ledger.accepted += chunk.range().len();
        self.replay.push(chunk);
        self.pump();
    }

    /// Introduces the session on a new socket.
    fn open(&mut self, now: Duration) {
        self.link = Link::Opening { since: now };
        self.finish_sent = false;
        if let Some((_, sent)) = &mut self.flush {
            *sent = false;
        }
        let opening = match &self.server {
            Some(server) => ClientMessage::Resume {
                session: server.name.clone(),
                resume_key: server.resume_key.clone(),
                finals_seen: self.finals_seen(),
            },
            None => ClientMessage::Start(Start {
                sample_rate: self.settings.sample_rate,
                language: self.settings.language.clone(),
                partials: self.settings.partials,
                origin: self.final_pos(),
            }),
        };
        self.outputs.push_back(Output::Send(opening));
    }

    /// Sends what may be sent: audio within the peer's window, a flush where it belongs, and the end.
    fn pump(&mut self) {
        let (Link::Live { .. }, Some(server)) = (&self.link, &self.server) else { return };
        loop {
            if let Some((at, sent @ false)) = &mut self.flush
                && self.sent >= *at
            {
                *sent = true;
                self.outputs.push_back(Output::Send(ClientMessage::Flush));
            }
            let window_left = server.window.saturating_sub(self.sent - self.received);
            let Some(chunk) = self.replay.chunk_from(self.sent) else { break };
            let before_flush = match self.flush {
                Some((at, false)) => at - self.sent,
                _ => u64::MAX,
            };
            let frames = chunk.range().len().min(window_left).min(server.max_chunk_frames).min(before_flush);
            if frames == 0 {
                return;
            }
            let chunk = chunk.first(frames);
            self.sent = chunk.range().end;
            self.ledger.replayed += self.sent_once.min(self.sent).0.saturating_sub(chunk.range().start.0);
            self.sent_once = self.sent_once.max(self.sent);
            self.outputs.push_back(Output::SendAudio(chunk));
        }
        if self.finished && !self.finish_sent {
            self.finish_sent = true;
            self.outputs.push_back(Output::Send(ClientMessage::Finish { through: self.replay.end() }));
        }
    }

    /// The peer said something; an error is a breach of the protocol.
    fn hear(&mut self, message: ServerMessage, now: Duration) -> Result<(), String> {
        match (&self.link, message) {
            (Link::Opening { .. }, ServerMessage::Ready(ready)) => self.ready(ready, now),
            (_, ServerMessage::AuthOk { .. } | ServerMessage::Goaway { .. } | ServerMessage::Unknown) => {
                Ok(())
            }
            // The close that follows says what to do.
            (_, ServerMessage::Error { code, message }) => {
                tracing::debug!(code, message, "the peer reports an error");
                Ok(())
            }
            (Link::Live { .. }, ServerMessage::Ack { received, .. }) => self.acknowledged(received, now),
            (Link::Live { .. }, ServerMessage::Partial { segment, revision, start, end, text }) => {
                // A guess at a segment that is final already was overtaken; it says nothing new.
                if segment == self.finals_seen() && start <= end {
                    let range = start.to(end);
                    self.emit(TranscriptEvent::Partial { segment: self.next_index, revision, range, text });
                    self.last_progress = now;
                }
                Ok(())
            }
            (Link::Live { .. }, ServerMessage::Final(segment)) => self.segment(segment, now),
            (Link::Live { .. }, ServerMessage::Done { frames, finals }) => self.done(frames, finals),
            (link, message) => Err(format!("{} does not belong here, in state {link:?}", name(&message))),
        }
    }

    fn ready(&mut self, ready: Ready, now: Duration) -> Result<(), String> {
        let resumed = self.server.as_ref().is_some_and(|server| server.name == ready.session);
        if self.server.is_some() && !resumed {
            return Err(format!("resumed session is called {}", ready.session));
        }
        // Of a session that is only now started nothing was sent, so this also says that it holds nothing.
        let on_the_way = self.final_pos().to(self.sent);
        if ready.received < on_the_way.start || ready.received > on_the_way.end {
            return Err(format!("ready says received {}, but {on_the_way} was sent", ready.received));
        }
        if ready.window_frames == 0 {
            return Err("ready allows no audio on the way".to_owned());
        }
        let max_payload = ready.max_audio_bytes.saturating_sub(POSITION_BYTES);
        let max_chunk_frames = (max_payload / FRAME_BYTES) as u64;
        if max_chunk_frames == 0 {
            return Err(format!(
                "ready allows {} bytes of audio, too few for one frame",
                ready.max_audio_bytes
            ));
        }
        self.server = Some(ServerSession {
            first_index: match &self.server {
                Some(server) => server.first_index,
                None => self.next_index,
            },
            name: ready.session,
            resume_key: ready.resume_key,
            window: ready.window_frames,
            max_chunk_frames,
        });
        self.received = ready.received;
        self.sent = ready.received;
        self.link = Link::Live { since: now };
        self.token_refused = false;
        self.last_progress = now;
        if self.ever_ready {
            self.ledger.reconnects += 1;
            self.emit(TranscriptEvent::Reconnected { from: ready.received });
        }
        self.ever_ready = true;
        if self.sent == self.replay.end() && self.wants_audio() {
            // An idle session needs no more from its peer than this.
            self.failing_since = None;
        }
        self.pump();
        Ok(())
    }

    fn acknowledged(&mut self, received: FramePos, now: Duration) -> Result<(), String> {
        if received > self.sent {
            return Err(format!("ack says received {received}, but only {} were sent", self.sent));
        }
        if received > self.received {
            self.received = received;
            self.last_progress = now;
        }
        if received > self.received_once {
            self.received_once = received;
            self.failing_since = None;
        }
        self.pump();
        Ok(())
    }

    fn segment(&mut self, segment: Final, now: Duration) -> Result<(), String> {
        let Final { index, start, end, text, language, confidence } = segment;
        let next = self.finals_seen();
        if index < next {
            // Sent again after a resume, and crossed with our count of what we have.
            return Ok(());
        }
        if index > next {
            return Err(format!("final {index} arrived, but {next} is the next"));
        }
        if start != self.final_pos() || end < start || end > self.sent {
            return Err(format!(
                "final {index} covers {start}..{end}, but it should start at {} and end by {}",
                self.final_pos(),
                self.sent
            ));
        }
        self.replay.release(end);
        self.received = self.received.max(end);
        let index = self.next_index;
        self.next_index += 1;
        self.failing_since = None;
        self.last_progress = now;
        if self.flush.is_some_and(|(at, _)| end >= at) {
            self.flush = None;
        }
        self.ledger.recognised += end - start;
        self.ledger.finals += 1;
        self.emit(TranscriptEvent::Final(FinalSegment {
            index,
            range: FrameRange::new(start, end),
            text,
            language,
            confidence,
        }));
        self.pump();
        Ok(())
    }

    fn done(&mut self, frames: FramePos, finals: u64) -> Result<(), String> {
        let (end, index) = (self.replay.end(), self.finals_seen());
        if !self.finish_sent || frames != end || self.final_pos() != end || finals != index {
            return Err(format!(
                "done says {frames} frames in {finals} finals, but {index} finals cover {} of {end} frames",
                self.final_pos()
            ));
        }
        self.emit(TranscriptEvent::End { frames: end.0, finals: self.next_index });
        self.outputs.push_back(Output::Close(close::NORMAL));
        self.end(Ok(self.ledger));
        Ok(())
    }

    fn closed(&mut self, code: u16, reason: &str, now: Duration) {
        if code == close::SESSION_UNKNOWN {
            // The server forgot the session: nothing that it held counts, so everything above `final` goes again.
            self.server = None;
            self.received = self.final_pos();
            self.sent = self.final_pos();
        }
        let recovery = close::recovery(code);
        let kind = match (recovery, code) {
            (_, close::SCOPE) | (Recovery::RefreshToken, _) => FailureKind::Authentication,
            (_, close::QUOTA | close::TRY_LATER | close::TOO_BIG) => FailureKind::Limit,
            (_, close::UNSUPPORTED) => FailureKind::Unsupported,
            (Recovery::Fatal, _) => FailureKind::Protocol,
            _ => FailureKind::Unreachable,
        };
        let reason = match reason {
            "" => format!("the peer closed the connection with code {code}"),
            reason => format!("the peer closed the connection with code {code}: {reason}"),
        };
        self.retry(&Failure { recovery, kind, reason }, now);
    }

    fn lost(&mut self, reason: String, now: Duration) {
        self.retry(&Failure { recovery: Recovery::Retry, kind: FailureKind::Unreachable, reason }, now);
    }

    /// Decides what follows a failure: another dial, now or later, or the end.
    fn retry(&mut self, failure: &Failure, now: Duration) {
        let (was_live, was_healthy) = match self.link {
            Link::Live { since } => (true, now.saturating_sub(since) >= self.settings.healthy_after),
            _ => (false, false),
        };
        if was_healthy {
            self.backoff.reset();
            if !self.awaits_progress() {
                self.failing_since = None;
            }
        }
        let since = *self.failing_since.get_or_insert(now);
        let patience = if self.ever_ready { self.settings.give_up } else { self.settings.first_contact };
        let too_long = now.saturating_sub(since) >= patience;
        let fatal = match failure.recovery {
            Recovery::Fatal => true,
            Recovery::RefreshToken => std::mem::replace(&mut self.token_refused, true) || too_long,
            Recovery::Retry => too_long,
            // Nobody is served by a session that sleeps for longer than it would ever try.
            Recovery::RetryAfter(wait) => too_long || wait > self.settings.give_up,
        };
        if fatal {
            return self.end(Err(SessionError::from(failure.clone())));
        }
        tracing::debug!(reason = %failure.reason, "connection failed");
        let delay = match failure.recovery {
            Recovery::RefreshToken => {
                self.ledger.token_refreshes += 1;
                match was_live && !was_healthy {
                    // A peer that takes a token and throws it out soon would have us refresh in a circle.
                    true => self.backoff.next_delay(),
                    // The token is what was wrong, not the peer: no reason to wait.
                    false => Duration::ZERO,
                }
            }
            Recovery::RetryAfter(wait) => wait.max(self.backoff.next_delay()),
            _ => self.backoff.next_delay(),
        };
        self.link = Link::Waiting { until: now + delay };
    }

    fn tick(&mut self, now: Duration) {
        if self.wake_at().is_none_or(|at| now < at) {
            return;
        }
        match self.link {
            Link::Waiting { .. } => {
                self.link = Link::Dialing;
                self.outputs.push_back(Output::Dial { fresh_token: self.token_refused });
            }
            Link::Opening { .. } | Link::Live { .. } => {
                let silence = match self.link {
                    Link::Opening { .. } => self.settings.opening_timeout,
                    _ => self.settings.progress_timeout,
                };
                self.outputs.push_back(Output::Close(close::GOING_AWAY));
                self.lost(format!("the peer made no progress for {} s", silence.as_secs()), now);
            }
            Link::Dialing | Link::Ended => {}
        }
    }

    fn fail_protocol(&mut self, reason: String) {
        self.outputs.push_back(Output::Close(close::PROTOCOL));
        self.end(Err(SessionError::Protocol { reason }));
    }

    fn emit(&mut self, event: TranscriptEvent) {
        self.outputs.push_back(Output::Emit(event));
    }

    fn end(&mut self, result: Result<Ledger, SessionError>) {
        self.link = Link::Ended;
        self.outputs.push_back(Output::End(result));
    }
}

fn name(message: &ServerMessage) -> &'static str {
    match message {
        ServerMessage::Ready(_) => "ready",
        ServerMessage::Ack { .. } => "ack",
        ServerMessage::Partial { .. } => "partial",
        ServerMessage::Final(_) => "final",
        ServerMessage::Done { .. } => "done",
        ServerMessage::AuthOk { .. } => "auth_ok",
        ServerMessage::Goaway { .. } => "goaway",
        ServerMessage::Error { .. } => "error",
        ServerMessage::Unknown => "unknown",
    }
}
