//! The faults of a schedule.

use std::time::Duration;

use super::dice::Dice;
use voxline::protocol::{GoawayReason, close};

/// A fault that never ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Misery {
    /// No server answers the dial.
    Unreachable,
    /// Each resume is answered, and then the socket is dropped.
    ReadyThenDrop,
    /// Sockets open and stay silent.
    Silent,
    /// The server takes audio, acknowledges it, and fails before it has a result.
    Poison,
    /// Each token is accepted in the handshake and rejected in the session.
    TokenCircle,
    /// The token endpoint is down.
    NoToken,
    /// The server acknowledges audio and answers pings, but never sends a final.
    NoFinals,
}

/// A fault of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Dial(Refusal),
    Break {
        when: When,
        how: How,
        /// `true` if the server loses the session too.
        forget: bool,
    },
    /// The server announces that it will close the connection, and does so by the deadline.
    Goaway {
        when: When,
        reason: GoawayReason,
        deadline: Duration,
        /// `true` if the session should start on another server.
        restart: bool,
    },
    /// The server does not answer `auth`.
    DeafToAuth,
    /// The server acknowledges audio and answers pings, but sends no final on this connection.
    NoFinals,
}

/// Reason why a dial fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Unreachable,
    Token,
    Busy(Duration),
    /// A status that allows no recovery.
    Forbidden,
}

/// The message at which a connection breaks. The message itself may be received or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// The client's message with this number.
    Heard(u64),
    /// The server's message with this number.
    Said(u64),
    AtFinish,
    AtFlush,
    AtGap,
    AtAuth,
    AtFinal,
    AtDone,
}

/// The way in which a connection breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// The socket is reset. Messages under way in a direction may arrive or not; the client notices the
    /// reset after `notice`.
    Reset { heard: bool, said: bool, notice: Duration },
    /// The server closes the connection with this code.
    Close(u16),
    /// Nothing arrives any more in either direction, and neither side is told.
    Silence,
}

/// Close codes that allow no recovery.
pub(super) const FATAL: [u16; 7] = [close::PROTOCOL, close::TOO_BIG, close::SCOPE, 1002, 1003, 1007, 1010];

/// Close codes that allow recovery.
const PASSING: [u16; 12] = [
    close::NORMAL,
    close::GOING_AWAY,
    1005,
    1006,
    close::POLICY,
    close::SERVER_FAULT,
    close::RESTART,
    close::TRY_LATER,
    close::TOKEN,
    close::SESSION_UNKNOWN,
    close::MOVED,
    close::QUOTA,
];

impl Fault {
    pub(super) fn refuses_token(self) -> bool {
        matches!(
            self,
            Fault::Dial(Refusal::Token) | Fault::Break { how: How::Close(close::TOKEN | close::POLICY), .. }
        )
    }

    /// Returns the message at which the fault strikes, if it strikes at one.
    pub(super) fn when(self) -> Option<When> {
        match self {
            Fault::Break { when, .. } | Fault::Goaway { when, .. } => Some(when),
            Fault::None | Fault::Dial(_) | Fault::DeafToAuth | Fault::NoFinals => None,
        }
    }
}

impl Misery {
    pub(super) fn fault(self, dice: &mut Dice) -> Fault {
        let now = How::Reset { heard: true, said: true, notice: Duration::ZERO };
        let broken = |when, how, forget| Fault::Break { when, how, forget };
        match self {
            Misery::Unreachable => Fault::Dial(Refusal::Unreachable),
            Misery::ReadyThenDrop => broken(When::Said(0), now, false),
            Misery::Silent => broken(When::Said(dice.between(0, 1)), How::Silence, false),
            Misery::Poison => broken(When::AtFinal, How::Close(close::SERVER_FAULT), true),
            Misery::TokenCircle => broken(When::Said(1), How::Close(close::TOKEN), false),
            Misery::NoToken => Fault::Dial(Refusal::Token),
            Misery::NoFinals => Fault::NoFinals,
        }
    }
}

pub(super) fn any_fault(dice: &mut Dice) -> Fault {
    match dice.between(0, 99) {
        0..10 => Fault::Dial(Refusal::Unreachable),
        10..15 => Fault::Dial(Refusal::Token),
        15..20 => Fault::Dial(Refusal::Busy(dice.millis(0, 5_000))),
        20..30 => {
            let reason = dice.one_of(&[GoawayReason::Drain, GoawayReason::Token, GoawayReason::Limit]);
            let (deadline, restart) = (dice.millis(0, 20_000), dice.chance(40));
            Fault::Goaway { when: any_time(dice), reason, deadline, restart }
        }
        30..33 => Fault::DeafToAuth,
        33..36 => Fault::NoFinals,
        number => {
            let how = match number {
                36..68 => How::Reset {
                    heard: dice.chance(50),
                    said: dice.chance(50),
                    notice: dice.millis(0, 3_000),
                },
                68..92 => How::Close(dice.one_of(&PASSING)),
                _ => How::Silence,
            };
            let forget = how == How::Close(close::SESSION_UNKNOWN) || dice.chance(20);
            Fault::Break { when: any_time(dice), how, forget }
        }
    }
}

pub(super) fn any_time(dice: &mut Dice) -> When {
    match dice.between(0, 9) {
        0..3 => When::Heard(dice.between(0, 4)),
        3..5 => When::Heard(dice.between(0, 60)),
        5 => When::Said(dice.between(0, 3)),
        6 => When::Said(dice.between(0, 40)),
        7 => When::AtFinish,
        8 => dice.one_of(&[When::AtFlush, When::AtFinal, When::AtGap, When::AtAuth]),
        _ => When::AtDone,
    }
}
