//! A session whose audio goes through a spool, and which a later process can resume.

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::{Opened, Reader, Spool, SpoolError, Writer};
use crate::audio::{Feed, FramePos};
use crate::peer::Connect;
use crate::session::{Checkpoint, Ended, Ledger, Overflow, Session, SessionError};
use crate::transcript::TranscriptEvent;

/// Number of feeds that may wait for the disk.
const WAITING_FOR_DISK: usize = 16;
/// Longest read-ahead of a recording before its session, in seconds. The spool belongs to the session, and
/// should not become a copy of the recording.
const AHEAD_SECONDS: u64 = 10;

/// Behaviour of a source in a later process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeatability {
    /// The source starts again from frame 0, such as a file; frames that the spool has are skipped. The
    /// spool stays a few seconds ahead of the session.
    Repeatable,
    /// Audio is there once, such as that of a microphone; it continues where the spool ends. The source
    /// waits for the disk only.
    Live,
}

/// The result of a session with a spool.
#[derive(Debug)]
#[must_use]
pub struct SpooledEnd {
    /// Account of every frame, those of earlier processes included.
    pub ledger: Ledger,
    /// Reason of an early end, if the session or its spool failed.
    pub result: Result<(), SpooledError>,
    /// The spool, to be [removed](Spool::remove) once the transcript is complete and stored. `None` if the
    /// service supports no session with these settings: the spool, which would stand in the way of other
    /// settings, is deleted then.
    pub spool: Option<Spool>,
    /// `true` if the session had all audio, up to the end of the source.
    pub complete: bool,
}

/// Reason why a session with a spool ended early. A later process can resume it, unless the error is
/// [`SessionError::Unsupported`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SpooledError {
    /// The session failed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The spool can't be written or read. The session was broken off in the middle.
    #[error(transparent)]
    Spool(#[from] SpoolError),
}

impl Opened {
    /// Runs a session to its end, or to where a later process resumes it. Emits the events that earlier
    /// processes recorded, and then those of [`Session::run`]. The spool is the checkpoint and the journal of
    /// the session, in place of any that the session has; the disk is its buffer, so the session drops
    /// nothing, whatever its [overflow](Overflow) policy.
    ///
    /// `audio` is written to the spool, and read from there by the session. If the channel closes without
    /// [`Feed::End`], the session ends at the last frame it delivered, and a later process may continue with
    /// more audio. For a spool that [has all audio](super::Recovered::ended), the channel is not read.
    pub async fn run<C: Connect>(
        self,
        mut session: Session<'_, C>,
        source: Repeatability,
        audio: mpsc::Receiver<Feed>,
        events: mpsc::Sender<TranscriptEvent>,
    ) -> SpooledEnd {
        session.settings.replay.overflow = Overflow::Block;
        let Opened { spool, writer, reader, mut log, mut recovered } = self;
        let recorded = std::mem::take(&mut recovered.events);
        let mut ledger = recovered.ledger();
        if recovered.done {
            repeat(recorded, &events).await;
            return SpooledEnd { ledger, result: Ok(()), spool: Some(spool), complete: true };
        }
        let checkpoint = std::mem::take(&mut recovered.checkpoint);
        let (handed_over, progress) = watch::channel(HandedOver::by(&checkpoint));
        let ahead = AHEAD_SECONDS * u64::from(session.settings.sample_rate);
        let repeating = Repeating { from: recovered.accepted, ahead, progress: progress.clone() };
        let (feed, session_audio) = mpsc::channel(1);
        let (sender, session_events) = mpsc::channel(1);
        let session = session.resume(checkpoint).journal(&mut log).run(session_audio, sender);
        let storing = async {
            match source {
                _ if recovered.ended => Ok(()),
                Repeatability::Live => store(audio, writer.live(), None).await,
                Repeatability::Repeatable => store(audio, writer, Some(repeating)).await,
            }
        };
        let forwarding = forward(recorded, session_events, &events, &mut ledger);
        let ended = tokio::select! {
            // Hand over the spooled audio before the session connects: a service that has received all of it
            // reports the end as soon as it answers, and by then the session must know that there is no more
            // audio.
            biased;
            error = failure(storing, reader, feed, handed_over) => Err(error),
            (ended, ()) = async { tokio::join!(session, forwarding) } => Ok(ended),
        };
        let handed_over = *progress.borrow();
        match ended {
            Ok(ended) => concluded(ended, spool, source, handed_over),
            // The session is broken off in the middle, so that a later process can resume it at the service.
            Err(error) => SpooledEnd {
                ledger: ledger.broken_off(handed_over.position),
                result: Err(error.into()),
                spool: Some(spool),
                complete: handed_over.ended,
            },
        }
    }
}

/// Stores the audio of the source and hands it over to the session. Returns the error of the spool, and never
/// if there is none.
async fn failure(
    storing: impl Future<Output = Result<(), SpoolError>>,
    reader: Reader,
    feed: mpsc::Sender<Feed>,
    handed_over: watch::Sender<HandedOver>,
) -> SpoolError {
    // invariant: the feed stays open on errors, so that the session doesn't take a full disk for the
    // end of its audio.
    let open = feed.clone();
    match tokio::try_join!(storing, hand_over(reader, feed, handed_over)) {
        Ok(_) => {
            drop(open);
            std::future::pending().await
        }
        Err(error) => error,
    }
}

/// Returns the result of a session that was not broken off. `handed_over` is the audio that it had.
fn concluded(
    Ended { ledger, result }: Ended,
    spool: Spool,
    source: Repeatability,
    handed_over: HandedOver,
) -> SpooledEnd {
    let refused = matches!(result, Err(SessionError::Unsupported { .. })) && ledger.finals == 0;
    let spool = if refused && source == Repeatability::Repeatable {
        // The spool holds nothing that the source doesn't; if it stays, a later process says so.
        let _ = spool.remove();
        None
    } else {
        Some(spool)
    };
    SpooledEnd { ledger, result: result.map_err(SpooledError::from), spool, complete: handed_over.ended }
}

/// Progress of handing audio to the session.
#[derive(Clone, Copy)]
struct HandedOver {
    position: FramePos,
    /// `true` once the session has the end of the audio.
    ended: bool,
}

impl HandedOver {
    /// Returns the progress of a session that resumes from `checkpoint`.
    fn by(checkpoint: &Checkpoint) -> HandedOver {
        let replayed = checkpoint.replay.last().map_or(checkpoint.final_, |chunk| chunk.range().end);
        HandedOver { position: replayed, ended: false }
    }
}

/// Position in a source that starts again, and the session's, which bounds how far it is read.
struct Repeating {
    /// The spool has all frames below.
    from: FramePos,
    /// Number of frames that the spool may be ahead of the session.
    ahead: u64,
    progress: watch::Receiver<HandedOver>,
}

/// Writes the source's audio to the spool, on a blocking thread: the session doesn't wait for a slow disk.
async fn store(
    mut audio: mpsc::Receiver<Feed>,
    writer: Writer,
    mut repeating: Option<Repeating>,
) -> Result<(), SpoolError> {
    let (to_disk, written) = spawn_writer(writer);
    let forwarding = async {
        while let Some(feed) = audio.recv().await {
            if let (Some(Repeating { from, ahead, progress }), Feed::Audio(chunk)) = (&mut repeating, &feed) {
                let range = chunk.range();
                if range.end <= *from {
                    continue;
                }
                let is_near = |session: &HandedOver| range.start.0 <= session.position.0 + *ahead;
                if progress.wait_for(is_near).await.is_err() {
                    return;
                }
            }
            let ended = feed == Feed::End;
            if to_disk.send(feed).await.is_err() || ended {
                return;
            }
        }
    };
    tokio::select! {
        () = forwarding => {}
        // The disk accepts no more.
        () = to_disk.closed() => {}
    }
    drop(to_disk);
    written.await.expect("a writer doesn't panic")
}

/// Starts a thread that writes what is sent to it.
fn spawn_writer(mut writer: Writer) -> (mpsc::Sender<Feed>, JoinHandle<Result<(), SpoolError>>) {
    let (sender, mut feeds) = mpsc::channel(WAITING_FOR_DISK);
    let writing = tokio::task::spawn_blocking(move || {
        while let Some(feed) = feeds.blocking_recv() {
            writer.push(&feed)?;
        }
        Ok(())
    });
    (sender, writing)
}

/// Hands the spooled audio to the session.
async fn hand_over(
    mut spool: Reader,
    session: mpsc::Sender<Feed>,
    progress: watch::Sender<HandedOver>,
) -> Result<(), SpoolError> {
    while let Some(feed) = spool.next().await? {
        let reached = match &feed {
            Feed::Audio(chunk) => Some(chunk.range().end),
            Feed::Gap(range) => Some(range.end),
            Feed::Flush | Feed::End => None,
        };
        let ended = feed == Feed::End;
        if session.send(feed).await.is_err() {
            break;
        }
        progress.send_modify(|session| {
            session.position = reached.unwrap_or(session.position);
            session.ended |= ended;
        });
    }
    Ok(())
}

/// Repeats the events that earlier processes recorded.
async fn repeat(recorded: Vec<TranscriptEvent>, events: &mpsc::Sender<TranscriptEvent>) {
    for event in recorded {
        // Without a receiver the session continues, as it does in `Session::run`.
        let _ = events.send(event).await;
    }
}

/// Repeats the recorded events, forwards the session's, and counts the latter in the ledger.
async fn forward(
    recorded: Vec<TranscriptEvent>,
    mut session_events: mpsc::Receiver<TranscriptEvent>,
    events: &mpsc::Sender<TranscriptEvent>,
    ledger: &mut Ledger,
) {
    repeat(recorded, events).await;
    while let Some(event) = session_events.recv().await {
        ledger.count(&event);
        let _ = events.send(event).await;
    }
}
