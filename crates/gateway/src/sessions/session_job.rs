//! Recognition of a session, turn by turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::queue::RecognizerInput;
use super::state::{Partial, SessionState, SharedState};
use super::timeline::RecognitionTimeline;
use crate::metrics::Metrics;
use crate::scheduler::{self, Job, Next, Priority};
use voxline::audio::{FRAME_BYTES, FramePos, FrameRange};
use voxline::engine::{EngineError, PartialResult, RECOGNIZER_RATE, RecognitionRequest, Recognizer, Segment};
use voxline::error::chain;
use voxline::protocol::{Final, Latency, MAX_CONTEXT_BYTES};

/// A scheduler job that takes work from a session's state and posts results to it.
pub(crate) struct SessionJob {
    recognizer: Arc<dyn Recognizer>,
    /// Options of the next stream, which begins after a gap. They include the context of the last segment.
    options: RecognitionRequest,
    sample_rate: u32,
    partials: bool,
    timeline: RecognitionTimeline,
    /// Input whose work is not complete.
    input: Option<Input>,
    /// Number of frames that the recogniser is given, if they are there, before it works on them.
    batch_frames: u64,
    /// Number of frames that it was given since.
    gathered: u64,
    /// `true` if finals of the input were posted.
    has_posted: bool,
    /// Last segment of the end of a stream, which is extended once no other follows.
    last: Vec<Segment>,
    state: Arc<SharedState>,
    metrics: Arc<Metrics>,
}

/// Input that the recogniser works on.
#[derive(Clone, Copy)]
enum Input {
    /// Audio: its segments are posted as they come.
    Audio,
    /// A flush: likewise.
    Flush,
    /// The end of the stream.
    End(StreamEnd),
}

/// End of a stream of the recogniser.
#[derive(Clone, Copy)]
enum StreamEnd {
    /// A gap up to this position follows.
    Gap(FramePos),
    /// The session is complete.
    Finish,
}

impl SessionJob {
    /// Creates the job of the session on `state`, whose timeline starts at `origin`.
    pub(crate) fn new(
        recognizer: Arc<dyn Recognizer>,
        options: RecognitionRequest,
        sample_rate: u32,
        partials: bool,
        origin: FramePos,
        state: Arc<SharedState>,
        metrics: Arc<Metrics>,
    ) -> Result<SessionJob, EngineError> {
        let timeline = RecognitionTimeline::new(&recognizer, &options, sample_rate, origin)?;
        let batch_frames = batch_frames(&*recognizer, &options, sample_rate);
        Ok(SessionJob {
            recognizer,
            options,
            sample_rate,
            partials,
            timeline,
            input: None,
            batch_frames,
            gathered: 0,
            has_posted: false,
            last: Vec::new(),
            state,
            metrics,
        })
    }

    /// Returns the number of frames that the recogniser is given, if they are there, before it works on them.
    pub(crate) fn batch_frames(&self) -> u64 {
        self.batch_frames
    }

    /// Does the next piece of work: of a live session all that its input demands, of another one a part, so
    /// that live sessions need not wait for the rest. Either way the work ends soon after its session.
    fn work(&mut self, threads: usize) -> Result<Next, EngineError> {
        if self.input.is_none() || self.is_gathering() {
            let input = {
                let mut state = self.state.lock();
                if state.over {
                    return Ok(Next::Over);
                }
                state.input.queue.pop()
            };
            // Without input, the previous turn has already done the work that this one was woken for. The
            // partial result that it asked for is still due.
            if let Some(input) = input {
                self.begin(input)?;
                if self.is_gathering() {
                    return Ok(Next::Again);
                }
            }
        }
        self.gathered = 0;
        while let Some(input) = self.input {
            if self.state.lock().over {
                return Ok(Next::Over);
            }
            match self.timeline.work_on(threads)? {
                Some(segments) => self.take(input, segments),
                None => {
                    self.input = None;
                    if self.complete(input)? {
                        return Ok(Next::Over);
                    }
                }
            }
            if self.input.is_some() && self.options.latency != Latency::Live {
                return Ok(Next::Again);
            }
        }
        // There is time for a partial result only without a backlog.
        let has_backlog = !self.state.lock().input.queue.is_empty();
        Ok(match (has_backlog, self.partials) {
            (true, _) => Next::Again,
            (false, true) => Next::Partial,
            (false, false) => Next::Wait,
        })
    }

    /// Returns whether more audio may come before the work on that which the recogniser was given.
    fn is_gathering(&self) -> bool {
        (1..self.batch_frames).contains(&self.gathered)
    }

    fn begin(&mut self, input: RecognizerInput) -> Result<(), EngineError> {
        let gathered = std::mem::take(&mut self.gathered);
        let (input, segments) = match input {
            RecognizerInput::Audio(pcm) => {
                self.gathered = gathered + (pcm.len() / FRAME_BYTES) as u64;
                (Input::Audio, self.timeline.feed(&pcm)?)
            }
            RecognizerInput::Flush => (Input::Flush, self.timeline.begin_flush()?),
            RecognizerInput::Gap(to) => (Input::End(StreamEnd::Gap(to)), self.timeline.begin_flush()?),
            RecognizerInput::Finish => (Input::End(StreamEnd::Finish), self.timeline.begin_flush()?),
        };
        self.input = Some(input);
        self.take(input, segments);
        Ok(())
    }

    fn take(&mut self, input: Input, segments: Vec<Segment>) {
        match input {
            Input::Audio | Input::Flush => self.post_finals(segments),
            // The last segment of a stream is extended at its end.
            Input::End(_) => {
                self.last.extend(segments);
                let last = self.last.split_off(self.last.len().saturating_sub(1));
                let segments = std::mem::replace(&mut self.last, last);
                self.post_finals(segments);
            }
        }
    }

    /// Does what follows the work on an input. Returns whether the session is complete.
    fn complete(&mut self, input: Input) -> Result<bool, EngineError> {
        match input {
            Input::Audio => self.announce_heard(),
            Input::Flush => {
                self.has_posted = false;
                self.state.post(|state| {
                    state.results.flushes += 1;
                    let finals = state.results.count();
                    state.results.flush_ends.push_back(finals);
                });
            }
            Input::End(StreamEnd::Gap(to)) => self.skip(to)?,
            Input::End(StreamEnd::Finish) => {
                let segments = self.close();
                self.state.post(|state| {
                    self.add_finals(state, segments);
                    state.results.done = true;
                });
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Notes the position up to which audio was heard. It is announced along with finals alone: otherwise, it
    /// is looked up.
    fn announce_heard(&mut self) {
        let heard = self.timeline.pushed();
        if std::mem::take(&mut self.has_posted) {
            self.state.post(|state| state.results.heard = heard);
        } else {
            self.state.lock().results.heard = heard;
        }
    }

    /// Returns the last segments of the current stream.
    fn close(&mut self) -> Vec<Segment> {
        let mut segments = std::mem::take(&mut self.last);
        self.timeline.close(&mut segments);
        self.in_context(segments)
    }

    fn partial(&mut self) -> Result<Next, EngineError> {
        if self.state.lock().over {
            return Ok(Next::Over);
        }
        match self.timeline.partial()? {
            // Audio that arrives meanwhile comes first.
            PartialResult::Unfinished => return Ok(Next::Partial),
            PartialResult::Text(segment) => self.post_partial(segment),
            PartialResult::Nothing => {}
        }
        Ok(Next::Wait)
    }

    /// Begins a new stream at `to`: an utterance doesn't continue across a gap.
    fn skip(&mut self, to: FramePos) -> Result<(), EngineError> {
        let segments = self.close();
        self.timeline = RecognitionTimeline::new(&self.recognizer, &self.options, self.sample_rate, to)?;
        self.state.post(|state| {
            self.add_finals(state, segments);
            let gap = state.input.gaps.pop_front();
            // invariant: a gap of the state for each in the queue, and finals reach up to the first
            debug_assert_eq!(gap, Some(state.results.final_.to(to)));
            self.metrics.audio.gaps.inc_by(self.seconds(to - state.results.final_));
            state.results.final_ = to;
            state.results.partial = None;
        });
        Ok(())
    }

    /// Stores the context after these segments. Removes contexts that repeat the one before, so that a
    /// session keeps few of them.
    fn in_context(&mut self, mut segments: Vec<Segment>) -> Vec<Segment> {
        for segment in &mut segments {
            let Some(context) = &segment.context else { continue };
            let size = context.len();
            if size > MAX_CONTEXT_BYTES {
                let recognizer = self.recognizer.name();
                tracing::error!(recognizer, size, "context dropped, it exceeds {MAX_CONTEXT_BYTES} bytes");
                // Clear the context: the previous one no longer holds either.
                segment.context = Some(String::new());
            }
            if segment.context == self.options.context {
                segment.context = None;
            } else {
                self.options.context.clone_from(&segment.context);
            }
        }
        segments
    }

    fn post_finals(&mut self, segments: Vec<Segment>) {
        let segments = self.in_context(segments);
        if !segments.is_empty() {
            self.has_posted = true;
            self.state.post(|state| self.add_finals(state, segments));
        }
    }

    fn post_partial(&self, segment: Segment) {
        self.state.post(|state| {
            let revision = state.results.partial.as_ref().map_or(0, |partial| partial.revision + 1);
            if revision == 0
                && let Some(came) = state.latency_clock.of(segment.range.start)
            {
                self.metrics.partial_after(scheduler::now() - came);
            }
            let Segment { range, text, confidence, .. } = segment;
            state.results.partial = Some(Partial { revision, range, text, confidence });
        });
    }

    fn add_finals(&self, state: &mut SessionState, segments: Vec<Segment>) {
        let now = scheduler::now();
        for segment in segments {
            // invariant: finals are contiguous, from the origin or the last gap on
            debug_assert_eq!(segment.range.start, state.results.final_);
            let FrameRange { start, end } = segment.range;
            self.metrics.audio.recognised.inc_by(self.seconds(end - start));
            let last = FramePos(end.0.saturating_sub(1));
            if !segment.text.is_empty()
                && let Some(came) = state.latency_clock.of(last)
            {
                self.metrics.final_after(now - came);
            }
            state.latency_clock.forget(end);
            state.results.final_ = end;
            let mut result = Final::new(state.results.count(), segment.range, segment.text);
            result.language = segment.language;
            result.confidence = segment.confidence;
            result.words = segment.words;
            result.context = segment.context;
            state.results.finals.push(result);
            state.results.partial = None;
        }
    }

    fn seconds(&self, frames: u64) -> f64 {
        frames as f64 / f64::from(self.sample_rate)
    }
}

/// Returns the number of frames that the recogniser of a session is given, if they are there, before it works
/// on them. Where audio is resampled, its stream begins anew at each final, and what it had heard beyond
/// would be lost.
fn batch_frames(recognizer: &dyn Recognizer, request: &RecognitionRequest, sample_rate: u32) -> u64 {
    if sample_rate == RECOGNIZER_RATE { recognizer.batch_frames(request).unwrap_or(0) } else { 0 }
}

impl Job for SessionJob {
    fn turn(&mut self, priority: Priority, threads: usize) -> Next {
        // A panic of the recogniser must not leave its client waiting.
        let result = catch_unwind(AssertUnwindSafe(|| match priority {
            Priority::Partial => self.partial(),
            _ => self.work(threads),
        }));
        let reason = match result {
            Ok(Ok(next)) => return next,
            Ok(Err(error)) => chain(&error).to_string(),
            Err(_) => "panic".to_owned(),
        };
        tracing::error!(%reason, "recogniser failed");
        self.state.post(|state| state.results.failed = true);
        Next::Over
    }

    fn max_threads(&self) -> usize {
        self.timeline.max_threads()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch_log::{BatchLog, Call};
    use crate::metrics::TokenCounters;
    use voxline::engine::RecognizerStream;

    /// A recogniser that always has a partial result.
    struct Curious;

    impl Recognizer for Curious {
        fn name(&self) -> &str {
            "curious"
        }

        fn start(&self, _: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
            Ok(Box::new(Curious))
        }
    }

    impl RecognizerStream for Curious {
        fn push(&mut self, _: &[i16]) -> Result<Vec<Segment>, EngineError> {
            Ok(Vec::new())
        }

        fn partial(&mut self) -> Result<PartialResult, EngineError> {
            Ok(PartialResult::Text(Segment::silence(FramePos::ZERO.to(FramePos(1)))))
        }

        fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
            Ok(Vec::new())
        }
    }

    /// Checks that the job still makes the partial result if it is woken without work. That happens with
    /// audio that arrives as a turn begins, and is already recognised in that turn. If no more audio
    /// follows, the partial result is what the caller waits for.
    #[test]
    fn a_turn_without_input_still_yields_the_partial_result() {
        let state = Arc::new(SharedState::new(FramePos::ZERO));
        let metrics = Arc::new(Metrics::new(1, 1, &TokenCounters::default()));
        let (recognizer, options) = (Arc::new(Curious), RecognitionRequest::default());
        let job = SessionJob::new(recognizer, options, 16_000, true, FramePos::ZERO, state.clone(), metrics);
        let mut job = job.unwrap();
        state.lock().input.queue.push_audio(&[0, 0]);
        assert_eq!(job.turn(Priority::Live, 1), Next::Partial);
        assert_eq!(job.turn(Priority::Live, 1), Next::Partial);
        assert_eq!(job.turn(Priority::Partial, 1), Next::Wait);
        assert!(state.lock().results.partial.is_some());
    }

    /// A recogniser that ends its session after three steps, and has work left then.
    struct Endless(Arc<SharedState>);

    /// Its stream, with the number of steps done.
    struct EndlessStream(Arc<SharedState>, usize);

    impl Recognizer for Endless {
        fn name(&self) -> &str {
            "endless"
        }

        fn start(&self, _: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
            Ok(Box::new(EndlessStream(self.0.clone(), 0)))
        }
    }

    impl RecognizerStream for EndlessStream {
        fn push(&mut self, _: &[i16]) -> Result<Vec<Segment>, EngineError> {
            Ok(Vec::new())
        }

        fn work(&mut self) -> Result<Option<Vec<Segment>>, EngineError> {
            self.1 += 1;
            self.0.lock().over = self.1 == 3;
            Ok(Some(Vec::new()))
        }

        fn partial(&mut self) -> Result<PartialResult, EngineError> {
            Ok(PartialResult::Nothing)
        }

        fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
            Ok(Vec::new())
        }
    }

    #[test]
    fn work_ends_with_its_session_and_that_of_a_recording_proceeds_in_turns() {
        for (latency, turns) in [(Latency::Live, 1), (Latency::Relaxed, 4)] {
            let state = Arc::new(SharedState::new(FramePos::ZERO));
            let metrics = Arc::new(Metrics::new(1, 1, &TokenCounters::default()));
            let (recognizer, options) = (Arc::new(Endless(state.clone())), RecognitionRequest::new());
            let options = options.latency(latency);
            let origin = FramePos::ZERO;
            let job = SessionJob::new(recognizer, options, 16_000, true, origin, state.clone(), metrics);
            let mut job = job.unwrap();
            state.lock().input.queue.push_audio(&[0, 0]);
            let taken = (1..10).find(|_| job.turn(Priority::Recording, 1) == Next::Over);
            assert_eq!(taken, Some(turns), "{latency:?}");
        }
    }

    /// Two seconds are a batch. The third second and the end are another one; that no more audio is there
    /// holds up nothing.
    #[test]
    fn audio_is_gathered_for_a_batch_if_it_is_there() {
        let state = Arc::new(SharedState::new(FramePos::ZERO));
        let metrics = Arc::new(Metrics::new(1, 1, &TokenCounters::default()));
        let recognizer = Arc::new(BatchLog::new(32_000));
        let options = RecognitionRequest::new().latency(Latency::Relaxed);
        let origin = FramePos::ZERO;
        let job = SessionJob::new(recognizer.clone(), options, 16_000, false, origin, state.clone(), metrics);
        let mut job = job.unwrap();
        state.lock().input.queue.push_audio(&[0; 2 * 100]);
        while job.turn(Priority::Recording, 1) != Next::Wait {}
        assert_eq!(recognizer.calls(), [Call::Feed(100), Call::Work]);
        for _ in 0..3 {
            state.lock().input.queue.push_audio(&[0; 2 * 16_384]);
        }
        state.lock().input.queue.push_finish();
        while job.turn(Priority::Recording, 1) != Next::Over {}
        let second = Call::Feed(16_384);
        let batches = [second, second, Call::Work, second, Call::Flush, Call::Work];
        assert_eq!(recognizer.calls()[2..], batches);
        assert!(state.lock().results.done);
    }
}
