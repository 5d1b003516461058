//! Deadlines that say what was waited for.

use std::time::Duration;

/// Returns what comes of `future`.
///
/// # Panics
/// If that takes longer than `limit`, naming `what` was waited for.
pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let come = tokio::time::timeout(limit, future).await;
    come.unwrap_or_else(|_| panic!("waited for {what} in vain, for {} s", limit.as_secs()))
}
