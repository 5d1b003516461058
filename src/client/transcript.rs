//! The events of a running transcription.

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Service, TranscriptError};
use crate::audio::Feed;
use crate::pipeline::{PipelineError, Report, Worker};
use crate::session::{self, Ended, Ledger, Settings};
use crate::transcript::{Merge, TranscriptEvent};

/// Events that may wait for the caller; more of them wait in the session, which replaces partial results.
const WAITING_EVENTS: usize = 16;

/// The transcript of a running session: a stream of events. The last item of a session that failed is an error; what came
/// before it stays true. Dropping it ends the session.
#[derive(Debug)]
pub struct Transcript {
    events: mpsc::Receiver<TranscriptEvent>,
    /// The ledger by what was told so far; that of the session, once it has ended.
    ledger: Ledger,
    stage: Stage,
}

/// What the transcript waits for, once there are no more events.
#[derive(Debug)]
enum Stage {
    /// The end of the session.
    Session(AbortOnDropHandle<Ended>, Option<Reading>),
    /// The end of reading, after a session that ended well.
    Reading(Reading),
    Over,
}

/// The worker thread of the front end, joined.
type Reading = AbortOnDropHandle<Result<Report, PipelineError>>;

impl Transcript {
    /// Starts a session that reads `audio`, which `worker` feeds.
    #[expect(clippy::disallowed_methods, reason = "joined by the transcript, or aborted when it is dropped")]
    pub(super) fn start(
        service: Arc<Service>,
        settings: Settings,
        audio: mpsc::Receiver<Feed>,
        worker: Option<Worker>,
    ) -> Transcript {
        let (sender, events) = mpsc::channel(WAITING_EVENTS);
        let reading = worker.map(|worker| AbortOnDropHandle::new(tokio::task::spawn_blocking(|| worker.join())));
        let session = tokio::spawn(async move {
            session::run(&service.connector, &service.tokens, settings, audio, sender).await
        });
        let stage = Stage::Session(AbortOnDropHandle::new(session), reading);
        Transcript { events, ledger: Ledger::default(), stage }
    }

    /// The next event; `None` after the last one. May be dropped without losing anything.
    ///
    /// # Errors
    /// [`TranscriptError`], as the last item, where the session failed or its source could not be read to the end.
    pub async fn next(&mut self) -> Option<Result<TranscriptEvent, TranscriptError>> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// The account of every frame: complete once the transcript has ended, with an error or without.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        self.ledger
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<TranscriptEvent, TranscriptError>>> {
        if let Some(event) = ready!(self.events.poll_recv(cx)) {
            self.ledger.count(&event);
            return Poll::Ready(Some(Ok(event)));
        }
        loop {
            let error = match &mut self.stage {
                Stage::Over => return Poll::Ready(None),
                Stage::Session(session, reading) => {
                    let ended = ready!(Pin::new(session).poll(cx));
                    let reading = reading.take();
                    self.stage = reading.map_or(Stage::Over, Stage::Reading);
                    match ended {
                        Ok(Ended { ledger, result }) => {
                            self.ledger = ledger;
                            result.err().map(TranscriptError::from)
                        }
                        Err(_) => Some(TranscriptError::Panicked),
                    }
                }
                Stage::Reading(reading) => {
                    let joined = ready!(Pin::new(reading).poll(cx));
                    self.stage = Stage::Over;
                    match joined {
                        Ok(report) => report.err().map(TranscriptError::from),
                        Err(_) => Some(TranscriptError::Panicked),
                    }
                }
            };
            if let Some(error) = error {
                // A source that nobody hears any more may go on for ever.
                self.stage = Stage::Over;
                return Poll::Ready(Some(Err(error)));
            }
        }
    }
}

impl Stream for Transcript {
    type Item = Result<TranscriptEvent, TranscriptError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(cx)
    }
}

/// An event of a transcript with several channels, and the channel that it is of, counted from 0.
pub type ChannelEvent = Result<(usize, TranscriptEvent), TranscriptError>;

/// The transcripts of several channels, merged by time: a stream of events, each with its channel, counted from 0. A final
/// segment is told once no other channel can have an earlier one; partial results are told at once.
#[derive(Debug)]
pub struct ChannelTranscript {
    channels: Vec<Transcript>,
    /// Channels that have not ended.
    open: Vec<usize>,
    merge: Merge,
    ready: VecDeque<(usize, TranscriptEvent)>,
}

impl ChannelTranscript {
    pub(super) fn new(channels: Vec<Transcript>) -> ChannelTranscript {
        let (open, merge) = ((0..channels.len()).collect(), Merge::new(channels.len()));
        ChannelTranscript { channels, open, merge, ready: VecDeque::new() }
    }

    /// The next event and its channel; `None` after the last one. May be dropped without losing anything.
    ///
    /// # Errors
    /// [`TranscriptError`] where a channel's session failed; the other channels go on.
    pub async fn next(&mut self) -> Option<ChannelEvent> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// The ledger of each channel.
    #[must_use]
    pub fn ledgers(&self) -> Vec<Ledger> {
        self.channels.iter().map(Transcript::ledger).collect()
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<ChannelEvent>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.open.is_empty() {
                return Poll::Ready(None);
            }
            let mut news = None;
            for (place, channel) in self.open.iter().copied().enumerate() {
                if let Poll::Ready(event) = self.channels[channel].poll_event(cx) {
                    news = Some((place, channel, event));
                    break;
                }
            }
            let Some((place, channel, event)) = news else { return Poll::Pending };
            // The others are asked first the next time.
            self.open.rotate_left(place + 1);
            let event = match event {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
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
