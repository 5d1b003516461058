//! The connections of a simulation: dials, messages under way, and faults.

use super::{Event, Simulation, failure, heard};
use crate::schedule::faults::{FATAL, Fault, How, Refusal};
use crate::schedule::network::{Connection, Down};
use crate::schedule::server::{Server, Up};
use crate::schedule::vosk::{VoskLine, VoskServer};
use voxline::error::chain;
use voxline::peer::ConnectionLost;
use voxline::protocol::ServerMessage;
use voxline::protocol::close;
use voxline::protocol::vosk::Translator;
use voxline::recovery::{FailureKind, Recovery};
use voxline::session::machine::{ConnectionId, Input};

impl Simulation {
    pub(super) fn dial(&mut self, generation: u64, server: usize) {
        let number = self.connections.len();
        let fault = self.plan.fault(number, self.token_spent);
        self.note("dials", number as u64, generation);
        let moving = self.carrier.is_some();
        let vosk = self.plan.vosk.map(|plan| VoskLine {
            translator: Translator::new(self.plan.translation(plan)),
            server: VoskServer::new(self.plan.server, fault == Fault::NoFinals, &mut self.dice),
        });
        let connection = Connection::new(server, fault, generation, self.now);
        self.connections.push(Connection { moving, vosk, ..connection });
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

    /// Schedules the server's close of the connection for the end of its token.
    pub(super) fn expire_later(&mut self, number: usize, generation: u64) {
        if let Some(end) = self.tokens.end(generation) {
            self.schedule(end.saturating_sub(self.now), Event::Expires(number, generation));
        }
    }

    pub(super) fn send_up(&mut self, id: ConnectionId, up: Up) -> Result<(), String> {
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

    pub(super) fn send_down(&mut self, number: usize, down: Down) {
        let arrival = self.now + self.latency();
        let connection = &mut self.connections[number];
        connection.next_said = connection.next_said.max(arrival);
        let at = connection.next_said;
        self.schedule(at - self.now, Event::Said(number, down));
    }

    /// Delivers a message to the client, unless the client has left the connection.
    pub(super) fn deliver(&mut self, number: usize, down: Down) -> Result<(), String> {
        let lost = matches!(down, Down::Lost);
        if self.connections[number].left || self.connections[number].mute && !lost {
            return Ok(());
        }
        let id = self.id(number);
        let input = match down {
            Down::Reply(reply) => return self.deliver_reply(number, &reply),
            Down::Message(message) => {
                self.heard_by_client(number, &message);
                Input::Peer(id, message)
            }
            Down::Alive => Input::Alive(id),
            Down::Closed(code) => {
                self.note("is closed", number as u64, code.into());
                let recovery = match code {
                    close::TOKEN | close::POLICY => Recovery::RefreshToken,
                    code if FATAL.contains(&code) => Recovery::Fatal,
                    _ => Recovery::Retry,
                };
                self.connection_ends(number, code == close::MOVED, recovery);
                Input::Closed(id, code, String::new())
            }
            Down::Lost => {
                self.note("loses the connection", number as u64, 0);
                self.connection_ends(number, false, Recovery::Retry);
                Input::Lost(id, ConnectionLost::Ended)
            }
        };
        self.tell(input)
    }

    /// Records a message that the client is about to process. After `ready`, the connection carries the
    /// session.
    fn heard_by_client(&mut self, number: usize, message: &ServerMessage) {
        let (what, first, second) = heard(message);
        self.note(what, first, second);
        if matches!(message, ServerMessage::Ready(_)) {
            self.token_spent = false;
            if let Some(before) = self.carrier.replace(number) {
                self.carrier_changes(before, number);
            }
        }
        self.audit.hears(message, self.connections[number].moving, self.now);
    }

    fn carrier_changes(&mut self, before: usize, number: usize) {
        if self.connections[before].fault == Fault::NoFinals {
            self.audit.leaves_fault(self.now);
        }
        let elsewhere =
            self.connections[before].server != self.connections[number].server || self.plan.vosk.is_some();
        if elsewhere && !self.connections[before].broken {
            self.note("starts anew while it runs", before as u64, number as u64);
        }
    }

    /// Handles the end of a connection that the client has not left.
    fn connection_ends(&mut self, number: usize, handed_over: bool, recovery: Recovery) {
        self.connections[number].left = true;
        if self.carrier == Some(number) {
            self.carrier_ends(handed_over);
        }
        self.fails(number, recovery);
    }

    /// Delivers a reply of a Vosk server, in the messages of its translator.
    fn deliver_reply(&mut self, number: usize, reply: &str) -> Result<(), String> {
        let line = self.connections[number].vosk.as_mut().expect("only a Vosk server replies");
        let messages = line.translator.reply(reply).map_err(|violation| chain(&violation).to_string())?;
        for message in messages {
            self.deliver(number, Down::Message(message))?;
        }
        Ok(())
    }

    /// Handles the end of the connection that carried the session. A successor connection counts as a move
    /// only if it already had the session and that was the reason for the end. Otherwise it finds a session
    /// that was lost.
    pub(super) fn carrier_ends(&mut self, handed_over: bool) {
        for connection in &mut self.connections {
            connection.moving &= handed_over && connection.connected;
        }
    }

    /// Applies the connection's fault.
    pub(super) fn strike(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        let server = connection.server;
        let (how, forget) = match connection.fault {
            Fault::Break { how, forget, .. } => (how, forget),
            Fault::Goaway { reason, deadline, restart, .. } => {
                let deadline_ms = deadline.as_millis() as u64;
                let mut endpoints = Vec::new();
                if restart {
                    endpoints.push(self.servers.len().to_string());
                    self.servers.push(Server::new(self.servers.len(), self.plan.server));
                }
                self.say(number, ServerMessage::Goaway { reason, deadline_ms, restart, endpoints });
                self.schedule(deadline, Event::Deadline(number));
                return;
            }
            Fault::None | Fault::Dial(_) | Fault::DeafToAuth | Fault::NoFinals => return,
        };
        if forget {
            self.servers[server].forget();
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
}
