//! Recognition of one recording, a part in each turn of the scheduler.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::decoding::Recording;
use crate::http::error::ApiError;
use crate::scheduler::{Job, Next, Priority};
use voxline::engine::{
    EngineError, RECOGNIZER_RATE, RecognitionRequest, Recognizer, RecognizerStream, Segment,
};
use voxline::error::chain;

/// Samples that the recogniser is given in one turn: one second.
const PART: usize = RECOGNIZER_RATE as usize;
const PART_MILLISECONDS: u64 = 1_000;

/// Recognition of one recording in progress.
pub(crate) struct Recognition<C> {
    recording: Recording,
    /// Number of samples that the recogniser was given.
    fed: usize,
    /// Number of these since it last had no work left.
    gathered: usize,
    /// Number of samples that it is given before it works on them.
    batch: usize,
    is_flushed: bool,
    /// Number of milliseconds charged.
    charged: u64,
    stream: Box<dyn RecognizerStream>,
    segments: Vec<Segment>,
    /// Called with the milliseconds of audio that the recogniser is given next, so that no more is recognised
    /// than is paid for.
    charge: C,
}

impl<C: FnMut(u64) -> Result<(), ApiError>> Recognition<C> {
    /// Starts the recogniser on a recording.
    ///
    /// # Errors
    /// Returns [`ApiError`] if the recogniser doesn't support `options`, or fails.
    pub(crate) fn open(
        recognizer: &dyn Recognizer,
        recording: Recording,
        options: &RecognitionRequest,
        charge: C,
    ) -> Result<Recognition<C>, ApiError> {
        let stream = recognizer.start(options).map_err(|error| match error {
            EngineError::Unsupported(_) => ApiError::bad_request(400, error.to_string()),
            error => ApiError::internal(&chain(&error)),
        })?;
        Ok(Recognition {
            recording,
            fed: 0,
            gathered: 0,
            batch: recognizer
                .batch_frames(options)
                .map_or(1, |frames| usize::try_from(frames).unwrap_or(usize::MAX)),
            is_flushed: false,
            charged: 0,
            stream,
            segments: Vec::new(),
            charge,
        })
    }

    /// Does some of the work on the last batch, or gives the recogniser the next part. Returns whether there
    /// was anything to do.
    fn advance(&mut self) -> Result<bool, ApiError> {
        let failed = |error: EngineError| ApiError::internal(&chain(&error));
        if self.is_flushed || self.gathered >= self.batch {
            if let Some(segments) = self.stream.work().map_err(failed)? {
                self.segments.extend(segments);
                return Ok(true);
            }
            if self.is_flushed {
                return Ok(false);
            }
            self.gathered = 0;
        }
        let Recording { samples, milliseconds } = &self.recording;
        let rest = &samples[self.fed..];
        if rest.is_empty() {
            self.is_flushed = true;
            self.segments.extend(self.stream.begin_flush().map_err(failed)?);
            return Ok(true);
        }
        let part = &rest[..rest.len().min(PART)];
        self.fed += part.len();
        self.gathered += part.len();
        // The last part is charged what is left, so that rounding errors don't add up.
        let left = milliseconds.saturating_sub(self.charged);
        let charge = if self.fed == samples.len() { left } else { left.min(PART_MILLISECONDS) };
        self.charged += charge;
        (self.charge)(charge)?;
        self.segments.extend(self.stream.feed(part).map_err(failed)?);
        Ok(true)
    }
}

/// A scheduler job that recognises one recording, a part in each turn.
pub(crate) struct RecordingJob<C> {
    recognition: Recognition<C>,
    result_sender: Option<oneshot::Sender<Result<Vec<Segment>, ApiError>>>,
    /// Permits for its place among the requests and for the memory that its file takes.
    held: Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>,
}

impl<C> RecordingJob<C> {
    /// Creates the job of a recognition, which keeps `held` until it ends and then sends the result.
    pub(crate) fn new(
        recognition: Recognition<C>,
        result_sender: oneshot::Sender<Result<Vec<Segment>, ApiError>>,
        held: (OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) -> RecordingJob<C> {
        RecordingJob { recognition, result_sender: Some(result_sender), held: Some(held) }
    }
}

impl<C: FnMut(u64) -> Result<(), ApiError> + Send> Job for RecordingJob<C> {
    fn turn(&mut self, _: Priority) -> Next {
        let heard = catch_unwind(AssertUnwindSafe(|| self.recognition.advance()));
        let result = match heard {
            Ok(Ok(true)) => return Next::Again,
            Ok(Ok(false)) => Ok(mem::take(&mut self.recognition.segments)),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ApiError::internal(&"recogniser panicked")),
        };
        // Release the place before the answer: a client that sends its next request on reading the answer
        // finds the place free.
        self.held = None;
        if let Some(result_sender) = self.result_sender.take() {
            // The receiver is gone if the client has left.
            let _ = result_sender.send(result);
        }
        Next::Over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch_log::{BatchLog, Call};

    #[test]
    fn a_recording_is_given_in_batches_and_charged_by_the_second() {
        let recognizer = BatchLog::new(3 * PART as u64);
        let recording = Recording { samples: vec![0; 4 * PART + 1_600], milliseconds: 4_100 };
        let mut charged = Vec::new();
        let charge = |milliseconds| {
            charged.push(milliseconds);
            Ok(())
        };
        let options = RecognitionRequest::new();
        let recognition = Recognition::open(&recognizer, recording, &options, charge);
        let mut recognition = recognition.unwrap_or_else(|_| panic!("the recogniser takes any request"));
        while recognition.advance().is_ok_and(|more| more) {}
        let second = Call::Feed(PART);
        let batches =
            [second, second, second, Call::Work, second, Call::Feed(1_600), Call::Flush, Call::Work];
        assert_eq!(recognizer.calls(), batches);
        assert_eq!(charged, [1_000, 1_000, 1_000, 1_000, 100]);
    }
}
