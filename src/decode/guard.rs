//! Catching of panics that decoders raise on crafted input.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::DecodeFault;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether a panic on this thread would be caught here and become a
/// [`DecodeError`](super::DecodeError). Meant for panic hooks, since the standard hook also prints panics
/// that are caught.
#[must_use]
pub fn panic_is_caught() -> bool {
    GUARDED.get()
}

/// Calls a decoder, and returns its panic as a fault. After a panic, the caller must not
/// use again the values that the call touched.
pub(super) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, DecodeFault> {
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    result.map_err(|payload| {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        DecodeFault::Panicked { message: text.unwrap_or("no message").to_owned() }
    })
}
