//! A session as the gateway holds it: what was received, what is final, and the recogniser at work between the two.
//!
//! A session outlives its sockets. Sockets bring audio and take results; the recogniser runs on a thread of its own
//! and posts what it has on the [`Board`], which both sides read.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{io, thread};

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::sync::watch;

use super::authority::random_secret;
use super::error::qid;
use super::hearing::Hearing;
use crate::audio::{AudioChunk, FramePos, FrameRange};
use crate::engine::{EngineError, Recognizer, Segment, StreamOptions};
use crate::session::protocol::{Final, Secret, Start};

/// How far `sent` may run ahead of `received`, in seconds of audio.
const WINDOW_SECONDS: u64 = 30;
/// How much unrecognised audio a session takes before it holds back acknowledgements, in seconds: more than the longest
/// utterance, or the two would wait for each other.
const HOLD_SECONDS: u64 = 60;
/// The least audio between two flushes that count, in milliseconds.
const FLUSH_MILLISECONDS: u64 = 20;
/// The sample rates a session may have: telephony to studio.
const SAMPLE_RATES: std::ops::RangeInclusive<u32> = 8_000..=48_000;

/// How far into its timeline a session may start, in frames: what follows can then be added without overflow. At
/// 48 kHz it takes three million years to get here.
const FARTHEST_ORIGIN: FramePos = FramePos(u64::MAX / 4);

/// A breach of the protocol by the client, in words for it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Violation(pub(super) String);

/// What a session can't begin for.
#[derive(Debug, thiserror::Error)]
pub(super) enum StartError {
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The client asked for what isn't here.
    #[error("{0}")]
    Unsupported(String),
    #[error(transparent)]
    Engine(EngineError),
    #[error("no thread for the session: {0}")]
    Thread(#[from] io::Error),
}

/// A live session.
pub(super) struct Session {
    name: String,
    resume_key: SecretString,
    client_id: String,
    sample_rate: u32,
    work: Sender<Work>,
    board: Arc<Board>,
}

/// What the recogniser's thread is handed, in order.
enum Work {
    Audio(AudioChunk),
    Flush,
    Finish,
}

impl Session {
    /// Opens a session for `client_id` and starts its recogniser.
    pub(super) fn start(
        recognizer: &dyn Recognizer,
        client_id: &str,
        start: &Start,
    ) -> Result<Session, StartError> {
        if !SAMPLE_RATES.contains(&start.sample_rate) {
            let (low, high) = SAMPLE_RATES.into_inner();
            let reason = format!("sample_rate {} is not between {low} and {high}", start.sample_rate);
            return Err(StartError::Unsupported(reason));
        }
        if start.origin > FARTHEST_ORIGIN {
            return Err(Violation(format!("origin {} is over {FARTHEST_ORIGIN}", start.origin)).into());
        }
        let stream = recognizer.start(&StreamOptions { language: start.language.clone() });
        let stream = stream.map_err(|error| match error {
            EngineError::Language(_) => StartError::Unsupported(error.to_string()),
            error => StartError::Engine(error),
        })?;
        let hearing = Hearing::new(stream, start.sample_rate, start.origin).map_err(StartError::Engine)?;
        let board = Arc::new(Board::new(start.origin));
        let (work, queue) = channel();
        let worker = Worker { hearing, partials: start.partials, board: board.clone(), queue };
        thread::Builder::new().name("recognise".to_owned()).spawn(move || worker.run())?;
        Ok(Session {
            name: qid(),
            resume_key: random_secret(),
            client_id: client_id.to_owned(),
            sample_rate: start.sample_rate,
            work,
            board,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn resume_key(&self) -> Secret {
        Secret::from(self.resume_key.expose_secret().to_owned())
    }

    /// Whether `client_id` showed the key of this session.
    pub(super) fn admits(&self, client_id: &str, key: &Secret) -> bool {
        let key_fits = self.resume_key.expose_secret().as_bytes().ct_eq(key.expose().as_bytes());
        self.client_id == client_id && bool::from(key_fits)
    }

    /// How far `sent` may run ahead of `received`, in frames.
    pub(super) fn window(&self) -> u64 {
        WINDOW_SECONDS * u64::from(self.sample_rate)
    }

    /// What a client may know, and when it changes.
    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// How far the client is told its audio has arrived: all of it, unless recognition is far behind.
    pub(super) fn acknowledged(&self, state: &State) -> FramePos {
        state.received.min(state.final_ + HOLD_SECONDS * u64::from(self.sample_rate))
    }

    /// Takes audio. What was received before is skipped, so that a replay may overlap.
    pub(super) fn audio(&self, chunk: &AudioChunk) -> Result<(), Violation> {
        let range = chunk.range();
        let mut state = self.board.lock();
        if range.start > state.received {
            return Err(Violation(format!("audio {range} leaves a hole after {}", state.received)));
        }
        let Some(news) = chunk.from(state.received) else { return Ok(()) };
        if state.finish.is_some() {
            return Err(Violation(format!("audio {range} came after finish")));
        }
        let acknowledged = self.acknowledged(&state);
        if range.end - acknowledged > self.window() {
            let window = self.window();
            return Err(Violation(format!(
                "audio {range} is over the window of {window} from {acknowledged}"
            )));
        }
        state.received = range.end;
        // A worker that is gone has posted why.
        let _ = self.work.send(Work::Audio(news));
        Ok(())
    }

    /// Ends the utterance.
    pub(super) fn flush(&self) {
        let mut state = self.board.lock();
        // Not again for next to nothing: each makes a final, and a client could pile them up.
        if state.received - state.flushed >= u64::from(self.sample_rate) * FLUSH_MILLISECONDS / 1_000 {
            state.flushed = state.received;
            let _ = self.work.send(Work::Flush);
        }
    }

    /// Takes note of the end. May be said again after a resume.
    pub(super) fn finish(&self, through: FramePos) -> Result<(), Violation> {
        let mut state = self.board.lock();
        if through != state.received {
            let received = state.received;
            return Err(Violation(format!("finish through {through}, but {received} frames were received")));
        }
        if state.finish.replace(through).is_none() {
            let _ = self.work.send(Work::Finish);
        }
        Ok(())
    }
}

/// What is known of a session.
pub(super) struct State {
    /// Audio up to here is held or recognised.
    pub(super) received: FramePos,
    /// Audio up to here is covered by finals.
    pub(super) final_: FramePos,
    /// All finals, since a client may ask for any again.
    pub(super) finals: Vec<Final>,
    /// The guess at the segment that follows them.
    pub(super) partial: Option<Partial>,
    /// Audio up to here was flushed.
    flushed: FramePos,
    /// Where the audio ends, once the client has said so.
    pub(super) finish: Option<FramePos>,
    /// Everything is final.
    pub(super) done: bool,
    /// The recogniser failed; nothing more will come.
    pub(super) failed: bool,
    /// The number of the socket that has the session now.
    pub(super) attachment: u64,
}

/// A guess at the segment after the last final.
#[derive(Clone)]
pub(super) struct Partial {
    pub(super) revision: u64,
    pub(super) range: FrameRange,
    pub(super) text: String,
}

/// Where the recogniser posts and the sockets read.
pub(super) struct Board {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

impl Board {
    fn new(origin: FramePos) -> Board {
        let state = State {
            received: origin,
            final_: origin,
            finals: Vec::new(),
            partial: None,
            flushed: origin,
            finish: None,
            done: false,
            failed: false,
            attachment: 0,
        };
        Board { state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    /// The state, which must not be held across an await.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // The worker's panics happen in the recogniser, outside the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of every change from now on.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Gives the session to a new socket and returns its number; the socket that had it sees the number change.
    pub(super) fn attach(&self) -> u64 {
        self.post(|state| {
            state.attachment += 1;
            state.attachment
        })
    }

    fn post<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }
}

/// The recogniser at work.
struct Worker {
    hearing: Hearing,
    partials: bool,
    board: Arc<Board>,
    queue: Receiver<Work>,
}

impl Worker {
    /// Works until the end of the session, or until nobody holds it any more.
    fn run(mut self) {
        let board = self.board.clone();
        // A recogniser that panics must not leave its client waiting.
        let result = catch_unwind(AssertUnwindSafe(|| self.work()));
        let reason = match result {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "panic".to_owned(),
        };
        tracing::error!(%reason, "recogniser failed");
        board.post(|state| state.failed = true);
    }

    fn work(&mut self) -> Result<(), EngineError> {
        loop {
            let work = match self.queue.try_recv() {
                Ok(work) => work,
                Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => {
                    // Only a recogniser that has caught up has time to guess.
                    if self.partials
                        && let Some(guess) = self.hearing.partial()?
                    {
                        self.post_partial(guess);
                    }
                    match self.queue.recv() {
                        Ok(work) => work,
                        Err(_) => return Ok(()),
                    }
                }
            };
            let (segments, done) = match work {
                Work::Audio(chunk) => (self.hearing.push(&chunk)?, false),
                Work::Flush => (self.hearing.flush()?, false),
                Work::Finish => (self.hearing.finish()?, true),
            };
            self.post_finals(segments, done);
            if done {
                return Ok(());
            }
        }
    }

    fn post_finals(&self, segments: Vec<Segment>, done: bool) {
        if segments.is_empty() && !done {
            return;
        }
        self.board.post(|state| {
            for segment in segments {
                // invariant: finals are contiguous, from the origin on
                debug_assert_eq!(segment.range.start, state.final_);
                state.final_ = segment.range.end;
                state.finals.push(Final {
                    index: state.finals.len() as u64,
                    start: segment.range.start,
                    end: segment.range.end,
                    text: segment.text,
                    language: segment.language,
                    confidence: segment.confidence,
                });
                state.partial = None;
            }
            state.done = done;
        });
    }

    fn post_partial(&self, guess: Segment) {
        self.board.post(|state| {
            let revision = state.partial.as_ref().map_or(0, |partial| partial.revision + 1);
            state.partial = Some(Partial { revision, range: guess.range, text: guess.text });
        });
    }
}
