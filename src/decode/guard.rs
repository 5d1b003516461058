//! Catching of panics that decoders raise on crafted input.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

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

/// Calls a decoder, and returns the message of its panic as an error. After a panic, the caller must not
/// use again the values that the call touched.
pub(super) fn guarded<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    let outer = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(call));
    GUARDED.set(outer);
    result.map_err(|payload| {
        let text = payload
            .downcast_ref::<&str>()
            .copied()
            .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        format!("the decoder panicked: {}", text.unwrap_or("no message"))
    })
}
