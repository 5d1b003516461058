//! Threads to compute on, one per decoding session at work.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use rayon::{ThreadPool, ThreadPoolBuilder};

use super::linear::Kernels;
use voxline::engine::EngineError;

/// rten-gemm shares each product out over the rayon pool it is called from. With two or more sessions that gains
/// nothing and makes them wait for each other, so each runs in a pool of one thread, where rten-gemm stays on it.
///
/// Lanes are kept for reuse: there are as many as sessions ever computed at once.
pub(super) struct Lanes {
    idle: Mutex<Vec<ThreadPool>>,
}

thread_local! {
    /// What this lane computes with.
    static KERNELS: RefCell<Kernels> = RefCell::default();
}

/// The name of the lanes' threads.
const NAME: &str = "whisper";

impl Lanes {
    pub(super) fn new() -> Lanes {
        Lanes { idle: Mutex::new(Vec::new()) }
    }

    /// Runs `work` on a lane and waits for it.
    ///
    /// # Errors
    /// When the system refuses another thread.
    pub(super) fn run<T: Send>(&self, work: impl FnOnce(&mut Kernels) -> T + Send) -> Result<T, EngineError> {
        // A lane is whole whenever the list is unlocked, so a panic elsewhere doesn't spoil it.
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let lane = match idle {
            Some(lane) => lane,
            None => ThreadPoolBuilder::new()
                .num_threads(1)
                .thread_name(|_| NAME.to_owned())
                .build()
                .map_err(|error| EngineError::Inference { engine: NAME, reason: error.to_string() })?,
        };
        let result = lane.install(|| KERNELS.with_borrow_mut(work));
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(lane);
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_sees_one_thread() {
        let lanes = Lanes::new();
        for _ in 0..2 {
            assert_eq!(lanes.run(|_| rayon::current_num_threads()).unwrap(), 1);
        }
        assert_eq!(lanes.idle.lock().unwrap().len(), 1);
    }
}
