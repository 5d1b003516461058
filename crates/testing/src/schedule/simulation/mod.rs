//! A simulation of a session's state machine, the model server, the source in front, and time.

mod cables;
mod client;
mod host;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;

use crate::Saboteur;
use crate::schedule::Happening;
use crate::schedule::audit::Audit;
use crate::schedule::dice::Dice;
use crate::schedule::faults::Fault;
use crate::schedule::network::{Connection, Down, Tokens};
use crate::schedule::plan::{Kill, Plan, sample};
use crate::schedule::server::{Server, Up};
use voxline::audio::{AudioChunk, FramePos, FrameRange};
use voxline::auth::{AccessToken, TokenGeneration};
use voxline::protocol::close;
use voxline::protocol::{ClientMessage, Final, ServerMessage};
use voxline::recovery::{Failure, FailureKind, Recovery};
use voxline::session::machine::{Input, Machine};
use voxline::session::{Checkpoint, Ended};

/// Most steps of a schedule. Every schedule that makes progress needs fewer.
const STEPS: usize = 200_000;
/// Longest time that a client may wait for the acknowledgement of audio that has arrived.
const ACK_WITHIN: Duration = Duration::from_millis(250);

/// A scheduled event.
#[derive(Debug)]
enum Event {
    /// The source has its next step ready.
    Source,
    /// The token request of the process with this number is answered. `granted` is `true` if a token is
    /// granted.
    Token { process: usize, newer_than: Option<u64>, granted: bool },
    /// A dial is answered; `None` is success.
    Dialled(usize, Option<Failure>),
    /// A message arrives at the server.
    Heard(usize, Up),
    /// A message arrives at the client.
    Said(usize, Down),
    /// This server has recognised the current utterance of the session with this number.
    Recognised(usize, u64),
    /// The Vosk server has processed a message on this connection.
    Processed(usize),
    /// An acknowledgement on this connection is due.
    AckDue(usize),
    /// The token with this number, which this connection uses, ends.
    Expires(usize, u64),
    /// The server closes the connection, as it announced.
    Deadline(usize),
    /// The client's process dies.
    Kill(Kill),
}

/// A schedule that is being played.
pub(super) struct Simulation {
    plan: Plan,
    dice: Dice,
    now: Duration,
    machine: Machine,
    /// The configured server, followed by the servers to which it sends sessions.
    servers: Vec<Server>,
    tokens: Tokens,
    saboteur: Saboteur,
    audit: Audit,
    agenda: BTreeMap<(Duration, u64), Event>,
    events: u64,
    /// Number of earlier processes of the client, and number of connections that were theirs.
    process: usize,
    inherited: usize,
    connections: Vec<Connection>,
    /// Connection that was last ready, unless it has ended.
    carrier: Option<usize>,
    /// `true` if the client has given up the server's session in this step, as an heir may.
    abandons: bool,
    fetches: usize,
    kills: usize,
    /// `true` if a token was refused since the last `ready`.
    token_spent: bool,
    /// Index of the source's next step, and whether that step waits until the session wants audio.
    step: usize,
    source_waits: bool,
    /// Audio that a killed process had taken from the source and that the present process has not taken
    /// yet.
    backlog: VecDeque<FrameRange>,
    end_again: bool,
    /// State on the disk.
    journal: Checkpoint,
    ended: Option<Ended>,
    log: Vec<Happening>,
}

impl Simulation {
    pub(super) fn new(plan: Plan) -> Simulation {
        let audit = Audit::new(plan.vosk.is_some());
        Simulation {
            machine: Machine::for_peer(plan.settings.clone(), plan.capabilities(), Checkpoint::default()),
            servers: vec![Server::new(0, plan.server)],
            tokens: Tokens::new(plan.token_life),
            saboteur: Saboteur::new(plan.bug),
            dice: Dice::new(!plan.seed),
            plan,
            now: Duration::ZERO,
            audit,
            agenda: BTreeMap::new(),
            events: 0,
            process: 0,
            inherited: 0,
            connections: Vec::new(),
            carrier: None,
            abandons: false,
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

    /// Returns the plan of the schedule.
    pub(super) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Returns the simulated time and all events.
    pub(super) fn into_story(self) -> (Duration, Vec<Happening>) {
        (self.now, self.log)
    }

    /// Plays the schedule to its end. An error is a breach.
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
            match (next, self.machine.wake_at()) {
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
            if self.source_waits && self.backlog.is_empty() && self.machine.wants_audio() {
                self.source_waits = false;
                self.feed()?;
            }
            // A later fault starts the clock anew.
            let quiet = self.carrier.is_some_and(|carrier| {
                let carrier = &self.connections[carrier];
                carrier.fault == Fault::None || carrier.struck && !carrier.broken
            });
            let over = self.connections.len() > self.plan.faults.len()
                && self.fetches > self.plan.token_faults.len();
            let silent = self.carrier.is_some_and(|carrier| {
                let carrier = &self.connections[carrier];
                carrier.silent_since.is_some() || carrier.fault == Fault::NoFinals
            });
            let calm = (quiet || over && !silent) && self.kills == self.plan.kills.len();
            self.audit.check_patience(&self.plan, calm, self.now)?;
            if let Some(carrier) = self.carrier {
                self.audit.check_silence(&self.connections[carrier], &self.plan, self.now)?;
            }
        }
        Err(format!("no end after {STEPS} steps"))
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Source if self.backlog.is_empty() && self.machine.wants_audio() => return self.feed(),
            Event::Source => self.source_waits = true,
            Event::Token { process, .. } if process < self.process => {}
            Event::Token { newer_than, granted, .. } => return self.answer_token(newer_than, granted),
            Event::Dialled(number, _) if self.connections[number].left => {}
            Event::Dialled(number, failure) => return self.answer_dial(number, failure),
            Event::Heard(number, up) => return self.arrive(number, &up),
            Event::Said(number, down) => return self.deliver(number, down),
            Event::Recognised(server, number) => {
                self.note("recognised", number, server as u64);
                self.servers[server].finish_work(number, &mut self.dice);
                let prompt = self.servers[server].acks_promptly(&mut self.dice);
                self.speak(server, prompt);
            }
            Event::Processed(number) => self.answer(number),
            Event::AckDue(number) => {
                self.connections[number].ack_due = false;
                let server = self.connections[number].server;
                if self.servers[server].serves(number) {
                    self.speak(server, true);
                }
            }
            Event::Expires(number, generation) => {
                if self.connections[number].generation == generation {
                    self.close(number, close::TOKEN);
                }
            }
            Event::Deadline(number) => self.close(number, close::GOING_AWAY),
            Event::Kill(kill) => return self.kill(kill),
        }
        Ok(())
    }

    /// Answers a token request of the present process.
    fn answer_token(&mut self, newer_than: Option<u64>, granted: bool) -> Result<(), String> {
        if !granted {
            self.note("gets no token", 0, 0);
            self.audit.fails(self.now);
            return self.tell(Input::TokenFailed(failure(Recovery::Retry, FailureKind::Unreachable)));
        }
        let number = self.tokens.grant(newer_than, self.now);
        self.note("gets token", number, 0);
        let token = AccessToken::new(&number.to_string().into(), TokenGeneration(number));
        self.tell(Input::Token(token.expect("digits")))
    }

    /// Answers a dial, with this failure if there is one.
    fn answer_dial(&mut self, number: usize, failure: Option<Failure>) -> Result<(), String> {
        if let Some(failure) = failure {
            self.note("dial refused", number as u64, 0);
            self.fails(number, failure.recovery);
            return self.tell(Input::DialFailed(self.id(number), failure));
        }
        self.note("connected", number as u64, 0);
        self.connections[number].connected = true;
        let generation = self.connections[number].generation;
        self.expire_later(number, generation);
        if let Some(longest) = self.plan.vosk.and_then(|vosk| vosk.longest_session) {
            self.schedule(longest, Event::Deadline(number));
        }
        self.tell(Input::Connected(self.id(number)))
    }

    // Time, and the record of events.

    fn latency(&mut self) -> Duration {
        let most = u64::try_from(self.plan.latency.as_millis()).expect("a few seconds");
        self.dice.millis(0, most)
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        // The event count keeps simultaneous events in the order in which they were scheduled.
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
    Failure::new(recovery, kind, "refused")
}

fn said(message: &ClientMessage) -> (&'static str, u64, u64) {
    match message {
        ClientMessage::Start(start) => ("sends start", start.origin.0, 0),
        ClientMessage::Resume { finals_seen, .. } => ("sends resume", *finals_seen, 0),
        ClientMessage::Gap { from, to } => ("sends gap", from.0, to.0),
        ClientMessage::Auth { .. } => ("sends auth", 0, 0),
        ClientMessage::Flush { at } => ("sends flush", at.map_or(0, |at| at.0), 0),
        ClientMessage::Finish { through } => ("sends finish", through.0, 0),
        ClientMessage::Unknown => ("sends something unknown", 0, 0),
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
        ServerMessage::Goaway { deadline_ms, restart, .. } => {
            ("hears goaway", *deadline_ms, u64::from(*restart))
        }
        ServerMessage::Error { code, .. } => ("hears error", u64::from(*code), 0),
        ServerMessage::Unknown => ("hears something unknown", 0, 0),
    }
}
