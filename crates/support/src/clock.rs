//! The clocks, behind one trait, so that tests can move them.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Tells the time. The system's is [`SystemClock`]; tests step one by hand.
pub trait Clock: Send + Sync {
    /// Time since some fixed moment of this process; never steps back, and counts on while the wall clock is set.
    fn monotonic(&self) -> Duration;

    /// Time since the Unix epoch, as the machine believes it; may step either way.
    fn unix(&self) -> Duration {
        self.moment().unix
    }

    /// Now, by the two clocks that outlive a process.
    fn moment(&self) -> Moment;
}

/// A moment, such that its age can still be told after the wall clock was set, after the machine slept, and in another
/// process.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Time since the Unix epoch, by the wall clock.
    pub unix: Duration,
    /// Time since the start of `boot`, the machine's sleep included.
    pub since_boot: Duration,
    /// Which run of the machine `since_boot` belongs to: comparable only where these are equal.
    pub boot: Box<str>,
}

impl Moment {
    /// How long ago it was at `now`: the longest that a clock can tell. `None` where none can: the wall clock shows a
    /// time before it, and the machine has been started anew.
    #[must_use]
    pub fn age(&self, now: &Moment) -> Option<Duration> {
        let by_wall = now.unix.checked_sub(self.unix);
        let by_boot = now.since_boot.checked_sub(self.since_boot).filter(|_| now.boot == self.boot);
        by_wall.max(by_boot)
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} since 1970, {:?} since boot", self.unix, self.since_boot)
    }
}

/// The machine's clocks.
#[derive(Clone, Debug)]
pub struct SystemClock {
    start: std::time::Instant,
    boot: Box<str>,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the module that reads the clocks")]
    pub fn new() -> SystemClock {
        SystemClock { start: std::time::Instant::now(), boot: boot_id() }
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

    fn moment(&self) -> Moment {
        #[cfg(target_os = "linux")]
        let since_boot = {
            // It counts the time that the machine sleeps, which an `Instant` doesn't.
            let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
            Duration::try_from(time).unwrap_or_default()
        };
        #[cfg(not(target_os = "linux"))]
        let since_boot = self.start.elapsed();
        Moment { unix: wall_clock(), since_boot, boot: self.boot.clone() }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the module that reads the clocks")]
fn wall_clock() -> Duration {
    // A clock before 1970 is a clock never set.
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// Now, where it counts how long things really take, and no test should move the time.
#[expect(clippy::disallowed_methods, reason = "this is the module that reads the clocks")]
pub fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// The CPU time of all threads of this process, those that ended included; `None` where the system doesn't tell.
pub fn cpu_time() -> Option<Duration> {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::try_from(time).ok()
    }
    #[cfg(not(unix))]
    None
}

/// The CPU time of the calling thread since some fixed moment; where the system doesn't tell, the time that
/// has passed.
pub fn thread_cpu_time() -> Duration {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::try_from(time).unwrap_or_default()
    }
    #[cfg(not(unix))]
    {
        static CLOCK: std::sync::LazyLock<SystemClock> = std::sync::LazyLock::new(SystemClock::new);
        CLOCK.monotonic()
    }
}

/// The date that many days after 1970-01-01, by years that begin in March, so that a leap day is a year's last
/// (Howard Hinnant's `civil_from_days`).
pub fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

/// What the kernel calls this run of the machine. Where it doesn't say, each process counts from a start of its own.
fn boot_id() -> Box<str> {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) if cfg!(target_os = "linux") => id.trim().into(),
        _ => format!("process {} from {:?}", std::process::id(), wall_clock()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(unix: u64, since_boot: u64, boot: &str) -> Moment {
        Moment {
            unix: Duration::from_secs(unix),
            since_boot: Duration::from_secs(since_boot),
            boot: boot.into(),
        }
    }

    #[test]
    fn an_age_is_the_longest_that_a_clock_can_tell() {
        let then = moment(10_000, 100, "a");
        let age = |now: Moment| then.age(&now).map(|age| age.as_secs());
        assert_eq!(age(moment(10_060, 160, "a")), Some(60));
        // The wall clock was set back, or forward.
        assert_eq!(age(moment(6_400, 160, "a")), Some(60));
        assert_eq!(age(moment(13_660, 160, "a")), Some(3_660));
        // The machine was started anew: only the wall clock is left.
        assert_eq!(age(moment(10_060, 160, "b")), Some(60));
        assert_eq!(age(moment(6_400, 160, "b")), None);
    }

    #[test]
    fn another_clock_of_the_same_machine_counts_on() {
        let before = SystemClock::new().moment();
        let after = SystemClock::new().moment();
        assert!(after.since_boot >= before.since_boot);
        assert_eq!(cfg!(target_os = "linux"), before.boot == after.boot);
    }
}
