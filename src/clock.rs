//! The two clocks, behind one trait, so that tests can move them.

use std::time::Duration;

/// Tells the time. The system's is [`SystemClock`]; tests step one by hand.
pub trait Clock: Send + Sync {
    /// Time since some fixed moment of this process; never steps back, and counts on while the wall clock is set.
    fn monotonic(&self) -> Duration;

    /// Time since the Unix epoch, as the machine believes it; may step either way.
    fn unix(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the module that reads the clocks")]
    pub fn new() -> SystemClock {
        SystemClock { start: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> SystemClock {
        SystemClock::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the module that reads the clocks")]
    fn unix(&self) -> Duration {
        // A clock before 1970 is a clock never set: zero makes every token look fresh until the peer refuses it.
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
    }
}
