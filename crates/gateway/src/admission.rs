//! Who may begin: a gateway that is full says so at once, and serves well those whom it has.

use std::num::NonZero;
use std::time::Duration;

use http::StatusCode;

use super::authority::Identity;
use super::error::ApiError;
use super::pending::Place;
use super::sessions::Full;
use super::{BUSY_WAIT, Gateway};

/// How long a session with audio may wait for its next turn before no more are taken, however few there are: other
/// programs may need the machine, or speech cost more than was measured. Finals should come within two seconds of the
/// speech.
const LATE: Duration = Duration::from_secs(2);

/// The part of its threads' time that a gateway may spend on finals, were all its clients to speak without a pause: the
/// rest evens out that many may end an utterance at once, and is for guesses. Of calls about half is speech, so there it
/// is a third.
const LOAD: f64 = 0.7;

/// How many live sessions `threads` carry, of a recogniser that takes `real_time_factor` seconds for a second of speech:
/// at least one. What [`Options::max_sessions`](super::Options::max_sessions) may be set to.
#[must_use]
pub fn capacity(real_time_factor: f64, threads: NonZero<usize>) -> usize {
    let sessions = LOAD * threads.get() as f64 / real_time_factor;
    // A cast of what is no number, or too large for one, ends at the bounds.
    (sessions as usize).max(1)
}

/// Why no session can start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    Draining,
    Full,
    Late,
}

impl Obstacle {
    /// Its name among the metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Obstacle::Draining => "draining",
            Obstacle::Full => "full",
            Obstacle::Late => "late",
        }
    }

    pub(super) fn refusal(self) -> ApiError {
        let (status, message) = match self {
            Obstacle::Draining => (StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping"),
            Obstacle::Full => (StatusCode::TOO_MANY_REQUESTS, "no room for a session"),
            Obstacle::Late => (StatusCode::SERVICE_UNAVAILABLE, "the recogniser is behind"),
        };
        ApiError::busy(status, message, BUSY_WAIT)
    }
}

impl Full {
    /// Tells the client, and whoever watches the gateway: this one had come before the last place was taken.
    pub(super) fn tell(self, gateway: &Gateway) -> &'static str {
        let (reason, message) = match self {
            Full::Gateway => (Obstacle::Full.name(), "no room for a session"),
            Full::Token => ("token", "the token has as many sessions as it may"),
        };
        gateway.metrics.refuse(reason);
        message
    }
}

impl Gateway {
    /// Whether a session could start now.
    pub(super) fn room_for_session(&self) -> Result<(), Obstacle> {
        if self.sessions.count() >= self.options.max_sessions && !self.is_draining() {
            return Err(Obstacle::Full);
        }
        self.takes_sessions()
    }

    /// The same, where it has a socket already; whether there is a place is told by who takes it.
    pub(super) fn takes_sessions(&self) -> Result<(), Obstacle> {
        match () {
            () if self.is_draining() => Err(Obstacle::Draining),
            () if self.scheduler.lateness() > LATE => Err(Obstacle::Late),
            () => Ok(()),
        }
    }

    /// Lets in a client who wants a session of its own. The last place may still be taken before it says `start`.
    pub(super) fn admit_session(&self) -> Result<(), ApiError> {
        self.room_for_session().map_err(|obstacle| self.turn_away(obstacle))
    }

    /// Lets in a socket for a session that exists, also where there is no room for another.
    pub(super) fn admit_socket(&self) -> Result<(), ApiError> {
        if self.is_draining() {
            return Err(self.turn_away(Obstacle::Draining));
        }
        Ok(())
    }

    /// A place for a socket of `identity` until it begins its session.
    pub(super) fn place_for_socket(&self, identity: &Identity) -> Result<Place, ApiError> {
        self.pending_sockets.admit(identity).map_err(|full| match full {
            Full::Gateway => self.turn_away(Obstacle::Full),
            Full::Token => self.refuse_holder("the token has as many sockets as it may"),
        })
    }

    /// A place for a task of `identity` until it begins its session.
    pub(super) fn place_for_task(&self, identity: &Identity) -> Result<Place, ApiError> {
        self.pending_tasks.admit(identity).map_err(|full| match full {
            Full::Gateway => self.turn_away(Obstacle::Full),
            Full::Token => self.refuse_holder("the token has as many tasks as it may"),
        })
    }

    fn refuse_holder(&self, message: &str) -> ApiError {
        self.metrics.refuse("token");
        ApiError::busy(StatusCode::TOO_MANY_REQUESTS, message, BUSY_WAIT)
    }

    pub(super) fn turn_away(&self, obstacle: Obstacle) -> ApiError {
        self.metrics.refuse(obstacle.name());
        obstacle.refusal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_whole_and_never_none() {
        let two = NonZero::new(2).unwrap();
        assert_eq!([0.27, 0.11, 5.0, f64::NAN].map(|factor| capacity(factor, two)), [5, 12, 1, 1]);
        assert_eq!(capacity(0.0, two), usize::MAX);
    }
}
