//! The server's side of the connections.

use std::time::Duration;

use super::{ACK_WITHIN, Event, Simulation};
use crate::schedule::faults::Fault;
use crate::schedule::network::Down;
use crate::schedule::server::{Opening, Up};
use voxline::protocol::close;
use voxline::protocol::{ClientMessage, ServerMessage};

impl Simulation {
    /// Closes a connection from the server's side, unless it has ended.
    pub(super) fn close(&mut self, number: usize, code: u16) {
        if !std::mem::replace(&mut self.connections[number].broken, true) {
            self.note("server closes", number as u64, code.into());
            self.send_down(number, Down::Closed(code));
        }
    }

    /// Delivers a message to the server.
    pub(super) fn arrive(&mut self, number: usize, up: &Up) -> Result<(), String> {
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
        if let Some(line) = &mut self.connections[number].vosk {
            line.server.hear(up)?;
            self.process(number);
            return Ok(());
        }
        let server = self.connections[number].server;
        if !self.connections[number].opened {
            self.connections[number].opened = true;
            let generation = self.connections[number].generation;
            let before = self.servers[server].connection();
            let left = self.expires_in(generation);
            match self.servers[server].open(number, up, left, &mut self.dice)? {
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
        } else if self.servers[server].serves(number) {
            self.servers[server].hear(up)?;
        }
        let prompt = self.servers[server].acks_promptly(&mut self.dice);
        self.speak(server, prompt);
        Ok(())
    }

    /// Lets the Vosk server of this connection process its next message.
    fn process(&mut self, number: usize) {
        let line = self.connections[number].vosk.as_mut().expect("the connection of a Vosk server");
        if let Some(duration) = line.server.begin_work() {
            self.schedule(duration, Event::Processed(number));
        }
    }

    /// Sends the reply to the message that was processed.
    pub(super) fn answer(&mut self, number: usize) {
        let connection = &mut self.connections[number];
        if connection.broken {
            return;
        }
        let line = connection.vosk.as_mut().expect("the connection of a Vosk server");
        let reply = line.server.finish_work(&mut self.dice);
        let (strikes, leaves) = connection.strikes_after_message(reply.is_final, reply.is_last);
        if leaves {
            self.send_down(number, Down::Reply(reply.text));
        }
        if strikes {
            self.strike(number);
        }
        if reply.is_last {
            self.close(number, close::NORMAL);
        }
        self.process(number);
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

    /// Lets a server send its news and continue its work.
    pub(super) fn speak(&mut self, server: usize, ack: bool) {
        let Some(number) = self.servers[server].connection() else { return };
        for message in self.servers[server].news(ack, &mut self.dice) {
            self.say(number, message);
        }
        if self.servers[server].owes_ack() && !std::mem::replace(&mut self.connections[number].ack_due, true)
        {
            self.schedule(ACK_WITHIN, Event::AckDue(number));
        }
        if let Some((session, duration)) = self.servers[server].begin_work() {
            self.schedule(duration, Event::Recognised(server, session));
        }
    }

    pub(super) fn say(&mut self, number: usize, message: ServerMessage) {
        let connection = &mut self.connections[number];
        let answers = matches!(message, ServerMessage::Final(_) | ServerMessage::Done { .. });
        if connection.broken || answers && connection.fault == Fault::NoFinals {
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
}
