//! Waiting for an instant that may not exist.

use tokio::time::{Instant, sleep_until};

/// Waits until `instant`, or for ever if there is none.
pub(crate) async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
