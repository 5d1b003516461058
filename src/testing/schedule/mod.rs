//! Random fault schedules: a session's core against a model server, over a network that exists only as a list of
//! messages under way. No sockets, no clock, no waiting: a schedule of an hour plays in a fraction of a millisecond.
//!
//! A seed decides everything: the audio and its pace, the server's speed and limits, and what goes wrong: refused
//! dials, sockets that are reset or closed or fall silent at any message, tokens thrown out, sessions forgotten. At
//! every step the session is checked from outside; see [`play`].

mod audit;
mod plan;
mod server;
mod simulation;

use std::fmt;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use self::simulation::Simulation;
use crate::session::{Ledger, SessionError};

/// How many of the last happenings a breach tells.
const TOLD: usize = 60;

/// A schedule that was played to its end without a breach.
#[derive(Debug)]
pub struct Played {
    /// How the session ended: rightly, whatever it is.
    pub result: Result<Ledger, SessionError>,
    /// How long it took, in simulated time.
    pub duration: Duration,
    /// All that happened.
    pub log: Vec<Happening>,
}

/// Something that happened in a schedule, and when; the meaning of the numbers depends on what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happening {
    at: Duration,
    what: &'static str,
    numbers: (u64, u64),
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Happening { at, what, numbers: (first, second) } = self;
        write!(f, "{:>9.3} s  {what} {first} {second}", at.as_secs_f64())
    }
}

/// A promise that a session broke, and the way to it.
#[derive(Debug, thiserror::Error)]
#[error("schedule {seed}: {breach}\n{story}")]
pub struct Breach {
    /// The schedule.
    pub seed: u64,
    /// What was broken.
    pub breach: String,
    /// The last happenings before it.
    pub story: String,
}

/// Plays the schedule of this seed.
///
/// At every step: the cursors are in order; every accepted frame is final or in the replay buffer; audio stays within
/// the peer's window, without holes, and a replay has the samples of the first time; finals reach the user
/// contiguous, once each, and made of the right samples; no minute has more than 60 dials; nothing follows the end.
/// At the end: the ledger balances; an early end had its reason, and did not come before the session's patience was
/// over. Once the faults have stopped, the end comes within the time that recognising everything again takes.
///
/// # Errors
/// A [`Breach`], if any of this does not hold.
pub fn play(seed: u64) -> Result<Played, Box<Breach>> {
    let mut simulation = Simulation::new(seed);
    let played = catch_unwind(AssertUnwindSafe(|| simulation.run()));
    let breach = match played {
        Ok(Ok(result)) => {
            let (duration, log) = simulation.into_story();
            return Ok(Played { result, duration, log });
        }
        Ok(Err(breach)) => breach,
        Err(_) => "the session panicked".to_owned(),
    };
    let mut story = format!("{:#?}\n", simulation.plan());
    let (_, log) = simulation.into_story();
    for happening in &log[log.len().saturating_sub(TOLD)..] {
        writeln!(story, "{happening}").expect("a string takes it");
    }
    Err(Box::new(Breach { seed, breach, story }))
}
