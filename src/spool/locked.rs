//! Files locked by this process.

use std::fs::{File, TryLockError};
use std::ops::Deref;

/// A file that is locked until it is dropped.
pub(super) struct Locked(File);

impl Locked {
    /// Locks `file`, unless it is locked already.
    pub(super) fn new(file: File) -> Result<Locked, TryLockError> {
        file.try_lock().map(|()| Locked(file))
    }
}

impl Deref for Locked {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

/// Unlocks explicitly, since closing the file is not enough: a child process that is being started has a
/// copy of the file, and so of the lock, until it executes its own program.
impl Drop for Locked {
    fn drop(&mut self) {
        // If unlocking fails, the lock ends with the last copy of the file.
        let _ = self.0.unlock();
    }
}
