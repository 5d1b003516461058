//! Cancellation and CPU time of one decoder, checked on each read of its source and between packets.
//!
//! Decoding cannot be interrupted from outside. Code that reads is stopped by its next read. The few
//! walks over tables that read nothing are bounded before the demuxer sees the tables (`isomp4`,
//! `vorbis`).

use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use symphonia::core::io::MediaSource;

use voxline_support::clock::thread_cpu_time;

/// A flag that stops a decoder from another thread. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct Cancellation(Arc<AtomicBool>);

impl Cancellation {
    /// Creates a flag that is not set.
    #[must_use]
    pub fn new() -> Cancellation {
        Cancellation::default()
    }

    /// Sets the flag. Decoding then ends with [`DecodeError::Cancelled`](super::DecodeError::Cancelled)
    /// at its next read or packet.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns whether the flag is set.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A budget of CPU time: a constant, and more for each byte read and each sample decoded. Files with
/// false headers spend the budget without yielding audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuLimit {
    /// Time for any source.
    pub constant: Duration,
    /// Time for each byte of the source; for a stream, for each byte read so far.
    pub per_byte: Duration,
    /// Time for each decoded sample; a frame counts once per channel.
    pub per_sample: Duration,
}

impl CpuLimit {
    /// Returns the time allowed for a source of `bytes` bytes that has yielded `samples` samples.
    #[must_use]
    pub fn allowance(&self, bytes: u64, samples: u64) -> Duration {
        Duration::from_nanos(self.nanoseconds(bytes, samples))
    }

    fn nanoseconds(&self, bytes: u64, samples: u64) -> u64 {
        let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        nanoseconds(self.constant)
            .saturating_add(nanoseconds(self.per_byte).saturating_mul(bytes))
            .saturating_add(nanoseconds(self.per_sample).saturating_mul(samples))
    }
}

/// Reason why a decoder must do no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopReason {
    Cancelled,
    /// The allowed CPU time, which is given, is used up.
    CpuTime(Duration),
}

/// A meter of the CPU time spent on one source. Clones share the meter.
#[derive(Clone)]
pub(super) struct Meter(Arc<Shared>);

struct Shared {
    cancellation: Cancellation,
    limit: Option<CpuLimit>,
    bytes: AtomicU64,
    samples: AtomicU64,
    /// Nanoseconds spent in calls that have ended.
    spent: AtomicU64,
    /// CPU time of the thread at the start of the running call, in nanoseconds.
    begun: AtomicU64,
    /// Latched reason of the stop, so that a demuxer that continues after an error makes no progress.
    stopped: AtomicU8,
}

const RUNNING: u8 = 0;
const CANCELLED: u8 = 1;
const OUT_OF_TIME: u8 = 2;

impl Meter {
    pub(super) fn new(cancellation: Cancellation, limit: Option<CpuLimit>) -> Meter {
        Meter(Arc::new(Shared {
            cancellation,
            limit,
            bytes: AtomicU64::new(0),
            samples: AtomicU64::new(0),
            spent: AtomicU64::new(0),
            begun: AtomicU64::new(0),
            stopped: AtomicU8::new(RUNNING),
        }))
    }

    /// Adds to the number of bytes of the source.
    pub(super) fn add_bytes(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds to the number of decoded samples.
    pub(super) fn add_samples(&self, samples: u64) {
        self.0.samples.fetch_add(samples, Ordering::Relaxed);
    }

    /// Runs `work` and counts its CPU time. Consecutive calls may come from different threads. Fails if
    /// decoding is stopped before or during the call; this also stops work that reads nothing, such as
    /// packets of no bytes.
    pub(super) fn count<T>(&self, work: impl FnOnce() -> T) -> Result<T, StopReason> {
        self.check_after(|| 0)?;
        let done = if self.0.limit.is_some() {
            self.0.begun.store(now(), Ordering::Relaxed);
            let done = work();
            self.0.spent.fetch_add(self.under_way(), Ordering::Relaxed);
            done
        } else {
            work()
        };
        self.stopped().map_or(Ok(done), Err)
    }

    /// Returns the nanoseconds since the running call began.
    fn under_way(&self) -> u64 {
        now().saturating_sub(self.0.begun.load(Ordering::Relaxed))
    }

    /// Fails once decoding was cancelled or has used up its CPU time. Must be called within
    /// [`count`](Meter::count).
    pub(super) fn check(&self) -> Result<(), StopReason> {
        self.check_after(|| self.under_way())
    }

    /// Checks as [`check`](Meter::check) does, for a running call that has spent `under_way` nanoseconds.
    fn check_after(&self, under_way: impl FnOnce() -> u64) -> Result<(), StopReason> {
        let shared = &*self.0;
        if let Some(stopped) = self.stopped() {
            return Err(stopped);
        }
        let state = if shared.cancellation.is_cancelled() {
            CANCELLED
        } else if self
            .allowed()
            .is_some_and(|allowed| shared.spent.load(Ordering::Relaxed).saturating_add(under_way()) > allowed)
        {
            OUT_OF_TIME
        } else {
            return Ok(());
        };
        shared.stopped.store(state, Ordering::Relaxed);
        self.stopped().map_or(Ok(()), Err)
    }

    /// Returns the reason of the first check that failed.
    fn stopped(&self) -> Option<StopReason> {
        match self.0.stopped.load(Ordering::Relaxed) {
            CANCELLED => Some(StopReason::Cancelled),
            OUT_OF_TIME => Some(StopReason::CpuTime(Duration::from_nanos(self.allowed().unwrap_or(0)))),
            _ => None,
        }
    }

    /// Returns the nanoseconds allowed so far.
    fn allowed(&self) -> Option<u64> {
        let shared = &*self.0;
        let (bytes, samples) = (shared.bytes.load(Ordering::Relaxed), shared.samples.load(Ordering::Relaxed));
        shared.limit.map(|limit| limit.nanoseconds(bytes, samples))
    }
}

fn now() -> u64 {
    u64::try_from(thread_cpu_time().as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Display for StopReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StopReason::Cancelled => f.write_str("cancelled"),
            StopReason::CpuTime(allowed) => write!(f, "more than {allowed:.2?} of CPU time"),
        }
    }
}

/// The decoder reports the reason itself; the reader only learns that it must stop.
impl From<StopReason> for io::Error {
    fn from(stopped: StopReason) -> io::Error {
        io::Error::other(stopped.to_string())
    }
}

/// A source that fails once its meter stops the decoder.
pub(super) struct MeteredSource {
    source: Box<dyn MediaSource>,
    meter: Meter,
    /// `true` if each byte read is counted, as it is for a stream, whose length is unknown.
    counts_bytes: bool,
}

impl MeteredSource {
    pub(super) fn new(source: Box<dyn MediaSource>, meter: Meter, counts_bytes: bool) -> MeteredSource {
        MeteredSource { source, meter, counts_bytes }
    }
}

impl Read for MeteredSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.meter.check()?;
        let read = self.source.read(buffer)?;
        if self.counts_bytes {
            self.meter.add_bytes(read as u64);
        }
        Ok(read)
    }
}

impl Seek for MeteredSource {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.meter.check()?;
        self.source.seek(to)
    }
}

impl MediaSource for MeteredSource {
    fn is_seekable(&self) -> bool {
        self.source.is_seekable()
    }

    fn byte_len(&self) -> Option<u64> {
        self.source.byte_len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_allowance_grows_with_bytes_and_samples_and_never_wraps() {
        let limit = CpuLimit {
            constant: Duration::from_millis(500),
            per_byte: Duration::from_nanos(100),
            per_sample: Duration::from_nanos(250),
        };
        assert_eq!(limit.allowance(20_000_000, 48_000), Duration::from_millis(2_512));
        assert_eq!(limit.allowance(u64::MAX, u64::MAX), Duration::from_nanos(u64::MAX));
    }

    #[test]
    fn a_meter_stays_stopped() {
        let cancellation = Cancellation::new();
        let meter = Meter::new(cancellation.clone(), None);
        assert_eq!(meter.check(), Ok(()));
        cancellation.cancel();
        assert_eq!(meter.check(), Err(StopReason::Cancelled));

        let limit = CpuLimit {
            constant: Duration::ZERO,
            per_byte: Duration::from_secs(1),
            per_sample: Duration::ZERO,
        };
        let meter = Meter::new(Cancellation::new(), Some(limit));
        let counted = meter.count(|| {
            let mut sum = 0_u64;
            while meter.check().is_ok() {
                sum = std::hint::black_box(sum + 1);
            }
        });
        assert!(matches!(counted, Err(StopReason::CpuTime(_))));
        meter.add_bytes(3_600);
        assert!(matches!(meter.check(), Err(StopReason::CpuTime(_))));
    }

    /// Covers work that checks nothing by itself.
    #[test]
    fn time_is_counted_over_all_calls() {
        let constant = Duration::from_millis(5);
        let limit = CpuLimit { constant, per_byte: Duration::ZERO, per_sample: Duration::ZERO };
        let meter = Meter::new(Cancellation::new(), Some(limit));
        let begun = thread_cpu_time();
        while meter.count(|| ()).is_ok() {}
        assert!(thread_cpu_time() - begun >= constant);
    }
}
