//! Progress reports of a download, and its blocking work.

use std::path::Path;
use std::sync::Arc;

use super::StoreError;

/// Progress of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Name of the file.
    pub file: &'a str,
    /// Number of bytes written. The number falls back when another source starts from the beginning.
    pub done: u64,
    /// Size of the file, in bytes.
    pub total: u64,
}

/// A reporter that passes the progress of one file to the caller.
#[derive(Clone)]
pub(super) struct Report {
    pub(super) file: String,
    pub(super) total: u64,
    pub(super) tell: Arc<dyn Fn(&Progress<'_>) + Send + Sync>,
}

impl Report {
    pub(super) fn done(&self, done: u64) {
        (self.tell)(&Progress { file: &self.file, done, total: self.total });
    }
}

/// Runs blocking work on the blocking pool. If the caller gives up, `work` still runs to its end, which
/// for pip is its deadline at the latest.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(StoreError::io(Path::new("models"), std::io::Error::other(error))),
        },
    }
}
