//! One channel stream of a recording: carries its audio to a session, optionally through a spool, and the
//! session's events to the transcript.

use tokio::sync::mpsc;

use super::job::{Job, Verdict};
use crate::exit_code::{CliError, Exit};
use crate::progress::Progress;
use voxline::audio::{Feed, FramePos};
use voxline::pace::Pacer;
use voxline::session::{Ended, Ledger, Session, Settings};
use voxline::spool::{Opened, Repeatability, Spool, SpooledEnd};
use voxline::transcript::TranscriptEvent;

/// A channel stream that is ready for its session.
pub(super) struct ChannelStream {
    pub(super) number: usize,
    /// `None` if no more audio is to be read.
    pub(super) audio: Option<mpsc::Receiver<Feed>>,
    pub(super) spool: Option<Opened>,
    /// `true` if the audio continues where the spool ends; `false` if it is read again from its start.
    pub(super) live: bool,
    /// Result of reading the recording, if another run may read more of it.
    pub(super) retry: Option<Verdict>,
}

/// Outcome of a channel stream's session.
pub(super) struct Outcome {
    pub(super) ledger: Ledger,
    pub(super) result: Result<(), CliError>,
    pub(super) spool: Option<Kept>,
}

/// The spool of a session that succeeded.
pub(super) struct Kept {
    pub(super) spool: Spool,
    /// `true` if no later run continues the recording: the session had all of it, or the user ended it.
    pub(super) finished: bool,
}

/// Sender of events: each with its channel stream, and `None` at the end of the stream.
type Transcript = mpsc::Sender<(usize, Option<TranscriptEvent>)>;

impl Job<'_> {
    /// Runs the session of one channel stream.
    pub(super) async fn session(
        &self,
        stream: ChannelStream,
        transcript: Transcript,
        progress: &Progress,
    ) -> Outcome {
        let ChannelStream { number, audio, spool, live, retry } = stream;
        let mut settings = self.settings.clone();
        settings.seed = settings.seed.wrapping_add(number as u64);
        let (feed, session_audio) = mpsc::channel(1);
        let (events, mut session_events) = mpsc::channel(1);
        let from = match &spool {
            Some(opened) if !live => opened.recovered.accepted,
            _ => FramePos::ZERO,
        };
        let session = async {
            match spool {
                Some(opened) => self.spooled(opened, live, settings, session_audio, events).await,
                None => self.unspooled(settings, session_audio, events).await,
            }
        };
        let forwarding = async {
            while let Some(event) = session_events.recv().await {
                let _ = transcript.send((number, Some(event))).await;
            }
        };
        let feeding = self.feed(audio, from, live, retry, feed, progress);
        let (mut outcome, (), interrupted) = tokio::join!(session, forwarding, feeding);
        if let Some(kept) = &mut outcome.spool {
            kept.finished |= interrupted;
        }
        // Without a receiver the output has failed, which ends all sessions.
        let _ = transcript.send((number, None)).await;
        outcome
    }

    /// Feeds the session at the requested pace, from the position at which the session resumes. Returns
    /// whether the user ended the recording.
    async fn feed(
        &self,
        audio: Option<mpsc::Receiver<Feed>>,
        from: FramePos,
        live: bool,
        retry: Option<Verdict>,
        feed: mpsc::Sender<Feed>,
        progress: &Progress,
    ) -> bool {
        let Some(mut audio) = audio else { return false };
        let pacer = Pacer::new(self.pace, self.settings.sample_rate).starting_at(from);
        let is_complete = async {
            pacer.carry(&mut audio, &feed).await
                // After a failed download this is the end of the audio read so far, not of the recording.
                && match retry {
                    Some(verdict) => verdict.await.is_ok(),
                    None => true,
                }
        };
        let (is_complete, interrupted) = tokio::select! {
            is_complete = is_complete => (is_complete, false),
            () = self.interrupted.cancelled() => {
                // Speech up to this point is still recognised.
                progress.interrupted();
                // If this run stops before that is done, another run can read the rest of a recording that is
                // not live. A spool with the end would tell that run that there is no rest.
                (live, true)
            }
        };
        // Without the end, the closed channel tells the session that there is no more audio.
        if is_complete {
            let _ = feed.send(Feed::End).await;
        }
        interrupted
    }

    async fn unspooled(
        &self,
        settings: Settings,
        audio: mpsc::Receiver<Feed>,
        events: mpsc::Sender<TranscriptEvent>,
    ) -> Outcome {
        let Job { connector, connection, .. } = self;
        let session = Session::new(connector, &connection.tokens, settings);
        let Ended { ledger, result } = session.run(audio, events).await;
        Outcome { ledger, result: result.map_err(CliError::from), spool: None }
    }

    /// Repeats the events that an earlier process recorded, and resumes the session from there.
    async fn spooled(
        &self,
        opened: Opened,
        live: bool,
        settings: Settings,
        audio: mpsc::Receiver<Feed>,
        events: mpsc::Sender<TranscriptEvent>,
    ) -> Outcome {
        let source = if live { Repeatability::Live } else { Repeatability::Repeatable };
        let path = opened.spool.path().to_owned();
        let Job { connector, connection, .. } = self;
        let session = Session::new(connector, &connection.tokens, settings);
        let ended = opened.run(session, source, audio, events).await;
        let SpooledEnd { ledger, result, spool, complete } = ended;
        let result = result.map_err(CliError::from).map_err(|error| match error.exit {
            Exit::Output => error.with("; run the same command again to continue"),
            Exit::Peer | Exit::Limit | Exit::Authentication => {
                let path = path.display();
                error.with(&format!("; the rest is in {path}: run the same command again to continue"))
            }
            _ => error,
        });
        Outcome { ledger, result, spool: spool.map(|spool| Kept { spool, finished: complete }) }
    }
}
