//! The ledger of a session: an account of every frame.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::error::SessionError;
use crate::audio::FramePos;
use crate::transcript::TranscriptEvent;

/// An account of every frame of a session, with counts of connections and tokens. Invariant:
/// `accepted = recognised + gaps + unfinished`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Ledger {
    /// Number of frames taken from the source.
    pub accepted: u64,
    /// Number of frames covered by final segments.
    pub recognised: u64,
    /// Number of frames dropped on purpose or lost by the source, each in a gap that was reported.
    pub gaps: u64,
    /// Number of frames neither final nor in a gap when the session ended: zero, unless the session
    /// failed.
    pub unfinished: u64,
    /// Number of final segments.
    pub finals: u64,
    /// Number of times the connection was lost and re-established.
    pub reconnects: u64,
    /// Number of handovers to another connection while the earlier one still ran.
    pub handovers: u64,
    /// Number of times a newer token came into force, in band or on a new connection.
    pub token_renewals: u64,
    /// Number of times a token was refused.
    pub token_refusals: u64,
    /// Number of frames sent again (replayed).
    pub replayed: u64,
    /// Longest time accepted audio waited without the peer taking any, in seconds when serialised.
    #[serde(serialize_with = "seconds", rename = "worst_stall_s")]
    pub worst_stall: Duration,
}

impl Ledger {
    /// Returns whether every accepted frame is accounted for.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        self.accepted == self.recognised + self.gaps + self.unfinished
    }

    /// Adds an event of the session to the counts, for a caller that may leave before the session ends
    /// and returns its own ledger.
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

    /// Returns the ledger of a session that was broken off after it had been given the audio up to `end`,
    /// based on the events [counted](Ledger::count) until then.
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
        write!(f, "{finals} finals, {} reconnects, {} handovers, ", self.reconnects, self.handovers)?;
        write!(f, "{} token renewals, {} refused, ", self.token_renewals, self.token_refusals)?;
        write!(f, "{} frames replayed, worst stall {:.3} s", self.replayed, self.worst_stall.as_secs_f64())
    }
}

/// The result of a session. The ledger balances whether the session succeeded or failed.
#[derive(Clone, Debug)]
#[must_use]
pub struct Ended {
    /// Account of every frame.
    pub ledger: Ledger,
    /// Reason of an early end, if the session failed.
    pub result: Result<(), SessionError>,
}

impl Ended {
    /// Returns the ledger of a session that succeeded.
    ///
    /// # Errors
    /// Returns the [`SessionError`] that ended the session early.
    pub fn into_result(self) -> Result<Ledger, SessionError> {
        self.result.map(|()| self.ledger)
    }
}
