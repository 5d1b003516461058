//! Recognition of a session, turn by turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::queue::RecognizerInput;
use super::state::{Partial, SessionState, SharedState};
use super::timeline::RecognitionTimeline;
use crate::metrics::Metrics;
use crate::scheduler::{self, Job, Next, Priority};
use voxline::audio::{FramePos, FrameRange};
use voxline::engine::{EngineError, PartialResult, RecognitionRequest, Recognizer, Segment};
use voxline::error::chain;
use voxline::protocol::{Final, MAX_CONTEXT_BYTES};

/// A scheduler job that takes work from a session's state and posts results to it.
pub(crate) struct SessionJob {
    recognizer: Arc<dyn Recognizer>,
    /// Options of the next stream, which begins after a gap. They include the context of the last segment.
    options: RecognitionRequest,
    sample_rate: u32,
    partials: bool,
    timeline: RecognitionTimeline,
    state: Arc<SharedState>,
    metrics: Arc<Metrics>,
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
        let timeline = RecognitionTimeline::new(recognizer.start(&options)?, sample_rate, origin)?;
        Ok(SessionJob { recognizer, options, sample_rate, partials, timeline, state, metrics })
    }

    /// Does the next piece of work.
    fn work(&mut self) -> Result<Next, EngineError> {
        let work = {
            let mut state = self.state.lock();
            if state.over {
                return Ok(Next::Over);
            }
            state.input.queue.pop()
        };
        match work {
            // The previous turn has already done the work that this one was woken for. The partial result
            // that it asked for is still due.
            None => {}
            Some(RecognizerInput::Audio(pcm)) => {
                let segments = self.timeline.push(&pcm)?;
                self.post_finals(segments);
            }
            Some(RecognizerInput::Flush) => {
                let segments = self.timeline.flush()?;
                self.post_finals(segments);
            }
            Some(RecognizerInput::Gap(to)) => self.skip(to)?,
            Some(RecognizerInput::Finish) => {
                let segments = self.timeline.finish()?;
                let segments = self.in_context(segments);
                self.state.post(|state| {
                    self.add_finals(state, segments);
                    state.results.done = true;
                });
                return Ok(Next::Over);
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

    /// Ends the current stream and begins a new one at `to`: an utterance doesn't continue across a gap.
    fn skip(&mut self, to: FramePos) -> Result<(), EngineError> {
        let segments = self.timeline.finish()?;
        let segments = self.in_context(segments);
        self.timeline =
            RecognitionTimeline::new(self.recognizer.start(&self.options)?, self.sample_rate, to)?;
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
            state.results.partial = Some(Partial { revision, range: segment.range, text: segment.text });
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
            let mut result = Final::new(state.results.finals.len() as u64, segment.range, segment.text);
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

impl Job for SessionJob {
    fn turn(&mut self, priority: Priority) -> Next {
        // A panic of the recogniser must not leave its client waiting.
        let result = catch_unwind(AssertUnwindSafe(|| match priority {
            Priority::Partial => self.partial(),
            _ => self.work(),
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
}

#[cfg(test)]
mod tests {
    use super::*;
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
        assert_eq!(job.turn(Priority::Live), Next::Partial);
        assert_eq!(job.turn(Priority::Live), Next::Partial);
        assert_eq!(job.turn(Priority::Partial), Next::Wait);
        assert!(state.lock().results.partial.is_some());
    }
}
