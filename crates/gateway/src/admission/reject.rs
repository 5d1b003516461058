//! Admission control: a full gateway refuses new sessions at once, and so serves its live sessions well.

use std::num::NonZero;
use std::time::Duration;

use http::StatusCode;

use super::pending::PendingPlace;
use crate::BUSY_WAIT;
use crate::Gateway;
use crate::authority::Identity;
use crate::http::error::ApiError;
use crate::sessions::registry::Full;

/// Longest time that a session with audio may wait for its next turn. Beyond it no more sessions are
/// admitted, however few there are: other programs may need the machine, or speech may cost more than was
/// measured. Finals should come within two seconds of the speech.
const LATE: Duration = Duration::from_secs(2);

/// Share of its threads' time that a gateway may spend on finals if all its clients spoke without a pause.
/// The rest absorbs utterances that end at the same moment, and serves partial results. About half of a
/// call is speech, so with calls the share is a third.
const LOAD: f64 = 0.7;

/// Returns the number of live sessions that `threads` on a machine of so many `cores` can carry, at least
/// one, with a recogniser that takes `real_time_factor` seconds for a second of speech. It is a suitable
/// value for [`Options::max_sessions`](crate::Options::max_sessions).
#[must_use]
pub fn capacity(real_time_factor: f64, threads: NonZero<usize>, cores: NonZero<usize>) -> usize {
    // Threads beyond the cores share the time of the cores.
    let sessions = LOAD * threads.min(cores).get() as f64 / real_time_factor;
    // The cast saturates: NaN becomes 0, and a number that is too large becomes `usize::MAX`.
    (sessions as usize).max(1)
}

/// Reason why no session can start now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RejectReason {
    Draining,
    Full,
    Late,
}

impl RejectReason {
    /// Returns the label of the reason in the metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            RejectReason::Draining => "draining",
            RejectReason::Full => "full",
            RejectReason::Late => "late",
        }
    }

    pub(crate) fn error(self) -> ApiError {
        let (status, message) = match self {
            RejectReason::Draining => (StatusCode::SERVICE_UNAVAILABLE, "the gateway is stopping"),
            RejectReason::Full => (StatusCode::TOO_MANY_REQUESTS, "no room for a session"),
            RejectReason::Late => (StatusCode::SERVICE_UNAVAILABLE, "the recogniser is behind"),
        };
        ApiError::busy(status, message, BUSY_WAIT)
    }
}

impl Full {
    /// Counts the refusal in the metrics and returns the message for the client, which was admitted before
    /// the last place was taken.
    pub(crate) fn tell(self, gateway: &Gateway) -> &'static str {
        let (reason, message) = match self {
            Full::Gateway => (RejectReason::Full.name(), "no room for a session"),
            Full::Token => ("token", "the token has as many sessions as it may"),
        };
        gateway.metrics.refuse(reason);
        message
    }
}

impl Gateway {
    /// Checks that a session could start now.
    pub(crate) fn room_for_session(&self) -> Result<(), RejectReason> {
        if self.sessions.count() >= self.options.max_sessions && !self.is_draining() {
            return Err(RejectReason::Full);
        }
        self.takes_sessions()
    }

    /// Checks that a session could start now for a client that already has a socket. The registry checks
    /// for a free place when the session is inserted.
    pub(crate) fn takes_sessions(&self) -> Result<(), RejectReason> {
        match () {
            () if self.is_draining() => Err(RejectReason::Draining),
            () if self.scheduler.lateness() > LATE => Err(RejectReason::Late),
            () => Ok(()),
        }
    }

    /// Admits a client that wants a session of its own. The last place may still be taken before the client
    /// says `start`.
    pub(crate) fn admit_session(&self) -> Result<(), ApiError> {
        self.room_for_session().map_err(|reason| self.reject(reason))
    }

    /// Admits a socket for an existing session, even if there is no room for another session.
    pub(crate) fn admit_socket(&self) -> Result<(), ApiError> {
        if self.is_draining() {
            return Err(self.reject(RejectReason::Draining));
        }
        Ok(())
    }

    /// Takes a place for a socket of `identity`, to be held until it begins its session.
    pub(crate) fn place_for_socket(&self, identity: &Identity) -> Result<PendingPlace, ApiError> {
        self.pending_sockets.admit(identity).map_err(|full| match full {
            Full::Gateway => self.reject(RejectReason::Full),
            Full::Token => self.refuse_holder("the token has as many sockets as it may"),
        })
    }

    /// Takes a place for a task of `identity`, to be held until it begins its session.
    pub(crate) fn place_for_task(&self, identity: &Identity) -> Result<PendingPlace, ApiError> {
        self.pending_tasks.admit(identity).map_err(|full| match full {
            Full::Gateway => self.reject(RejectReason::Full),
            Full::Token => self.refuse_holder("the token has as many tasks as it may"),
        })
    }

    fn refuse_holder(&self, message: &str) -> ApiError {
        self.metrics.refuse("token");
        ApiError::busy(StatusCode::TOO_MANY_REQUESTS, message, BUSY_WAIT)
    }

    pub(crate) fn reject(&self, reason: RejectReason) -> ApiError {
        self.metrics.refuse(reason.name());
        reason.error()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capacity_is_whole_and_never_none() {
        let two = NonZero::new(2).unwrap();
        assert_eq!([0.27, 0.11, 5.0, f64::NAN].map(|factor| capacity(factor, two, two)), [5, 12, 1, 1]);
        assert_eq!(capacity(0.0, two, two), usize::MAX);
    }

    #[test]
    fn threads_beyond_the_cores_carry_nothing() {
        let [two, many] = [2, 64].map(|count| NonZero::new(count).unwrap());
        assert_eq!(capacity(0.11, many, two), 12);
        assert_eq!(capacity(0.11, two, many), 12);
    }
}
