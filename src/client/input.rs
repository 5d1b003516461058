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

/// The end of the audio that a session was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AudioEnd {
    /// `true` if a stop ended the audio, and not its source.
    pub(super) stopped: bool,
    /// `false` if a later process may read more of the source. The session then ends without [`Feed::End`],
    /// and its spool can be continued.
    pub(super) is_complete: bool,
}

impl Input {
    /// Carries the audio to a session at the requested pace, up to the end of the audio or the stop. After a
    /// stop the audio is dropped, so that its source is closed although the session goes on.
    pub(super) async fn carry(self, to: &mpsc::Sender<Feed>, stop: &CancellationToken) -> AudioEnd {
        let is_live = self.is_live;
        tokio::select! {
            is_complete = self.carry_all(to) => AudioEnd { stopped: false, is_complete },
            () = stop.cancelled() => AudioEnd { stopped: true, is_complete: is_live },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pace::Pace;

    fn input(audio: mpsc::Receiver<Feed>, is_live: bool) -> Input {
        Input {
            audio,
            pacer: Pacer::new(Pace::MAX, 16_000),
            is_live,
            #[cfg(feature = "decode")]
            reading: None,
            #[cfg(feature = "decode")]
            may_be_complete_later: false,
        }
    }

    /// A user who interrupts the recognition of the rest of a broken download does not end the download.
    #[tokio::test]
    async fn a_stop_after_the_end_of_the_audio_did_not_end_it() {
        let stop = CancellationToken::new();
        let (to, _session) = mpsc::channel(1);
        let (feed, audio) = mpsc::channel(1);
        drop(feed);
        let ended = input(audio, false).carry(&to, &stop).await;
        stop.cancel();
        assert_eq!(ended, AudioEnd { stopped: false, is_complete: false });
    }

    #[tokio::test]
    async fn a_stop_is_the_end_of_live_audio_alone() {
        for is_live in [true, false] {
            let stop = CancellationToken::new();
            stop.cancel();
            let (to, _session) = mpsc::channel(1);
            let (_feed, audio) = mpsc::channel(1);
            let ended = input(audio, is_live).carry(&to, &stop).await;
            assert_eq!(ended, AudioEnd { stopped: true, is_complete: is_live });
        }
    }
}
