//! Panics of decoders on crafted input, caught.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread would be caught here and become a [`DecodeError`](super::DecodeError). For panic
/// hooks: the standard one prints even what is caught.
#[must_use]
pub fn panic_is_caught() -> bool {
    GUARDED.get()
}

/// Calls into decoders, whose panics are errors to us: the message of one that panicked. What the call touched must
/// not be used again then.
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
