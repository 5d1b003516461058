//! A clock that stands still until it is moved.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Clock;

/// A clock whose time is set by hand. Clones share it.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Duration>>);

impl ManualClock {
    /// A clock that shows `unix`, the time since the Unix epoch.
    #[must_use]
    pub fn new(unix: Duration) -> ManualClock {
        ManualClock(Arc::new(Mutex::new(unix)))
    }

    /// Moves it on.
    pub fn advance(&self, by: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        self.unix()
    }

    fn unix(&self) -> Duration {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
