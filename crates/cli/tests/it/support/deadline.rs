//! Deadlines whose panics name the thing that was awaited.

use std::time::Duration;

/// Returns the output of `future`.
///
/// # Panics
/// Panics if that takes longer than `limit`. The message names the awaited thing, `what`.
pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    let come = tokio::time::timeout(limit, future).await;
    come.unwrap_or_else(|_| panic!("waited for {what} in vain, for {} s", limit.as_secs()))
}
