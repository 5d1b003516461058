//! The state machine of a recognition session, without sockets, clock or randomness.
//!
//! [`Machine::handle`] takes what happened and when; [`Machine::poll_output`] returns what to do about it.
//! The driver performs the outputs and decides nothing, so every failure of a network can be simulated here
//! in microseconds.
//!
//! Four cursors carry the whole logic, `final <= received <= sent <= accepted`:
//!
//! - *accepted*: taken from the source;
//! - *sent*: handed to a socket, which proves nothing;
//! - *received*: held by the live session on the server, safe to skip when the session is resumed;
//! - *final*: the end of the last final that arrived at the client, or of the gap after it. Only this
//!   cursor frees audio.
//!
//! A lost socket costs nothing (resume from `received`); a dead server costs recognition time (start a
//! new session at `final`). Tokens and sockets with a known end are replaced before that end
//! (make-before-break). What the peer can't do is data ([`Capabilities`]), by which the machine decides:
//! without resume, for example, every lost connection is a dead server.

mod connection;
mod dial;
mod failure;
mod handover;
mod io;
mod receive;
mod send;
mod state;
mod throttle;

use std::collections::VecDeque;
use std::time::Duration;

use self::connection::{Connection, connection_lost};
pub use self::io::{ConnectionId, Input, Output};
use self::state::{Connections, Flush, Limits, Positions, Results, Server, Source, Timers, Tokens};
use self::throttle::Throttle;
use super::error::SessionError;
use super::journal::Checkpoint;
use super::ledger::{Ended, Ledger};
use super::replay::ReplayBuffer;
use super::settings::{Overflow, Settings};
use crate::audio::{AudioChunk, FramePos, FrameRange};
use crate::peer::Capabilities;
use crate::protocol::Violation;
use crate::protocol::close;
use crate::transcript::TranscriptEvent;
use voxline_support::random::Random;

/// The cursors of a session: `final <= received <= sent <= accepted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursors {
    /// End of the last final that arrived, or of the gap after it.
    pub final_: FramePos,
    /// Position up to which the live session on the server holds the audio.
    pub received: FramePos,
    /// Position up to which the audio was handed to the socket.
    pub sent: FramePos,
    /// Position up to which the audio was taken from the source.
    pub accepted: FramePos,
}

/// The state machine of a recognition session. See the module's documentation.
#[derive(Debug)]
pub struct Machine {
    settings: Settings,
    capabilities: Capabilities,
    connections: Connections,
    server: Server,
    tokens: Tokens,
    limits: Limits,
    /// Accepted audio that is not final; its ends are the positions `final` and `accepted`.
    replay: ReplayBuffer,
    positions: Positions,
    results: Results,
    source: Source,
    timers: Timers,
    random: Random,
    outputs: VecDeque<Output>,
    ledger: Ledger,
}

impl Machine {
    /// Creates a session with a peer of `voxline.asr.v1` that has not dialled yet. An [`Input::Tick`] starts
    /// the session; audio may come before that.
    #[must_use]
    pub fn new(settings: Settings) -> Machine {
        Machine::for_peer(settings, Capabilities::native(), Checkpoint::default())
    }

    /// Creates a session with a peer of these capabilities that continues where an earlier process left
    /// off. The audio in the checkpoint counts as accepted; the source continues after it.
    ///
    /// # Panics
    /// Panics if the audio of the checkpoint is not contiguous from its `final_` on.
    #[must_use]
    pub fn for_peer(settings: Settings, capabilities: Capabilities, checkpoint: Checkpoint) -> Machine {
        let Checkpoint { final_, next_index, gaps, context, server, replay: kept } = checkpoint;
        let mut replay = ReplayBuffer::new(final_, settings.replay.frames.max(1));
        kept.into_iter().for_each(|chunk| replay.push(chunk));
        let server = server.filter(|_| capabilities.resume);
        let inherited = server.is_some();
        // An earlier process may have sent all of the audio.
        let offered = if inherited { replay.end() } else { final_ };
        let ledger = Ledger {
            accepted: replay.end().0,
            recognised: final_.0.saturating_sub(gaps),
            gaps,
            finals: next_index,
            ..Ledger::default()
        };
        Machine {
            connections: Connections::new(settings.seed),
            server: Server { session: server, inherited, restart: false, successors: Vec::new() },
            tokens: Tokens::default(),
            limits: Limits::new(Throttle::new(
                settings.replay.catch_up.or(capabilities.pacing),
                settings.sample_rate,
            )),
            positions: Positions::new(final_, offered),
            results: Results { next_index, context },
            source: Source::default(),
            timers: Timers {
                stalled_since: (replay.end() > final_).then_some(Duration::ZERO),
                ..Timers::default()
            },
            random: Random::new(settings.seed.wrapping_add(2)),
            replay,
            outputs: VecDeque::new(),
            ledger,
            capabilities,
            settings,
        }
    }

    /// Returns whether the source should be read: the source has not ended, and the replay buffer has
    /// room or makes some.
    #[must_use]
    pub fn wants_audio(&self) -> bool {
        let room = self.settings.replay.overflow == Overflow::DropOldest || !self.replay.is_full();
        !self.source.finished && room && !self.connections.has_ended()
    }

    /// Returns the cursors of the session.
    #[must_use]
    pub fn cursors(&self) -> Cursors {
        Cursors {
            final_: self.final_pos(),
            received: self.positions.received,
            sent: self.positions.sent,
            accepted: self.replay.end(),
        }
    }

    /// Returns the replay buffer: every accepted frame that is neither final nor in a reported gap.
    #[must_use]
    pub fn replay(&self) -> &ReplayBuffer {
        &self.replay
    }

    /// Returns the ledger so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger { unfinished: self.replay.end() - self.final_pos(), ..self.ledger }
    }

    /// Returns the time at which to hand in an [`Input::Tick`], unless another input comes first.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        match &self.connections.current {
            Connection::Attempting(attempt) => Some(attempt.due(&self.settings)),
            Connection::Live(live) => {
                let timers = [
                    Some(live.ping_due(&self.settings)),
                    self.awaits_progress().then(|| self.progress_due()),
                    self.connections.handover.as_ref().map(|handover| handover.due(&self.settings)),
                    self.throttled(),
                ];
                timers.into_iter().flatten().min()
            }
            Connection::Ended => None,
        }
    }

    /// Returns the next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Processes an input that happened at `now`, a time that never decreases, counted from any fixed
    /// moment. Late inputs of a connection that was left are ignored.
    ///
    /// # Panics
    /// Panics if audio, or a gap of the source, doesn't start where the last one ended.
    pub fn handle(&mut self, input: Input, now: Duration) {
        if self.connections.has_ended() {
            return;
        }
        if !self.awaits_progress() {
            // The watchdog runs only while progress is awaited.
            self.timers.last_progress = now;
        }
        match input {
            Input::Audio(chunk) => self.accept(chunk, now),
            Input::Gap(range) => self.accept_gap(range, now),
            Input::Flush => self.accept_flush(now),
            Input::Finish => {
                self.source.finished = true;
                self.pump(now);
            }
            Input::Token(token) => self.receive_token(&token, now),
            Input::TokenFailed(failure) => self.token_failed(failure, now),
            Input::Connected(id) => self.open(id, now),
            Input::DialFailed(id, failure) => {
                self.return_to_configured(id, now);
                self.failed(id, &failure, now);
            }
            Input::Peer(id, message) => self.receive(id, message, now),
            Input::Violation(id, violation) => {
                if self.connections.is_current(id) || self.connections.is_successor(id) {
                    self.fail_protocol(violation);
                }
            }
            Input::Closed(id, code, reason) => self.closed(id, code, &reason, now),
            Input::Lost(id, reason) => self.failed(id, &connection_lost(reason), now),
            Input::Alive(id) => self.connections.note_alive(id, now),
            Input::JournalFailed(source) => {
                self.end(Err(SessionError::Journal { source }), close::GOING_AWAY);
            }
            Input::Tick => self.tick(now),
        }
        self.process_held(now);
        self.check_invariants();
    }

    fn check_invariants(&self) {
        // invariant: final <= received <= sent <= accepted
        debug_assert!(self.final_pos() <= self.positions.received, "{self:?}");
        debug_assert!(self.positions.received <= self.positions.sent, "{self:?}");
        debug_assert!(
            self.positions.sent <= self.replay.end() && self.positions.offered <= self.replay.end(),
            "{self:?}"
        );
        // invariant: every accepted frame is recognised, in a gap, or kept
        debug_assert!(self.ledger().is_balanced(), "{self:?}");
    }

    /// Returns the end of the last final that arrived, or of the gap after it.
    fn final_pos(&self) -> FramePos {
        self.replay.start()
    }

    /// Returns the number of finals of the server's session that arrived.
    fn finals_seen(&self) -> u64 {
        self.results
            .next_index
            .saturating_sub(self.server.session.as_ref().map_or(0, |server| server.first_index))
    }

    /// Returns whether the session waits for the peer to move a cursor: by an acknowledgement of audio in
    /// flight, the end of a finished session, or a final that makes room in a full buffer. Audio held
    /// back by the rate limit alone waits for the clock, not for the peer.
    fn awaits_progress(&self) -> bool {
        let held_back = self.replay.is_full() || self.positions.sent < self.replay.end();
        self.positions.in_flight() > 0
            || self.source.finish_sent.is_some()
            || held_back && self.throttled().is_none()
    }

    fn progress_due(&self) -> Duration {
        self.timers.last_progress.saturating_add(self.settings.timeouts.progress)
    }

    fn accept(&mut self, chunk: AudioChunk, now: Duration) {
        self.ledger.accepted += chunk.range().len();
        self.replay.push(chunk);
        if self.settings.replay.overflow == Overflow::DropOldest {
            // Audio that was sent may be recognised already, so only unsent audio can be declared lost.
            self.replay.make_room(self.positions.offered);
        }
        self.timers.stalled_since.get_or_insert(now);
        self.pump(now);
    }

    fn accept_gap(&mut self, range: FrameRange, now: Duration) {
        self.ledger.accepted += range.len();
        self.replay.push_gap(range);
        self.timers.stalled_since.get_or_insert(now);
        self.pump(now);
    }

    fn accept_flush(&mut self, now: Duration) {
        // No final would ever answer a flush without audio.
        if self.capabilities.flush && self.replay.end() > self.final_pos() {
            self.source.flushes.push_back(Flush { at: self.replay.end(), sent: false });
            self.pump(now);
        }
    }

    fn fail_protocol(&mut self, violation: Violation) {
        self.end(Err(SessionError::Violation(violation)), close::PROTOCOL);
    }

    fn emit(&mut self, event: TranscriptEvent) {
        self.outputs.push_back(Output::Emit(event));
    }

    /// Closes the connection that carries the session, or the only one being established.
    fn close_current(&mut self, code: u16) {
        if let Some(id) = self.connections.current_id() {
            self.outputs.push_back(Output::Close(id, code));
        }
    }

    /// Ends the session and closes its connections with `code`.
    fn end(&mut self, result: Result<(), SessionError>, code: u16) {
        self.close_current(code);
        let handover = self.connections.handover.take();
        self.close_successor(handover);
        self.connections.current = Connection::Ended;
        self.outputs.push_back(Output::End(Box::new(Ended { ledger: self.ledger(), result })));
    }
}
