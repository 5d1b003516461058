//! A session's core, the model server, the source in front, and the time all of it takes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use super::Happening;
use super::audit::Audit;
use super::network::{Connection, Down, Tokens};
use super::plan::{Dice, FATAL, Fault, How, Kill, Plan, Refusal, Step, sample};
use super::server::{Opening, Server, Up};
use crate::audio::{AudioChunk, FramePos, FrameRange};
use crate::auth::{AccessToken, TokenGeneration};
use crate::recovery::Recovery;
use crate::session::core::{ConnectionId, Core, Input, Output};
use crate::session::protocol::{ClientMessage, Final, ServerMessage};
use crate::session::{Checkpoint, Ended, Failure, FailureKind, close};
use crate::transcript::TranscriptEvent;

/// More steps than any schedule needs that gets anywhere.
const STEPS: usize = 200_000;
/// How long a client may wait for an acknowledgement of what has arrived.
const ACK_WITHIN: Duration = Duration::from_millis(250);

/// What is going to happen.
#[derive(Debug)]
enum Event {
    /// The source has its next step ready.
    Source,
    /// The request for a token is answered, in the process of this number; whether it is granted.
    Token { process: usize, newer_than: Option<u64>, granted: bool },
    /// A dial is answered; `None` is a connection.
    Dialled(usize, Option<Failure>),
    /// A message arrives at the server.
    Heard(usize, Up),
    /// A message arrives at the client.
    Said(usize, Down),
    /// The utterance at work in the session of this number is recognised.
    Recognised(u64),
    /// Acknowledgements on this connection are due.
    AckDue(usize),
    /// The token of this number ends, which this connection was opened with.
    Expires(usize, u64),
    /// The server closes the connection, as it said it would.
    Deadline(usize),
    /// The client's process dies.
    Kill(Kill),
}

/// A schedule being played.
pub(super) struct Simulation {
    plan: Plan,
    dice: Dice,
    now: Duration,
    core: Core,
    server: Server,
    tokens: Tokens,
    audit: Audit,
    agenda: BTreeMap<(Duration, u64), Event>,
    events: u64,
    /// How many processes the client had before this one, and how many of the connections were theirs.
    process: usize,
    inherited: usize,
    connections: Vec<Connection>,
    /// The connection that was last ready, unless it has ended.
    carrier: Option<usize>,
    fetches: usize,
    kills: usize,
    /// A token was refused since the last `ready`.
    token_spent: bool,
    /// The next step of the source, and whether it waits for the session to want it.
    step: usize,
    source_waits: bool,
    /// What a killed process had taken from the source and the present one has not.
    backlog: VecDeque<FrameRange>,
    end_again: bool,
    /// What is on the disk.
    journal: Checkpoint,
    ended: Option<Ended>,
    log: Vec<Happening>,
}

impl Simulation {
    pub(super) fn new(plan: Plan) -> Simulation {
        Simulation {
            core: Core::new(plan.settings.clone()),
            server: Server::new(plan.server),
            tokens: Tokens::new(plan.token_life),
            dice: Dice::new(!plan.seed),
            plan,
            now: Duration::ZERO,
            audit: Audit::default(),
            agenda: BTreeMap::new(),
            events: 0,
            process: 0,
            inherited: 0,
            connections: Vec::new(),
            carrier: None,
            fetches: 0,
            kills: 0,
            token_spent: false,
            step: 0,
            source_waits: false,
            backlog: VecDeque::new(),
            end_again: false,
            journal: Checkpoint::default(),
            ended: None,
            log: Vec::new(),
        }
    }

    /// What was drawn beforehand.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How long it took, and all that happened.
    pub(super) fn into_story(self) -> (Duration, Vec<Happening>) {
        (self.now, self.log)
    }

    /// Plays it to its end; an error is a breach.
    pub(super) fn run(&mut self) -> Result<Ended, String> {
        self.await_source();
        for kill in self.plan.kills.clone() {
            self.schedule(kill.at, Event::Kill(kill));
        }
        self.tell(Input::Tick)?;
        for _ in 0..STEPS {
            if let Some(ended) = self.ended.take() {
                return Ok(ended);
            }
            let next = self.agenda.first_key_value().map(|((at, _), _)| *at);
            match (next, self.core.wake_at()) {
                (next, Some(wake)) if next.is_none_or(|next| wake <= next) => {
                    self.now = self.now.max(wake);
                    self.note("wakes", 0, 0);
                    self.tell(Input::Tick)?;
                }
                (Some(_), _) => {
                    let ((at, _), event) = self.agenda.pop_first().expect("looked at above");
                    self.now = at;
                    self.happen(event)?;
                }
                (None, _) => return Err("nothing will ever happen again".to_owned()),
            }
            self.feed_backlog()?;
            if self.source_waits && self.backlog.is_empty() && self.core.wants_audio() {
                self.source_waits = false;
                self.feed()?;
            }
            // What goes wrong later starts the clock anew.
            let quiet = self.carrier.is_some_and(|carrier| {
                let carrier = &self.connections[carrier];
                carrier.fault == Fault::None || carrier.struck && !carrier.broken
            });
            let over = self.connections.len() > self.plan.faults.len()
                && self.fetches > self.plan.token_faults.len();
            let calm = (quiet || over) && self.kills == self.plan.kills.len();
            self.audit.check_patience(&self.plan, calm, self.now)?;
            if let Some(carrier) = self.carrier {
                self.audit.check_silence(&self.connections[carrier], &self.plan, self.now)?;
            }
        }
        Err(format!("no end after {STEPS} steps"))
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Source if self.backlog.is_empty() && self.core.wants_audio() => self.feed(),
            Event::Source => {
                self.source_waits = true;
                Ok(())
            }
            Event::Token { process, .. } if process < self.process => Ok(()),
            Event::Token { granted: false, .. } => {
                self.note("gets no token", 0, 0);
                self.audit.fails(self.now);
                self.tell(Input::TokenFailed(failure(Recovery::Retry, FailureKind::Unreachable)))
            }
            Event::Token { newer_than, .. } => {
                let number = self.tokens.grant(newer_than, self.now);
                self.note("gets token", number, 0);
                let token = AccessToken::new(&number.to_string().into(), TokenGeneration(number));
                self.tell(Input::Token(token.expect("digits")))
            }
            Event::Dialled(number, _) if self.connections[number].left => Ok(()),
            Event::Dialled(number, Some(failure)) => {
                self.note("dial refused", number as u64, 0);
                self.fails(number, failure.recovery);
                self.tell(Input::DialFailed(self.id(number), failure))
            }
            Event::Dialled(number, None) => {
                self.note("connected", number as u64, 0);
                let generation = self.connections[number].generation;
                self.expire_later(number, generation);
                self.tell(Input::Connected(self.id(number)))
            }
            Event::Heard(number, up) => self.arrive(number, &up),
            Event::Said(number, down) => self.deliver(number, down),
            Event::Recognised(number) => {
                self.note("recognised", number, 0);
                self.server.finish_work(number, &mut self.dice);
                let prompt = self.server.acks_promptly(&mut self.dice);
                self.speak(prompt);
                Ok(())
            }
            Event::AckDue(number) => {
                self.connections[number].ack_due = false;
                if self.server.serves(number) {
                    self.speak(true);
                }
                Ok(())
            }
            Event::Expires(number, generation) => {
                if self.connections[number].generation == generation {
                    self.close(number, close::TOKEN);
                }
                Ok(())
            }
            Event::Deadline(number) => {
                self.close(number, close::GOING_AWAY);
                Ok(())
            }
            Event::Kill(kill) => self.kill(kill),
        }
    }

    // The client's side.

    /// Hands the session what the source has.
    fn feed(&mut self) -> Result<(), String> {
        let (_, step) = self.plan.source[self.step];
        self.step += 1;
        self.await_source();
        match step {
            Step::Audio(frames) => {
                let start = self.core.cursors().accepted;
                self.give(start.to(start + frames))
            }
            Step::Flush => {
                self.note("source flushes", 0, 0);
                self.audit.flushes();
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

    fn await_source(&mut self) {
        if let Some((pause, _)) = self.plan.source.get(self.step) {
            self.schedule(*pause, Event::Source);
        }
    }

    /// Hands the session what an earlier process had taken from the source.
    fn feed_backlog(&mut self) -> Result<(), String> {
        while self.core.wants_audio() {
            match self.backlog.pop_front() {
                Some(range) => self.give(range)?,
                None if std::mem::take(&mut self.end_again) => self.finish()?,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// The client's process dies; another goes on from what is on the disk.
    fn kill(&mut self, kill: Kill) -> Result<(), String> {
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
            let end = match at < on_disk {
                true => (at + self.plan.longest_chunk()).min(on_disk),
                false => (at + self.plan.longest_chunk()).min(accepted),
            };
            ranges.push(at.to(end));
            at = end;
        }
        let fits = |range: &FrameRange| {
            range.end <= on_disk && range.start - self.journal.final_ < self.plan.settings.replay_frames
        };
        let kept = ranges.iter().take_while(|range| fits(range)).count();
        let checkpoint = Checkpoint {
            replay: ranges[..kept].iter().copied().map(chunk).collect(),
            ..self.journal.clone()
        };
        self.core = Core::from_checkpoint(self.plan.settings.clone(), checkpoint);
        self.backlog = ranges[kept..].iter().copied().collect();
        self.end_again = self.step == self.plan.source.len();
        self.process += 1;
        self.inherited = self.connections.len();
        self.carrier = None;
        self.token_spent = false;
        let known = self.journal.server.is_some();
        self.audit.starts_over(self.core.cursors().accepted, known, self.now);
        self.tell(Input::Tick)
    }

    /// Tells the session what happened, does what it asks for, and checks it.
    fn tell(&mut self, input: Input) -> Result<(), String> {
        self.core.handle(input, self.now);
        while let Some(output) = self.core.poll_output() {
            if self.audit.ended {
                return Err(format!("{output:?} after the end"));
            }
            self.perform(output)?;
        }
        self.audit.check(&self.core, &self.plan)
    }

    fn perform(&mut self, output: Output) -> Result<(), String> {
        match output {
            Output::NeedToken { newer_than } => {
                let granted = !self.plan.token_fault(self.fetches);
                self.fetches += 1;
                let newer_than = newer_than.map(|TokenGeneration(number)| number);
                let wait = 2 * self.latency();
                self.schedule(wait, Event::Token { process: self.process, newer_than, granted });
            }
            Output::Dial(id, token) => {
                self.audit.dials(self.now)?;
                if self.number(id) != self.connections.len() {
                    return Err(format!("dials {id:?} out of turn"));
                }
                self.dial(token.generation().0);
            }
            Output::Send(id, message) => {
                let (what, first, second) = said(&message);
                self.note(what, first, second);
                match message {
                    ClientMessage::Flush { at } => self.audit.sends_flush(at)?,
                    ClientMessage::Gap { to, .. } => self.audit.passes(to),
                    _ => {}
                }
                self.send_up(id, Up::Message(message))?;
            }
            Output::SendAudio(id, chunk) => {
                self.note("sends audio", chunk.range().start.0, chunk.range().end.0);
                self.audit.sends(&chunk, &self.plan.settings, self.now)?;
                self.send_up(id, Up::Audio(chunk))?;
            }
            Output::Ping(id) => self.send_up(id, Up::Ping)?,
            Output::Close(id, code) => self.hang_up(self.number(id), code)?,
            Output::Opened(server) => self.journal.server = Some(server),
            Output::Emit(event) => {
                self.audit.emits(&event, &self.plan.settings, self.now)?;
                match event {
                    TranscriptEvent::Final(segment) => {
                        self.journal.final_ = segment.range.end;
                        self.journal.next_index = segment.index + 1;
                    }
                    TranscriptEvent::Gap { range } => {
                        self.journal.final_ = range.end;
                        self.journal.gaps += range.len();
                    }
                    _ => {}
                }
            }
            Output::End(ended) => {
                self.note("ends", u64::from(ended.result.is_ok()), 0);
                self.audit.ends(&ended, &self.plan, self.now)?;
                self.ended = Some(*ended);
            }
        }
        Ok(())
    }

    fn hang_up(&mut self, number: usize, code: u16) -> Result<(), String> {
        self.note("closes", number as u64, code.into());
        let connection = &mut self.connections[number];
        if std::mem::replace(&mut connection.left, true) {
            return Err("closes a connection that is gone".to_owned());
        }
        let was_broken = std::mem::replace(&mut connection.broken, true);
        if code == close::GOING_AWAY && self.carrier.is_none_or(|carrier| carrier == number) {
            self.audit.fails(self.now);
        }
        if self.carrier == Some(number) {
            self.carrier = None;
            if code == close::GOING_AWAY && !was_broken {
                return Err("took a living connection for dead".to_owned());
            }
        }
        match code {
            close::PROTOCOL => Err(format!("accuses an honest server: {:?}", self.core.poll_output())),
            close::NORMAL if self.server.serves(number) => {
                self.server.forget();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn id(&self, number: usize) -> ConnectionId {
        ConnectionId(u32::try_from(number - self.inherited).expect("few connections"))
    }

    fn number(&self, id: ConnectionId) -> usize {
        self.inherited + id.0 as usize
    }

    /// A connection of the client's came to this end.
    fn fails(&mut self, number: usize, recovery: Recovery) {
        self.audit.fails(self.now);
        let only = self.carrier.is_none_or(|carrier| carrier == number);
        if self.carrier == Some(number) {
            self.carrier = None;
        }
        // The session doesn't end for a second connection while the first runs.
        if only {
            let refused = recovery == Recovery::RefreshToken;
            self.audit.doomed |= recovery == Recovery::Fatal || refused && self.token_spent;
            self.token_spent |= refused;
        }
    }

    // The network.

    fn dial(&mut self, generation: u64) {
        let number = self.connections.len();
        let fault = self.plan.fault(number, self.token_spent);
        self.note("dials", number as u64, generation);
        self.connections.push(Connection::new(fault, generation, self.now));
        let answer = match fault {
            Fault::Dial(Refusal::Unreachable) => Some(failure(Recovery::Retry, FailureKind::Unreachable)),
            Fault::Dial(Refusal::Busy(wait)) => Some(failure(Recovery::RetryAfter(wait), FailureKind::Limit)),
            Fault::Dial(Refusal::Token) => {
                self.tokens.throw_out(generation);
                Some(failure(Recovery::RefreshToken, FailureKind::Authentication))
            }
            Fault::Dial(Refusal::Forbidden) => Some(failure(Recovery::Fatal, FailureKind::Authentication)),
            _ if !self.tokens.is_good(generation, self.now) => {
                Some(failure(Recovery::RefreshToken, FailureKind::Authentication))
            }
            _ => None,
        };
        let latency = self.latency();
        self.schedule(2 * latency, Event::Dialled(number, answer));
    }

    /// The server will close the connection when its token ends.
    fn expire_later(&mut self, number: usize, generation: u64) {
        if let Some(end) = self.tokens.end(generation) {
            self.schedule(end.saturating_sub(self.now), Event::Expires(number, generation));
        }
    }

    fn send_up(&mut self, id: ConnectionId, up: Up) -> Result<(), String> {
        let number = self.number(id);
        let arrival = self.now + self.latency();
        let connection = &mut self.connections[number];
        if connection.left {
            return Err(format!("sends {up:?} on a connection that is gone"));
        }
        connection.next_heard = connection.next_heard.max(arrival);
        let at = connection.next_heard;
        self.schedule(at - self.now, Event::Heard(number, up));
        Ok(())
    }

    fn send_down(&mut self, number: usize, down: Down) {
        let arrival = self.now + self.latency();
        let connection = &mut self.connections[number];
        connection.next_said = connection.next_said.max(arrival);
        let at = connection.next_said;
        self.schedule(at - self.now, Event::Said(number, down));
    }

    /// A message arrives at the client, if that still cares.
    fn deliver(&mut self, number: usize, down: Down) -> Result<(), String> {
        let lost = matches!(down, Down::Lost);
        if self.connections[number].left || self.connections[number].mute && !lost {
            return Ok(());
        }
        let id = self.id(number);
        let input = match down {
            Down::Message(message) => {
                let (what, first, second) = heard(&message);
                self.note(what, first, second);
                if matches!(message, ServerMessage::Ready(_)) {
                    self.token_spent = false;
                    self.carrier = Some(number);
                }
                self.audit.hears(&message, self.now);
                Input::Peer(id, message)
            }
            Down::Alive => Input::Alive(id),
            Down::Closed(code) => {
                self.note("is closed", number as u64, code.into());
                self.connections[number].left = true;
                self.fails(
                    number,
                    match code {
                        close::TOKEN | close::POLICY => Recovery::RefreshToken,
                        code if FATAL.contains(&code) => Recovery::Fatal,
                        _ => Recovery::Retry,
                    },
                );
                Input::Closed(id, code, String::new())
            }
            Down::Lost => {
                self.note("loses the connection", number as u64, 0);
                self.connections[number].left = true;
                self.fails(number, Recovery::Retry);
                Input::Lost(id, "reset".to_owned())
            }
        };
        self.tell(input)
    }

    /// The connection's fault strikes.
    fn strike(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        let (how, forget) = match connection.fault {
            Fault::Break { how, forget, .. } => (how, forget),
            Fault::Goaway { reason, deadline, .. } => {
                let deadline_ms = deadline.as_millis() as u64;
                self.say(number, ServerMessage::Goaway { reason, deadline_ms });
                self.schedule(deadline, Event::Deadline(number));
                return;
            }
            Fault::None | Fault::Dial(_) | Fault::DeafToAuth => return,
        };
        if forget {
            self.server.forget();
        }
        match how {
            How::Reset { said, notice, .. } => {
                connection.broken = true;
                connection.mute = !said;
                connection.next_said = connection.next_said.max(self.now + notice);
                self.note("reset", number as u64, u64::from(forget));
                self.send_down(number, Down::Lost);
            }
            How::Close(code) => {
                if matches!(code, close::TOKEN | close::POLICY) {
                    let generation = connection.generation;
                    self.tokens.throw_out(generation);
                }
                self.close(number, code);
            }
            How::Silence => {
                connection.broken = true;
                connection.silent_since = Some(self.now);
                self.note("silence", number as u64, u64::from(forget));
            }
        }
    }

    // The server's side.

    /// The server closes a connection, unless that has ended.
    fn close(&mut self, number: usize, code: u16) {
        if !std::mem::replace(&mut self.connections[number].broken, true) {
            self.note("server closes", number as u64, code.into());
            self.send_down(number, Down::Closed(code));
        }
    }

    /// A message arrives at the server.
    fn arrive(&mut self, number: usize, up: &Up) -> Result<(), String> {
        let connection = &mut self.connections[number];
        if connection.broken {
            return Ok(());
        }
        if matches!(up, Up::Ping) {
            self.send_down(number, Down::Alive);
            return Ok(());
        }
        let (strikes, heard) = connection.strikes_at(up);
        if heard {
            self.hear(number, up)?;
        }
        if strikes && !self.connections[number].broken {
            self.strike(number);
        }
        Ok(())
    }

    fn hear(&mut self, number: usize, up: &Up) -> Result<(), String> {
        if !self.connections[number].opened {
            self.connections[number].opened = true;
            let generation = self.connections[number].generation;
            let before = self.server.connection();
            let left = self.expires_in(generation);
            match self.server.open(number, up, left, &mut self.dice)? {
                Opening::Ready(ready) => {
                    if let Some(before) =
                        before.filter(|_| matches!(up, Up::Message(ClientMessage::Resume { .. })))
                    {
                        self.close(before, close::MOVED);
                    }
                    self.say(number, ready);
                }
                Opening::Close(code) => {
                    self.close(number, code);
                    return Ok(());
                }
            }
        } else if let Up::Message(ClientMessage::Auth { access_token }) = up {
            self.hear_token(number, access_token.expose().parse().expect("a number"))?;
        } else if self.server.serves(number) {
            self.server.hear(up)?;
        }
        let prompt = self.server.acks_promptly(&mut self.dice);
        self.speak(prompt);
        Ok(())
    }

    fn hear_token(&mut self, number: usize, generation: u64) -> Result<(), String> {
        if !self.plan.server.auth {
            return Err("sends a token in band to a server that doesn't take it".to_owned());
        }
        if self.connections[number].fault == Fault::DeafToAuth {
            return Ok(());
        }
        if !self.tokens.is_good(generation, self.now) {
            self.close(number, close::TOKEN);
            return Ok(());
        }
        self.connections[number].generation = generation;
        self.expire_later(number, generation);
        let token_expires_in_ms = self.expires_in(generation).map(|left| left.as_millis() as u64);
        self.say(number, ServerMessage::AuthOk { token_expires_in_ms });
        Ok(())
    }

    fn expires_in(&self, generation: u64) -> Option<Duration> {
        self.tokens.end(generation).map(|end| end.saturating_sub(self.now))
    }

    /// Lets the server say what is new, and go on with its work.
    fn speak(&mut self, ack: bool) {
        let Some(number) = self.server.connection() else { return };
        for message in self.server.news(ack, &mut self.dice) {
            self.say(number, message);
        }
        if self.server.owes_ack() && !std::mem::replace(&mut self.connections[number].ack_due, true) {
            self.schedule(ACK_WITHIN, Event::AckDue(number));
        }
        if let Some((session, duration)) = self.server.begin_work() {
            self.schedule(duration, Event::Recognised(session));
        }
    }

    fn say(&mut self, number: usize, message: ServerMessage) {
        let connection = &mut self.connections[number];
        if connection.broken {
            return;
        }
        let (strikes, leaves) = connection.strikes_after(&message);
        if leaves {
            self.send_down(number, Down::Message(message));
        }
        if strikes {
            self.strike(number);
        }
    }

    // Time, and the record of it.

    fn latency(&mut self) -> Duration {
        let most = u64::try_from(self.plan.latency.as_millis()).expect("a few seconds");
        self.dice.millis(0, most)
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        // The count keeps simultaneous events in the order they were scheduled in.
        self.events += 1;
        self.agenda.insert((self.now + after, self.events), event);
    }

    fn note(&mut self, what: &'static str, first: u64, second: u64) {
        self.log.push(Happening { at: self.now, what, numbers: (first, second) });
    }
}

fn chunk(range: FrameRange) -> AudioChunk {
    let payload: Bytes = (range.start.0..range.end.0).flat_map(|frame| sample(frame).to_le_bytes()).collect();
    AudioChunk::new(range, payload)
}

fn failure(recovery: Recovery, kind: FailureKind) -> Failure {
    Failure { recovery, kind, reason: "refused".to_owned() }
}

fn said(message: &ClientMessage) -> (&'static str, u64, u64) {
    match message {
        ClientMessage::Start(start) => ("sends start", start.origin.0, 0),
        ClientMessage::Resume { finals_seen, .. } => ("sends resume", *finals_seen, 0),
        ClientMessage::Gap { from, to } => ("sends gap", from.0, to.0),
        ClientMessage::Auth { .. } => ("sends auth", 0, 0),
        ClientMessage::Flush { at } => ("sends flush", at.map_or(0, |at| at.0), 0),
        ClientMessage::Finish { through } => ("sends finish", through.0, 0),
    }
}

fn heard(message: &ServerMessage) -> (&'static str, u64, u64) {
    match message {
        ServerMessage::Ready(ready) => ("hears ready", ready.received.0, ready.final_.0),
        ServerMessage::Ack { received, final_ } => ("hears ack", received.0, final_.0),
        ServerMessage::Partial { start, end, .. } => ("hears partial", start.0, end.0),
        ServerMessage::Final(Final { start, end, .. }) => ("hears final", start.0, end.0),
        ServerMessage::Done { frames: FramePos(frames), finals } => ("hears done", *frames, *finals),
        ServerMessage::AuthOk { .. } => ("hears auth_ok", 0, 0),
        ServerMessage::Goaway { deadline_ms, .. } => ("hears goaway", *deadline_ms, 0),
        ServerMessage::Error { code, .. } => ("hears error", u64::from(*code), 0),
        ServerMessage::Unknown => ("hears something unknown", 0, 0),
    }
}
