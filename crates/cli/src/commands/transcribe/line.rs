//! One channel stream of a recording: carries its audio to a session, optionally through a spool, and the
//! session's events to the transcript.

use std::cell::Cell;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::job::{Job, Verdict};
use crate::exit_code::{CliError, Exit};
use crate::progress::Progress;
use voxline::audio::{Feed, FramePos};
use voxline::pace::Pacer;
use voxline::session::{self, Ended, Ledger, SessionError, Settings};
use voxline::spool::{Opened, Reader, Recovered, Spool, SpoolError, Writer};
use voxline::transcript::TranscriptEvent;

/// Number of chunks that may wait for the disk.
const TO_DISK: usize = 16;
/// Longest read-ahead of a repeatable recording before its session, in seconds. The spool belongs to the
/// session, and should not become a copy of the file.
const AHEAD_SECONDS: u64 = 10;

/// A channel stream that is ready for its session.
pub(super) struct Line {
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
    /// `true` if the session had all of the recording.
    pub(super) whole: bool,
}

/// Receiver of events: each with its channel stream, and `None` at the end of the stream.
type Transcript = mpsc::Sender<(usize, Option<TranscriptEvent>)>;

impl Job<'_> {
    /// Runs the session of one channel stream.
    pub(super) async fn session(&self, line: Line, transcript: Transcript, progress: &Progress) -> Outcome {
        let number = line.number;
        let mut settings = self.settings.clone();
        settings.seed = settings.seed.wrapping_add(number as u64);
        let outcome = match line {
            Line { spool: Some(opened), audio, live, retry, .. } => {
                let source = Source { audio, live, retry };
                self.spooled(opened, source, settings, number, &transcript, progress).await
            }
            Line { audio, .. } => {
                let Ended { ledger, result } =
                    self.unspooled(audio, settings, number, &transcript, progress).await;
                Outcome { ledger, result: result.map_err(CliError::from), spool: None }
            }
        };
        // Without a receiver the output has failed, which ends all sessions.
        let _ = transcript.send((number, None)).await;
        outcome
    }

    async fn unspooled(
        &self,
        audio: Option<mpsc::Receiver<Feed>>,
        settings: Settings,
        line: usize,
        transcript: &Transcript,
        progress: &Progress,
    ) -> Ended {
        let (feed, session_audio) = mpsc::channel(1);
        let (events, told) = mpsc::channel(1);
        let Job { connector, connection, .. } = self;
        let session = session::run(connector, &connection.tokens, settings, session_audio, events);
        let feeding = async move {
            let Some(mut audio) = audio else { return };
            let pacer = Pacer::new(self.pace, self.settings.sample_rate);
            let carrying = async {
                // Without a feed the worker died; the closed channel tells the session.
                while let Some(chunk) = audio.recv().await {
                    pacer.wait(&chunk).await;
                    let end = chunk == Feed::End;
                    if feed.send(chunk).await.is_err() || end {
                        return;
                    }
                }
            };
            tokio::select! {
                () = carrying => {}
                // The session is over: stop, since a silent source could block for ever.
                () = feed.closed() => {}
                () = self.interrupted.cancelled() => self.end(&feed, progress).await,
            }
        };
        let mut account = Ledger::default();
        let (ended, (), ()) = tokio::join!(session, tell(told, line, transcript, &mut account), feeding);
        ended
    }

    /// Ends the audio after the user's interruption: speech up to that point is still recognised.
    async fn end(&self, feed: &mpsc::Sender<Feed>, progress: &Progress) {
        progress.interrupted();
        let _ = feed.send(Feed::End).await;
    }

    /// Repeats the events that an earlier process recorded, and resumes the session from there.
    async fn spooled(
        &self,
        opened: Opened,
        source: Source,
        settings: Settings,
        line: usize,
        transcript: &Transcript,
        progress: &Progress,
    ) -> Outcome {
        let Opened { spool, writer, reader, mut log, mut recovered } = opened;
        for event in std::mem::take(&mut recovered.told) {
            let _ = transcript.send((line, Some(event))).await;
        }
        if recovered.done {
            let ledger = recovered.ledger();
            return Outcome { ledger, result: Ok(()), spool: Some(Kept { spool, whole: true }) };
        }
        let live = source.live;
        let mut account = recovered.ledger();
        let checkpoint = std::mem::take(&mut recovered.checkpoint);
        let handed_over = checkpoint.replay.last().map_or(checkpoint.final_, |chunk| chunk.range().end);
        let (feed, session_audio) = mpsc::channel(1);
        let (events, told) = mpsc::channel(1);
        let Job { connector, connection, .. } = self;
        let session = session::run_journalled(
            connector,
            &connection.tokens,
            settings,
            checkpoint,
            &mut log,
            session_audio,
            events,
        );
        let (reached, seen) = watch::channel(handed_over);
        let heard_end = Cell::new(false);
        let broken = async {
            // invariant: the feed stays open on errors, so that the session doesn't take a full disk for the
            // end of its audio.
            let open = feed.clone();
            let feeding = self.feed(source, writer, &recovered, seen.clone(), progress);
            match tokio::try_join!(feeding, hand_over(reader, feed, reached, &heard_end)) {
                Ok(_) => {
                    drop(open);
                    std::future::pending().await
                }
                Err(error) => error,
            }
        };
        let telling = tell(told, line, transcript, &mut account);
        let ended = tokio::select! {
            // Hand over the spooled audio before the session connects: a service that has received all of it
            // reports the end as soon as it answers, and by then the session must know that there is no more
            // audio.
            biased;
            error = broken => Err(error),
            (ended, ()) = async { tokio::join!(session, telling) } => Ok(ended),
        };
        let (ledger, result) = match ended {
            Ok(Ended { ledger, result: Err(SessionError::Unsupported { reason }) })
                if ledger.finals == 0 && !live =>
            {
                // The request can never succeed, and a changed request would be refused because of the spool.
                let _ = spool.remove();
                return Outcome { ledger, result: Err(CliError::new(Exit::Setup, reason)), spool: None };
            }
            Ok(Ended { ledger, result }) => (ledger, result.map_err(CliError::from)),
            // The session was broken off in the middle, so that a later run can resume it at the service.
            Err(error) => (account.broken_off(*seen.borrow()), Err(CliError::from(error))),
        };
        let path = spool.path().display();
        let result = result.map_err(|error| match error.exit {
            Exit::Output => error.with("; the same command goes on with it"),
            Exit::Peer | Exit::Limit | Exit::Authentication => {
                error.with(&format!("; the rest is in {path}, and the same command goes on with it"))
            }
            _ => error,
        });
        Outcome { ledger, result, spool: Some(Kept { spool, whole: heard_end.get() }) }
    }

    /// Carries audio from the worker to the spool at the requested pace, starting where the spool ends.
    async fn feed(
        &self,
        source: Source,
        writer: Writer,
        recovered: &Recovered,
        seen: watch::Receiver<FramePos>,
        progress: &Progress,
    ) -> Result<(), SpoolError> {
        let Source { audio: Some(mut audio), live, retry } = source else { return Ok(()) };
        if recovered.ended {
            return Ok(());
        }
        let (from, writer) = match live {
            true => (FramePos::ZERO, writer.live()),
            false => (recovered.accepted, writer),
        };
        let (to_disk, written) = keep(writer);
        let carrying = self.carry(&mut audio, &to_disk, from, (!live).then_some(seen), retry);
        tokio::select! {
            () = carrying => {}
            // The disk accepts no more.
            () = to_disk.closed() => {}
            () = self.interrupted.cancelled() => self.end(&to_disk, progress).await,
        }
        drop(to_disk);
        written.await.expect("a writer doesn't panic")
    }

    /// Carries the audio above `from`. If `seen` reports the session's position, reads only a little ahead of
    /// it.
    async fn carry(
        &self,
        audio: &mut mpsc::Receiver<Feed>,
        to_disk: &mpsc::Sender<Feed>,
        from: FramePos,
        mut seen: Option<watch::Receiver<FramePos>>,
        retry: Option<Verdict>,
    ) {
        let sample_rate = self.settings.sample_rate;
        let ahead = AHEAD_SECONDS * u64::from(sample_rate);
        let mut pacer = None;
        while let Some(feed) = audio.recv().await {
            match &feed {
                Feed::Audio(chunk) if chunk.range().end <= from => continue,
                Feed::Audio(chunk) => {
                    let start = chunk.range().start.0;
                    if let Some(seen) = &mut seen
                        && seen.wait_for(|seen| start <= seen.0 + ahead).await.is_err()
                    {
                        return;
                    }
                    let begin = || Pacer::new(self.pace, sample_rate).starting_at(from);
                    pacer.get_or_insert_with(begin).wait(&feed).await;
                }
                Feed::Flush | Feed::Gap(_) => {}
                Feed::End => {
                    // After a failed download this is the end of the audio read so far, not of the recording.
                    if let Some(verdict) = retry
                        && verdict.await.is_err()
                    {
                        return;
                    }
                    let _ = to_disk.send(feed).await;
                    return;
                }
            }
            if to_disk.send(feed).await.is_err() {
                return;
            }
        }
    }
}

/// Source of a channel stream's audio.
struct Source {
    audio: Option<mpsc::Receiver<Feed>>,
    live: bool,
    retry: Option<Verdict>,
}

/// Forwards a session's events to the transcript, and counts them in the ledger.
async fn tell(
    mut told: mpsc::Receiver<TranscriptEvent>,
    line: usize,
    transcript: &Transcript,
    account: &mut Ledger,
) {
    while let Some(event) = told.recv().await {
        account.count(&event);
        let _ = transcript.send((line, Some(event))).await;
    }
}

/// Writes what is sent on a blocking thread, so that the session doesn't wait for a slow disk.
fn keep(mut writer: Writer) -> (mpsc::Sender<Feed>, JoinHandle<Result<(), SpoolError>>) {
    let (sender, mut feeds) = mpsc::channel(TO_DISK);
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(feed) = feeds.blocking_recv() {
            writer.push(&feed)?;
        }
        Ok(())
    });
    (sender, writing)
}

/// Hands the spooled audio to the session, and reports the position reached.
async fn hand_over(
    mut spool: Reader,
    session: mpsc::Sender<Feed>,
    reached: watch::Sender<FramePos>,
    heard_end: &Cell<bool>,
) -> Result<(), SpoolError> {
    while let Some(feed) = spool.next().await? {
        heard_end.set(feed == Feed::End);
        let end = match &feed {
            Feed::Audio(chunk) => Some(chunk.range().end),
            Feed::Gap(range) => Some(range.end),
            Feed::Flush | Feed::End => None,
        };
        if session.send(feed).await.is_err() {
            break;
        }
        if let Some(end) = end {
            reached.send_replace(end);
        }
    }
    Ok(())
}
