//! The network of a schedule: connections on which messages are under way, and the tokens that open them.

use std::time::Duration;

use super::faults::{Fault, How, When};
use super::server::Up;
use super::vosk::VoskLine;
use voxline::protocol::{ClientMessage, ServerMessage, vosk};

/// A message or event that arrives at a client.
#[derive(Debug)]
pub(super) enum Down {
    Message(ServerMessage),
    /// A reply of a Vosk server.
    Reply(String),
    Alive,
    Closed(u16),
    Lost,
}

/// A connection, as the network sees it.
#[derive(Debug)]
pub(super) struct Connection {
    /// Index of the server to which the connection leads.
    pub(super) server: usize,
    pub(super) fault: Fault,
    /// Generation of the token in force on the connection.
    pub(super) generation: u64,
    /// `true` if the connection is to take over from one that carries the session.
    pub(super) moving: bool,
    /// `true` once the client was told that the dial succeeded.
    pub(super) connected: bool,
    /// `true` once the client has given the connection up.
    pub(super) left: bool,
    /// `true` once the connection has broken: the server neither receives nor sends anything more on it.
    pub(super) broken: bool,
    /// `true` if messages under way to the client are lost too.
    pub(super) mute: bool,
    /// When the connection fell silent without a notice.
    pub(super) silent_since: Option<Duration>,
    /// Number of messages that the server has received, and number that it has sent.
    pub(super) heard: u64,
    pub(super) said: u64,
    pub(super) opened: bool,
    pub(super) ack_due: bool,
    /// `true` once the connection's fault has happened.
    pub(super) struck: bool,
    /// The two ends of the protocol, if it is Vosk's.
    pub(super) vosk: Option<VoskLine>,
    /// Earliest arrival of the next message in each direction: messages keep their order.
    pub(super) next_heard: Duration,
    pub(super) next_said: Duration,
}

impl Connection {
    pub(super) fn new(server: usize, fault: Fault, generation: u64, now: Duration) -> Connection {
        Connection {
            server,
            fault,
            generation,
            moving: false,
            connected: false,
            left: false,
            broken: false,
            mute: false,
            silent_since: None,
            heard: 0,
            said: 0,
            opened: false,
            ack_due: false,
            struck: false,
            vosk: None,
            next_heard: now,
            next_said: now,
        }
    }

    /// Returns whether the fault strikes now, at this message from the client, and whether the server still
    /// receives the message.
    pub(super) fn strikes_at(&mut self, up: &Up) -> (bool, bool) {
        let count = self.heard;
        self.heard += 1;
        let strikes = !self.struck
            && match (self.fault.when(), up) {
                (Some(When::Heard(at)), _) => at == count,
                (Some(When::AtFinish), Up::Message(ClientMessage::Finish { .. }))
                | (Some(When::AtFlush), Up::Message(ClientMessage::Flush { .. }))
                | (Some(When::AtGap), Up::Message(ClientMessage::Gap { .. }))
                | (Some(When::AtAuth), Up::Message(ClientMessage::Auth { .. })) => true,
                (Some(When::AtFinish), Up::Text(text)) => text == vosk::EOF,
                _ => false,
            };
        let deaf =
            matches!(self.fault, Fault::Break { how, .. } if !matches!(how, How::Reset { heard: true, .. }));
        self.struck |= strikes;
        (strikes, !(strikes && deaf))
    }

    /// Returns whether the fault strikes now, at this message from the server, and whether the message is
    /// still sent.
    pub(super) fn strikes_after(&mut self, message: &ServerMessage) -> (bool, bool) {
        let is_final = matches!(message, ServerMessage::Final(_));
        self.strikes_after_message(is_final, matches!(message, ServerMessage::Done { .. }))
    }

    /// Returns the same for a message of which only its kind is known.
    pub(super) fn strikes_after_message(&mut self, is_final: bool, is_last: bool) -> (bool, bool) {
        let count = self.said;
        self.said += 1;
        let strikes = !self.struck
            && match self.fault.when() {
                Some(When::Said(at)) => at == count,
                Some(When::AtFinal) => is_final,
                Some(When::AtDone) => is_last,
                _ => false,
            };
        let dumb =
            matches!(self.fault, Fault::Break { how, .. } if !matches!(how, How::Reset { said: true, .. }));
        self.struck |= strikes;
        (strikes, !(strikes && dumb))
    }
}

/// Granted tokens, by number from 1.
#[derive(Debug)]
pub(super) struct Tokens {
    life: Option<Duration>,
    /// End of each token, if it has one; `ZERO` for a revoked token.
    ends: Vec<Option<Duration>>,
}

impl Tokens {
    pub(super) fn new(life: Option<Duration>) -> Tokens {
        Tokens { life, ends: Vec::new() }
    }

    /// Returns the number of the token for a client: the newest token, or a new one if the newest is
    /// refused or will end soon.
    pub(super) fn grant(&mut self, newer_than: Option<u64>, now: Duration) -> u64 {
        let soon = self.life.map_or(now, |life| now + life / 5);
        let good = self.ends.last().is_some_and(|end| end.is_none_or(|end| end > soon));
        let newest = self.ends.len() as u64;
        if good && newer_than.is_none_or(|refused| newest > refused) {
            return newest;
        }
        self.ends.push(self.life.map(|life| now + life));
        newest + 1
    }

    pub(super) fn throw_out(&mut self, number: u64) {
        self.ends[number as usize - 1] = Some(Duration::ZERO);
    }

    /// Returns the end of the token, if it has one.
    pub(super) fn end(&self, number: u64) -> Option<Duration> {
        self.ends[number as usize - 1]
    }

    pub(super) fn is_good(&self, number: u64, now: Duration) -> bool {
        self.end(number).is_none_or(|end| end > now)
    }
}
