//! The account of a session.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::error::SessionError;
use crate::audio::FramePos;
use crate::transcript::TranscriptEvent;

/// Where every frame went, and what it took. Always: `accepted = recognised + gaps + unfinished`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Ledger {
    /// Frames taken from the source.
    pub accepted: u64,
    /// Frames covered by final segments.
    pub recognised: u64,
    /// Frames dropped on purpose, each in a gap that was told.
    pub gaps: u64,
    /// Frames that were neither when the session ended: none, unless it failed.
    pub unfinished: u64,
    /// Final segments.
    pub finals: u64,
    /// Times the connection was lost and found again.
    pub reconnects: u64,
    /// Times the session was moved to another connection while the one before still ran.
    pub moves: u64,
    /// Times a newer token was put in force: in band, or on a new connection.
    pub token_swaps: u64,
    /// Times the peer refused a token.
    pub token_refusals: u64,
    /// Frames sent more than once.
    pub replayed: u64,
    /// The longest time that accepted audio waited without the peer taking any.
    #[serde(serialize_with = "seconds", rename = "worst_stall_s")]
    pub worst_stall: Duration,
}

impl Ledger {
    /// Whether every accepted frame is accounted for.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.accepted == self.recognised + self.gaps + self.unfinished
    }

    /// Adds what an event of the session tells: for a caller that may leave before the session ends and hands over its
    /// own.
    pub fn count(&mut self, event: &TranscriptEvent) {
        match event {
            TranscriptEvent::Final(segment) => {
                self.recognised += segment.range.len();
                self.finals += 1;
            }
            TranscriptEvent::Gap { range } => self.gaps += range.len(),
            TranscriptEvent::Reconnected { .. } => self.reconnects += 1,
            TranscriptEvent::Partial { .. } | TranscriptEvent::End { .. } => {}
        }
    }

    /// The ledger of a session that was broken off after it was handed the audio up to `end`, from what was
    /// [counted](Ledger::count) until then.
    #[must_use]
    pub fn broken_off(self, end: FramePos) -> Ledger {
        let accounted = self.recognised + self.gaps;
        let accepted = end.0.max(accounted);
        Ledger { accepted, unfinished: accepted - accounted, ..self }
    }
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ledger { accepted, recognised, gaps, unfinished, finals, .. } = self;
        write!(
            f,
            "{accepted} frames accepted = {recognised} final + {gaps} in gaps + {unfinished} unfinished; "
        )?;
        write!(f, "{finals} finals, {} reconnects, {} moves, ", self.reconnects, self.moves)?;
        write!(f, "{} tokens swapped, {} refused, ", self.token_swaps, self.token_refusals)?;
        write!(f, "{} frames replayed, worst stall {:.3} s", self.replayed, self.worst_stall.as_secs_f64())
    }
}

/// How a session ended. The ledger balances either way.
#[derive(Clone, Debug)]
#[must_use]
pub struct Ended {
    /// The account.
    pub ledger: Ledger,
    /// Why it ended early, if it did.
    pub result: Result<(), SessionError>,
}

impl Ended {
    /// The ledger of a session that ended well.
    ///
    /// # Errors
    /// Why it did not.
    pub fn whole(self) -> Result<Ledger, SessionError> {
        self.result.map(|()| self.ledger)
    }
}
