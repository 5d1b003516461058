//! A file of this process alone.

use std::fs::{File, TryLockError};
use std::ops::Deref;

/// A file that is locked until it is dropped.
pub(super) struct Locked(File);

impl Locked {
    /// Locks a file, unless somebody else has.
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

/// Closing the file is not enough: a process that is being started has a copy of it, and so the lock, until it runs its own
/// program.
impl Drop for Locked {
    fn drop(&mut self) {
        // Where that fails, the lock goes with the last copy.
        let _ = self.0.unlock();
    }
}
