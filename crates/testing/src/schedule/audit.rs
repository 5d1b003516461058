//! Invariants of a schedule: those that hold at every step, and those that hold at its end.

use std::collections::VecDeque;
use std::time::Duration;

use super::network::Connection;
use super::plan::{Fate, Plan, in_context, sample};
use voxline::audio::{AudioChunk, FramePos};
use voxline::error::chain;
use voxline::protocol::ServerMessage;
use voxline::session::machine::Machine;
use voxline::session::{Ended, Overflow, Settings};
use voxline::transcript::{FinalSegment, TranscriptEvent};

/// Most dials within a minute. With waits of five seconds on average there are 20 dials in a minute of
/// trouble, and more only while the waits are still growing.
const DIALS_IN_A_MINUTE: usize = 60;

/// An observer that checks a session from outside: the audio it accepts, the messages it sends, the events
/// it reports to its user.
#[derive(Debug, Default)]
pub(super) struct Audit {
    accepted: FramePos,
    finished: bool,
    final_: FramePos,
    finals: u64,
    /// Recogniser context after the last final.
    context: String,
    /// `true` if the server is a Vosk server, whose texts depend on their audio alone, and have words.
    vosk: bool,
    gaps: u64,
    /// Position that the current connection has acknowledged, and the window that it allows.
    received: FramePos,
    window: u64,
    /// Position up to which audio was sent on the current connection.
    sent: FramePos,
    /// Positions at which the user asked for a flush, and those at which a flush was sent on the current
    /// connection, which began at `ready_from`.
    flushes: Vec<FramePos>,
    flushed: Vec<FramePos>,
    ready_from: FramePos,
    /// End of the last gap sent on the current connection.
    gap: FramePos,
    /// Number of frames that the catch-up limit allows now, and the time at which that was computed.
    credit: f64,
    credited: Duration,
    /// Farthest acknowledgement on any connection.
    received_once: FramePos,
    ever_ready: bool,
    dials: VecDeque<Duration>,
    /// `ready_before`: this process had a connection before. `handovers`: number of handovers of the session
    /// to another connection. `found_again`: the session was found again after a loss and the user has not
    /// been told yet. `reconnects`: number of times that the user was told.
    ready_before: bool,
    handovers: u64,
    found_again: bool,
    reconnects: u64,
    /// When a cursor last moved on the connection that carries the session, or when that connection became
    /// ready.
    moved: Duration,
    /// Time of the last progress of the session: a frame accepted, acknowledged for the first time, or made
    /// final.
    fruit: Duration,
    /// Time of the last final or first acknowledgement.
    served: Duration,
    /// Start of the trouble that no progress has ended yet.
    trouble: Option<Duration>,
    last_failure: Duration,
    /// `true` once a fault that allows no recovery has reached the client.
    pub(super) doomed: bool,
    /// `true` if an earlier process may have done something that the server rejects. Such a session may be
    /// given up for another.
    heir: bool,
    end_told: bool,
    pub(super) ended: bool,
}

impl Audit {
    pub(super) fn new(vosk: bool) -> Audit {
        Audit { vosk, ..Audit::default() }
    }

    pub(super) fn is_heir(&self) -> bool {
        self.heir
    }

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

    /// Records that another process takes the session over, with this much of its audio.
    pub(super) fn starts_over(&mut self, accepted: FramePos, ever_ready: bool, now: Duration) {
        *self = Audit {
            accepted,
            final_: self.final_,
            finals: self.finals,
            context: std::mem::take(&mut self.context),
            vosk: self.vosk,
            gaps: self.gaps,
            received_once: self.final_,
            // The process knows from the journal that a server exists.
            ever_ready,
            heir: true,
            fruit: now,
            served: now,
            last_failure: now,
            ..Audit::default()
        };
    }

    pub(super) fn fails(&mut self, now: Duration) {
        self.trouble.get_or_insert(now);
        self.last_failure = now;
    }

    /// Records that the client left a connection whose fault lasts as long as the connection.
    pub(super) fn leaves_fault(&mut self, now: Duration) {
        self.last_failure = now;
    }

    /// Records that the client leaves the server's session for one of its own. An heir may do so at the
    /// `ready` of a server that has more than the heir knows of: then nothing was found again.
    pub(super) fn gives_up_session(&mut self) {
        self.found_again &= !self.heir;
    }

    pub(super) fn flushes(&mut self) {
        self.flushes.push(self.accepted);
    }

    /// Records a message from the peer on the connection that carries the session. `is_handover` is `true` if
    /// another connection has carried the session until now.
    pub(super) fn hears(&mut self, message: &ServerMessage, is_handover: bool, now: Duration) {
        match message {
            ServerMessage::Ready(ready) => {
                if is_handover {
                    self.handovers += 1;
                } else {
                    self.moved = now;
                    self.found_again = self.ready_before;
                    // Each connection that is found after a loss allows a burst; a move allows none.
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
                // Audio that an earlier connection carried need not be sent again.
                self.sent = self.sent.max(*received);
                if *received > self.received_once {
                    self.received_once = *received;
                    (self.fruit, self.served) = (now, now);
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
        if self.dials.len() > DIALS_IN_A_MINUTE {
            Err(format!("{} dials within a minute", self.dials.len()))
        } else {
            Ok(())
        }
    }

    /// Checks a flush that is sent: it must follow the audio it is for, and the user must have asked for
    /// it.
    pub(super) fn sends_flush(&mut self, at: Option<FramePos>) -> Result<(), String> {
        match at {
            Some(at) if self.sent >= at && self.flushes.contains(&at) => {
                self.flushed.push(at);
                Ok(())
            }
            at => Err(format!("sent a flush for {at:?} after {}, asked for {:?}", self.sent, self.flushes)),
        }
    }

    /// Records a gap that was sent.
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
        if let Some(limit) = settings.replay.catch_up {
            let rate = f64::from(settings.sample_rate);
            let earned = (now - self.credited).as_secs_f64() * limit.factor() * rate;
            let credit = (self.credit + earned).min((limit.burst().as_secs_f64() * rate).max(1.0));
            (self.credit, self.credited) = (credit - range.len() as f64, now);
            // Rounding may cost a frame.
            if self.credit < -1.0 {
                return Err(format!("sent {} frames where {credit} are allowed", range.len()));
            }
        }
        if range.end > self.received + self.window {
            Err(format!("sent {range}, but {} are allowed from {}", self.window, self.received))
        } else {
            Ok(())
        }
    }

    /// Checks an event for the user: finals come without a hole, each once, made of the right samples; then
    /// comes the end.
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
            TranscriptEvent::Final(segment) => self.emits_final(segment, now)?,
            TranscriptEvent::Partial { segment, range, .. } => {
                if *segment != self.finals || range.start != self.final_ {
                    return Err(format!("partial {segment} of {range} after {} finals", self.finals));
                }
            }
            TranscriptEvent::Gap { range } => {
                if settings.replay.overflow == Overflow::Block || range.start != self.final_ {
                    return Err(format!("gap {range} after {}", self.final_));
                }
                self.gaps += range.len();
                self.final_ = range.end;
                self.fruit = now;
            }
            TranscriptEvent::Reconnected { from } => self.emits_reconnect(*from)?,
            TranscriptEvent::End { frames, finals } => {
                self.end_told = true;
                if (*frames, *finals) != (self.accepted.0, self.finals) {
                    return Err(format!("end after {frames} frames in {finals} finals"));
                }
            }
            other => return Err(format!("an event that the audit does not know: {other:?}")),
        }
        Ok(())
    }

    fn emits_final(&mut self, segment: &FinalSegment, now: Duration) -> Result<(), String> {
        let range = segment.range;
        if segment.index != self.finals || range.start != self.final_ {
            let (finals, final_) = (self.finals, self.final_);
            return Err(format!("final {} of {range} after {finals} up to {final_}", segment.index));
        }
        if segment.text != in_context(&self.context, (range.start.0..range.end.0).map(sample)) {
            return Err(format!("final of {range} was made of other samples, or in another context"));
        }
        if !self.vosk {
            self.context.clone_from(&segment.text);
        } else if segment.words.iter().map(|word| word.range).ne([range]) {
            return Err(format!("final of {range} with the words {:?}", segment.words));
        }
        self.finals += 1;
        self.final_ = range.end;
        (self.fruit, self.served, self.moved) = (now, now, now);
        self.trouble = None;
        Ok(())
    }

    fn emits_reconnect(&mut self, from: FramePos) -> Result<(), String> {
        if from < self.final_ {
            return Err(format!("reconnected from {from}, which is final"));
        }
        // A session that an earlier process had counts as an earlier connection if it has to be given up.
        let found = std::mem::take(&mut self.found_again);
        if !(found || self.heir && self.reconnects == 0) {
            return Err(format!("told of a reconnect from {from} where nothing was lost"));
        }
        self.reconnects += 1;
        Ok(())
    }

    /// Checks that the server knows every flush that no final has answered: either the flush was sent on
    /// this connection, or the server has the audio that follows it.
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

    /// Checks the order of the cursors, and that no frame is missing between them. `live` is `true` if a
    /// connection carries the session.
    pub(super) fn check(&self, machine: &Machine, plan: &Plan, live: bool) -> Result<(), String> {
        if live {
            // Audio that waits until another server has answered has not been received yet.
            self.check_flushes(self.sent.min(machine.cursors().sent))?;
        }
        let cursors = machine.cursors();
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
        while let Some(entry) = machine.replay().at(at) {
            if entry.range().start != at {
                break;
            }
            at = entry.range().end;
        }
        if at != cursors.accepted {
            return Err(format!("frame {at} is neither final nor in a gap nor in the replay buffer"));
        }
        let most = plan.settings.replay.frames + plan.longest_chunk();
        if machine.replay().held() > most {
            Err(format!("{} frames in memory, {most} are allowed", machine.replay().held()))
        } else {
            Ok(())
        }
    }

    /// Checks that the client leaves a silent connection in time (G19).
    pub(super) fn check_silence(
        &self,
        carrier: &Connection,
        plan: &Plan,
        now: Duration,
    ) -> Result<(), String> {
        let Some(since) = carrier.silent_since else { return Ok(()) };
        // Messages that were under way when the connection fell silent still arrive.
        if now > since + plan.latency + 2 * plan.settings.timeouts.ping_interval {
            Err(format!("silent since {since:?} and not noticed"))
        } else {
            Ok(())
        }
    }

    /// Checks that the client leaves a living connection as dead only if no cursor has moved for the time
    /// in the settings.
    pub(super) fn leaves_for_dead(&self, plan: &Plan, now: Duration) -> Result<(), String> {
        let patience = plan.settings.timeouts.progress;
        if now.saturating_sub(self.moved) < patience {
            return Err(format!("took a living connection for dead, a cursor moved at {:?}", self.moved));
        }
        Ok(())
    }

    /// Checks that the session had reason to end like this.
    pub(super) fn ends(&mut self, ended: &Ended, plan: &Plan, now: Duration) -> Result<(), String> {
        self.ended = true;
        let Ended { ledger, result } = ended;
        let (accepted, recognised) = (self.accepted.0, self.final_.0 - self.gaps);
        let told = (ledger.accepted, ledger.recognised, ledger.gaps, ledger.finals)
            == (accepted, recognised, self.gaps, self.finals);
        if !told || !ledger.is_balanced() {
            return Err(format!("{ledger:?}, but {recognised} of {accepted} frames are recognised"));
        }
        if (ledger.reconnects, ledger.handovers) != (self.reconnects, self.handovers) {
            let (reconnects, handovers) = (self.reconnects, self.handovers);
            return Err(format!(
                "{ledger:?}, but there were {reconnects} reconnects and {handovers} handovers"
            ));
        }
        match result {
            Ok(()) => {
                let whole = accepted == plan.frames() && ledger.unfinished == 0;
                if self.end_told && self.finished && whole && (!self.doomed || self.heir) {
                    Ok(())
                } else {
                    Err(format!("ended well with {ledger:?}, {} frames given", self.accepted))
                }
            }
            Err(_) if self.doomed => Ok(()),
            Err(error) => {
                let settings = &plan.settings;
                let patience =
                    if self.ever_ready { settings.timeouts.give_up } else { settings.timeouts.first_contact };
                match self.trouble {
                    Some(since) if now.saturating_sub(since) >= patience => Ok(()),
                    // A server whose sessions end by the clock may get nowhere without any failure.
                    _ if self.vosk && now.saturating_sub(self.served) >= patience => Ok(()),
                    since => Err(format!("gave up too soon, in trouble since {since:?}: {}", chain(error))),
                }
            }
        }
    }

    /// Checks that the session does not go on for longer than it may (G5). `calm` is `true` if no fault is
    /// left.
    pub(super) fn check_patience(&self, plan: &Plan, calm: bool, now: Duration) -> Result<(), String> {
        if calm && plan.fate == Fate::Recovers && now > self.last_failure + plan.calm_bound() {
            return Err(format!("no end {:?} after the last fault", plan.calm_bound()));
        }
        if now > self.fruit + plan.barren_bound() {
            Err(format!("nothing came of it for {:?}", plan.barren_bound()))
        } else {
            Ok(())
        }
    }
}
