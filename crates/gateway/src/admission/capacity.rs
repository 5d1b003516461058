//! Separate capacities for requests with a token and for those of the demo, so that no client with a token
//! waits for clients without.

use std::num::NonZero;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::error::ApiError;
use crate::http::request_log;
use crate::scheduler::Priority;
use voxline::decode::Cancellation;

/// Divisor of the demo's capacity: the demo has this part of the capacity for requests with a token, in
/// addition to it.
const DEMO_PART: usize = 4;

/// Documented limit of a recording's size: 20 MB. A recording has one channel.
pub(crate) const MAX_RECORDING_BYTES: usize = 20 * 1024 * 1024;

/// Capacity for requests of one kind.
pub(crate) struct RequestCapacity {
    /// Places for requests that keep an engine busy: recordings and speech.
    pub(crate) places: Arc<Semaphore>,
    /// Bytes that recordings may still take up.
    pub(crate) upload_bytes: Arc<Semaphore>,
    /// Threads that decode recordings.
    pub(crate) decoders: DecodePool,
    /// Permits to synthesise speech.
    pub(crate) voices: Arc<Semaphore>,
    /// Scheduling priority of recordings of this kind.
    pub(crate) priority: Priority,
}

impl RequestCapacity {
    /// Returns the capacity for `max_requests` requests with a token, on `threads` threads.
    pub(crate) fn authenticated(max_requests: usize, threads: usize) -> RequestCapacity {
        RequestCapacity::new(max_requests, threads, Priority::Recording)
    }

    /// Returns the capacity for requests of the demo, beside `max_requests` with a token.
    pub(crate) fn demo(max_requests: usize, threads: usize) -> RequestCapacity {
        let part = |whole: usize| whole.div_ceil(DEMO_PART);
        RequestCapacity::new(part(max_requests), part(threads), Priority::Demo)
    }

    fn new(places: usize, threads: usize, priority: Priority) -> RequestCapacity {
        let upload_bytes = places.saturating_mul(MAX_RECORDING_BYTES).min(Semaphore::MAX_PERMITS);
        RequestCapacity {
            places: Arc::new(Semaphore::new(places)),
            upload_bytes: Arc::new(Semaphore::new(upload_bytes)),
            decoders: DecodePool::beside(threads),
            voices: Arc::new(Semaphore::new(threads)),
            priority,
        }
    }

    /// Takes a place, which is held until the permit is dropped.
    ///
    /// # Errors
    /// Returns [`ApiError`] with status 429 if all places are taken.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.places.clone().try_acquire_owned().map_err(|_| ApiError::too_many_requests())
    }
}

/// A limit on the number of threads that decode uploads. Further uploads wait in the order of their
/// arrival. The decoders use only a part of tokio's blocking threads, so that tokens and sessions, which
/// need these threads too, never wait for them.
#[derive(Clone)]
pub(crate) struct DecodePool(Arc<Semaphore>);

impl DecodePool {
    /// Creates a pool for a gateway that recognises on `threads` threads. The pool has half as many, since
    /// decoding takes a hundredth of the time of recognition, and the other threads stay free to answer
    /// requests.
    pub(crate) fn beside(threads: usize) -> DecodePool {
        let threads = NonZero::new(threads.div_ceil(2)).unwrap_or(NonZero::<usize>::MIN);
        DecodePool(Arc::new(Semaphore::new(threads.get())))
    }

    /// Runs `work` when it is its turn. If the caller is dropped, `work` is cancelled. Everything that
    /// `work` owns, permits included, is dropped when it has ended and not before.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(Cancellation) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let cancellation = Cancellation::new();
        let given = cancellation.clone();
        self.run_under(cancellation, move || work(given)).await
    }

    /// Runs a part of longer work like [`run`](DecodePool::run). The flag `cancellation`, which all parts of
    /// the work watch, is set only if the caller is dropped before this part has ended.
    pub(crate) async fn run_under<T: Send + 'static>(
        &self,
        cancellation: Cancellation,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = self.0.clone().acquire_owned().await.map_err(|closed| ApiError::internal(&closed))?;
        let mut left = CancelOnDrop(Some(cancellation));
        let working = request_log::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        let done = working.await.map_err(|panic| ApiError::internal(&panic));
        left.0 = None;
        done
    }
}

/// Cancels work when its caller is dropped.
struct CancelOnDrop(Option<Cancellation>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancellation) = &self.0 {
            cancellation.cancel();
        }
    }
}
