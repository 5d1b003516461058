//! A session as the gateway holds it: what was received, what is final, and the recogniser at work between the two.
//!
//! A session outlives its sockets. Sockets bring audio and take results; the recogniser has its turns on the threads of the
//! [`Scheduler`], takes its work from the [`Board`] and posts there what it has, for whichever socket has the session.

#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::authority::{Exhausted, Identity, RESUME_PREFIX, random_secret};
use super::board::{Board, State};
use super::error::new_id;
use super::limit::{CONTROL_BURST, CONTROL_RATE};
use super::scheduler::{self, Rank, Scheduler, Ticket};
use super::worker::Worker;
use voxline::audio::{AudioChunk, FramePos};
use voxline::engine::{EngineError, RECOGNIZER_RATE, Recognizer, StreamOptions};
use voxline::session::protocol::{Latency, MAX_CONTEXT_BYTES, Secret, Start};

/// How far `sent` may run ahead of `received`, in seconds of audio.
const WINDOW_SECONDS: u64 = 30;
/// How much unrecognised audio a session takes before it holds back acknowledgements, in seconds: more than the longest
/// utterance, or the two would wait for each other.
const HOLD_SECONDS: u64 = 60;
/// The least audio between two flushes that count, in milliseconds.
const FLUSH_MILLISECONDS: u64 = 20;
/// How many gaps with audio between them may wait for the recogniser: each makes it begin anew, and costs memory that
/// no window of audio bounds.
const MAX_GAPS: usize = 32;
/// More audio than a resampler holds back at any rate, in milliseconds.
const RESAMPLING_MILLISECONDS: u64 = 250;
/// The sample rates a session may have: telephony to studio.
const SAMPLE_RATES: std::ops::RangeInclusive<u32> = 8_000..=48_000;

/// How far into its timeline a session may start, or a gap may lead, in frames: what follows can then be added without
/// overflow. At 48 kHz it takes three million years to get here.
const FARTHEST: FramePos = FramePos(u64::MAX / 4);

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
    #[error("no thread to recognise on: {0}")]
    Thread(#[from] io::Error),
}

/// Why a session takes nothing from a socket.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// What an old socket says is no longer heard.
    #[error("another socket has the session")]
    Moved,
    #[error("more than {CONTROL_RATE} control messages a second")]
    Flood,
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The token has no audio left.
    #[error(transparent)]
    Exhausted(#[from] Exhausted),
}

/// Why a session can't be given to a socket.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum AttachError {
    #[error("the session is over")]
    Over,
    #[error(transparent)]
    Violation(#[from] Violation),
}

/// A session in the hands of a socket, and how it stood at that moment.
#[derive(Debug)]
pub(super) struct Attached {
    /// The socket's number; a later one has a higher number.
    pub(super) attachment: u64,
    pub(super) finals_seen: usize,
    /// As told to the client: see [`Session::acknowledged`].
    pub(super) received: FramePos,
    pub(super) final_: FramePos,
    pub(super) finals: u64,
}

/// A live session.
pub(super) struct Session {
    name: String,
    resume_key: SecretString,
    /// The project's id: any of its tokens may go on with the session.
    project: String,
    /// The holder of the token that opened it.
    holder: String,
    sample_rate: u32,
    max_unfinal: Option<u64>,
    /// Control messages are counted from here on.
    opened: Instant,
    board: Arc<Board>,
    /// The recogniser's.
    ticket: Ticket,
}

impl Session {
    /// Opens a session for whose token it is and starts its recogniser, in the language that `options` say.
    pub(super) fn start(
        recognizer: &Arc<dyn Recognizer>,
        scheduler: &Scheduler,
        identity: &Identity,
        start: &Start,
        options: StreamOptions,
    ) -> Result<Session, StartError> {
        let sample_rate = start.sample_rate;
        if !SAMPLE_RATES.contains(&sample_rate) {
            let (low, high) = SAMPLE_RATES.into_inner();
            let reason = format!("sample_rate {sample_rate} is not between {low} and {high}");
            return Err(StartError::Unsupported(reason));
        }
        if start.origin > FARTHEST {
            return Err(Violation(format!("origin {} is over {FARTHEST}", start.origin)).into());
        }
        let context = start.context.as_ref().map_or(0, String::len);
        if context > MAX_CONTEXT_BYTES {
            let reason = format!("context of {context} bytes, the limit is {MAX_CONTEXT_BYTES}");
            return Err(Violation(reason).into());
        }
        let board = Arc::new(Board::new(start.origin));
        let options = StreamOptions { context: start.context.clone(), ..options };
        let worker = Worker::new(
            recognizer.clone(),
            options,
            sample_rate,
            start.partials,
            start.origin,
            board.clone(),
            scheduler.metrics().clone(),
        );
        let worker = worker.map_err(|error| match error {
            EngineError::Language(_) => StartError::Unsupported(error.to_string()),
            error => StartError::Engine(error),
        })?;
        let rank = match start.latency {
            Latency::Live => Rank::Live,
            Latency::Relaxed => Rank::Recording,
        };
        let ticket = scheduler.add(rank, Box::new(worker))?;
        let max_unfinal = recognizer.longest_pending().map(|frames| {
            if sample_rate == RECOGNIZER_RATE {
                return frames;
            }
            // Rounded up, and what a resampler holds besides.
            (frames * u64::from(sample_rate)).div_ceil(u64::from(RECOGNIZER_RATE))
                + u64::from(sample_rate) * RESAMPLING_MILLISECONDS / 1_000
        });
        Ok(Session {
            name: new_id(),
            resume_key: random_secret(RESUME_PREFIX),
            project: identity.project.clone(),
            holder: identity.holder.clone(),
            sample_rate,
            max_unfinal,
            opened: scheduler::now(),
            board,
            ticket,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The most audio behind `final` that the recogniser may hold while it waits for more, in the session's
    /// frames.
    pub(super) fn max_unfinal(&self) -> Option<u64> {
        self.max_unfinal
    }

    pub(super) fn resume_key(&self) -> Secret {
        Secret::from(self.resume_key.expose_secret().to_owned())
    }

    pub(super) fn project(&self) -> &str {
        &self.project
    }

    pub(super) fn holder(&self) -> &str {
        &self.holder
    }

    pub(super) fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// Whether somebody of `project` showed the key of this session.
    pub(super) fn admits(&self, project: &str, key: &Secret) -> bool {
        let key_fits = self.resume_key.expose_secret().as_bytes().ct_eq(key.expose().as_bytes());
        self.project == project && bool::from(key_fits)
    }

    /// How far `sent` may run ahead of `received`, in frames.
    pub(super) fn window(&self) -> u64 {
        WINDOW_SECONDS * u64::from(self.sample_rate)
    }

    /// What a client may know, and when it changes.
    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// Gives the session to a new socket, whose client has `finals_seen` finals, and tells how it stands: in one step,
    /// so that nothing which the old socket brings can come between what is told and what is taken.
    pub(super) fn attach(&self, finals_seen: u64) -> Result<Attached, AttachError> {
        self.board.post(|state| {
            if state.over {
                return Err(AttachError::Over);
            }
            let finals = state.finals.len();
            let seen = usize::try_from(finals_seen).ok().filter(|seen| *seen <= finals);
            let finals_seen =
                seen.ok_or_else(|| Violation(format!("finals_seen {finals_seen}, but there are {finals}")))?;
            state.attachment += 1;
            Ok(Attached {
                attachment: state.attachment,
                finals_seen,
                received: self.acknowledged(state),
                final_: state.final_,
                finals: finals as u64,
            })
        })
    }

    /// Whether the socket of this number still has the session.
    pub(super) fn is_held_by(&self, attachment: u64) -> bool {
        self.board.lock().attachment == attachment
    }

    /// Ends the session, unless a newer socket has it. Whether it did.
    pub(super) fn end(&self, attachment: u64) -> bool {
        let mut state = self.board.lock();
        let held = state.attachment == attachment;
        if held {
            state.over = true;
            self.ticket.wake();
        }
        held
    }

    /// How far the client is told its audio has arrived: all of it, unless recognition is far behind. Gaps take no
    /// time to recognise and count for nothing.
    pub(super) fn acknowledged(&self, state: &State) -> FramePos {
        let mut hold = HOLD_SECONDS * u64::from(self.sample_rate);
        let mut end = state.final_;
        for (index, gap) in state.gaps.iter().enumerate() {
            let audio = gap.start - end;
            // A client that hears nothing of its gap sends no audio, so there will be no further gap.
            if audio > hold || index + 1 == MAX_GAPS {
                return end + audio.min(hold);
            }
            hold -= audio;
            end = gap.end;
        }
        state.received.min(end + hold)
    }

    /// Counts a message other than audio. The limit is the session's: another socket brings no other.
    pub(super) fn control(&self, attachment: u64) -> Result<(), Refusal> {
        let mut state = self.held(attachment)?;
        self.count_control(&mut state)
    }

    /// Counts an attempt to take the session over, before it is one: while a second of messages is left, so
    /// that a client that was cut for too many and comes back is heard, too.
    pub(super) fn count_resume(&self) -> Result<(), Refusal> {
        let mut state = self.board.lock();
        if !state.control.leaves(CONTROL_RATE, self.age()) {
            return Err(Refusal::Flood);
        }
        self.count_control(&mut state)
    }

    fn count_control(&self, state: &mut State) -> Result<(), Refusal> {
        if state.control.allows(self.age()) { Ok(()) } else { Err(Refusal::Flood) }
    }

    fn age(&self) -> Duration {
        scheduler::now().saturating_duration_since(self.opened)
    }

    /// Takes audio that `charge` allows, which is told its milliseconds. What was received before is skipped, so that a
    /// replay may overlap, and is not charged again.
    pub(super) fn audio(
        &self,
        attachment: u64,
        chunk: &AudioChunk,
        charge: impl FnOnce(u64) -> Result<(), Exhausted>,
    ) -> Result<(), Refusal> {
        let range = chunk.range();
        let mut state = self.held(attachment)?;
        if range.start > state.received {
            return violation(format!("audio {range} leaves a hole after {}", state.received));
        }
        let Some(news) = chunk.from(state.received) else { return Ok(()) };
        if state.finish.is_some() {
            return violation(format!("audio {range} came after finish"));
        }
        let acknowledged = self.acknowledged(&state);
        if range.end - acknowledged > self.window() {
            let window = self.window();
            return violation(format!("audio {range} is over the window of {window} from {acknowledged}"));
        }
        let heard = state.heard + (range.end - state.received);
        // From the sums, so that the roundings don't add up.
        charge(self.milliseconds(heard) - self.milliseconds(state.heard))?;
        state.heard = heard;
        state.received = range.end;
        state.queue.push_audio(news.payload());
        state.arrivals.note(range.end, scheduler::now());
        self.ticket.wake();
        Ok(())
    }

    /// Moves the timeline on: `from..to` was never sent. What was received before is skipped, as with audio.
    pub(super) fn gap(&self, attachment: u64, from: FramePos, to: FramePos) -> Result<(), Refusal> {
        let mut state = self.held(attachment)?;
        let received = state.received;
        if from > to {
            return violation(format!("gap {from}..{to} ends before it starts"));
        }
        if from > received {
            return violation(format!("gap {from}..{to} leaves a hole after {received}"));
        }
        if to <= received {
            return Ok(());
        }
        if state.finish.is_some() {
            return violation(format!("gap {from}..{to} came after finish"));
        }
        if to > FARTHEST {
            return violation(format!("gap {from}..{to} ends over {FARTHEST}"));
        }
        let ends_utterance = received > state.flushed;
        if ends_utterance && !self.may_cut(&mut state) {
            let reason = format!(
                "gap {from}..{to}: more than {CONTROL_RATE} utterances in a second of audio were ended by the client, \
                 after {CONTROL_BURST}"
            );
            return violation(reason);
        }
        if state.queue.ends_with_gap() {
            state.gaps.back_mut().expect("the board has a gap for each in the queue").end = to;
        } else if state.gaps.len() < MAX_GAPS {
            state.gaps.push_back(received.to(to));
        } else {
            return violation(format!("gap {from}..{to} came before {received} was acknowledged"));
        }
        state.queue.push_gap(to);
        state.received = to;
        // The gap ends the utterance.
        state.flushed = to;
        self.ticket.wake();
        Ok(())
    }

    /// Ends the utterance, behind the frame before `at`. What goes on after that was flushed before, on another socket.
    pub(super) fn flush(&self, attachment: u64, at: Option<FramePos>) -> Result<(), Refusal> {
        let mut state = self.held(attachment)?;
        if at.is_some_and(|at| at < state.received) {
            return Ok(());
        }
        // Not again for next to nothing: each makes a final, and a client could pile them up.
        let least = u64::from(self.sample_rate) * FLUSH_MILLISECONDS / 1_000;
        if state.received - state.flushed >= least && self.may_cut(&mut state) {
            state.flushed = state.received;
            state.queue.push_flush();
            self.ticket.wake();
        }
        Ok(())
    }

    /// Returns whether the client may end one more utterance: finals are bounded by the audio, so that who
    /// sends none makes none.
    fn may_cut(&self, state: &mut State) -> bool {
        let rate = u64::from(self.sample_rate);
        let nanoseconds = state.heard % rate * 1_000_000_000 / rate;
        state.cuts.allows(Duration::from_secs(state.heard / rate) + Duration::from_nanos(nanoseconds))
    }

    /// Takes note of the end. May be said again after a resume.
    pub(super) fn finish(&self, attachment: u64, through: FramePos) -> Result<(), Refusal> {
        let mut state = self.held(attachment)?;
        if through != state.received {
            let received = state.received;
            return violation(format!("finish through {through}, but {received} frames were received"));
        }
        self.finish_at(&mut state, through);
        Ok(())
    }

    /// Ends the audio where it is, whoever has the session.
    pub(super) fn close(&self) {
        let mut state = self.board.lock();
        let received = state.received;
        self.finish_at(&mut state, received);
    }

    fn finish_at(&self, state: &mut State, through: FramePos) {
        if state.finish.replace(through).is_none() {
            state.queue.push_finish();
            self.ticket.wake();
        }
    }

    /// How long the audio is that was received and isn't final.
    pub(super) fn waiting(&self) -> Duration {
        let state = self.board.lock();
        let gaps: u64 = state.gaps.iter().map(|gap| gap.len()).sum();
        Duration::from_millis(self.milliseconds(state.received - state.final_ - gaps))
    }

    fn milliseconds(&self, frames: u64) -> u64 {
        frames.saturating_mul(1000) / u64::from(self.sample_rate)
    }

    /// The state, for the socket that has the session.
    fn held(&self, attachment: u64) -> Result<MutexGuard<'_, State>, Refusal> {
        let state = self.board.lock();
        match state.attachment == attachment {
            true => Ok(state),
            false => Err(Refusal::Moved),
        }
    }
}

fn violation(reason: String) -> Result<(), Refusal> {
    Err(Violation(reason).into())
}
