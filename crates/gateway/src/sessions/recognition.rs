//! Recognition of a session, turn by turn.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::queue::Work;
use super::state::{Board, Partial, State};
use super::timeline::Hearing;
use crate::metrics::Metrics;
use crate::scheduler::{self, Job, Next, Rank};
use voxline::audio::{FramePos, FrameRange};
use voxline::engine::{EngineError, PartialResult, RecognitionRequest, Recognizer, Segment};
use voxline::protocol::{Final, MAX_CONTEXT_BYTES};

/// A scheduler job that takes work from a session's board and posts results to it.
pub(crate) struct Worker {
    recognizer: Arc<dyn Recognizer>,
    /// Options of the next stream, which begins after a gap. They include the context of the last segment.
    options: RecognitionRequest,
    sample_rate: u32,
    partials: bool,
    hearing: Hearing,
    board: Arc<Board>,
    metrics: Arc<Metrics>,
}

impl Worker {
    /// Creates a worker for the session on `board`, whose timeline starts at `origin`.
    pub(crate) fn new(
        recognizer: Arc<dyn Recognizer>,
        options: RecognitionRequest,
        sample_rate: u32,
        partials: bool,
        origin: FramePos,
        board: Arc<Board>,
        metrics: Arc<Metrics>,
    ) -> Result<Worker, EngineError> {
        let hearing = Hearing::new(recognizer.start(&options)?, sample_rate, origin)?;
        Ok(Worker { recognizer, options, sample_rate, partials, hearing, board, metrics })
    }

    /// Does the next piece of work.
    fn work(&mut self) -> Result<Next, EngineError> {
        let work = {
            let mut state = self.board.lock();
            if state.over {
                return Ok(Next::Over);
            }
            state.queue.pop()
        };
        match work {
            // The previous turn has already done the work that this one was woken for. The partial result
            // that it asked for is still due.
            None => {}
            Some(Work::Audio(pcm)) => {
                let segments = self.hearing.push(&pcm)?;
                self.post_finals(segments);
            }
            Some(Work::Flush) => {
                let segments = self.hearing.flush()?;
                self.post_finals(segments);
            }
            Some(Work::Gap(to)) => self.skip(to)?,
            Some(Work::Finish) => {
                let segments = self.hearing.finish()?;
                let segments = self.in_context(segments);
                self.board.post(|state| {
                    self.add_finals(state, segments);
                    state.done = true;
                });
                return Ok(Next::Over);
            }
        }
        Ok(match self.partials {
            _ if !self.board.lock().queue.is_empty() => Next::Again,
            // There is time for a partial result only without a backlog.
            true => Next::Guess,
            false => Next::Wait,
        })
    }

    fn guess(&mut self) -> Result<Next, EngineError> {
        if self.board.lock().over {
            return Ok(Next::Over);
        }
        match self.hearing.partial()? {
            // Audio that arrives meanwhile comes first.
            PartialResult::Unfinished => return Ok(Next::Guess),
            PartialResult::Text(guess) => self.post_partial(guess),
            PartialResult::Nothing => {}
        }
        Ok(Next::Wait)
    }

    /// Ends the current stream and begins a new one at `to`: an utterance doesn't continue across a gap.
    fn skip(&mut self, to: FramePos) -> Result<(), EngineError> {
        let segments = self.hearing.finish()?;
        let segments = self.in_context(segments);
        self.hearing = Hearing::new(self.recognizer.start(&self.options)?, self.sample_rate, to)?;
        self.board.post(|state| {
            self.add_finals(state, segments);
            let gap = state.gaps.pop_front();
            // invariant: a gap of the board for each in the queue, and finals reach up to the first
            debug_assert_eq!(gap, Some(state.final_.to(to)));
            self.metrics.gaps.inc_by(self.seconds(to - state.final_));
            state.final_ = to;
            state.partial = None;
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
                tracing::error!(recognizer, size, "context left out, the limit is {MAX_CONTEXT_BYTES} bytes");
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
            self.board.post(|state| self.add_finals(state, segments));
        }
    }

    fn post_partial(&self, guess: Segment) {
        self.board.post(|state| {
            let revision = state.partial.as_ref().map_or(0, |partial| partial.revision + 1);
            if revision == 0
                && let Some(came) = state.arrivals.of(guess.range.start)
            {
                self.metrics.partial_after(scheduler::now() - came);
            }
            state.partial = Some(Partial { revision, range: guess.range, text: guess.text });
        });
    }

    fn add_finals(&self, state: &mut State, segments: Vec<Segment>) {
        let now = scheduler::now();
        for segment in segments {
            // invariant: finals are contiguous, from the origin or the last gap on
            debug_assert_eq!(segment.range.start, state.final_);
            let FrameRange { start, end } = segment.range;
            self.metrics.recognised.inc_by(self.seconds(end - start));
            let last = FramePos(end.0.saturating_sub(1));
            if !segment.text.is_empty()
                && let Some(came) = state.arrivals.of(last)
            {
                self.metrics.final_after(now - came);
            }
            state.arrivals.forget(end);
            state.final_ = end;
            state.finals.push(Final {
                index: state.finals.len() as u64,
                start,
                end,
                text: segment.text,
                language: segment.language,
                confidence: segment.confidence,
                words: segment.words,
                context: segment.context,
            });
            state.partial = None;
        }
    }

    fn seconds(&self, frames: u64) -> f64 {
        frames as f64 / f64::from(self.sample_rate)
    }
}

impl Job for Worker {
    fn turn(&mut self, rank: Rank) -> Next {
        // A panic of the recogniser must not leave its client waiting.
        let result = catch_unwind(AssertUnwindSafe(|| match rank {
            Rank::Guess => self.guess(),
            _ => self.work(),
        }));
        let reason = match result {
            Ok(Ok(next)) => return next,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "panic".to_owned(),
        };
        tracing::error!(%reason, "recogniser failed");
        self.board.post(|state| state.failed = true);
        Next::Over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Audit;
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

    /// Checks that the worker still makes the partial result if it is woken without work. That happens with
    /// audio that arrives as a turn begins, and is already recognised in that turn. If no more audio
    /// follows, the partial result is what the caller waits for.
    #[test]
    fn a_turn_without_work_puts_off_no_guess() {
        let board = Arc::new(Board::new(FramePos::ZERO));
        let metrics = Arc::new(Metrics::new(1, 1, &Audit::default()));
        let (recognizer, options) = (Arc::new(Curious), RecognitionRequest::new());
        let worker = Worker::new(recognizer, options, 16_000, true, FramePos::ZERO, board.clone(), metrics);
        let mut worker = worker.unwrap();
        board.lock().queue.push_audio(&[0, 0]);
        assert_eq!(worker.turn(Rank::Live), Next::Guess);
        assert_eq!(worker.turn(Rank::Live), Next::Guess);
        assert_eq!(worker.turn(Rank::Guess), Next::Wait);
        assert!(board.lock().partial.is_some());
    }
}
