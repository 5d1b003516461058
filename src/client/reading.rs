//! The worker that reads a source, shared by the sessions of all its channels.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
        joining.await.unwrap_or(false)
    }

    /// Joins the worker as [`is_complete`](Reading::is_complete) does, and returns the error that ended its
    /// reading early: once, to the first session that asks.
    pub(super) async fn error(&self) -> Option<TranscriptError> {
        if self.is_complete().await {
            return None;
        }
        self.state().error.take()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
