//! The state of the machine, in groups that change together.

use std::collections::VecDeque;
use std::time::Duration;

use super::connection::{Attempt, Connection, Handover, Pending};
use super::io::ConnectionId;
use super::throttle::Throttle;
use crate::audio::FramePos;
use crate::auth::TokenGeneration;
use crate::backoff::Backoff;
use crate::protocol::ServerMessage;
use crate::session::journal::ServerSession;

/// The connections of the session: the current one, and the successor of a handover.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) current: Connection,
    /// Handover that is planned or in progress; only set while the current connection is live.
    pub(super) handover: Option<Handover>,
    /// True if a token was requested and has not arrived.
    pub(super) fetching: bool,
    pub(super) dialled: u32,
    /// True if any connection of this process was ever ready.
    pub(super) ever_ready: bool,
    pub(super) backoff: Backoff,
    /// Backoff between attempts of a handover, independent of the state of the current connection.
    pub(super) handover_backoff: Backoff,
    /// Messages of the present session, held back since a replacement session was asked to start at
    /// `final`; processed once the replacement has failed.
    pub(super) held: VecDeque<(ConnectionId, ServerMessage)>,
    /// Connection and code of the last `error` message.
    pub(super) error: Option<(ConnectionId, u32)>,
}

impl Connections {
    pub(super) fn new(seed: u64) -> Connections {
        Connections {
            current: Connection::Attempting(Attempt::Waiting { until: Duration::ZERO }),
            handover: None,
            fetching: false,
            dialled: 0,
            ever_ready: false,
            backoff: Backoff::new(seed),
            handover_backoff: Backoff::new(seed.wrapping_add(1)),
            held: VecDeque::new(),
            error: None,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        matches!(self.current, Connection::Ended)
    }

    /// Returns the number of the connection that carries the session, or of the only one being
    /// established.
    pub(super) fn current_id(&self) -> Option<ConnectionId> {
        match &self.current {
            Connection::Attempting(attempt) => attempt.pending().map(|pending| pending.id),
            Connection::Live(live) => Some(live.id),
            Connection::Ended => None,
        }
    }

    /// Returns whether `id` is the connection that carries the session, or the only one being
    /// established.
    pub(super) fn is_current(&self, id: ConnectionId) -> bool {
        self.current_id() == Some(id)
    }

    /// Returns the successor connection of a handover, if it is being established.
    pub(super) fn successor(&self) -> Option<Pending> {
        self.handover.as_ref().and_then(Handover::pending)
    }

    /// Returns whether `id` is the successor connection of a handover.
    pub(super) fn is_successor(&self, id: ConnectionId) -> bool {
        self.successor().is_some_and(|pending| pending.id == id)
    }

    /// Records a sign of life of the peer on connection `id`, which is no progress of the session.
    pub(super) fn note_alive(&mut self, id: ConnectionId, now: Duration) {
        if let Connection::Live(live) = &mut self.current
            && live.id == id
        {
            (live.last_alive, live.pinged) = (now, None);
        }
    }

    /// Returns whether a replacement session was asked to start and has not answered.
    pub(super) fn is_starting_new_session(&self) -> bool {
        matches!(self.handover, Some(Handover::Attempt(_, Attempt::Opening(pending))) if pending.new_session)
    }

    /// Returns the number of a new connection.
    pub(super) fn next_id(&mut self) -> ConnectionId {
        let id = ConnectionId(self.dialled);
        self.dialled += 1;
        id
    }
}

/// The session on the server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) session: Option<ServerSession>,
    /// True if an earlier process opened the session, and may have sent more than this process knows.
    pub(super) inherited: bool,
    /// True if the server wants the session to start anew elsewhere, at one of `successors`.
    pub(super) restart: bool,
    pub(super) successors: Vec<String>,
}

impl Server {
    /// Forgets the session.
    pub(super) fn forget(&mut self) {
        (self.session, self.inherited, self.restart) = (None, false, false);
    }
}

/// The tokens that the peer saw.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// Generation of the token refused last; another refusal is fatal.
    pub(super) refused: Option<TokenGeneration>,
    /// Reason of the last refusal.
    pub(super) refusal: String,
    /// Generation of the token last in force.
    pub(super) in_force: Option<TokenGeneration>,
}

/// Limits on the audio that may be sent.
#[derive(Debug)]
pub(super) struct Limits {
    /// Number of frames that may be in flight, as the peer said.
    pub(super) window: u64,
    /// Longest message of audio that the peer takes, in frames.
    pub(super) max_chunk_frames: u64,
    pub(super) throttle: Throttle,
}

impl Limits {
    pub(super) fn new(throttle: Throttle) -> Limits {
        Limits { window: 0, max_chunk_frames: 0, throttle }
    }
}

/// Positions between `final` and `accepted`, which are the ends of the replay buffer.
#[derive(Debug)]
pub(super) struct Positions {
    pub(super) received: FramePos,
    pub(super) sent: FramePos,
    /// End of the last gap sent on this connection.
    pub(super) gap_sent: FramePos,
    /// Farthest position sent to the server's session, on any connection.
    pub(super) offered: FramePos,
    /// Farthest position ever sent. Audio sent again from below this position counts as replayed.
    pub(super) sent_once: FramePos,
    /// Farthest position ever acknowledged. A server that takes audio again which it had lost makes no
    /// progress.
    pub(super) received_once: FramePos,
}

impl Positions {
    pub(super) fn new(final_: FramePos, offered: FramePos) -> Positions {
        Positions {
            received: final_,
            sent: final_,
            gap_sent: final_,
            offered,
            sent_once: final_,
            received_once: final_,
        }
    }

    /// Starts a new session of the server at `start`, which holds nothing yet.
    pub(super) fn start_at(&mut self, start: FramePos) {
        (self.received, self.sent, self.offered) = (start, start, start);
    }

    /// Continues at `received` on a new connection.
    pub(super) fn resume_at(&mut self, received: FramePos) {
        (self.received, self.sent, self.gap_sent) = (received, received, received);
    }

    /// Moves `sent` to `end`. Returns how many of these frames were sent before.
    pub(super) fn send_to(&mut self, end: FramePos) -> u64 {
        let again = self.sent_once.min(end).0.saturating_sub(self.sent.0);
        self.sent = end;
        self.note_sent();
        again
    }

    /// Moves `received` and `sent` to `end` at least: the peer has passed these frames.
    pub(super) fn pass(&mut self, end: FramePos) {
        self.received = self.received.max(end);
        self.sent = self.sent.max(end);
        self.note_sent();
    }

    /// Updates the farthest positions that `sent` has ever reached.
    fn note_sent(&mut self) {
        self.offered = self.offered.max(self.sent);
        self.sent_once = self.sent_once.max(self.sent);
    }

    /// Returns the number of frames that were sent and are not acknowledged.
    pub(super) fn in_flight(&self) -> u64 {
        self.sent - self.received
    }

    /// Returns whether a gap was sent and is not acknowledged. Nothing may follow it until it is.
    pub(super) fn awaits_gap(&self) -> bool {
        self.received < self.gap_sent
    }
}

/// The results so far.
#[derive(Debug)]
pub(super) struct Results {
    /// Index of the next final.
    pub(super) next_index: u64,
    /// Recogniser context at `final`.
    pub(super) context: Option<String>,
}

/// A request by the user to finalise everything below a position now.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flush {
    pub(super) at: FramePos,
    /// True if the flush was sent on this connection.
    pub(super) sent: bool,
}

/// Requests of the source besides its audio.
#[derive(Debug, Default)]
pub(super) struct Source {
    /// Flushes not yet answered by a final, in order.
    pub(super) flushes: VecDeque<Flush>,
    /// True once the source has ended.
    pub(super) finished: bool,
    /// End that was sent on this connection: of the source, or of the audio before a gap that the peer
    /// can't skip.
    pub(super) finish_sent: Option<FramePos>,
}

impl Source {
    /// Forgets the flushes that a final up to `end` has answered.
    pub(super) fn answered(&mut self, end: FramePos) {
        self.flushes.retain(|flush| flush.at > end);
    }

    /// Returns the position of the next flush to be sent.
    pub(super) fn next_flush(&self) -> Option<FramePos> {
        self.flushes.iter().find(|flush| !flush.sent).map(|flush| flush.at)
    }
}

/// Points in time, counted from the start of the session.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Time of the last change of token or connection.
    pub(super) changed: Duration,
    /// Start of the present failure, until progress ends it.
    pub(super) failing_since: Option<Duration>,
    /// Time at which a cursor last moved, no progress was awaited, or a connection was re-established
    /// after a failure.
    pub(super) last_progress: Duration,
    /// Time at which the peer last served the session: by a final, or by taking audio for the first time.
    pub(super) last_served: Duration,
    /// Time since which audio has waited without the peer taking any.
    pub(super) stalled_since: Option<Duration>,
}

impl Timers {
    /// Records a final, which ends any failure.
    pub(super) fn finalised(&mut self, now: Duration) {
        (self.failing_since, self.last_progress, self.last_served) = (None, now, now);
    }
}
