//! Recognition of one recording, a part of one channel in each turn of the scheduler.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::decoding::Part;
use super::part_queue::{PartQueue, Popped};
use crate::http::error::ApiError;
use crate::scheduler::{Job, Next, Priority};
use voxline::engine::{EngineError, RecognizerStream, Segment};
use voxline::error::chain;

/// Charges a number of milliseconds of audio.
pub(crate) type Charge = Box<dyn FnMut(u64) -> Result<(), ApiError> + Send>;

/// Permits of a recording under recognition, which are held until all work on it has ended.
pub(crate) struct WorkPermits {
    _place: OwnedSemaphorePermit,
    _space: OwnedSemaphorePermit,
}

impl WorkPermits {
    /// Joins the permits for a `place` among the requests, and for the memory or disk `space` of the
    /// recording's bytes.
    pub(crate) fn new(place: OwnedSemaphorePermit, space: OwnedSemaphorePermit) -> WorkPermits {
        WorkPermits { _place: place, _space: space }
    }
}

/// Result of a turn.
#[derive(Debug)]
pub(super) enum Recognised {
    /// A segment of a channel.
    Segment(usize, Segment),
    /// All segments were sent, unless there was an error. The number is the length of the recording in
    /// milliseconds.
    End(Result<u64, ApiError>),
}

/// A scheduler job that recognises one recording, each channel by itself.
pub(super) struct RecordingJob {
    parts: Arc<PartQueue>,
    /// Part whose channels the recogniser is given, and the number of the next one.
    part: Option<(Part, usize)>,
    channels: Vec<Channel>,
    /// Number of the channel whose stream has work left.
    working: Option<usize>,
    /// Number of samples that a stream is given before it works on them.
    batch: usize,
    /// Number of channels whose streams were flushed.
    flushed: usize,
    /// Length of the audio recognised.
    milliseconds: u64,
    /// Called with the milliseconds of audio that the recogniser is given next, so that no more is recognised
    /// than is paid for.
    charge: Charge,
    results: mpsc::UnboundedSender<Recognised>,
    /// Permits for the work, which are given back before its end is reported.
    permits: Option<Arc<WorkPermits>>,
}

/// Recognition of a channel.
struct Channel {
    stream: Box<dyn RecognizerStream>,
    /// Number of samples that the stream was given since it last had no work left.
    gathered: usize,
}

impl RecordingJob {
    /// Creates the job that recognises `parts`, each of whose channels has one of `streams`. A stream works
    /// on batches of so many samples. The job keeps `permits` until it ends.
    pub(super) fn new(
        parts: Arc<PartQueue>,
        streams: Vec<Box<dyn RecognizerStream>>,
        batch: usize,
        charge: Charge,
        results: mpsc::UnboundedSender<Recognised>,
        permits: Arc<WorkPermits>,
    ) -> RecordingJob {
        RecordingJob {
            parts,
            part: None,
            channels: streams.into_iter().map(|stream| Channel { stream, gathered: 0 }).collect(),
            working: None,
            batch,
            flushed: 0,
            milliseconds: 0,
            charge,
            results,
            permits: Some(permits),
        }
    }

    /// Does some of the work on the last batch, on at most `threads` threads, or gives the recogniser the
    /// next part of a channel. Returns the request for the next turn; the recording is complete with
    /// [`Next::Over`].
    fn advance(&mut self, threads: usize) -> Result<Next, ApiError> {
        if let Some(channel) = self.working {
            if let Some(segments) = self.channels[channel].stream.work_on(threads).map_err(failed)? {
                self.send(channel, segments);
                return Ok(Next::Again);
            }
            self.working = None;
            self.channels[channel].gathered = 0;
        }
        let (part, channel) = match self.part.take() {
            Some(current) => current,
            None => match self.parts.pop() {
                Popped::Part(part) => {
                    self.milliseconds += part.milliseconds;
                    (part, 0)
                }
                Popped::Empty => return Ok(Next::Wait),
                Popped::Over => return self.flush(),
            },
        };
        (self.charge)(part.milliseconds)?;
        let samples = &part.channels[channel];
        let Channel { stream, gathered } = &mut self.channels[channel];
        let segments = stream.feed(samples).map_err(failed)?;
        *gathered += samples.len();
        self.working = (*gathered >= self.batch).then_some(channel);
        self.send(channel, segments);
        if channel + 1 < self.channels.len() {
            self.part = Some((part, channel + 1));
        }
        Ok(Next::Again)
    }

    /// Ends the stream of the next channel that was not ended yet.
    fn flush(&mut self) -> Result<Next, ApiError> {
        let channel = self.flushed;
        let Some(Channel { stream, .. }) = self.channels.get_mut(channel) else { return Ok(Next::Over) };
        let segments = stream.begin_flush().map_err(failed)?;
        self.flushed += 1;
        self.working = Some(channel);
        self.send(channel, segments);
        Ok(Next::Again)
    }

    fn send(&self, channel: usize, segments: Vec<Segment>) {
        for segment in segments {
            // The receiver is gone if the client has left.
            let _ = self.results.send(Recognised::Segment(channel, segment));
        }
    }
}

fn failed(error: EngineError) -> ApiError {
    ApiError::internal(&chain(&error))
}

impl Job for RecordingJob {
    fn turn(&mut self, _: Priority, threads: usize) -> Next {
        let advanced = catch_unwind(AssertUnwindSafe(|| self.advance(threads)));
        let end = match advanced {
            Ok(Ok(Next::Over)) => Ok(self.milliseconds),
            Ok(Ok(next)) => return next,
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ApiError::internal(&"recogniser panicked")),
        };
        // Release the place before the answer: a client that sends its next request on reading the answer
        // finds the place free.
        self.permits = None;
        let _ = self.results.send(Recognised::End(end));
        Next::Over
    }

    fn max_threads(&self) -> usize {
        self.working.map_or(1, |channel| self.channels[channel].stream.max_threads())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::batch_log::{BatchLog, Call};
    use voxline::engine::{RecognitionRequest, Recognizer};

    /// Three seconds are a batch. The rest is one, too, and is worked on with the end.
    #[tokio::test]
    async fn each_batch_is_worked_on_when_it_is_complete_and_charged_by_the_second() {
        const SECOND: usize = 16_000;
        let recognizer = BatchLog::new(3 * SECOND as u64);
        let parts = Arc::new(PartQueue::default());
        let part = |samples: usize, is_last| Part {
            channels: vec![vec![0; samples]],
            milliseconds: (samples / 16) as u64,
            is_last,
        };
        parts.push((0..4).map(|_| part(SECOND, false)).collect());
        let charged = Arc::new(Mutex::new(Vec::new()));
        let charge = {
            let charged = charged.clone();
            Box::new(move |milliseconds| {
                charged.lock().expect("nothing panics under it").push(milliseconds);
                Ok(())
            })
        };
        let permit = || async { Arc::new(Semaphore::new(1)).acquire_owned().await.expect("it is open") };
        let permits = Arc::new(WorkPermits::new(permit().await, permit().await));
        let (sender, _receiver) = mpsc::unbounded_channel();
        let stream = recognizer.start(&RecognitionRequest::new()).expect("it takes any request");
        let streams = vec![stream];
        let mut job = RecordingJob::new(parts.clone(), streams, 3 * SECOND, charge, sender, permits);
        while job.turn(Priority::Recording, 1) == Next::Again {}
        let second = Call::Feed(SECOND);
        assert_eq!(recognizer.calls(), [second, second, second, Call::Work, second], "more may come");
        parts.push(vec![part(1_600, true)]);
        while job.turn(Priority::Recording, 1) == Next::Again {}
        assert_eq!(recognizer.calls()[5..], [Call::Feed(1_600), Call::Flush, Call::Work]);
        assert_eq!(*charged.lock().expect("nothing panics under it"), [1_000, 1_000, 1_000, 1_000, 100]);
    }
}
