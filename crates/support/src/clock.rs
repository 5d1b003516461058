//! Clocks behind one trait, so that tests can control the time.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A source of time. The system's is [`SystemClock`]; tests advance one by hand.
pub trait Clock: Send + Sync {
    /// Returns the time since some fixed moment of this process. The value never decreases, and advances
    /// even while the wall clock is set.
    fn monotonic(&self) -> Duration;

    /// Returns the time since the Unix epoch, according to the machine; may jump either way.
    fn unix(&self) -> Duration {
        self.moment().unix
    }

    /// Returns the current moment, by the two clocks that outlive a process.
    fn moment(&self) -> Moment;
}

/// A moment whose age can be determined even after the wall clock was set, after the machine slept, or in
/// another process.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Time since the Unix epoch, by the wall clock.
    pub unix: Duration,
    /// Time since the start of `boot`, including the machine's sleep.
    pub since_boot: Duration,
    /// Id of the machine's boot to which `since_boot` refers. Values are comparable only if their boots
    /// are equal.
    pub boot: Box<str>,
}

impl Moment {
    /// Returns the age of the moment at `now`: the larger of the ages by the two clocks. `None` if
    /// neither can tell: the wall clock is behind the moment, and the machine has rebooted.
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

/// Clocks of the machine.
#[derive(Clone, Debug)]
pub struct SystemClock {
    start: std::time::Instant,
    boot: Box<str>,
}

impl SystemClock {
    /// Creates a clock whose monotonic time starts now.
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
            // This clock includes the time that the machine sleeps, unlike an `Instant`.
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
    // A time before 1970 means that the clock was never set.
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// Returns the current instant, for measurements of real durations that no test should control.
#[expect(clippy::disallowed_methods, reason = "this is the module that reads the clocks")]
pub fn now() -> std::time::Instant {
    std::time::Instant::now()
}

/// Returns the CPU time of all threads of this process, including those that ended; `None` if the system
/// does not provide it.
pub fn cpu_time() -> Option<Duration> {
    #[cfg(unix)]
    {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::try_from(time).ok()
    }
    #[cfg(not(unix))]
    None
}

/// Returns the CPU time of the calling thread since some fixed moment, or the elapsed time if the system
/// does not provide it.
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

/// Returns year, month and day of a number of days after 1970-01-01. Years are counted from March, so
/// that a leap day is the last day of a year (Howard Hinnant's `civil_from_days`).
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

/// Returns the kernel's id of this boot. If there is none, each clock gets an id of its own.
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
        // The machine rebooted: only the wall clock remains.
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
