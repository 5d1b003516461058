//! Single-thread pools to compute on: one per session that is decoding, more if there is time for it.

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
        let pool = self.take()?;
        let result = pool.install(|| KERNELS.with_borrow_mut(work));
        self.give_back(pool);
        Ok(result)
    }

    /// Runs `work` on each of the items at once, each on a pool of its own, and waits for all.
    ///
    /// # Errors
    /// As [`run`](ThreadPools::run) does; the work on some items is then done.
    pub(super) fn run_each<T: Send>(
        &self,
        items: &mut [T],
        work: &(impl Fn(&mut T, &mut Kernels) + Sync),
    ) -> Result<(), EngineError> {
        let Some((first, rest)) = items.split_first_mut() else { return Ok(()) };
        if rest.is_empty() {
            return self.run(|kernels| work(first, kernels));
        }
        let pool = self.take()?;
        let result = pool.in_place_scope(|scope| {
            scope.spawn(|_| KERNELS.with_borrow_mut(|kernels| work(first, kernels)));
            self.run_each(rest, work)
        });
        self.give_back(pool);
        result
    }

    fn take(&self) -> Result<ThreadPool, EngineError> {
        // The list is consistent whenever it is unlocked, so a panic elsewhere does not corrupt it.
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match idle {
            Some(pool) => Ok(pool),
            None => ThreadPoolBuilder::new()
                .num_threads(1)
                .thread_name(|_| NAME.to_owned())
                .build()
                .map_err(|error| EngineError::inference(NAME, error)),
        }
    }

    fn give_back(&self, pool: ThreadPool) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn work_sees_one_thread() {
        let pools = ThreadPools::new();
        for _ in 0..2 {
            assert_eq!(pools.run(|_| rayon::current_num_threads()).unwrap(), 1);
        }
        assert_eq!(pools.idle.lock().unwrap().len(), 1);
    }

    /// The items meet at a barrier, which none passes before all are there.
    #[test]
    fn items_are_worked_on_at_once() {
        let (pools, barrier) = (ThreadPools::new(), Barrier::new(3));
        let mut threads = [0; 3];
        let work = |threads: &mut usize, _: &mut Kernels| {
            barrier.wait();
            *threads = rayon::current_num_threads();
        };
        pools.run_each(&mut threads, &work).expect("there are threads");
        assert_eq!(threads, [1; 3]);
        assert_eq!(pools.idle.lock().unwrap().len(), 3);
    }
}
