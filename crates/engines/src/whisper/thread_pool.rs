//! Single-thread pools to compute on, one per session that is decoding.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::ops::Kernels;
use voxline::engine::EngineError;

/// Idle single-thread pools.
///
/// rten-gemm distributes each product over the rayon pool it is called from. With two or more sessions
/// that gains nothing and makes them wait for each other, so each session runs in a pool of one thread,
/// where rten-gemm stays.
///
/// Pools are kept for reuse: there are as many as sessions ever computed at once.
pub(super) struct ThreadPools {
    idle: Mutex<Vec<ThreadPool>>,
}

thread_local! {
    /// Kernels of this thread.
    static KERNELS: RefCell<Kernels> = RefCell::default();
}

/// Name of the threads.
const NAME: &str = "whisper";

impl ThreadPools {
    pub(super) fn new() -> ThreadPools {
        ThreadPools { idle: Mutex::new(Vec::new()) }
    }

    /// Runs `work` on a pool and waits for it.
    ///
    /// # Errors
    /// Returns [`EngineError::Inference`] if the system refuses another thread.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce(&mut Kernels) -> T + Send) -> Result<T, EngineError> {
        // The list is consistent whenever it is unlocked, so a panic elsewhere does not corrupt it.
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let pool = match idle {
            Some(pool) => pool,
            None => ThreadPoolBuilder::new()
                .num_threads(1)
                .thread_name(|_| NAME.to_owned())
                .build()
                .map_err(|error| EngineError::inference(NAME, error))?,
        };
        let result = pool.install(|| KERNELS.with_borrow_mut(work));
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_sees_one_thread() {
        let pools = ThreadPools::new();
        for _ in 0..2 {
            assert_eq!(pools.run(|_| rayon::current_num_threads()).unwrap(), 1);
        }
        assert_eq!(pools.idle.lock().unwrap().len(), 1);
    }
}
