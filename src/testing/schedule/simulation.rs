//! The network between a session and the model server, the source in front, and the time all of it takes.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::Happening;
use super::audit::Audit;
use super::plan::{Dice, FATAL, Fault, How, Plan, Refusal, Step, When, sample};
use super::server::{Opening, Server, Up};
use crate::audio::{AudioChunk, FramePos};
use crate::recovery::Recovery;
use crate::session::close;
use crate::session::core::{Core, Input, Output};
use crate::session::protocol::{ClientMessage, Final, ServerMessage};
use crate::session::{Failure, FailureKind, Ledger, SessionError};

/// More steps than any schedule needs that gets anywhere.
const STEPS: usize = 200_000;
/// How long a client may wait for an acknowledgement of what has arrived.
const ACK_WITHIN: Duration = Duration::from_millis(250);
/// How often the server gives a sign of life.
const PING_EVERY: Duration = Duration::from_secs(20);

/// What is going to happen.
#[derive(Debug)]
enum Event {
    /// The source has its next step ready.
    Source,
    /// A dial is answered; `None` is a connection.
    Dialled(Option<Failure>),
    /// A message arrives at the server.
    Heard(usize, Up),
    /// A message arrives at the client.
    Said(usize, Down),
    /// The utterance at work in the session of this number is recognised.
    Recognised(u64),
    /// Acknowledgements on this connection are due.
    AckDue(usize),
    /// The server pings, and will again.
    Ping(usize),
}

/// What arrives at a client.
#[derive(Debug)]
enum Down {
    Message(ServerMessage),
    Alive,
    Closed(u16),
    Lost,
}

/// A connection, as the network sees it.
#[derive(Debug)]
struct Connection {
    fault: Fault,
    /// It has broken: the server hears and says nothing more on it.
    broken: bool,
    /// What is under way to the client is lost too.
    mute: bool,
    /// Messages the server has heard and said.
    heard: u64,
    said: u64,
    opened: bool,
    ack_due: bool,
    /// Messages keep their order: none arrives before these.
    next_heard: Duration,
    next_said: Duration,
}

/// A schedule being played.
pub(super) struct Simulation {
    plan: Plan,
    dice: Dice,
    now: Duration,
    core: Core,
    server: Server,
    audit: Audit,
    agenda: BTreeMap<(Duration, u64), Event>,
    events: u64,
    connections: Vec<Connection>,
    /// The connection the client uses.
    current: Option<usize>,
    /// How many dials there were, and the fault of the one under way.
    dials: u64,
    dialling: Fault,
    /// A token was refused since the last `ready`.
    token_spent: bool,
    /// The next step of the source, and whether it waits for the session to want it.
    step: usize,
    source_waits: bool,
    result: Option<Result<Ledger, SessionError>>,
    log: Vec<Happening>,
}

impl Simulation {
    pub(super) fn new(seed: u64) -> Simulation {
        let mut dice = Dice::new(seed);
        let plan = Plan::draw(seed, &mut dice);
        Simulation {
            core: Core::new(plan.settings.clone()),
            server: Server::new(plan.server),
            plan,
            dice,
            now: Duration::ZERO,
            audit: Audit::default(),
            agenda: BTreeMap::new(),
            events: 0,
            connections: Vec::new(),
            current: None,
            dials: 0,
            dialling: Fault::None,
            token_spent: false,
            step: 0,
            source_waits: false,
            result: None,
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
    pub(super) fn run(&mut self) -> Result<Result<Ledger, SessionError>, String> {
        self.await_source();
        self.tell(Input::Tick)?;
        for _ in 0..STEPS {
            if let Some(result) = self.result.take() {
                return Ok(result);
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
            if self.source_waits && self.core.wants_audio() {
                self.source_waits = false;
                self.feed()?;
            }
            let calm = self.dials > self.plan.faults;
            self.audit.check_patience(&self.plan, calm, self.now)?;
        }
        Err(format!("no end after {STEPS} steps"))
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Source if self.core.wants_audio() => self.feed(),
            Event::Source => {
                self.source_waits = true;
                Ok(())
            }
            Event::Dialled(Some(failure)) => {
                self.note("dial refused", 0, 0);
                self.audit.doomed |= failure.recovery == Recovery::Fatal;
                self.token_spent |= failure.recovery == Recovery::RefreshToken;
                self.audit.fails(self.now);
                self.tell(Input::DialFailed(failure))
            }
            Event::Dialled(None) => self.connect(),
            Event::Heard(connection, up) => self.arrive(connection, &up),
            Event::Said(connection, down) => self.deliver(connection, down),
            Event::Recognised(number) => {
                self.note("recognised", number, 0);
                self.server.finish_work(number, &mut self.dice);
                let prompt = self.server.acks_promptly(&mut self.dice);
                self.speak(prompt);
                Ok(())
            }
            Event::AckDue(connection) => {
                self.connections[connection].ack_due = false;
                if self.server.serves(connection) {
                    self.speak(true);
                }
                Ok(())
            }
            Event::Ping(connection) => {
                if !self.connections[connection].broken && self.current == Some(connection) {
                    self.send_down(connection, Down::Alive);
                    self.schedule(PING_EVERY, Event::Ping(connection));
                }
                Ok(())
            }
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
                let range = start.to(start + frames);
                let payload: Bytes =
                    (range.start.0..range.end.0).flat_map(|frame| sample(frame).to_le_bytes()).collect();
                self.note("source gives", range.start.0, range.end.0);
                let chunk = AudioChunk::new(range, payload);
                self.audit.accepts(&chunk, self.now);
                self.tell(Input::Audio(chunk))
            }
            Step::Flush => {
                self.note("source flushes", 0, 0);
                self.audit.flushes();
                self.tell(Input::Flush)
            }
            Step::End => {
                self.note("source ends", 0, 0);
                self.audit.finishes(self.now);
                self.tell(Input::Finish)
            }
        }
    }

    fn await_source(&mut self) {
        if let Some((pause, _)) = self.plan.source.get(self.step) {
            self.schedule(*pause, Event::Source);
        }
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
        self.audit.check(&self.core)
    }

    fn perform(&mut self, output: Output) -> Result<(), String> {
        match output {
            Output::Dial { fresh_token } => {
                self.audit.dials(self.now)?;
                self.dial(fresh_token);
            }
            Output::Send(message) => {
                let what = match &message {
                    ClientMessage::Start(_) => "sends start",
                    ClientMessage::Resume { .. } => "sends resume",
                    ClientMessage::Gap { .. } => "sends gap",
                    ClientMessage::Auth { .. } => "sends auth",
                    ClientMessage::Flush => "sends flush",
                    ClientMessage::Finish { .. } => "sends finish",
                };
                self.note(what, 0, 0);
                if matches!(message, ClientMessage::Flush) {
                    self.audit.sends_flush()?;
                }
                self.send_up(Up::Message(message))?;
            }
            Output::SendAudio(chunk) => {
                self.note("sends audio", chunk.range().start.0, chunk.range().end.0);
                self.audit.sends(&chunk)?;
                self.send_up(Up::Audio(chunk))?;
            }
            Output::Close(code) => {
                self.note("closes", code.into(), 0);
                let connection = self.current.take().ok_or("closes a connection that is gone")?;
                let was_broken = std::mem::replace(&mut self.connections[connection].broken, true);
                if code == close::GOING_AWAY {
                    if !was_broken {
                        return Err("took a living connection for dead".to_owned());
                    }
                    self.audit.fails(self.now);
                }
                if code == close::PROTOCOL {
                    return Err("accuses an honest server".to_owned());
                }
            }
            Output::Emit(event) => self.audit.emits(&event, self.now)?,
            Output::End(result) => {
                self.note("ends", u64::from(result.is_ok()), 0);
                self.audit.ends(&result, &self.plan, self.now)?;
                self.result = Some(result);
            }
        }
        Ok(())
    }

    // The network.

    fn dial(&mut self, fresh_token: bool) {
        self.server.token_valid |= fresh_token;
        self.dialling = self.plan.fault(self.dials, self.token_spent, &mut self.dice);
        self.dials += 1;
        self.note("dials", self.dials, u64::from(fresh_token));
        let failure = |recovery, kind| Failure { recovery, kind, reason: "refused".to_owned() };
        let answer = match self.dialling {
            _ if !self.server.token_valid => {
                Some(failure(Recovery::RefreshToken, FailureKind::Authentication))
            }
            Fault::Dial(Refusal::Unreachable) => Some(failure(Recovery::Retry, FailureKind::Unreachable)),
            Fault::Dial(Refusal::Busy(wait)) => Some(failure(Recovery::RetryAfter(wait), FailureKind::Limit)),
            Fault::Dial(Refusal::Token) => {
                self.server.token_valid = false;
                Some(failure(Recovery::RefreshToken, FailureKind::Authentication))
            }
            Fault::Dial(Refusal::Forbidden) => Some(failure(Recovery::Fatal, FailureKind::Authentication)),
            Fault::None | Fault::Break { .. } => None,
        };
        let latency = self.latency();
        self.schedule(2 * latency, Event::Dialled(answer));
    }

    fn connect(&mut self) -> Result<(), String> {
        self.note("connected", self.connections.len() as u64, 0);
        self.current = Some(self.connections.len());
        self.connections.push(Connection {
            fault: self.dialling,
            broken: false,
            mute: false,
            heard: 0,
            said: 0,
            opened: false,
            ack_due: false,
            next_heard: self.now,
            next_said: self.now,
        });
        self.schedule(PING_EVERY, Event::Ping(self.connections.len() - 1));
        self.tell(Input::Connected)
    }

    fn send_up(&mut self, up: Up) -> Result<(), String> {
        let current = self.current.ok_or("sends without a connection")?;
        let arrival = self.now + self.latency();
        let connection = &mut self.connections[current];
        connection.next_heard = connection.next_heard.max(arrival);
        let at = connection.next_heard;
        self.schedule(at - self.now, Event::Heard(current, up));
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
    fn deliver(&mut self, connection: usize, down: Down) -> Result<(), String> {
        let lost = matches!(down, Down::Lost);
        if self.current != Some(connection) || self.connections[connection].mute && !lost {
            return Ok(());
        }
        let input = match down {
            Down::Message(message) => {
                let (what, first, second) = described(&message);
                self.note(what, first, second);
                self.token_spent &= !matches!(message, ServerMessage::Ready(_));
                self.audit.hears(&message, self.now);
                Input::Peer(message)
            }
            Down::Alive => Input::Alive,
            Down::Closed(code) => {
                self.note("is closed", code.into(), 0);
                self.current = None;
                self.audit.doomed |= FATAL.contains(&code);
                self.token_spent |= matches!(code, close::TOKEN | close::POLICY);
                self.audit.fails(self.now);
                Input::Closed(code, String::new())
            }
            Down::Lost => {
                self.note("loses the connection", 0, 0);
                self.current = None;
                self.audit.fails(self.now);
                Input::Lost("reset".to_owned())
            }
        };
        self.tell(input)
    }

    /// The connection breaks, as its fault says.
    fn shatter(&mut self, number: usize) {
        let Fault::Break { how, forget, .. } = self.connections[number].fault else { return };
        let connection = &mut self.connections[number];
        connection.broken = true;
        if forget {
            self.server.forget();
        }
        match how {
            How::Reset { said, notice, .. } => {
                connection.mute = !said;
                connection.next_said = connection.next_said.max(self.now + notice);
                self.note("reset", number as u64, u64::from(forget));
                self.send_down(number, Down::Lost);
            }
            How::Close(code) => {
                if matches!(code, close::TOKEN | close::POLICY) {
                    self.server.token_valid = false;
                }
                self.note("server closes", code.into(), u64::from(forget));
                self.send_down(number, Down::Closed(code));
            }
            How::Silence => self.note("silence", number as u64, u64::from(forget)),
        }
    }

    // The server's side.

    /// A message arrives at the server.
    fn arrive(&mut self, number: usize, up: &Up) -> Result<(), String> {
        let connection = &mut self.connections[number];
        if connection.broken {
            return Ok(());
        }
        let count = connection.heard;
        connection.heard += 1;
        let Fault::Break { when, how, .. } = connection.fault else { return self.hear(number, up) };
        let breaks = match (when, up) {
            (When::Heard(at), _) => at == count,
            (When::AtFinish, Up::Message(ClientMessage::Finish { .. }))
            | (When::AtFlush, Up::Message(ClientMessage::Flush)) => true,
            _ => false,
        };
        if !breaks || matches!(how, How::Reset { heard: true, .. }) {
            self.hear(number, up)?;
        }
        if breaks && !self.connections[number].broken {
            self.shatter(number);
        }
        Ok(())
    }

    fn hear(&mut self, number: usize, up: &Up) -> Result<(), String> {
        if !self.connections[number].opened {
            self.connections[number].opened = true;
            match self.server.open(number, up, &mut self.dice)? {
                Opening::Ready(ready) => self.say(number, ready),
                Opening::Close(code) => {
                    self.connections[number].broken = true;
                    self.note("server closes", code.into(), 0);
                    self.send_down(number, Down::Closed(code));
                    return Ok(());
                }
            }
        } else if self.server.serves(number) {
            self.server.hear(up)?;
        }
        let prompt = self.server.acks_promptly(&mut self.dice);
        self.speak(prompt);
        Ok(())
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
        let count = connection.said;
        connection.said += 1;
        let (breaks, arrives) = match connection.fault {
            Fault::Break { when, how, .. } => {
                let breaks = match (when, &message) {
                    (When::Said(at), _) => at == count,
                    (When::AtFinal, ServerMessage::Final(_)) | (When::AtDone, ServerMessage::Done { .. }) => {
                        true
                    }
                    _ => false,
                };
                (breaks, !breaks || matches!(how, How::Reset { said: true, .. }))
            }
            Fault::None | Fault::Dial(_) => (false, true),
        };
        if arrives {
            self.send_down(number, Down::Message(message));
        }
        if breaks {
            self.shatter(number);
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

fn described(message: &ServerMessage) -> (&'static str, u64, u64) {
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
