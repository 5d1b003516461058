//! A counting allocator, for the tests of code that promises to allocate nothing or little.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// The system allocator with counting. Threads that joined a [`Meter`] are counted on it, all others not at
/// all.
pub(crate) struct Counting;

thread_local! {
    // Constant and without a destructor, so access can neither allocate nor fail.
    static METER: Cell<Option<&'static Meter>> = const { Cell::new(None) };
}

/// The meter of all threads that joined none.
static EVERYBODY: OnceLock<&'static Meter> = OnceLock::new();

/// Counts all threads of this process on `meter` from now on: for a test that has a process of its own.
pub(crate) fn count_everybody(meter: &'static Meter) {
    EVERYBODY.set(meter).expect("a process is counted once");
}

fn meter() -> Option<&'static Meter> {
    METER.get().or_else(|| EVERYBODY.get().copied())
}

/// Counts of the memory that the joined threads have allocated. Memory that one of these threads frees for
/// another is counted once: the number of live bytes is right for the group, not for each thread.
///
/// Allocations of a C library are not seen (libopus: some 20 KB a decoder).
#[derive(Debug, Default)]
pub(crate) struct Meter {
    allocations: AtomicU64,
    live: AtomicI64,
    peak: AtomicI64,
}

impl Meter {
    pub(crate) const fn new() -> Meter {
        Meter { allocations: AtomicU64::new(0), live: AtomicI64::new(0), peak: AtomicI64::new(0) }
    }

    /// Counts this thread on the meter until the returned guard is dropped.
    pub(crate) fn join(&'static self) -> Joined {
        Joined { before: METER.replace(Some(self)), of_this_thread: PhantomData }
    }

    /// Sets all counts to zero.
    pub(crate) fn reset(&self) {
        self.allocations.store(0, Relaxed);
        self.live.store(0, Relaxed);
        self.peak.store(0, Relaxed);
    }

    /// Returns the number of allocations, including reallocations.
    pub(crate) fn allocations(&self) -> u64 {
        self.allocations.load(Relaxed)
    }

    /// Returns the largest number of bytes that were in use at once.
    pub(crate) fn peak(&self) -> usize {
        usize::try_from(self.peak.load(Relaxed)).unwrap_or(0)
    }

    /// Returns the bytes in use now, less those in use when counting began.
    pub(crate) fn live(&self) -> i64 {
        self.live.load(Relaxed)
    }

    fn took(&self, bytes: usize) {
        self.allocations.fetch_add(1, Relaxed);
        self.changed(bytes.cast_signed());
    }

    fn changed(&self, bytes: isize) {
        let live = self.live.fetch_add(bytes as i64, Relaxed) + bytes as i64;
        self.peak.fetch_max(live, Relaxed);
    }
}

/// Guard of a thread that is being counted.
pub(crate) struct Joined {
    before: Option<&'static Meter>,
    /// Not `Send`: dropped on another thread, the guard would end the wrong count.
    of_this_thread: PhantomData<*const ()>,
}

impl Drop for Joined {
    fn drop(&mut self) {
        METER.set(self.before);
    }
}

// SAFETY: every call is the system allocator's own, with the caller's arguments unchanged; counting touches
// no memory that was allocated.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(meter) = meter() {
            meter.took(layout.size());
        }
        // SAFETY: the caller upholds the contract that `System` requires.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if let Some(meter) = meter() {
            meter.took(layout.size());
        }
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if let Some(meter) = meter() {
            // Both blocks are in use while the data is moved.
            meter.took(size);
            meter.changed(-layout.size().cast_signed());
        }
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(meter) = meter() {
            meter.changed(-layout.size().cast_signed());
        }
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[test]
fn allocations_are_counted() {
    static METER: Meter = Meter::new();
    let joined = METER.join();
    let mut first = vec![0_u8; 1_000];
    first.reserve_exact(2_000);
    drop(first);
    let second = vec![1_u8; 500];
    drop(joined);
    let uncounted = vec![2_u8; 1 << 20];
    assert_eq!((METER.allocations(), METER.peak()), (3, 4_000));
    drop((second, uncounted));
}
