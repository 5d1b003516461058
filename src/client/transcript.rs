//! The events of a running transcription.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::input::{AudioEnd, Input};
use super::{Service, TranscriptError};
use crate::audio::{Feed, FramePos};
use crate::session::{Ended, Ledger, Session, Settings};
use crate::spool::{Opened, Repeatability, Spool, SpoolError, SpooledEnd, SpooledError};
use crate::transcript::TranscriptEvent;

/// Number of events that may wait for the caller. Further events wait in the session, which replaces partial
/// results.
const WAITING_EVENTS: usize = 16;

/// The result of a session.
struct Outcome {
    ledger: Ledger,
    /// Error that ended the transcript early.
    error: Option<TranscriptError>,
    spool: SpoolState,
}

/// The state of the spool of a transcript.
#[derive(Debug)]
enum SpoolState {
    /// There is none.
    Absent,
    /// The transcript is not complete, and a later process can continue it.
    Resumable,
    /// The transcript is complete: the spool only repeats it.
    Complete(Spool),
}

impl SpoolState {
    /// Returns the state after a session whose transcript is complete, or not.
    fn at_end(spool: Option<Spool>, is_complete: bool) -> SpoolState {
        match spool {
            None => SpoolState::Absent,
            Some(spool) if is_complete => SpoolState::Complete(spool),
            Some(_) => SpoolState::Resumable,
        }
    }
}

/// The transcript of a running session: a stream of events. If the session fails, the last item is an error,
/// and the events before it stay valid. Dropping the transcript ends the session.
#[derive(Debug)]
pub struct Transcript {
    events: mpsc::Receiver<TranscriptEvent>,
    /// Ledger of the events delivered so far; the session's own ledger once the session has ended.
    ledger: Ledger,
    /// Task of the session; `None` once it has ended.
    session: Option<AbortOnDropHandle<Outcome>>,
    spool: SpoolState,
    stop: CancellationToken,
}

impl Transcript {
    /// Starts a session that takes the audio of `input`, through a spool if there is one.
    #[expect(clippy::disallowed_methods, reason = "joined by the transcript, or aborted when it is dropped")]
    pub(super) fn start(
        service: Arc<Service>,
        settings: Settings,
        spool: Option<(Opened, Repeatability)>,
        input: Input,
    ) -> Transcript {
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let stop = CancellationToken::new();
        let state = if spool.is_some() { SpoolState::Resumable } else { SpoolState::Absent };
        let session = tokio::spawn(run(service, settings, spool, input, sender, stop.clone()));
        let session = Some(AbortOnDropHandle::new(session));
        Transcript { events, ledger: Ledger::default(), session, spool: state, stop }
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

    /// Ends the audio at what the session has taken so far, for a user who interrupts it. The transcript
    /// continues until that audio is final, and is complete then: its spool may be
    /// [removed](Transcript::remove_spool). An error of the source is not reported any more.
    ///
    /// Live audio that was pushed and not yet taken is lost; [`LiveAudio::finish`](super::LiveAudio::finish)
    /// ends it without loss.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Returns whether a later process can continue the transcript: it has a spool, and did not end with all
    /// of its audio.
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        matches!(self.spool, SpoolState::Resumable)
    }

    /// Deletes the spool, once the transcript has ended and the caller has stored it. Does nothing if there
    /// is none, or if the transcript is [not complete](Transcript::is_resumable): a later process then
    /// continues it. A spool of a complete transcript that is not deleted repeats the transcript in a later
    /// process.
    ///
    /// # Errors
    /// Returns [`SpoolError::Io`] if the file can't be deleted.
    pub fn remove_spool(&mut self) -> Result<(), SpoolError> {
        if let SpoolState::Complete(spool) = &self.spool {
            spool.delete()?;
            self.spool = SpoolState::Absent;
        }
        Ok(())
    }

    /// Returns whether the transcript is complete, and has a spool.
    #[cfg(feature = "decode")]
    pub(super) fn has_complete_spool(&self) -> bool {
        matches!(self.spool, SpoolState::Complete(_))
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
            Ok(Outcome { ledger, error, spool }) => {
                (self.ledger, self.spool) = (ledger, spool);
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

/// Runs a session to its end. After a session that took all audio, the error is that of its source, if any.
async fn run(
    service: Arc<Service>,
    settings: Settings,
    spool: Option<(Opened, Repeatability)>,
    input: Input,
    events: mpsc::Sender<TranscriptEvent>,
    stop: CancellationToken,
) -> Outcome {
    let Service { connector, tokens, .. } = &*service;
    let (feed, audio) = mpsc::channel(1);
    let reading_error = input.reading_error();
    let session = Session::new(connector, tokens, settings);
    let session = async {
        match spool {
            Some((opened, source)) => opened.run(session, source, audio, events).await,
            None => {
                let Ended { ledger, result } = session.run(audio, events).await;
                SpooledEnd { ledger, result: result.map_err(SpooledError::from), spool: None, complete: true }
            }
        }
    };
    let mut audio_end = None;
    let feeding = async {
        let end = input.carry(&feed, &stop).await;
        audio_end = Some(end);
        if end.is_complete {
            // A session that has ended takes no more.
            let _ = feed.send(Feed::End).await;
        }
        drop(feed);
        pending::<Infallible>().await
    };
    let SpooledEnd { ledger, result, spool, complete } = tokio::select! {
        ended = session => ended,
        never = feeding => match never {},
    };
    let stopped = audio_end.is_some_and(|end| end.stopped);
    let has_all = result.is_ok() && (complete || stopped);
    let error = match (result, audio_end) {
        (Ok(()), Some(AudioEnd { stopped: false, .. })) => reading_error.await,
        // A source that was not read to its end is not waited for, since it may block for ever.
        (Ok(()), _) => None,
        (Err(error), _) => Some(error.into()),
    };
    Outcome { ledger, error, spool: SpoolState::at_end(spool, has_all) }
}
