//! The state machine of a recognition session, without sockets, clock or randomness.
//!
//! [`Core::handle`] takes what happened and when; [`Core::poll_output`] returns what to do about it. The
//! driver performs the outputs and decides nothing, so every failure of a network can be simulated here
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
//! (make-before-break).

mod dialling;
mod failing;
mod hearing;
mod moving;
mod sending;

use std::collections::VecDeque;
use std::time::Duration;

use super::backoff::Backoff;
use super::catch_up::Throttle;
use super::error::SessionError;
pub use super::events::{ConnectionId, Input, Output};
use super::journal::{Checkpoint, ServerSession};
use super::ledger::{Ended, Ledger};
use super::links::{Attempt, Link, Swap, lost};
#[cfg(feature = "test-util")]
use super::planted::Planted;
use super::replay::ReplayBuffer;
use super::settings::{Overflow, Settings};
use crate::audio::{AudioChunk, FramePos};
use crate::auth::TokenGeneration;
use crate::protocol::ServerMessage;
use crate::protocol::close;
use crate::recovery::{Failure, FailureKind, Recovery};
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

/// A request by the user to finalise everything below a position now.
#[derive(Clone, Copy, Debug)]
struct Flush {
    at: FramePos,
    /// True if the flush was sent on this connection.
    sent: bool,
}

/// The state machine of a recognition session. See the module's documentation.
#[derive(Debug)]
pub struct Core {
    settings: Settings,
    link: Link,
    /// Handover that is planned or in progress; only set while the link is live.
    swap: Option<Swap>,
    /// True if a token was requested and has not arrived.
    fetching: bool,
    dialled: u32,
    server: Option<ServerSession>,
    /// True if an earlier process opened `server`, and may have sent more than this process knows.
    inherited: bool,
    /// True if the server wants the session to start anew elsewhere, at one of `successors`.
    restart: bool,
    successors: Vec<String>,
    /// Messages of the present session, held back since a replacement session was asked to start at
    /// `final`; processed once the replacement has failed.
    held: VecDeque<(ConnectionId, ServerMessage)>,
    window: u64,
    max_chunk_frames: u64,
    backoff: Backoff,
    /// Backoff between attempts of a handover, independent of the state of the link.
    swap_backoff: Backoff,
    random: Random,
    throttle: Throttle,
    replay: ReplayBuffer,
    received: FramePos,
    sent: FramePos,
    /// End of the last gap sent on this connection.
    gap_sent: FramePos,
    /// Farthest position sent to the server's session, on any connection.
    offered: FramePos,
    /// Farthest position ever sent. Audio sent again from below this position counts as replayed.
    sent_once: FramePos,
    /// Farthest position ever acknowledged. A server that takes audio again which it had lost makes no
    /// progress.
    received_once: FramePos,
    /// Index of the next final.
    next_index: u64,
    /// Recogniser context at `final`.
    context: Option<String>,
    /// Flushes not yet answered by a final, in order.
    flushes: VecDeque<Flush>,
    finished: bool,
    finish_sent: bool,
    /// Generation of the token refused last; another refusal is fatal.
    refused: Option<TokenGeneration>,
    /// Reason of the last refusal.
    refusal: String,
    /// Connection and code of the last `error` message.
    error: Option<(ConnectionId, u32)>,
    /// Generation of the token last in force.
    in_force: Option<TokenGeneration>,
    /// Time of the last change of token or connection.
    changed: Duration,
    /// Start of the present failure, until progress ends it.
    failing_since: Option<Duration>,
    /// Time at which a cursor last moved, no progress was awaited, or a connection was re-established
    /// after a failure.
    last_progress: Duration,
    /// Time since which audio has waited without the peer taking any.
    stalled_since: Option<Duration>,
    ever_ready: bool,
    outputs: VecDeque<Output>,
    ledger: Ledger,
}

impl Core {
    /// Creates a session that has not dialled yet. An [`Input::Tick`] starts the session; audio may come
    /// before that.
    #[must_use]
    pub fn new(settings: Settings) -> Core {
        Core::from_checkpoint(settings, Checkpoint::default())
    }

    /// Creates a session that continues where an earlier process left off. The audio in the checkpoint
    /// counts as accepted; the source continues after it.
    ///
    /// # Panics
    /// Panics if the audio of the checkpoint is not contiguous from its `final_` on.
    #[must_use]
    pub fn from_checkpoint(settings: Settings, checkpoint: Checkpoint) -> Core {
        let Checkpoint { final_, next_index, gaps, context, server, replay: kept } = checkpoint;
        let mut replay = ReplayBuffer::new(final_, settings.replay_frames.max(1));
        kept.into_iter().for_each(|chunk| replay.push(chunk));
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

    /// Returns whether the source should be read: the source has not ended, and the replay buffer has
    /// room or makes some.
    #[must_use]
    pub fn wants_audio(&self) -> bool {
        let room = self.settings.overflow == Overflow::DropOldest || !self.replay.is_full();
        !self.finished && room && !matches!(self.link, Link::Ended)
    }

    /// Returns the cursors of the session.
    #[must_use]
    pub fn cursors(&self) -> Cursors {
        Cursors {
            final_: self.final_pos(),
            received: self.received,
            sent: self.sent,
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
        if matches!(self.link, Link::Ended) {
            return;
        }
        if !self.awaits_progress() {
            // The watchdog runs only while progress is awaited.
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
                // No final would ever answer a flush without audio.
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

    /// Adds the reason of the last refusal to a failure to replace the refused token: the service knows
    /// the reason, the issuer of tokens doesn't.
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

    /// Returns the end of the last final that arrived, or of the gap after it.
    fn final_pos(&self) -> FramePos {
        self.replay.start()
    }

    /// Returns the number of finals of the server's session that arrived.
    fn finals_seen(&self) -> u64 {
        self.next_index.saturating_sub(self.server.as_ref().map_or(0, |server| server.first_index))
    }

    /// Returns whether `id` is the connection that carries the session, or the only one being
    /// established.
    fn is_link(&self, id: ConnectionId) -> bool {
        match &self.link {
            Link::Attempting(attempt) => attempt.call().is_some_and(|call| call.id == id),
            Link::Live(live) => live.id == id,
            Link::Ended => false,
        }
    }

    /// Returns whether `id` is the successor connection of a handover.
    fn is_successor(&self, id: ConnectionId) -> bool {
        self.swap.as_ref().and_then(Swap::call).is_some_and(|call| call.id == id)
    }

    /// Records a sign of life of the peer on connection `id`, which is no progress of the session.
    fn is_alive(&mut self, id: ConnectionId, now: Duration) {
        if let Link::Live(live) = &mut self.link
            && live.id == id
        {
            (live.heard, live.pinged) = (now, None);
        }
    }

    /// Returns whether the session waits for the peer to move a cursor: by an acknowledgement of audio in
    /// flight, the end of a finished session, or a final that makes room in a full buffer. Audio held
    /// back by the rate limit alone waits for the clock, not for the peer.
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
            // Audio that was sent may be recognised already, so only unsent audio can be declared lost.
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

    /// Closes the connection that carries the session, or the only one being established.
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

    /// Ends the session and closes its connections with `code`.
    fn end(&mut self, result: Result<(), SessionError>, code: u16) {
        self.close_link(code);
        let swap = self.swap.take();
        self.hang_up(swap);
        self.link = Link::Ended;
        self.outputs.push_back(Output::End(Box::new(Ended { ledger: self.ledger(), result })));
    }
}
