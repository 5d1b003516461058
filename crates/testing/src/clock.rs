//! A clock that stands still until a test moves it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use voxline_support::clock::{Clock, Moment};

/// A clock whose time is set by hand. Clones share it.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<Mutex<Hands>>);

#[derive(Debug)]
struct Hands {
    unix: Duration,
    since_boot: Duration,
    boots: u32,
}

impl ManualClock {
    /// Creates a clock that shows `unix`, the time since the Unix epoch, on a machine that has just booted.
    #[must_use]
    pub fn new(unix: Duration) -> ManualClock {
        ManualClock(Arc::new(Mutex::new(Hands { unix, since_boot: Duration::ZERO, boots: 0 })))
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let mut hands = self.hands();
        hands.unix = hands.unix.saturating_add(by);
        hands.since_boot = hands.since_boot.saturating_add(by);
    }

    /// Sets the wall clock to `unix`, the time since the Unix epoch.
    pub fn set(&self, unix: Duration) {
        self.hands().unix = unix;
    }

    /// Reboots the machine.
    pub fn reboot(&self) {
        let mut hands = self.hands();
        (hands.since_boot, hands.boots) = (Duration::ZERO, hands.boots + 1);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        self.hands().since_boot
    }

    fn moment(&self) -> Moment {
        let hands = self.hands();
        let boot = format!("boot {}", hands.boots).into();
        Moment { unix: hands.unix, since_boot: hands.since_boot, boot }
    }
}
