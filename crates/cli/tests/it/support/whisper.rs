//! The Whisper model that the tests share.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use voxline_engines::whisper::Whisper;

use super::models_dir;

/// Locks the model for one test at a time. Otherwise the cost of its threads would be counted twice.
pub(crate) fn whisper() -> MutexGuard<'static, Whisper> {
    static WHISPER: LazyLock<Mutex<Whisper>> = LazyLock::new(|| {
        let loaded = Whisper::load(&models_dir().join("whisper-base"));
        Mutex::new(loaded.unwrap_or_else(|error| panic!("{error} (or set VOXLINE_MODELS)")))
    });
    WHISPER.lock().unwrap_or_else(PoisonError::into_inner)
}
