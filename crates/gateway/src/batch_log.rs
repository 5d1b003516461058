//! A recogniser of batches that notes the calls of its stream, for tests.

use std::sync::{Arc, Mutex, PoisonError};

use voxline::engine::{
    EngineError, PartialResult, RecognitionRequest, Recognizer, RecognizerStream, Segment,
};

/// A recogniser with batches of this many frames, and the calls of its streams.
pub(crate) struct BatchLog {
    batch_frames: u64,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// A call of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// So many frames were fed.
    Feed(usize),
    Flush,
    /// The work began that the calls before have left.
    Work,
}

/// A stream of the recogniser.
struct LogStream {
    calls: Arc<Mutex<Vec<Call>>>,
    has_work: bool,
}

impl BatchLog {
    pub(crate) fn new(batch_frames: u64) -> BatchLog {
        BatchLog { batch_frames, calls: Arc::default() }
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Recognizer for BatchLog {
    fn name(&self) -> &str {
        "batch-log"
    }

    fn batch_frames(&self, _: &RecognitionRequest) -> Option<u64> {
        Some(self.batch_frames)
    }

    fn start(&self, _: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        Ok(Box::new(LogStream { calls: self.calls.clone(), has_work: false }))
    }
}

impl LogStream {
    fn note(&mut self, call: Call) -> Vec<Segment> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        self.has_work = call != Call::Work;
        Vec::new()
    }
}

impl RecognizerStream for LogStream {
    fn push(&mut self, _: &[i16]) -> Result<Vec<Segment>, EngineError> {
        unreachable!("batches are fed")
    }

    fn feed(&mut self, pcm: &[i16]) -> Result<Vec<Segment>, EngineError> {
        Ok(self.note(Call::Feed(pcm.len())))
    }

    fn begin_flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        Ok(self.note(Call::Flush))
    }

    fn work(&mut self) -> Result<Option<Vec<Segment>>, EngineError> {
        Ok(if self.has_work { Some(self.note(Call::Work)) } else { None })
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        Ok(PartialResult::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<Segment>, EngineError> {
        unreachable!("batches are flushed by steps")
    }
}
