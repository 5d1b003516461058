//! The worker that reads a source, shared by the sessions of all its channels.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::task::JoinError;

use super::TranscriptError;
use crate::pipeline::Worker;

/// The reading of a source.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// `None` once the worker was joined.
    worker: Option<Worker>,
    /// `false` if the worker was joined and had not read the source to its end.
    is_complete: bool,
    /// Error that ended the reading early, until a session reports it.
    error: Option<TranscriptError>,
}

impl Reading {
    /// Returns the reading by `worker`, or by none: that of a source without further audio.
    pub(super) fn by(worker: Option<Worker>) -> Reading {
        Reading { state: Arc::new(Mutex::new(State { worker, is_complete: true, error: None })) }
    }

    /// Joins the worker, and returns whether it read the source to its end. To be called by a session that
    /// has taken the end of its audio: the source is not read any more then, and the worker waits at most
    /// for the other sessions. Before that, the source may block for ever.
    pub(super) async fn is_complete(&self) -> bool {
        self.join().await.unwrap_or(false)
    }

    /// Joins the worker as [`is_complete`](Reading::is_complete) does, and returns the error that ended its
    /// reading early: once, to the first session that asks. If the worker can't be joined, because the
    /// runtime is shut down, that is the error, and every session gets it.
    pub(super) async fn error(&self) -> Option<TranscriptError> {
        match self.join().await {
            Ok(true) => None,
            Ok(false) => self.state().error.take(),
            Err(_) => Some(TranscriptError::Panicked),
        }
    }

    /// Joins the worker on a blocking thread, and returns whether it read the source to its end.
    async fn join(&self) -> Result<bool, JoinError> {
        let reading = self.clone();
        // The lock is held while the worker is joined, so that others wait for the result.
        let joining = tokio::task::spawn_blocking(move || {
            let mut state = reading.state();
            if let Some(worker) = state.worker.take() {
                state.error = worker.join().err().map(TranscriptError::from);
                state.is_complete = state.error.is_none();
            }
            state.is_complete
        });
        joining.await
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::PcmFormat;
    use crate::pipeline::{Options, Pipeline};
    use crate::source::Source;

    /// Returns the reading of a tenth of a second of silence.
    fn reading() -> Reading {
        let format: PcmFormat = "s16le:16000".parse().expect("a format");
        let source = Source::bytes("silence", vec![0; 3_200]).headerless(format);
        let (_, worker) = Pipeline::open(source, Options::default()).expect("it is audio").start();
        Reading::by(Some(worker))
    }

    #[test]
    fn a_worker_that_can_not_be_joined_is_an_error_and_not_the_end() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        assert!(runtime.block_on(reading().error()).is_none());

        let handle = runtime.handle().clone();
        runtime.shutdown_background();
        // A runtime that was shut down refuses the blocking task.
        let reading = reading();
        let error = handle.block_on(reading.error());
        assert!(matches!(error, Some(TranscriptError::Panicked)), "{error:?}");
        assert!(!handle.block_on(reading.is_complete()));
    }
}
