//! What must hold at every step of a schedule, and what at its end.

use std::collections::VecDeque;
use std::time::Duration;

use super::network::Connection;
use super::plan::{Fate, Plan, in_context, sample};
use voxline::audio::{AudioChunk, FramePos};
use voxline::session::core::Core;
use voxline::session::protocol::ServerMessage;
use voxline::session::{Ended, Overflow, Settings};
use voxline::transcript::TranscriptEvent;

/// No minute has more dials than this: with waits of five seconds on average there are 20 in a minute of trouble,
/// more only while the waits are still growing.
const DIALS_IN_A_MINUTE: usize = 60;

/// Watches a session from outside: what it takes, what it sends, what it tells its user.
#[derive(Debug, Default)]
pub(super) struct Audit {
    accepted: FramePos,
    finished: bool,
    final_: FramePos,
    finals: u64,
    /// The recogniser's context behind the last final.
    context: String,
    gaps: u64,
    /// What the current connection has told the client, and the window it allows.
    received: FramePos,
    window: u64,
    /// What was sent on it.
    sent: FramePos,
    /// Where the user asked for a flush, and where one was sent on the current connection, which began at
    /// `ready_from`.
    flushes: Vec<FramePos>,
    flushed: Vec<FramePos>,
    ready_from: FramePos,
    /// The end of the last gap sent on it.
    gap: FramePos,
    /// What the pace allows to be sent, in frames, and when that was counted.
    credit: f64,
    credited: Duration,
    /// The farthest acknowledgement ever.
    received_once: FramePos,
    ever_ready: bool,
    dials: VecDeque<Duration>,
    /// Whether there was a connection before in this process; how often the session moved to another; whether
    /// it was found again and the user has not heard of that yet; how often it was told.
    ready_before: bool,
    moves: u64,
    found_again: bool,
    reconnects: u64,
    /// When a cursor last moved on the connection that carries the session, or that came to be.
    moved: Duration,
    /// When something last came of the session: a frame accepted, acknowledged for the first time, or final.
    fruit: Duration,
    /// When the trouble began that no progress has ended yet.
    trouble: Option<Duration>,
    last_failure: Duration,
    /// A fault that allows no recovery has reached the client.
    pub(super) doomed: bool,
    /// An earlier process may have done what the server resents: such a session may be given up for another.
    heir: bool,
    end_told: bool,
    pub(super) ended: bool,
}

impl Audit {
    pub(super) fn accepted(&self) -> FramePos {
        self.accepted
    }

    pub(super) fn accepts(&mut self, chunk: &AudioChunk, now: Duration) {
        self.accepted = chunk.range().end;
        self.fruit = now;
    }

    pub(super) fn finishes(&mut self, now: Duration) {
        self.finished = true;
        self.fruit = now;
    }

    /// Another process takes the session up, and has this much of its audio.
    pub(super) fn starts_over(&mut self, accepted: FramePos, ever_ready: bool, now: Duration) {
        *self = Audit {
            accepted,
            final_: self.final_,
            finals: self.finals,
            context: std::mem::take(&mut self.context),
            gaps: self.gaps,
            received_once: self.final_,
            // It knows that there is a server.
            ever_ready,
            heir: true,
            fruit: now,
            last_failure: now,
            ..Audit::default()
        };
    }

    pub(super) fn fails(&mut self, now: Duration) {
        self.trouble.get_or_insert(now);
        self.last_failure = now;
    }

    /// A connection with a fault that lasts as long as it does is left for another.
    pub(super) fn leaves_fault(&mut self, now: Duration) {
        self.last_failure = now;
    }

    /// The client leaves the server's session for one of its own. An heir may do so at the `ready` of a server
    /// that has more than it knows of: then nothing was found again.
    pub(super) fn gives_up_session(&mut self) {
        self.found_again &= !self.heir;
    }

    pub(super) fn flushes(&mut self) {
        self.flushes.push(self.accepted);
    }

    /// The peer said something on the connection that carries the session. `moves`: another has carried it
    /// until now.
    pub(super) fn hears(&mut self, message: &ServerMessage, moves: bool, now: Duration) {
        match message {
            ServerMessage::Ready(ready) => {
                if moves {
                    self.moves += 1;
                } else {
                    self.moved = now;
                    self.found_again = self.ready_before;
                    // A burst for each connection that is found, none for a move.
                    (self.credit, self.credited) = (f64::INFINITY, now);
                }
                (self.flushed, self.ready_from) = (Vec::new(), ready.received);
                self.ready_before = true;
                self.received = ready.received;
                (self.sent, self.gap) = (ready.received, ready.received);
                self.window = ready.window_frames;
                self.ever_ready = true;
            }
            ServerMessage::Ack { received, .. } => {
                if *received > self.received {
                    self.moved = now;
                }
                self.received = self.received.max(*received);
                // What an earlier connection carried needs not be sent again.
                self.sent = self.sent.max(*received);
                if *received > self.received_once {
                    self.received_once = *received;
                    self.fruit = now;
                    self.trouble = None;
                }
            }
            ServerMessage::Final(segment) => {
                self.received = self.received.max(segment.end);
                self.sent = self.sent.max(segment.end);
            }
            ServerMessage::Partial { .. }
            | ServerMessage::Done { .. }
            | ServerMessage::AuthOk { .. }
            | ServerMessage::Goaway { .. }
            | ServerMessage::Error { .. }
            | ServerMessage::Unknown => {}
        }
    }

    pub(super) fn dials(&mut self, now: Duration) -> Result<(), String> {
        self.dials.push_back(now);
        while self.dials.front().is_some_and(|dial| *dial + Duration::from_secs(60) < now) {
            self.dials.pop_front();
        }
        match self.dials.len() > DIALS_IN_A_MINUTE {
            true => Err(format!("{} dials within a minute", self.dials.len())),
            false => Ok(()),
        }
    }

    /// A flush belongs behind the audio it is for, and is sent because the user asked for it.
    pub(super) fn sends_flush(&mut self, at: Option<FramePos>) -> Result<(), String> {
        match at {
            Some(at) if self.sent >= at && self.flushes.contains(&at) => {
                self.flushed.push(at);
                Ok(())
            }
            at => Err(format!("sent a flush for {at:?} after {}, asked for {:?}", self.sent, self.flushes)),
        }
    }

    /// A gap was sent.
    pub(super) fn passes(&mut self, to: FramePos) {
        (self.sent, self.gap) = (to, to);
    }

    pub(super) fn sends(
        &mut self,
        chunk: &AudioChunk,
        settings: &Settings,
        now: Duration,
    ) -> Result<(), String> {
        let range = chunk.range();
        if self.received < self.gap {
            return Err(format!("sent {range} before the gap up to {} was acknowledged", self.gap));
        }
        self.sent = range.end;
        if let Some(limit) = settings.catch_up {
            let rate = f64::from(settings.sample_rate);
            let earned = (now - self.credited).as_secs_f64() * limit.factor() * rate;
            let credit = (self.credit + earned).min((limit.burst().as_secs_f64() * rate).max(1.0));
            (self.credit, self.credited) = (credit - range.len() as f64, now);
            // Rounding may cost a frame.
            if self.credit < -1.0 {
                return Err(format!("sent {} frames where {credit} are allowed", range.len()));
            }
        }
        match range.end > self.received + self.window {
            true => Err(format!("sent {range}, but {} are allowed from {}", self.window, self.received)),
            false => Ok(()),
        }
    }

    /// What the user is told: finals without a hole, each once, of the right samples; then the end.
    pub(super) fn emits(
        &mut self,
        event: &TranscriptEvent,
        settings: &Settings,
        now: Duration,
    ) -> Result<(), String> {
        if self.end_told {
            return Err(format!("{event:?} after the end"));
        }
        match event {
            TranscriptEvent::Final(segment) => {
                let range = segment.range;
                if segment.index != self.finals || range.start != self.final_ {
                    let (finals, final_) = (self.finals, self.final_);
                    return Err(format!("final {} of {range} after {finals} up to {final_}", segment.index));
                }
                if segment.text != in_context(&self.context, (range.start.0..range.end.0).map(sample)) {
                    return Err(format!("final of {range} was made of other samples, or in another context"));
                }
                self.context.clone_from(&segment.text);
                self.finals += 1;
                self.final_ = range.end;
                (self.fruit, self.moved) = (now, now);
                self.trouble = None;
            }
            TranscriptEvent::Partial { segment, range, .. } => {
                if *segment != self.finals || range.start != self.final_ {
                    return Err(format!("partial {segment} of {range} after {} finals", self.finals));
                }
            }
            TranscriptEvent::Gap { range } => {
                if settings.overflow == Overflow::Block || range.start != self.final_ {
                    return Err(format!("gap {range} after {}", self.final_));
                }
                self.gaps += range.len();
                self.final_ = range.end;
                self.fruit = now;
            }
            TranscriptEvent::Reconnected { from } if *from < self.final_ => {
                return Err(format!("reconnected from {from}, which is final"));
            }
            TranscriptEvent::Reconnected { from } => {
                // What an earlier process had of a session counts as a connection before, if it has to be
                // given up.
                let found = std::mem::take(&mut self.found_again);
                if !(found || self.heir && self.reconnects == 0) {
                    return Err(format!("told of a reconnect from {from} where nothing was lost"));
                }
                self.reconnects += 1;
            }
            TranscriptEvent::End { frames, finals } => {
                self.end_told = true;
                if (*frames, *finals) != (self.accepted.0, self.finals) {
                    return Err(format!("end after {frames} frames in {finals} finals"));
                }
            }
        }
        Ok(())
    }

    /// A flush that no final has answered is known to the server: it was sent on this connection, or the
    /// server has what follows it.
    fn check_flushes(&self, sent: FramePos) -> Result<(), String> {
        let missing = |at: &&FramePos| {
            let reached = self.ready_from <= **at && **at <= sent;
            **at > self.final_ && reached && !self.flushed.contains(at)
        };
        self.flushes.iter().find(missing).map_or(Ok(()), |at| {
            let from = self.ready_from;
            Err(format!(
                "the flush at {at} is not sent on a connection that began at {from} and has sent {sent}"
            ))
        })
    }

    /// The order of the cursors, and no frame missing between them. `live`: a connection carries the session.
    pub(super) fn check(&self, core: &Core, plan: &Plan, live: bool) -> Result<(), String> {
        if live {
            // What waits until another server has answered is not heard yet.
            self.check_flushes(self.sent.min(core.cursors().sent))?;
        }
        let cursors = core.cursors();
        if self.found_again {
            return Err("a session that was lost and found again is not told of".to_owned());
        }
        let ordered = cursors.final_ <= cursors.received
            && cursors.received <= cursors.sent
            && cursors.sent <= cursors.accepted;
        if !ordered {
            return Err(format!("cursors out of order: {cursors:?}"));
        }
        if cursors.accepted != self.accepted || cursors.final_ != self.final_ {
            return Err(format!("{cursors:?}, but {}..{} are not final", self.final_, self.accepted));
        }
        let mut at = cursors.final_;
        while let Some(entry) = core.replay().at(at) {
            if entry.range().start != at {
                break;
            }
            at = entry.range().end;
        }
        if at != cursors.accepted {
            return Err(format!("frame {at} is neither final nor in a gap nor in the replay buffer"));
        }
        let most = plan.settings.replay_frames + plan.longest_chunk();
        match core.replay().held() > most {
            true => Err(format!("{} frames in memory, {most} are allowed", core.replay().held())),
            false => Ok(()),
        }
    }

    /// A connection that fell silent is left in time (G19).
    pub(super) fn check_silence(
        &self,
        carrier: &Connection,
        plan: &Plan,
        now: Duration,
    ) -> Result<(), String> {
        let Some(since) = carrier.silent_since else { return Ok(()) };
        // What was under way when it fell silent still arrives.
        match now > since + plan.latency + 2 * plan.settings.ping_interval {
            true => Err(format!("silent since {since:?} and not noticed")),
            false => Ok(()),
        }
    }

    /// A connection that lives is left for dead: only where no cursor has moved for the time that the
    /// settings say.
    pub(super) fn leaves_for_dead(&self, plan: &Plan, now: Duration) -> Result<(), String> {
        let patience = plan.settings.progress_timeout;
        if now.saturating_sub(self.moved) < patience {
            return Err(format!("took a living connection for dead, a cursor moved at {:?}", self.moved));
        }
        Ok(())
    }

    /// Whether the session had reason to end like this.
    pub(super) fn ends(&mut self, ended: &Ended, plan: &Plan, now: Duration) -> Result<(), String> {
        self.ended = true;
        let Ended { ledger, result } = ended;
        let (accepted, recognised) = (self.accepted.0, self.final_.0 - self.gaps);
        let told = (ledger.accepted, ledger.recognised, ledger.gaps, ledger.finals)
            == (accepted, recognised, self.gaps, self.finals);
        if !told || !ledger.is_balanced() {
            return Err(format!("{ledger:?}, but {recognised} of {accepted} frames are recognised"));
        }
        if (ledger.reconnects, ledger.moves) != (self.reconnects, self.moves) {
            let (reconnects, moves) = (self.reconnects, self.moves);
            return Err(format!("{ledger:?}, but there were {reconnects} reconnects and {moves} moves"));
        }
        match result {
            Ok(()) => {
                let whole = accepted == plan.frames() && ledger.unfinished == 0;
                match self.end_told && self.finished && whole && (!self.doomed || self.heir) {
                    true => Ok(()),
                    false => Err(format!("ended well with {ledger:?}, {} frames given", self.accepted)),
                }
            }
            Err(_) if self.doomed => Ok(()),
            Err(error) => {
                let settings = &plan.settings;
                let patience = if self.ever_ready { settings.give_up } else { settings.first_contact };
                match self.trouble {
                    Some(since) if now.saturating_sub(since) >= patience => Ok(()),
                    since => Err(format!("gave up too soon, in trouble since {since:?}: {error}")),
                }
            }
        }
    }

    /// Whether the session goes on for longer than it may (G5). `calm`: no fault is left.
    pub(super) fn check_patience(&self, plan: &Plan, calm: bool, now: Duration) -> Result<(), String> {
        if calm && plan.fate == Fate::Recovers && now > self.last_failure + plan.calm_bound() {
            return Err(format!("no end {:?} after the last fault", plan.calm_bound()));
        }
        match now > self.fruit + plan.barren_bound() {
            true => Err(format!("nothing came of it for {:?}", plan.barren_bound())),
            false => Ok(()),
        }
    }
}
