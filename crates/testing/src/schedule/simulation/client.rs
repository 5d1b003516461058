//! The client's side of a simulation: the source, the session, and the processes in which the session
//! lives.

use std::time::Duration;

use super::{Event, Simulation, chunk, said};
use crate::Saboteur;
use crate::schedule::faults::Fault;
use crate::schedule::network::Down;
use crate::schedule::plan::{Kill, Step};
use crate::schedule::server::Up;
use voxline::audio::{AudioChunk, FramePos, FrameRange};
use voxline::auth::TokenGeneration;
use voxline::protocol::ClientMessage;
use voxline::protocol::close;
use voxline::recovery::Recovery;
use voxline::session::Checkpoint;
use voxline::session::machine::{ConnectionId, Input, Machine, Output};
use voxline::transcript::TranscriptEvent;

impl Simulation {
    /// Hands the next step of the source to the session.
    pub(super) fn feed(&mut self) -> Result<(), String> {
        let (_, step) = self.plan.source[self.step];
        self.step += 1;
        self.await_source();
        match step {
            Step::Audio(frames) => {
                let start = self.machine.cursors().accepted;
                self.give(start.to(start + frames))
            }
            Step::Flush => {
                self.note("source flushes", 0, 0);
                // A Vosk server can't be asked for it.
                if self.plan.vosk.is_none() {
                    self.audit.flushes();
                }
                self.tell(Input::Flush)
            }
            Step::End => self.finish(),
        }
    }

    fn give(&mut self, range: FrameRange) -> Result<(), String> {
        self.note("source gives", range.start.0, range.end.0);
        let chunk = chunk(range);
        self.audit.accepts(&chunk, self.now);
        self.tell(Input::Audio(chunk))
    }

    fn finish(&mut self) -> Result<(), String> {
        self.note("source ends", 0, 0);
        self.audit.finishes(self.now);
        self.tell(Input::Finish)
    }

    pub(super) fn await_source(&mut self) {
        if let Some((pause, _)) = self.plan.source.get(self.step) {
            self.schedule(*pause, Event::Source);
        }
    }

    /// Hands the session the audio that an earlier process had taken from the source.
    pub(super) fn feed_backlog(&mut self) -> Result<(), String> {
        while self.machine.wants_audio() {
            match self.backlog.pop_front() {
                Some(range) => self.give(range)?,
                None if std::mem::take(&mut self.end_again) => self.finish()?,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Kills the client's process. Another process continues from the data on disk.
    pub(super) fn kill(&mut self, kill: Kill) -> Result<(), String> {
        self.kills += 1;
        self.note("killed", kill.lost, 0);
        for connection in &mut self.connections {
            (connection.left, connection.broken) = (true, true);
        }
        let accepted =
            self.audit.accepted().max(self.backlog.back().map_or(FramePos::ZERO, |range| range.end));
        let on_disk = FramePos(accepted.0.saturating_sub(kill.lost)).max(self.journal.final_);
        let mut ranges = Vec::new();
        let mut at = self.journal.final_;
        while at < accepted {
            let bound = if at < on_disk { on_disk } else { accepted };
            let end = (at + self.plan.longest_chunk()).min(bound);
            ranges.push(at.to(end));
            at = end;
        }
        let fits = |range: &FrameRange| {
            range.end <= on_disk && range.start - self.journal.final_ < self.plan.settings.replay.frames
        };
        let kept = ranges.iter().take_while(|range| fits(range)).count();
        let checkpoint = Checkpoint {
            replay: ranges[..kept].iter().copied().map(chunk).collect(),
            ..self.journal.clone()
        };
        self.machine = Machine::for_peer(self.plan.settings.clone(), self.plan.capabilities(), checkpoint);
        self.backlog = ranges[kept..].iter().copied().collect();
        self.end_again = self.step == self.plan.source.len();
        self.saboteur = Saboteur::new(self.plan.bug);
        self.process += 1;
        self.inherited = self.connections.len();
        self.carrier = None;
        self.token_spent = false;
        let known = self.journal.server.is_some();
        self.audit.starts_over(self.machine.cursors().accepted, known, self.now);
        self.tell(Input::Tick)
    }

    /// Passes an input to the session, carries out the session's outputs, and checks the session.
    pub(super) fn tell(&mut self, input: Input) -> Result<(), String> {
        let message = if let Input::Peer(_, message) = &input { Some(message) } else { None };
        self.saboteur.tells(message);
        self.abandons = false;
        self.machine.handle(input, self.now);
        while let Some(output) = self.machine.poll_output() {
            if self.audit.ended {
                return Err(format!("{output:?} after the end"));
            }
            self.perform(output)?;
        }
        self.audit.check(&self.machine, &self.plan, self.carrier.is_some())
    }

    fn perform(&mut self, output: Output) -> Result<(), String> {
        match output {
            Output::NeedToken { newer_than } => self.ask_token(newer_than),
            Output::Dial { id, token, endpoints, .. } => {
                self.audit.dials(self.now)?;
                if self.number(id) != self.connections.len() {
                    return Err(format!("dials {id:?} out of turn"));
                }
                let server =
                    endpoints.first().map_or(0, |named| named.parse().expect("the number of a server"));
                self.dial(token.generation().0, server);
            }
            Output::Send(_, message) if !self.saboteur.passes(&message) => {}
            Output::Send(id, message) => {
                let (what, first, second) = said(&message);
                self.note(what, first, second);
                match message {
                    ClientMessage::Flush { at } => self.audit.sends_flush(at)?,
                    ClientMessage::Gap { to, .. } => self.audit.passes(to),
                    _ => {}
                }
                self.send_message(id, message)?;
            }
            Output::SendAudio(id, chunk) => {
                let Some(chunk) = self.saboteur.audio(chunk) else { return Ok(()) };
                self.note("sends audio", chunk.range().start.0, chunk.range().end.0);
                self.audit.sends(&chunk, &self.plan.settings, self.now)?;
                self.send_audio(id, chunk)?;
            }
            Output::Ping(id) => self.send_up(id, Up::Ping)?,
            Output::Close(id, code) => self.hang_up(self.number(id), code)?,
            Output::Opened(server) => self.journal.server = Some(server),
            Output::Emit(event) => {
                self.audit.emits(&event, &self.plan.settings, self.now)?;
                self.record(event);
            }
            Output::End(ended) => {
                self.note("ends", u64::from(ended.result.is_ok()), 0);
                self.audit.ends(&ended, &self.plan, self.now)?;
                self.ended = Some(*ended);
            }
        }
        Ok(())
    }

    /// Requests a token, which is answered after a while.
    fn ask_token(&mut self, newer_than: Option<TokenGeneration>) {
        let granted = !self.plan.token_fault(self.fetches);
        self.fetches += 1;
        let newer_than = newer_than.map(|TokenGeneration(number)| number);
        let wait = 2 * self.latency();
        self.schedule(wait, Event::Token { process: self.process, newer_than, granted });
    }

    /// Writes an event for the user to the disk.
    fn record(&mut self, event: TranscriptEvent) {
        match event {
            TranscriptEvent::Final(segment) => {
                self.journal.final_ = segment.range.end;
                self.journal.next_index = segment.index + 1;
                self.journal.context = segment.context.or(self.journal.context.take());
            }
            TranscriptEvent::Gap { range } => {
                self.journal.final_ = range.end;
                self.journal.gaps += range.len();
            }
            _ => {}
        }
    }

    fn send_message(&mut self, id: ConnectionId, message: ClientMessage) -> Result<(), String> {
        let number = self.number(id);
        let Some(line) = &mut self.connections[number].vosk else {
            return self.send_up(id, Up::Message(message));
        };
        let (frame, answer) = line.translator.message(&message);
        if frame.is_none() && answer.is_none() {
            return Err(format!("{message:?} to a server that has no word for it"));
        }
        if let Some(ready) = answer {
            // The translator answers by itself, at once.
            self.schedule(Duration::ZERO, Event::Said(number, Down::Message(ready)));
        }
        frame.map_or(Ok(()), |frame| self.send_up(id, frame.into()))
    }

    fn send_audio(&mut self, id: ConnectionId, chunk: AudioChunk) -> Result<(), String> {
        let number = self.number(id);
        let up = match &mut self.connections[number].vosk {
            Some(line) => line.translator.audio(&chunk).into(),
            None => Up::Audio(chunk),
        };
        self.send_up(id, up)
    }

    fn hang_up(&mut self, number: usize, code: u16) -> Result<(), String> {
        self.note("closes", number as u64, code.into());
        let connection = &mut self.connections[number];
        let server = connection.server;
        // An heir that is found to know too little leaves both connections of a handover.
        self.abandons |= code == close::NORMAL && self.audit.is_heir();
        if std::mem::replace(&mut connection.left, true) {
            return Err("closes a connection that is gone".to_owned());
        }
        let was_broken = std::mem::replace(&mut connection.broken, true);
        let silent = connection.silent_since.is_some();
        if silent || code == close::GOING_AWAY && self.carrier.is_none_or(|carrier| carrier == number) {
            // A silent connection counts as failing until it is left, noticed or not.
            self.audit.fails(self.now);
        }
        if self.carrier == Some(number) {
            self.carrier = None;
            self.carrier_ends(false);
            if code == close::NORMAL {
                self.audit.gives_up_session();
            }
            // A server that ends no utterance may be left when the time of its session is over.
            let in_vain = self.plan.vosk.is_some_and(|vosk| vosk.longest_session.is_some())
                && self.connections[number].fault == Fault::NoFinals;
            if code == close::GOING_AWAY && !was_broken && !in_vain && !self.abandons {
                self.audit.leaves_for_dead(&self.plan, self.now)?;
            }
        }
        match code {
            close::PROTOCOL => Err(format!("accuses an honest server: {:?}", self.machine.poll_output())),
            close::NORMAL if self.servers[server].serves(number) => {
                self.servers[server].forget();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn id(&self, number: usize) -> ConnectionId {
        ConnectionId(u32::try_from(number - self.inherited).expect("few connections"))
    }

    pub(super) fn number(&self, id: ConnectionId) -> usize {
        self.inherited + id.0 as usize
    }

    /// Records that one of the client's connections ended like this.
    pub(super) fn fails(&mut self, number: usize, recovery: Recovery) {
        self.audit.fails(self.now);
        let only = self.carrier.is_none_or(|carrier| carrier == number);
        if self.carrier == Some(number) {
            self.carrier = None;
        }
        // The session does not end because of a second connection while the first one runs.
        if only {
            let refused = recovery == Recovery::RefreshToken;
            self.audit.doomed |= recovery == Recovery::Fatal || refused && self.token_spent;
            self.token_spent |= refused;
        }
    }
}
