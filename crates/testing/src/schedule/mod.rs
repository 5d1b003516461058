//! Random fault schedules: a session's state machine against a model server, over a network that is only a
//! list of messages under way. There are no sockets, no real clock and no waiting: a schedule of an hour
//! plays in a fraction of a millisecond.
//!
//! A seed decides everything: the audio and its pace, the server's speed and limits, and the faults. Faults
//! are: refused dials; sockets that are reset, closed or fall silent at any message; tokens that end, are
//! revoked or cannot be had; servers that are about to shut down; sessions that the server loses; clients
//! that are killed. At every step the session is checked from outside; see [`play`]. A schedule that breaks
//! an invariant is simplified until nothing can be left out.

mod audit;
mod dice;
mod faults;
mod network;
mod plan;
mod server;
mod simulation;
mod vosk;

use std::fmt;
use std::fmt::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use self::plan::Plan;
use self::simulation::Simulation;
use crate::Planted;
use voxline::session::Ended;

/// Number of last events that a breach report includes.
const TOLD: usize = 60;
/// Most simpler schedules that are tried in the search for the simplest one that still breaks an invariant.
const SIMPLIFICATIONS: usize = 2_000;

/// A schedule that was played to its end without a breach.
#[derive(Debug)]
pub struct Played {
    /// Result of the session. It is right, whatever it is.
    pub ended: Ended,
    /// Simulated time that the schedule took.
    pub duration: Duration,
    /// All events.
    pub log: Vec<Happening>,
}

/// An event of a schedule, with its time. The meaning of the numbers depends on the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Happening {
    at: Duration,
    what: &'static str,
    numbers: (u64, u64),
}

impl Happening {
    /// Returns the name of the event.
    #[must_use]
    pub fn what(&self) -> &'static str {
        self.what
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Happening { at, what, numbers: (first, second) } = self;
        write!(f, "{:>9.3} s  {what} {first} {second}", at.as_secs_f64())
    }
}

/// A broken invariant, and the events that led to it.
#[derive(Debug, thiserror::Error)]
#[error("schedule {seed}: {breach}\n{story}")]
pub struct Breach {
    /// Seed of the schedule.
    pub seed: u64,
    /// Description of the broken invariant.
    pub breach: String,
    /// Last events before the breach, with the simplest schedule found.
    pub story: String,
}

/// Plays the schedule of `seed`.
///
/// At every step: the cursors are in order; every accepted frame is final, in a declared gap, or in the
/// replay buffer, which keeps its bound; audio stays within the peer's window and pace, without holes, and
/// a replay has the samples of the first time; finals reach the user contiguous, once each, and made of the
/// right samples; no minute has more than 60 dials; a connection that fell silent is left within two pings;
/// nothing follows the end. At the end: the ledger balances; an early end had its reason, and did not come
/// before the session's patience was over. Once the faults have stopped, the end comes within the time that
/// recognising everything again takes.
///
/// # Errors
/// Returns [`Breach`] if any of this does not hold, with the simplest schedule found that breaks it too.
pub fn play(seed: u64) -> Result<Played, Box<Breach>> {
    judge(Plan::draw(seed))
}

/// Plays the schedule of `seed` as [`play`] does, with this bug planted in the session.
///
/// # Errors
/// Returns [`Breach`] if the schedule caught the bug.
pub fn play_planted(seed: u64, bug: Planted) -> Result<Played, Box<Breach>> {
    let mut plan = Plan::draw(seed);
    bug.change(&mut plan.settings);
    plan.bug = Some(bug);
    judge(plan)
}

/// Plays the schedule of `seed` as [`play`] does, against a model of a Vosk server: one reply for each
/// message, no resume, no positions, no flushes and gaps, and now and then an end of the session after a
/// fixed time.
///
/// # Errors
/// Returns [`Breach`] like [`play`].
pub fn play_vosk(seed: u64) -> Result<Played, Box<Breach>> {
    judge(Plan::draw_vosk(seed))
}

fn judge(plan: Plan) -> Result<Played, Box<Breach>> {
    let seed = plan.seed;
    let (breach, mut simulation) = match perform(plan) {
        (Ok(ended), simulation) => {
            let (duration, log) = simulation.into_story();
            return Ok(Played { ended, duration, log });
        }
        (Err(breach), simulation) => (breach, simulation),
    };
    let mut told = breach.clone();
    // Leave out everything that can be left out while an invariant is still broken.
    let mut tries = 0;
    while let Some((simpler_breach, simpler)) = simulation.plan().simpler().into_iter().find_map(|plan| {
        tries += 1;
        match perform(plan) {
            (Err(breach), simulation) if tries < SIMPLIFICATIONS => Some((breach, simulation)),
            _ => None,
        }
    }) {
        (told, simulation) = (simpler_breach, simpler);
    }
    let mut story = format!("at its simplest: {told}\n{:#?}\n", simulation.plan());
    let (_, log) = simulation.into_story();
    for happening in &log[log.len().saturating_sub(TOLD)..] {
        writeln!(story, "{happening}").expect("a string takes it");
    }
    Err(Box::new(Breach { seed, breach, story }))
}

fn perform(plan: Plan) -> (Result<Ended, String>, Simulation) {
    let mut simulation = Simulation::new(plan);
    let played = catch_unwind(AssertUnwindSafe(|| simulation.run()));
    let result = played.unwrap_or_else(|_| Err("the session panicked".to_owned()));
    (result, simulation)
}
