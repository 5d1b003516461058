//! A session of the gateway: the received audio, the final results, and the recogniser at work between the
//! two.
//!
//! A session outlives its sockets. Sockets bring audio and take results. The recogniser has its turns on
//! the threads of the [`Scheduler`], takes its input from the [`SharedState`] and posts its results there,
//! for the socket that has the session at the time.

mod error;
#[cfg(test)]
mod tests;

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

pub(crate) use self::error::{AttachError, Rejection, StartError, Violation};
use super::message_rate_limiter::{CONTROL_BURST, CONTROL_RATE};
use super::session_job::SessionJob;
use super::state::{SessionState, SharedState};
use crate::authority::{Exhausted, Identity, RESUME_PREFIX, new_id, random_secret};
use crate::scheduler::{self, JobHandle, Priority, Scheduler};
use voxline::audio::{AudioChunk, FramePos};
use voxline::engine::{EngineError, RECOGNIZER_RATE, RecognitionRequest, Recognizer};
use voxline::protocol::{Latency, MAX_CONTEXT_BYTES, Secret, Start, Task, check_hints};

/// Distance that `sent` may run ahead of `received`, in seconds of audio.
const WINDOW_SECONDS: u64 = 30;
/// Unrecognised audio that a session takes before it holds back acknowledgements, in seconds; a batch of the
/// recogniser comes on top. It is more than the longest utterance; otherwise client and recogniser would wait
/// for each other.
const HOLD_SECONDS: u64 = 60;
/// Least audio between two flushes that take effect, in milliseconds.
const FLUSH_MILLISECONDS: u64 = 20;
/// Maximum number of gaps, with audio between them, that may wait for the recogniser. Each gap makes the
/// recogniser begin a new stream, and costs memory that no window of audio bounds.
const MAX_GAPS: usize = 32;
/// Upper bound of the audio that a resampler holds back at any rate, in milliseconds.
const RESAMPLING_MILLISECONDS: u64 = 250;
/// Sample rates that a session may have, in Hz: telephony to studio.
const SAMPLE_RATES: std::ops::RangeInclusive<u32> = 8_000..=48_000;

/// Farthest position at which a session may start or a gap may end, in frames. Lengths can be added to such
/// a position without overflow. At 48 kHz it takes three million years to get there.
const FARTHEST: FramePos = FramePos(u64::MAX / 4);

/// State of a session at the moment when it was attached to a socket.
#[derive(Debug)]
pub(crate) struct Attached {
    /// Number of the socket. A later socket has a higher number.
    pub(crate) attachment: u64,
    pub(crate) finals_seen: usize,
    /// Acknowledged position: see [`Session::acknowledged`].
    pub(crate) received: FramePos,
    pub(crate) final_: FramePos,
    pub(crate) finals: u64,
}

/// A live session.
pub(crate) struct Session {
    name: String,
    resume_key: SecretString,
    /// Id of the project, any of whose tokens may continue the session.
    project: String,
    /// Holder of the token that opened the session.
    holder: String,
    sample_rate: u32,
    task: Task,
    max_unfinal: Option<u64>,
    /// Unrecognised audio before acknowledgements are held back, in frames.
    hold: u64,
    /// Start of the session, and of the clock by which control messages are limited.
    opened: Instant,
    state: Arc<SharedState>,
    /// Handle of the recogniser's job.
    job: JobHandle,
}

/// Checks a client's request for a session.
///
/// # Errors
/// Returns [`StartError`] if the request is not valid or not supported.
fn check(start: &Start) -> Result<(), StartError> {
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
    check_hints(start.prompt.as_deref(), &start.keywords).map_err(|error| Violation(error.to_string()))?;
    Ok(())
}

/// Converts a number of frames that the recogniser holds to the rate of a session. The result is rounded up,
/// and includes the audio that a resampler holds.
fn at_session_rate(frames: u64, sample_rate: u32) -> u64 {
    if sample_rate == RECOGNIZER_RATE {
        return frames;
    }
    (frames * u64::from(sample_rate)).div_ceil(u64::from(RECOGNIZER_RATE))
        + u64::from(sample_rate) * RESAMPLING_MILLISECONDS / 1_000
}

impl Session {
    /// Opens a session for `identity` and starts its recogniser, in the languages of `options`.
    ///
    /// # Errors
    /// Returns [`StartError`] if the client's request is not valid or not supported, or if the recogniser
    /// can't start.
    pub(crate) fn start(
        recognizer: &Arc<dyn Recognizer>,
        scheduler: &Scheduler,
        identity: &Identity,
        start: &Start,
        options: RecognitionRequest,
    ) -> Result<Session, StartError> {
        check(start)?;
        let sample_rate = start.sample_rate;
        let state = Arc::new(SharedState::new(start.origin));
        let mut options = options
            .latency(start.latency)
            .task(start.task)
            .keywords(&start.keywords)
            .accuracy(start.accuracy);
        options.prompt.clone_from(&start.prompt);
        options.context.clone_from(&start.context);
        recognizer
            .capabilities()
            .check(&options)
            .map_err(|error| StartError::Unsupported(error.to_string()))?;
        let longest = recognizer.longest_pending(&options);
        let max_unfinal = longest.map(|frames| at_session_rate(frames, sample_rate));
        let job = SessionJob::new(
            recognizer.clone(),
            options,
            sample_rate,
            start.partials,
            start.origin,
            state.clone(),
            scheduler.metrics().clone(),
        );
        let job = job.map_err(|error| match error {
            EngineError::Unsupported(_) => StartError::Unsupported(error.to_string()),
            error => StartError::Engine(error),
        })?;
        let hold = (HOLD_SECONDS * u64::from(sample_rate)).saturating_add(job.batch_frames());
        let priority = match start.latency {
            Latency::Live => Priority::Live,
            Latency::Relaxed => Priority::Recording,
        };
        let job = scheduler.add(priority, Box::new(job))?;
        Ok(Session {
            name: new_id(),
            resume_key: random_secret(RESUME_PREFIX),
            project: identity.project.clone(),
            holder: identity.holder.clone(),
            sample_rate,
            task: start.task,
            max_unfinal,
            hold,
            opened: scheduler::now(),
            state,
            job,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the most audio after `final` that the recogniser may hold while it waits for more, in the
    /// session's frames.
    pub(crate) fn max_unfinal(&self) -> Option<u64> {
        self.max_unfinal
    }

    pub(crate) fn resume_key(&self) -> Secret {
        Secret::from(self.resume_key.expose_secret().to_owned())
    }

    pub(crate) fn project(&self) -> &str {
        &self.project
    }

    pub(crate) fn holder(&self) -> &str {
        &self.holder
    }

    pub(crate) fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    pub(crate) fn task(&self) -> Task {
        self.task
    }

    /// Returns whether `key` is the resume key of this session and `project` is the project of this
    /// session.
    pub(crate) fn admits(&self, project: &str, key: &Secret) -> bool {
        let key_fits = self.resume_key.expose_secret().as_bytes().ct_eq(key.expose().as_bytes());
        self.project == project && bool::from(key_fits)
    }

    /// Returns the distance that `sent` may run ahead of `received`, in frames.
    pub(crate) fn window(&self) -> u64 {
        WINDOW_SECONDS * u64::from(self.sample_rate)
    }

    /// Returns the shared state of the session.
    pub(crate) fn state(&self) -> &SharedState {
        &self.state
    }

    /// Attaches the session to a new socket, whose client has `finals_seen` finals, and returns the state
    /// of the session. Both happen in one step, so that no message of the old socket can change the state
    /// between them.
    ///
    /// # Errors
    /// Returns [`AttachError`] if the session is over, or has fewer finals than `finals_seen`.
    pub(crate) fn attach(&self, finals_seen: u64) -> Result<Attached, AttachError> {
        self.state.post(|state| {
            if state.over {
                return Err(AttachError::Over);
            }
            let finals = state.results.finals.len();
            let seen = usize::try_from(finals_seen).ok().filter(|seen| *seen <= finals);
            let finals_seen =
                seen.ok_or_else(|| Violation(format!("finals_seen {finals_seen}, but there are {finals}")))?;
            state.attachment += 1;
            Ok(Attached {
                attachment: state.attachment,
                finals_seen,
                received: self.acknowledged(state),
                final_: state.results.final_,
                finals: finals as u64,
            })
        })
    }

    /// Returns whether the socket with this number still has the session.
    pub(crate) fn is_held_by(&self, attachment: u64) -> bool {
        self.state.lock().attachment == attachment
    }

    /// Ends the session, unless a newer socket has it. Returns whether it was ended.
    pub(crate) fn end(&self, attachment: u64) -> bool {
        let mut state = self.state.lock();
        let held = state.attachment == attachment;
        if held {
            state.over = true;
            self.job.wake();
        }
        held
    }

    /// Returns the position up to which audio is acknowledged to the client: all received audio, unless
    /// recognition is far behind. Gaps take no time to recognise and don't count.
    pub(crate) fn acknowledged(&self, state: &SessionState) -> FramePos {
        let mut hold = self.hold;
        let mut end = state.results.final_;
        for (index, gap) in state.input.gaps.iter().enumerate() {
            let audio = gap.start - end;
            // A client whose gap is not acknowledged sends no audio, so no further gap will come.
            if audio > hold || index + 1 == MAX_GAPS {
                return end + audio.min(hold);
            }
            hold -= audio;
            end = gap.end;
        }
        state.input.received.min(end + hold)
    }

    /// Counts a message other than audio. The limit belongs to the session: another socket doesn't bring a
    /// new one.
    pub(crate) fn control(&self, attachment: u64) -> Result<(), Rejection> {
        let mut state = self.held(attachment)?;
        self.count_control(&mut state)
    }

    /// Counts an attempt to resume the session, before the session is attached. An attempt is allowed while
    /// messages for one second are left, so that a client that was closed for too many messages can be
    /// heard when it comes back.
    pub(crate) fn count_resume(&self) -> Result<(), Rejection> {
        let mut state = self.state.lock();
        if !state.message_limiter.leaves(CONTROL_RATE, self.age()) {
            return Err(Rejection::Flood);
        }
        self.count_control(&mut state)
    }

    fn count_control(&self, state: &mut SessionState) -> Result<(), Rejection> {
        if state.message_limiter.allows(self.age()) { Ok(()) } else { Err(Rejection::Flood) }
    }

    fn age(&self) -> Duration {
        scheduler::now().saturating_duration_since(self.opened)
    }

    /// Takes audio that `charge` allows, which is called with the audio's milliseconds. Audio that was
    /// received before is skipped, so that a replay may overlap, and is not charged again.
    pub(crate) fn audio(
        &self,
        attachment: u64,
        chunk: &AudioChunk,
        charge: impl FnOnce(u64) -> Result<(), Exhausted>,
    ) -> Result<(), Rejection> {
        let range = chunk.range();
        let mut state = self.held(attachment)?;
        if range.start > state.input.received {
            return violation(format!("audio {range} leaves a hole after {}", state.input.received));
        }
        let Some(news) = chunk.from(state.input.received) else { return Ok(()) };
        if state.input.finish.is_some() {
            return violation(format!("audio {range} came after finish"));
        }
        let acknowledged = self.acknowledged(&state);
        if range.end - acknowledged > self.window() {
            let window = self.window();
            return violation(format!("audio {range} is over the window of {window} from {acknowledged}"));
        }
        let audio_frames = state.input.audio_frames + (range.end - state.input.received);
        // The difference of the sums, so that rounding errors don't add up.
        charge(self.milliseconds(audio_frames) - self.milliseconds(state.input.audio_frames))?;
        state.input.audio_frames = audio_frames;
        state.input.received = range.end;
        state.input.queue.push_audio(news.payload());
        state.latency_clock.note(range.end, scheduler::now());
        self.job.wake();
        Ok(())
    }

    /// Moves the timeline forward over a gap: `from..to` was never sent. The part that was received before
    /// is skipped, as with audio.
    pub(crate) fn gap(&self, attachment: u64, from: FramePos, to: FramePos) -> Result<(), Rejection> {
        let mut state = self.held(attachment)?;
        let received = state.input.received;
        if from > to {
            return violation(format!("gap {from}..{to} ends before it starts"));
        }
        if from > received {
            return violation(format!("gap {from}..{to} leaves a hole after {received}"));
        }
        if to <= received {
            return Ok(());
        }
        if state.input.finish.is_some() {
            return violation(format!("gap {from}..{to} came after finish"));
        }
        if to > FARTHEST {
            return violation(format!("gap {from}..{to} ends over {FARTHEST}"));
        }
        let ends_utterance = received > state.input.flushed;
        if ends_utterance && !self.may_end_utterance(&mut state) {
            let reason = format!(
                "gap {from}..{to}: more than {CONTROL_RATE} utterances in a second of audio were ended by the client, \
                 after {CONTROL_BURST}"
            );
            return violation(reason);
        }
        if state.input.queue.ends_with_gap() {
            state.input.gaps.back_mut().expect("the state has a gap for each in the queue").end = to;
        } else if state.input.gaps.len() < MAX_GAPS {
            state.input.gaps.push_back(received.to(to));
        } else {
            return violation(format!("gap {from}..{to} came before {received} was acknowledged"));
        }
        state.input.queue.push_gap(to);
        state.input.received = to;
        // The gap ends the utterance.
        state.input.flushed = to;
        self.job.wake();
        Ok(())
    }

    /// Ends the utterance before the frame `at`. A flush at an earlier position was already done through
    /// another socket and is ignored. Returns the number of flushes after which this one is complete.
    pub(crate) fn flush(&self, attachment: u64, at: Option<FramePos>) -> Result<u64, Rejection> {
        let mut state = self.held(attachment)?;
        if at.is_some_and(|at| at < state.input.received) {
            return Ok(state.input.flushes);
        }
        // A flush after next to no audio is ignored: each flush makes a final, and a client could pile them
        // up.
        let least = u64::from(self.sample_rate) * FLUSH_MILLISECONDS / 1_000;
        if state.input.received - state.input.flushed >= least && self.may_end_utterance(&mut state) {
            state.input.flushed = state.input.received;
            state.input.queue.push_flush();
            state.input.flushes += 1;
            self.job.wake();
        }
        Ok(state.input.flushes)
    }

    /// Returns whether the client may end one more utterance. The number of finals is bounded by the amount
    /// of audio, so that a client that sends none makes none.
    fn may_end_utterance(&self, state: &mut SessionState) -> bool {
        let rate = u64::from(self.sample_rate);
        let nanoseconds = state.input.audio_frames % rate * 1_000_000_000 / rate;
        state
            .utterance_limiter
            .allows(Duration::from_secs(state.input.audio_frames / rate) + Duration::from_nanos(nanoseconds))
    }

    /// Notes the end of the audio. The client may repeat this after a resume.
    pub(crate) fn finish(&self, attachment: u64, through: FramePos) -> Result<(), Rejection> {
        let mut state = self.held(attachment)?;
        if through != state.input.received {
            let received = state.input.received;
            return violation(format!("finish through {through}, but {received} frames were received"));
        }
        self.finish_at(&mut state, through);
        Ok(())
    }

    /// Ends the audio at its current position, whichever socket has the session.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        let received = state.input.received;
        self.finish_at(&mut state, received);
    }

    fn finish_at(&self, state: &mut SessionState, through: FramePos) {
        if state.input.finish.replace(through).is_none() {
            state.input.queue.push_finish();
            self.job.wake();
        }
    }

    /// Returns the length of the audio that was received and isn't final.
    pub(crate) fn waiting(&self) -> Duration {
        let state = self.state.lock();
        let gaps: u64 = state.input.gaps.iter().map(|gap| gap.len()).sum();
        Duration::from_millis(self.milliseconds(state.input.received - state.results.final_ - gaps))
    }

    fn milliseconds(&self, frames: u64) -> u64 {
        frames.saturating_mul(1000) / u64::from(self.sample_rate)
    }

    /// Locks the state for the socket that has the session.
    ///
    /// # Errors
    /// Returns [`Rejection::Moved`] if another socket has the session.
    fn held(&self, attachment: u64) -> Result<MutexGuard<'_, SessionState>, Rejection> {
        let state = self.state.lock();
        if state.attachment == attachment { Ok(state) } else { Err(Rejection::Moved) }
    }
}

fn violation(reason: String) -> Result<(), Rejection> {
    Err(Violation(reason).into())
}
