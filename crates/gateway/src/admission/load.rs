//! Load that the recognition threads can carry.

use std::num::NonZero;
use std::time::Duration;

/// Longest time that a session with audio may wait for its next turn. Beyond it no more sessions are
/// admitted, however few there are: other programs may need the machine, or speech may cost more than was
/// measured. Finals should come within two seconds of the speech.
pub(crate) const LATE: Duration = Duration::from_secs(2);

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
