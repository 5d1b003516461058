//! Processing of messages from the peer.

use std::time::Duration;

use super::Machine;
use super::connection::{Attempt, Connection, Handover, Live, Pending, expiry};
use super::io::{ConnectionId, Output};
use crate::audio::{FRAME_BYTES, FramePos, FrameRange};
use crate::peer::Acknowledgements;
use crate::protocol::Violation;
use crate::protocol::close;
use crate::protocol::{
    Final, MAX_CONTEXT_BYTES, MAX_SESSION_NAME, POSITION_BYTES, Ready, Secret, ServerMessage,
};
use crate::session::error::SessionError;
use crate::session::journal::ServerSession;
use crate::transcript::{FinalSegment, TranscriptEvent};

/// Most messages held back while a replacement session starts.
const HELD_MAX: usize = 1_024;

impl Machine {
    pub(super) fn receive(&mut self, id: ConnectionId, message: ServerMessage, now: Duration) {
        if let ServerMessage::Error { code, .. } = message {
            self.connections.error = Some((id, code));
        }
        let outcome = if self.connections.is_current(id) {
            self.connections.note_alive(id, now);
            if self.connections.is_starting_new_session() && self.must_hold(id, &message) {
                return self.connections.held.push_back((id, message));
            }
            self.receive_current(message, now)
        } else if self.connections.is_successor(id) {
            self.receive_successor(message, now)
        } else {
            return;
        };
        self.check_outcome(outcome, now);
    }

    /// Returns whether a message of the present session must wait until it is clear whether a replacement
    /// session takes over: the message would move `final`, where the replacement starts. `done` doesn't
    /// wait, nor do messages beyond [`HELD_MAX`]: either cancels the replacement.
    fn must_hold(&mut self, id: ConnectionId, message: &ServerMessage) -> bool {
        let concerns = matches!(
            message,
            ServerMessage::Ack { .. }
                | ServerMessage::Partial { .. }
                | ServerMessage::Final(_)
                | ServerMessage::Done { .. }
        );
        if concerns
            && (matches!(message, ServerMessage::Done { .. }) || self.connections.held.len() == HELD_MAX)
        {
            self.cancel_restart();
        }
        // Messages keep their order if earlier ones are still held back.
        concerns
            && (self.connections.is_starting_new_session()
                || self.connections.held.iter().any(|(other, _)| *other == id))
    }

    /// Processes the messages held back, once no replacement session can take over any more. Messages of
    /// a connection lost meanwhile are dropped: the server will send them again.
    pub(super) fn process_held(&mut self, now: Duration) {
        while !self.connections.is_starting_new_session()
            && !matches!(self.connections.current, Connection::Ended)
        {
            let Some((id, message)) = self.connections.held.pop_front() else { return };
            if matches!(self.connections.current, Connection::Live(live) if live.id == id) {
                let outcome = self.receive_current(message, now);
                self.check_outcome(outcome, now);
            }
        }
    }

    fn check_outcome(&mut self, outcome: Result<(), Violation>, now: Duration) {
        match outcome {
            Ok(()) => {}
            // The messages that an earlier process sent are unknown here: the peer and this process may
            // both be right.
            Err(violation) if self.server.inherited => {
                tracing::debug!(%violation, "an earlier process's session is given up");
                self.abandon_inherited(now);
            }
            Err(violation) => self.fail_protocol(violation),
        }
    }

    /// Processes a message on the successor connection of a handover.
    fn receive_successor(&mut self, message: ServerMessage, now: Duration) -> Result<(), Violation> {
        match (self.connections.handover, message) {
            (Some(Handover::Attempt(_, Attempt::Opening(pending))), ServerMessage::Ready(ready)) => {
                self.ready(pending, ready, now)
            }
            (_, ServerMessage::Error { .. } | ServerMessage::Unknown) => Ok(()),
            (_, message) => Err(Violation::BeforeReady { message: name(&message) }),
        }
    }

    /// Processes a message on the connection that carries the session, or is to carry it.
    fn receive_current(&mut self, message: ServerMessage, now: Duration) -> Result<(), Violation> {
        match (&self.connections.current, message) {
            (Connection::Attempting(Attempt::Opening(pending)), ServerMessage::Ready(ready)) => {
                self.ready(*pending, ready, now)
            }
            (_, ServerMessage::Unknown) => Ok(()),
            // The close that follows decides the recovery.
            (_, ServerMessage::Error { code, message }) => {
                tracing::debug!(code, message, "the peer reports an error");
                Ok(())
            }
            (Connection::Live(live), message) => {
                let live = *live;
                self.receive_live(live, message, now)
            }
            (_, message) => Err(Violation::BeforeReady { message: name(&message) }),
        }
    }

    /// Processes a message of an established session.
    fn receive_live(&mut self, live: Live, message: ServerMessage, now: Duration) -> Result<(), Violation> {
        match message {
            ServerMessage::Ack { received, .. } => {
                self.reached(received);
                if self.capabilities.acknowledgements == Acknowledgements::None {
                    return Ok(());
                }
                self.acknowledged(received, now)
            }
            ServerMessage::Partial { segment, revision, start, end, text } => {
                // A partial result for a segment that is already final is outdated.
                if segment == self.finals_seen() && start == self.final_pos() && start <= end {
                    let (segment, range) = (self.results.next_index, start.to(end));
                    self.emit(TranscriptEvent::Partial { segment, revision, range, text });
                }
                Ok(())
            }
            ServerMessage::Final(segment) => {
                self.reached(segment.end);
                self.segment(segment, now)
            }
            ServerMessage::Done { frames, finals } => self.done(frames, finals, now),
            ServerMessage::AuthOk { token_expires_in_ms } => {
                self.authenticated(live, token_expires_in_ms, now);
                Ok(())
            }
            ServerMessage::Goaway { reason, deadline_ms, restart, endpoints } => {
                if restart {
                    self.redirect(endpoints);
                }
                self.receive_goaway(live, reason, Duration::from_millis(deadline_ms), now);
                Ok(())
            }
            message @ (ServerMessage::Ready(_) | ServerMessage::Error { .. } | ServerMessage::Unknown) => {
                Err(Violation::BeforeReady { message: name(&message) })
            }
        }
    }

    /// Counts audio up to `position`, which the peer names, as sent: an earlier connection may have sent it,
    /// and it is acknowledged only now.
    fn reached(&mut self, position: FramePos) {
        if self.capabilities.positions {
            self.positions.sent = self.positions.sent.max(position.min(self.positions.offered));
        }
    }

    fn ready(&mut self, pending: Pending, ready: Ready, now: Duration) -> Result<(), Violation> {
        let buffer = self.settings.replay.frames.max(1);
        if let Some(needed) = ready.max_unfinal_frames.filter(|needed| *needed > buffer) {
            self.refuse_server(pending.id, SessionError::Buffer { buffer, needed });
            return Ok(());
        }
        let task = self.settings.request.task;
        // A session that was resumed has the task with which it was started.
        if ready.task != task && (self.server.session.is_none() || pending.new_session) {
            let reason =
                format!("the service does not perform the task '{task}': its task is '{}'", ready.task);
            self.refuse_server(pending.id, SessionError::Unsupported { reason, source: None });
            return Ok(());
        }
        if pending.new_session {
            self.abandon_session();
        }
        self.check_ready(&ready)?;
        (self.limits.window, self.limits.max_chunk_frames) = (ready.window_frames, chunk_frames(&ready));
        let auth = ready.auth && self.capabilities.in_band_auth;
        let Ready { session, resume_key, received, token_expires_in_ms, .. } = ready;
        if self.server.session.is_none() {
            self.open_server_session(session, resume_key);
        }
        let since = self.close_predecessor(pending.new_session, now);
        self.positions.resume_at(received);
        let Pending { id, generation, .. } = pending;
        self.connections.current = Connection::Live(Live {
            id,
            generation,
            token_expiry: expiry(token_expires_in_ms, now),
            since,
            last_alive: now,
            pinged: None,
            auth,
            opened: now,
        });
        (self.source.finish_sent, self.tokens.refused) = (None, None);
        // A server that has audio after a flush has the flush too. Should the server lose that audio, the
        // flush is sent again.
        self.source.flushes.iter_mut().for_each(|flush| flush.sent = flush.at < received);
        self.record_audio_taken(now);
        self.count_connection(pending.is_handover, received, now);
        self.token_in_force(generation, token_expires_in_ms, auth, now);
        self.report_gaps(self.positions.received);
        if self.positions.sent == self.replay.end() && self.wants_audio() && !self.replay.is_full() {
            // An idle session needs nothing more from its peer than `ready`.
            self.timers.failing_since = None;
        }
        self.pump(now);
        Ok(())
    }

    /// Refuses a server with which the session can't run: one that holds more frames without a final than the
    /// replay buffer can, or that has another task.
    fn refuse_server(&mut self, id: ConnectionId, error: SessionError) {
        if self.connections.is_successor(id) {
            // The present server fits, or its session would not run.
            self.cancel_restart();
        } else {
            self.end(Err(error), close::NORMAL);
        }
    }

    fn check_ready(&self, ready: &Ready) -> Result<(), Violation> {
        if ready.session.len() > MAX_SESSION_NAME {
            return Err(Violation::SessionName { bytes: ready.session.len() });
        }
        if let Some(server) = &self.server.session
            && server.name != ready.session
        {
            return Err(Violation::OtherSession { session: ready.session.clone() });
        }
        // A session that has only just started was sent nothing, so this also checks that it holds
        // nothing.
        let on_the_way = self.final_pos().to(self.positions.offered);
        if ready.received < on_the_way.start || ready.received > on_the_way.end {
            return Err(Violation::ReadyPosition { received: ready.received, sent: on_the_way });
        }
        if ready.window_frames == 0 {
            return Err(Violation::NoWindow);
        }
        if chunk_frames(ready) == 0 {
            return Err(Violation::MessageLimit { bytes: ready.max_audio_bytes });
        }
        Ok(())
    }

    /// Records the server's session that has just started.
    fn open_server_session(&mut self, name: String, resume_key: Secret) {
        let first_index = self.results.next_index;
        let endpoints = std::mem::take(&mut self.server.successors);
        let server = ServerSession { name, resume_key, first_index, endpoints };
        if self.capabilities.resume {
            self.outputs.push_back(Output::Opened(server.clone()));
        }
        self.server.session = Some(server);
    }

    /// Records a connection that carries the session from `received` on.
    fn count_connection(&mut self, is_handover: bool, received: FramePos, now: Duration) {
        if is_handover {
            // A handover is no progress in itself: a session could move endlessly without any.
            self.ledger.handovers += 1;
        } else {
            self.timers.last_progress = now;
            self.limits.throttle.refill(now);
            if self.connections.ever_ready {
                self.ledger.reconnects += 1;
                self.emit(TranscriptEvent::Reconnected { from: received });
            }
        }
        self.connections.ever_ready = true;
    }

    /// Closes the connection that has carried the session, if there is one. Returns the time since which
    /// the session has been carried.
    fn close_predecessor(&mut self, new_session: bool, now: Duration) -> Duration {
        match self.connections.current {
            Connection::Live(Live { id, since, .. }) => {
                // The session of the closed connection has moved to the new one, or is no longer wanted.
                let code = if new_session { close::NORMAL } else { close::MOVED };
                self.outputs.push_back(Output::Close(id, code));
                since
            }
            _ => now,
        }
    }

    /// Gives up the server's session in favour of one that has just started at `final`.
    fn abandon_session(&mut self) {
        self.server.forget();
        self.positions.start_at(self.final_pos());
    }

    fn acknowledged(&mut self, received: FramePos, now: Duration) -> Result<(), Violation> {
        if received > self.positions.sent {
            return Err(Violation::AckPosition { received, sent: self.positions.sent });
        }
        if received > self.positions.received {
            self.positions.received = received;
            self.timers.last_progress = now;
            self.record_audio_taken(now);
            self.report_gaps(received);
        }
        // A session that can't be resumed is sound again once the peer has everything.
        let has_all = received == self.replay.end() && self.wants_audio() && !self.replay.is_full();
        if received > self.positions.received_once || has_all && !self.capabilities.resume {
            self.timers.failing_since = None;
        }
        if received > self.positions.received_once {
            self.positions.received_once = received;
            self.timers.last_served = now;
        }
        self.pump(now);
        Ok(())
    }

    /// Records that the peer took audio, or that a new connection reported the peer's position.
    fn record_audio_taken(&mut self, now: Duration) {
        if let Some(since) = self.timers.stalled_since {
            self.ledger.worst_stall = self.ledger.worst_stall.max(now.saturating_sub(since));
        }
        self.timers.stalled_since = (self.positions.received < self.replay.end()).then_some(now);
    }

    /// Reports the gaps directly after the final frames, as far as the peer has passed them.
    pub(super) fn report_gaps(&mut self, passed: FramePos) {
        while let Some(gap) = self.replay.first_gap().filter(|gap| gap.end <= passed) {
            self.replay.release(gap.end);
            self.positions.pass(gap.end);
            self.ledger.gaps += gap.len();
            self.source.answered(gap.end);
            self.emit(TranscriptEvent::Gap { range: gap });
        }
    }

    fn segment(&mut self, segment: Final, now: Duration) -> Result<(), Violation> {
        let (index, next) = (segment.index, self.finals_seen());
        if index < next {
            // The final was sent again after a resume, although it had already arrived.
            return Ok(());
        }
        if index > next {
            return Err(Violation::FinalIndex { index, next });
        }
        let range = self.final_range(index, segment.start, segment.end)?;
        if let Some(context) = &segment.context {
            let bytes = context.len();
            if bytes > MAX_CONTEXT_BYTES {
                return Err(Violation::ContextSize { index, bytes });
            }
            self.results.context = Some(context.clone());
        }
        self.replay.release(range.end);
        if range.end > self.positions.received {
            self.positions.received = range.end;
            self.record_audio_taken(now);
        }
        self.timers.finalised(now);
        self.source.answered(range.end);
        self.emit_final(segment, range);
        self.report_gaps(self.positions.received);
        self.pump(now);
        Ok(())
    }

    /// Checks the range of a final against the cursors, and reports the gaps before it.
    fn final_range(&mut self, index: u64, start: FramePos, end: FramePos) -> Result<FrameRange, Violation> {
        let sent = self.positions.sent;
        if end <= sent && start <= end {
            // A server that has recognised audio after a gap has passed the gap.
            self.report_gaps(start);
        }
        let from = self.final_pos();
        // A segment without frames has no position of its own: it may come after a gap that is already
        // reported.
        let is_empty = start == end && end <= from;
        let (start, end) = if is_empty { (from, from) } else { (start, end) };
        if start != from || end < start || end > sent {
            return Err(Violation::FinalRange { index, start, end, from, sent });
        }
        let range = start.to(end);
        if !self.replay.is_gapless(range) {
            return Err(Violation::FinalOverGap { index, range });
        }
        Ok(range)
    }

    /// Hands a final to the user, numbered through all sessions of the server.
    fn emit_final(&mut self, segment: Final, range: FrameRange) {
        let Final { text, language, confidence, mut words, context, .. } = segment;
        // Words outside the segment are useless.
        words.retain(|word| {
            let word = word.range;
            range.start <= word.start && word.start <= word.end && word.end <= range.end
        });
        let index = self.results.next_index;
        self.results.next_index += 1;
        self.ledger.recognised += range.len();
        self.ledger.finals += 1;
        self.emit(TranscriptEvent::Final(FinalSegment {
            index,
            range,
            text,
            language,
            confidence,
            words,
            context,
        }));
    }

    fn done(&mut self, frames: FramePos, finals: u64, now: Duration) -> Result<(), Violation> {
        self.report_gaps(frames.min(self.positions.sent));
        let (end, arrived, covered) = (self.replay.end(), self.finals_seen(), self.final_pos());
        if self.source.finish_sent != Some(frames) || covered < frames || finals != arrived {
            return Err(Violation::Done { frames, finals, arrived, covered, end });
        }
        self.record_audio_taken(now);
        if !self.capabilities.gaps {
            self.report_gaps(end);
        }
        if self.source.finished && self.final_pos() == end {
            self.emit(TranscriptEvent::End { frames: end.0, finals: self.results.next_index });
            self.end(Ok(()), close::NORMAL);
        } else {
            self.start_behind_gap(now);
        }
        Ok(())
    }

    /// Leaves a session that ended at a gap, for another one behind the gap.
    fn start_behind_gap(&mut self, now: Duration) {
        // A source that loses audio again and again must not cause a storm of connections.
        let pause = self.handover_pause(now);
        self.close_current(close::NORMAL);
        self.forget_server();
        self.connections.current = Connection::Attempting(Attempt::Waiting { until: now + pause });
    }
}

/// Returns the number of frames that fit into a message of audio to this server.
fn chunk_frames(ready: &Ready) -> u64 {
    (ready.max_audio_bytes.saturating_sub(POSITION_BYTES) / FRAME_BYTES) as u64
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
