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
//! - *final*: the end of the last final that arrived here, or of the gap behind it. Only this cursor frees audio.
//!
//! A dropped socket costs nothing (resume from `received`); a dead server costs recognition time (start a new session
//! at `final`). A token or a socket whose end is known is left before it ends.

mod dialling;
mod failing;
mod hearing;
mod moving;
mod sending;

use std::collections::VecDeque;
use std::time::Duration;

use super::backoff::Backoff;
use super::catch_up::Throttle;
use super::close;
use super::error::{Failure, FailureKind, SessionError};
pub use super::events::{ConnectionId, Input, Output};
use super::journal::{Checkpoint, ServerSession};
use super::ledger::{Ended, Ledger};
use super::links::{Attempt, Link, Swap, lost};
#[cfg(feature = "test-util")]
use super::planted::Planted;
use super::protocol::ServerMessage;
use super::replay::ReplayBuffer;
use super::settings::{Overflow, Settings};
use crate::audio::{AudioChunk, FramePos};
use crate::auth::TokenGeneration;
use crate::recovery::Recovery;
use crate::transcript::TranscriptEvent;
use voxline_support::random::Random;

/// Where a session stands: `final <= received <= sent <= accepted`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursors {
    /// The end of the last final that arrived, or of the gap behind it.
    pub final_: FramePos,
    /// Held by the live session on the server.
    pub received: FramePos,
    /// Handed to the socket.
    pub sent: FramePos,
    /// Taken from the source.
    pub accepted: FramePos,
}

/// The user's wish to have everything below a position recognised now.
#[derive(Clone, Copy, Debug)]
struct Flush {
    at: FramePos,
    /// Whether the peer was told on this connection.
    sent: bool,
}

/// A recognition session. See the module's documentation.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    link: Link,
    /// The change that is due or under way; only while the link is live.
    swap: Option<Swap>,
    /// A token was asked for and has not come.
    fetching: bool,
    dialled: u32,
    server: Option<ServerSession>,
    /// It is an earlier process's, which may have sent more than this one knows.
    inherited: bool,
    /// The server wants the session to start anew elsewhere, at one of `successors`.
    restart: bool,
    successors: Vec<String>,
    /// What the server said of the session since another was asked to start where `final` is: told once that
    /// has failed.
    held: VecDeque<(ConnectionId, ServerMessage)>,
    window: u64,
    max_chunk_frames: u64,
    backoff: Backoff,
    /// The waits between tries to swap, which say nothing of the link.
    swap_backoff: Backoff,
    random: Random,
    throttle: Throttle,
    replay: ReplayBuffer,
    received: FramePos,
    sent: FramePos,
    /// The end of the last gap that was told on this connection.
    gap_sent: FramePos,
    /// The farthest that was sent to the server's session, on any connection.
    offered: FramePos,
    /// The farthest that was ever sent: what lies below and is sent again is a replay.
    sent_once: FramePos,
    /// The farthest that was ever acknowledged: a server that takes again what it lost makes no progress.
    received_once: FramePos,
    /// The index of the next final.
    next_index: u64,
    /// The recogniser's context at `final`.
    context: Option<String>,
    /// The flushes that no final has answered yet, in order.
    flushes: VecDeque<Flush>,
    finished: bool,
    finish_sent: bool,
    /// The token that was refused last; another refusal is fatal.
    refused: Option<TokenGeneration>,
    /// The reason of the last refusal.
    refusal: String,
    /// The code of the last `error`, and the connection it came by.
    error: Option<(ConnectionId, u32)>,
    /// The token last in force.
    in_force: Option<TokenGeneration>,
    /// When the session last changed its token or connection.
    changed: Duration,
    /// When the trouble began that no progress has ended yet.
    failing_since: Option<Duration>,
    /// When a cursor last moved, or nothing was awaited of the peer, or a connection was found after trouble.
    last_progress: Duration,
    /// Since when audio has waited and the peer took none.
    stalled_since: Option<Duration>,
    ever_ready: bool,
    outputs: VecDeque<Output>,
    ledger: Ledger,
}

impl Core {
    /// A session that has not dialled yet: hand it a [`Input::Tick`] to begin. Audio may come before that.
    #[must_use]
    pub fn new(settings: Settings) -> Core {
        Core::from_checkpoint(settings, Checkpoint::default())
    }

    /// A session that goes on where an earlier process left it. What the checkpoint has of its audio counts as accepted;
    /// the source goes on behind that.
    ///
    /// # Panics
    /// If the checkpoint's audio is not contiguous from its `final_` on.
    #[must_use]
    pub fn from_checkpoint(settings: Settings, checkpoint: Checkpoint) -> Core {
        let Checkpoint { final_, next_index, gaps, context, server, replay: kept } = checkpoint;
        let mut replay = ReplayBuffer::new(final_, settings.replay_frames.max(1));
        kept.into_iter().for_each(|chunk| replay.push(chunk));
        let inherited = server.is_some();
        // An earlier process may have sent all of it.
        let offered = if inherited { replay.end() } else { final_ };
        let ledger = Ledger {
            accepted: replay.end().0,
            recognised: final_.0.saturating_sub(gaps),
            gaps,
            finals: next_index,
            ..Ledger::default()
        };
        Core {
            backoff: Backoff::new(settings.seed),
            swap_backoff: Backoff::new(settings.seed.wrapping_add(1)),
            random: Random::new(settings.seed.wrapping_add(2)),
            throttle: Throttle::new(settings.catch_up, settings.sample_rate),
            settings,
            link: Link::Attempting(Attempt::Waiting { until: Duration::ZERO }),
            swap: None,
            fetching: false,
            dialled: 0,
            inherited,
            server,
            restart: false,
            successors: Vec::new(),
            held: VecDeque::new(),
            window: 0,
            max_chunk_frames: 0,
            stalled_since: (replay.end() > final_).then_some(Duration::ZERO),
            replay,
            received: final_,
            sent: final_,
            offered,
            gap_sent: final_,
            sent_once: final_,
            received_once: final_,
            next_index,
            context,
            flushes: VecDeque::new(),
            finished: false,
            finish_sent: false,
            refused: None,
            refusal: String::new(),
            error: None,
            in_force: None,
            changed: Duration::ZERO,
            failing_since: None,
            last_progress: Duration::ZERO,
            ever_ready: false,
            outputs: VecDeque::new(),
            ledger,
        }
    }

    /// Whether the source should be read: not at its end, and the replay buffer has room, or makes some.
    #[must_use]
    pub fn wants_audio(&self) -> bool {
        let room = self.settings.overflow == Overflow::DropOldest || !self.replay.is_full();
        !self.finished && room && !matches!(self.link, Link::Ended)
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

    /// Every frame that was accepted and is neither final nor in a gap that was told.
    #[must_use]
    pub fn replay(&self) -> &ReplayBuffer {
        &self.replay
    }

    /// The account so far.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        Ledger { unfinished: self.replay.end() - self.final_pos(), ..self.ledger }
    }

    /// When to hand in a [`Input::Tick`], unless something else happens first.
    #[must_use]
    pub fn wake_at(&self) -> Option<Duration> {
        match &self.link {
            Link::Attempting(attempt) => Some(attempt.due(&self.settings)),
            Link::Live(live) => {
                let timers = [
                    Some(live.ping_due(&self.settings)),
                    self.awaits_progress().then(|| self.progress_due()),
                    self.swap.as_ref().map(|swap| swap.due(&self.settings)),
                    self.throttled(),
                ];
                timers.into_iter().flatten().min()
            }
            Link::Ended => None,
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Takes note of what happened at `now`, a time that never steps back, counted from any fixed moment. What comes
    /// late, from a connection that is no longer of interest, is ignored.
    ///
    /// # Panics
    /// If audio, or a gap of the source, doesn't start where the last one ended.
    pub fn handle(&mut self, input: Input, now: Duration) {
        if matches!(self.link, Link::Ended) {
            return;
        }
        if !self.awaits_progress() {
            // The watchdog counts from when there is something to wait for.
            self.last_progress = now;
        }
        match input {
            Input::Audio(chunk) => self.accept(chunk, now),
            Input::Gap(range) => {
                self.ledger.accepted += range.len();
                self.replay.push_gap(range);
                self.stalled_since.get_or_insert(now);
                self.pump(now);
            }
            Input::Flush => {
                // No final would ever answer a flush of nothing.
                if self.replay.end() > self.final_pos() {
                    self.flushes.push_back(Flush { at: self.replay.end(), sent: false });
                    self.pump(now);
                }
            }
            Input::Finish => {
                self.finished = true;
                self.pump(now);
            }
            Input::Token(token) => self.take_token(&token, now),
            Input::TokenFailed(failure) => {
                self.fetching = false;
                let failure = self.with_refusal(failure);
                match (&self.link, self.swap) {
                    (Link::Attempting(Attempt::Fetching { .. }), _) => self.link_failed(&failure, now),
                    (Link::Live(_), Some(Swap::Attempt(motive, Attempt::Fetching { .. }))) => {
                        self.swap_failed(motive, &failure, now);
                    }
                    _ => {}
                }
            }
            Input::Connected(id) => self.open(id, now),
            Input::DialFailed(id, failure) => {
                self.come_home(id, now);
                self.failed(id, &failure, now);
            }
            Input::Peer(id, message) => self.hear(id, message, now),
            Input::Garbage(id, reason) => {
                if self.is_link(id) || self.is_successor(id) {
                    self.fail_protocol(reason);
                }
            }
            Input::Closed(id, code, reason) => self.closed(id, code, &reason, now),
            Input::Lost(id, reason) => self.failed(id, &lost(reason), now),
            Input::Alive(id) => self.is_alive(id, now),
            Input::JournalFailed(reason) => {
                self.end(Err(SessionError::Journal { reason }), close::GOING_AWAY);
            }
            Input::Tick => self.tick(now),
        }
        self.tell_held(now);
        self.check_invariants();
    }

    /// Adds to the failure to replace a token that was refused why it was: the service knows, and who hands
    /// out tokens does not.
    fn with_refusal(&self, failure: Failure) -> Failure {
        let replaces = self.refused.is_some() && failure.kind == FailureKind::Authentication;
        match failure.recovery {
            Recovery::Fatal if replaces => {
                Failure { reason: format!("{}; {}", self.refusal, failure.reason), ..failure }
            }
            _ => failure,
        }
    }

    fn check_invariants(&self) {
        // invariant: final <= received <= sent <= accepted
        debug_assert!(self.final_pos() <= self.received, "{self:?}");
        debug_assert!(self.received <= self.sent, "{self:?}");
        debug_assert!(self.sent <= self.replay.end() && self.offered <= self.replay.end(), "{self:?}");
        // invariant: every accepted frame is recognised, in a gap, or kept
        debug_assert!(self.ledger().is_balanced(), "{self:?}");
    }

    /// The end of the last final that arrived, or of the gap behind it.
    fn final_pos(&self) -> FramePos {
        self.replay.start()
    }

    /// How many finals of the server's session arrived.
    fn finals_seen(&self) -> u64 {
        self.next_index.saturating_sub(self.server.as_ref().map_or(0, |server| server.first_index))
    }

    /// Whether this is the connection that carries the session, or is the only one to.
    fn is_link(&self, id: ConnectionId) -> bool {
        match &self.link {
            Link::Attempting(attempt) => attempt.call().is_some_and(|call| call.id == id),
            Link::Live(live) => live.id == id,
            Link::Ended => false,
        }
    }

    /// Whether this is the connection that is to take the session over.
    fn is_successor(&self, id: ConnectionId) -> bool {
        self.swap.as_ref().and_then(Swap::call).is_some_and(|call| call.id == id)
    }

    /// The peer gave a sign of life on this connection, which is no progress of the session.
    fn is_alive(&mut self, id: ConnectionId, now: Duration) {
        if let Link::Live(live) = &mut self.link
            && live.id == id
        {
            (live.heard, live.pinged) = (now, None);
        }
    }

    /// Returns whether nothing goes on until the peer moves a cursor: an acknowledgement for audio on the
    /// way, the end of a finished session, a final that makes room in a full buffer. What only the pace holds
    /// back waits for the clock, not for the peer.
    fn awaits_progress(&self) -> bool {
        let held_back = self.replay.is_full() || self.sent < self.replay.end();
        self.sent > self.received || self.finish_sent || held_back && self.throttled().is_none()
    }

    fn progress_due(&self) -> Duration {
        self.last_progress.saturating_add(self.settings.progress_timeout)
    }

    #[cfg(feature = "test-util")]
    fn planted(&self, bug: Planted) -> bool {
        self.settings.planted == Some(bug)
    }

    fn accept(&mut self, chunk: AudioChunk, now: Duration) {
        self.ledger.accepted += chunk.range().len();
        self.replay.push(chunk);
        if self.settings.overflow == Overflow::DropOldest {
            // What was sent may be recognised already: only what was not can be declared lost.
            self.replay.make_room(self.offered);
        }
        self.stalled_since.get_or_insert(now);
        self.pump(now);
    }

    fn fail_protocol(&mut self, reason: String) {
        self.end(Err(SessionError::Protocol { reason }), close::PROTOCOL);
    }

    fn emit(&mut self, event: TranscriptEvent) {
        self.outputs.push_back(Output::Emit(event));
    }

    /// Closes the connection that carries the session, or is the only one to.
    fn close_link(&mut self, code: u16) {
        let open = match &self.link {
            Link::Live(live) => Some(live.id),
            Link::Attempting(attempt) => attempt.call().map(|call| call.id),
            Link::Ended => None,
        };
        if let Some(id) = open {
            self.outputs.push_back(Output::Close(id, code));
        }
    }

    /// Ends the session, closing what is open with this code.
    fn end(&mut self, result: Result<(), SessionError>, code: u16) {
        self.close_link(code);
        let swap = self.swap.take();
        self.hang_up(swap);
        self.link = Link::Ended;
        self.outputs.push_back(Output::End(Box::new(Ended { ledger: self.ledger(), result })));
    }
}
