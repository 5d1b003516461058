//! The events of a running transcription.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Service, TranscriptError};
use crate::audio::{Feed, FramePos};
use crate::session::{Ended, Ledger, Session, Settings};
use crate::spool::{Opened, Repeatability, Spool, SpoolError, SpooledEnd};
use crate::transcript::TranscriptEvent;

/// Number of events that may wait for the caller. Further events wait in the session, which replaces partial
/// results.
const WAITING_EVENTS: usize = 16;

/// Result of a session: its ledger, the error that ended the transcript early, and the spool of a transcript
/// that is complete.
type Outcome = (Ledger, Option<TranscriptError>, Option<Spool>);

/// The transcript of a running session: a stream of events. If the session fails, the last item is an error,
/// and the events before it stay valid. Dropping the transcript ends the session.
#[derive(Debug)]
pub struct Transcript {
    events: mpsc::Receiver<TranscriptEvent>,
    /// Ledger of the events delivered so far; the session's own ledger once the session has ended.
    ledger: Ledger,
    /// Task of the session; `None` once it has ended.
    session: Option<AbortOnDropHandle<Outcome>>,
    /// Spool of a transcript that is complete.
    spool: Option<Spool>,
}

impl Transcript {
    /// Starts a session that takes `audio`, through a spool if there is one. `reading` is awaited once it
    /// ends well, and returns the error that ended the reading of its source early.
    #[expect(clippy::disallowed_methods, reason = "joined by the transcript, or aborted when it is dropped")]
    pub(super) fn start(
        service: Arc<Service>,
        settings: Settings,
        spool: Option<(Opened, Repeatability)>,
        audio: mpsc::Receiver<Feed>,
        reading: impl Future<Output = Option<TranscriptError>> + Send + 'static,
    ) -> Transcript {
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let session = tokio::spawn(async move {
            let Service { connector, tokens, .. } = &*service;
            let session = Session::new(connector, tokens, settings);
            let (ledger, result, spool) = match spool {
                Some((opened, source)) => {
                    let SpooledEnd { ledger, result, spool, complete } =
                        opened.run(session, source, audio, sender).await;
                    (ledger, result.map_err(TranscriptError::from), spool.filter(|_| complete))
                }
                None => {
                    let Ended { ledger, result } = session.run(audio, sender).await;
                    (ledger, result.map_err(TranscriptError::from), None)
                }
            };
            match result {
                Ok(()) => (ledger, reading.await, spool),
                // The source is not waited for, since it may block for ever.
                Err(error) => (ledger, Some(error), None),
            }
        });
        let session = Some(AbortOnDropHandle::new(session));
        Transcript { events, ledger: Ledger::default(), session, spool: None }
    }

    /// Returns the next event, or `None` after the last one. Cancel safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// Returns [`TranscriptError`], as the last item, if the session failed or its source could not be read
    /// to the end.
    pub async fn next(&mut self) -> Option<Result<TranscriptEvent, TranscriptError>> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Returns the account of every frame, complete once the transcript has ended, with an error or without.
    /// Until then it covers the frames that are final or in a gap.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }

    /// Deletes the spool, once the transcript has ended and the caller has stored it. Does nothing if there
    /// is none, or if the transcript is not complete: a later process then continues it. A spool of a
    /// complete transcript that is not deleted repeats the transcript in a later process.
    ///
    /// # Errors
    /// Returns [`SpoolError::Io`] if the file can't be deleted.
    pub fn remove_spool(&mut self) -> Result<(), SpoolError> {
        let Some(spool) = &self.spool else { return Ok(()) };
        spool.delete()?;
        self.spool = None;
        Ok(())
    }

    /// Returns whether the transcript is complete, and has a spool.
    #[cfg(feature = "decode")]
    pub(super) fn has_complete_spool(&self) -> bool {
        self.spool.is_some()
    }

    pub(super) fn poll_event(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<TranscriptEvent, TranscriptError>>> {
        if let Some(event) = ready!(self.events.poll_recv(cx)) {
            self.ledger.count(&event);
            // Until the session's own ledger is known, accepted are the frames that are accounted for.
            self.ledger = self.ledger.broken_off(FramePos::ZERO);
            return Poll::Ready(Some(Ok(event)));
        }
        let Some(session) = &mut self.session else { return Poll::Ready(None) };
        let ended = ready!(Pin::new(session).poll(cx));
        self.session = None;
        let error = match ended {
            Ok((ledger, error, spool)) => {
                self.ledger = ledger;
                self.spool = spool;
                error
            }
            Err(_) => Some(TranscriptError::Panicked),
        };
        Poll::Ready(error.map(Err))
    }
}

impl Stream for Transcript {
    type Item = Result<TranscriptEvent, TranscriptError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(cx)
    }
}
