//! What requests with a token, and those of the demo, each have to themselves: nobody who has a token waits
//! for those who have none.

use std::num::NonZero;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use super::scheduler::Rank;
use super::{Options, access, asr, busy};
use voxline::decode::Cancellation;

/// A demo has this part of what requests with tokens have, beside them.
const DEMO_PART: usize = 4;

/// The capacity for requests of one kind.
pub(super) struct Capacity {
    /// Places for requests that keep an engine busy: recordings and speech.
    pub(super) places: Arc<Semaphore>,
    /// Bytes that recordings may still take up.
    pub(super) room: Arc<Semaphore>,
    /// Decodes recordings.
    pub(super) decoders: DecodePool,
    /// Turns to speak.
    pub(super) voices: Arc<Semaphore>,
    /// The priority of their recordings.
    pub(super) rank: Rank,
}

impl Capacity {
    /// For requests with a token.
    pub(super) fn paying(options: &Options) -> Capacity {
        Capacity::new(options.max_requests, options.threads.get(), Rank::Recording)
    }

    /// For requests without.
    pub(super) fn demo(options: &Options) -> Capacity {
        let part = |whole: usize| whole.div_ceil(DEMO_PART);
        Capacity::new(part(options.max_requests), part(options.threads.get()), Rank::Demo)
    }

    fn new(places: usize, threads: usize, rank: Rank) -> Capacity {
        let room = places.saturating_mul(asr::MAX_BYTES).min(Semaphore::MAX_PERMITS);
        Capacity {
            places: Arc::new(Semaphore::new(places)),
            room: Arc::new(Semaphore::new(room)),
            decoders: DecodePool::beside(threads),
            voices: Arc::new(Semaphore::new(threads)),
            rank,
        }
    }

    /// A place, held until it is dropped.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.places.clone().try_acquire_owned().map_err(|_| busy())
    }
}

/// A bounded number of threads that decode uploads, of which the others wait in the order they came. What
/// they hold is a part of tokio's threads for blocking work, so that tokens and sessions, which need these
/// too, never wait for them.
pub(super) struct DecodePool(Arc<Semaphore>);

impl DecodePool {
    /// A pool for a gateway that recognises on `threads`: half as many, as decoding takes a hundredth of the
    /// time that recognition does, and the rest answers meanwhile.
    pub(super) fn beside(threads: usize) -> DecodePool {
        let threads = NonZero::new(threads.div_ceil(2)).unwrap_or(NonZero::<usize>::MIN);
        DecodePool(Arc::new(Semaphore::new(threads.get())))
    }

    /// Runs `work` when it is its turn. Where its caller leaves, it is cancelled; what it owns, permits
    /// included, is dropped when it has ended and not before.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(Cancellation) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = self.0.clone().acquire_owned().await.map_err(|closed| ApiError::internal(&closed))?;
        let left = CancelOnDrop(Cancellation::new());
        let cancellation = left.0.clone();
        let working = access::spawn_blocking(move || {
            let _turn = turn;
            work(cancellation)
        });
        let done = working.await.map_err(|panic| ApiError::internal(&panic));
        drop(left);
        done
    }
}

/// Cancels work whose caller has left.
struct CancelOnDrop(Cancellation);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
