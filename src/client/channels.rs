//! The events of a running transcription of several channels.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::Stream;

use super::{Transcript, TranscriptError};
use crate::session::Ledger;
use crate::spool::SpoolError;
use crate::transcript::{Merge, TranscriptEvent};

/// An event of a transcript with several channels, and the index of its channel, from 0.
pub type ChannelEvent = Result<(usize, TranscriptEvent), ChannelError>;

/// Reason the transcript of a channel ended before its audio did. The other channels go on.
#[derive(Debug, thiserror::Error)]
#[error("transcript of channel {channel} ended early")]
#[non_exhaustive]
pub struct ChannelError {
    /// Index of the channel, from 0. An error of the source is that of all channels, and has the index of the
    /// channel that ended first.
    pub channel: usize,
    /// Underlying error.
    #[source]
    pub error: TranscriptError,
}

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
    /// `true` once the spools of all channels may be deleted.
    spools_complete: bool,
}

impl ChannelTranscript {
    pub(super) fn new(channels: Vec<Transcript>) -> ChannelTranscript {
        let (open, merge) = ((0..channels.len()).collect(), Merge::new(channels.len()));
        ChannelTranscript {
            channels,
            open,
            merge,
            ready: VecDeque::new(),
            ends: VecDeque::new(),
            spools_complete: false,
        }
    }

    /// Returns the next event and its channel, or `None` after the last one. Cancel safe: dropping the future
    /// loses nothing.
    ///
    /// # Errors
    /// Returns [`ChannelError`] if the session of a channel failed; the other channels continue. An error
    /// of the source is returned once, when the first channel has ended.
    pub async fn next(&mut self) -> Option<ChannelEvent> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Returns the [ledger](Transcript::ledger) of each channel.
    #[must_use]
    pub fn ledgers(&self) -> Vec<Ledger> {
        self.channels.iter().map(Transcript::ledger).collect()
    }

    /// Ends the audio of all channels; see [`Transcript::stop`].
    pub fn stop(&self) {
        self.channels.iter().for_each(Transcript::stop);
    }

    /// Returns whether a later process can continue the transcript of any channel; see
    /// [`Transcript::is_resumable`].
    #[must_use]
    pub fn is_resumable(&self) -> bool {
        self.channels.iter().any(Transcript::is_resumable)
    }

    /// Deletes the spools, once the transcripts of all channels have ended and the caller has stored them.
    /// Does nothing unless all are complete; see [`Transcript::remove_spool`].
    ///
    /// # Errors
    /// Returns [`SpoolError::Io`] if a file can't be deleted.
    pub fn remove_spools(&mut self) -> Result<(), SpoolError> {
        self.spools_complete |= self.channels.iter().all(Transcript::has_complete_spool);
        if !self.spools_complete {
            return Ok(());
        }
        // After an error the next call removes the rest.
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
                Some(Err(error)) => return Poll::Ready(Some(Err(ChannelError { channel, error }))),
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
