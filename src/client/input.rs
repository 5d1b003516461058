//! The audio of a session, on its way from its source.

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::TranscriptError;
#[cfg(feature = "decode")]
use super::reading::Reading;
use crate::audio::Feed;
use crate::pace::Pacer;

/// The audio of a session, from a source that may be stopped.
pub(super) struct Input {
    pub(super) audio: mpsc::Receiver<Feed>,
    pub(super) pacer: Pacer,
    /// `true` if the audio is there once, so that a stop is its end. Other audio is read again by a later
    /// process, if the session fails after the stop.
    pub(super) is_live: bool,
    /// The reading of a source that is decoded.
    #[cfg(feature = "decode")]
    pub(super) reading: Option<Reading>,
    /// `true` if a source that can't be read to its end may be complete in a later process.
    #[cfg(feature = "decode")]
    pub(super) may_be_complete_later: bool,
}

impl Input {
    /// Carries the audio to a session at the requested pace, up to the end of the audio or the stop.
    ///
    /// The channel closes without [`Feed::End`] where a later process may read more of the source: the
    /// session ends there, and its spool can be continued.
    pub(super) async fn carry(self, to: mpsc::Sender<Feed>, stop: CancellationToken) {
        let is_live = self.is_live;
        let is_complete = tokio::select! {
            // After a stop the audio is dropped, so that its source is closed although the session goes on.
            is_complete = self.carry_all(&to) => is_complete,
            () = stop.cancelled() => is_live,
        };
        if is_complete {
            // A session that has ended takes no more.
            let _ = to.send(Feed::End).await;
        }
    }

    /// Carries the audio, and returns whether that is all of it.
    async fn carry_all(mut self, to: &mpsc::Sender<Feed>) -> bool {
        let ended = self.pacer.carry(&mut self.audio, to).await;
        #[cfg(feature = "decode")]
        if let (true, true, Some(reading)) = (ended, self.may_be_complete_later, &self.reading) {
            return reading.is_complete().await;
        }
        ended
    }

    /// Returns what tells the error that ended the reading of the source early, to be awaited once the
    /// session has taken the end of its audio.
    pub(super) fn reading_error(&self) -> impl Future<Output = Option<TranscriptError>> + Send + use<> {
        #[cfg(feature = "decode")]
        let reading = self.reading.clone();
        async move {
            #[cfg(feature = "decode")]
            if let Some(reading) = reading {
                return reading.error().await;
            }
            None
        }
    }
}
