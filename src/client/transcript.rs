//! The events of a running transcription.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::reading::Reading;
use super::{Service, TranscriptError};
use crate::audio::{Feed, FramePos};
use crate::session::{self, Ended, Ledger, Settings};
use crate::spool::{self, Opened, Repeatability, Spool, SpoolError, SpooledEnd};
use crate::transcript::{Merge, TranscriptEvent};

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
    /// Starts a session that takes `audio` from the reading of a source, through a spool if there is one.
    #[expect(clippy::disallowed_methods, reason = "joined by the transcript, or aborted when it is dropped")]
    pub(super) fn start(
        service: Arc<Service>,
        settings: Settings,
        spool: Option<(Opened, Repeatability)>,
        audio: mpsc::Receiver<Feed>,
        reading: Reading,
    ) -> Transcript {
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let session = tokio::spawn(async move {
            let Service { connector, tokens, .. } = &*service;
            let (ledger, result, spool) = match spool {
                Some((opened, source)) => {
                    let SpooledEnd { ledger, result, spool, whole } =
                        spool::run(connector, tokens, settings, opened, source, audio, sender).await;
                    (ledger, result.map_err(TranscriptError::from), spool.filter(|_| whole))
                }
                None => {
                    let Ended { ledger, result } =
                        session::run(connector, tokens, settings, audio, sender).await;
                    (ledger, result.map_err(TranscriptError::from), None)
                }
            };
            match result {
                Ok(()) => (ledger, reading.error().await, spool),
                // The worker is not joined: its source may block for ever.
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

    /// Deletes the spool, once the transcript has ended and the caller has stored it. Does nothing if there is
    /// none, or if the transcript is not complete: a later process then continues it. A spool of a complete
    /// transcript that is not deleted repeats the transcript in a later process.
    ///
    /// # Errors
    /// Returns [`SpoolError::Io`] if the file can't be deleted.
    pub fn remove_spool(&mut self) -> Result<(), SpoolError> {
        self.spool.take().map_or(Ok(()), Spool::remove)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<TranscriptEvent, TranscriptError>>> {
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
                self.spool = spool.filter(|_| error.is_none());
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

/// An event of a transcript with several channels, and the index of its channel, from 0.
pub type ChannelEvent = Result<(usize, TranscriptEvent), TranscriptError>;

/// The transcripts of several channels, merged by time: a stream of events, each with the index of its
/// channel, from 0. A final segment is delivered once no other channel can have an earlier one, and the end
/// of a channel after the last segment of all channels; other events are delivered at once.
#[derive(Debug)]
pub struct ChannelTranscript {
    channels: Vec<Transcript>,
    /// Channels that have not ended, the one polled last at the end.
    open: Vec<usize>,
    merge: Merge,
    /// Merged events to deliver.
    ready: VecDeque<(usize, TranscriptEvent)>,
    /// [`TranscriptEvent::End`] of channels, to deliver after all other events.
    ends: VecDeque<(usize, TranscriptEvent)>,
}

impl ChannelTranscript {
    pub(super) fn new(channels: Vec<Transcript>) -> ChannelTranscript {
        let (open, merge) = ((0..channels.len()).collect(), Merge::new(channels.len()));
        ChannelTranscript { channels, open, merge, ready: VecDeque::new(), ends: VecDeque::new() }
    }

    /// Returns the next event and its channel, or `None` after the last one. Cancel safe: dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// Returns [`TranscriptError`] if the session of a channel failed; the other channels go on. An error of
    /// the source is returned once, when the first channel has ended.
    pub async fn next(&mut self) -> Option<ChannelEvent> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Returns the [ledger](Transcript::ledger) of each channel.
    #[must_use]
    pub fn ledgers(&self) -> Vec<Ledger> {
        self.channels.iter().map(Transcript::ledger).collect()
    }

    /// Deletes the spools, once the transcripts of all channels have ended and the caller has stored them. Does
    /// nothing unless all are complete; see [`Transcript::remove_spool`].
    ///
    /// # Errors
    /// Returns [`SpoolError::Io`] if a file can't be deleted.
    pub fn remove_spools(&mut self) -> Result<(), SpoolError> {
        if self.channels.iter().any(|channel| channel.spool.is_none()) {
            return Ok(());
        }
        self.channels.iter_mut().try_for_each(Transcript::remove_spool)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<ChannelEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.open.is_empty() {
                return Poll::Ready(self.ends.pop_front().map(Ok));
            }
            let mut news = None;
            for (place, channel) in self.open.iter().copied().enumerate() {
                if let Poll::Ready(event) = self.channels[channel].poll_event(cx) {
                    news = Some((place, channel, event));
                    break;
                }
            }
            let Some((place, channel, event)) = news else { return Poll::Pending };
            // The other channels are polled first next time.
            self.open.rotate_left(place + 1);
            let event = match event {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                // Segments of this channel may still wait for those of another.
                Some(Ok(end @ TranscriptEvent::End { .. })) => {
                    self.ends.push_back((channel, end));
                    continue;
                }
                Some(Ok(event)) => Some(event),
                None => {
                    self.open.pop();
                    None
                }
            };
            self.ready.extend(self.merge.push(channel, event));
        }
    }
}

impl Stream for ChannelTranscript {
    type Item = ChannelEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(cx)
    }
}
