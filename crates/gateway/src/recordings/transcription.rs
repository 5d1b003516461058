//! A recording under recognition, from its bytes to its segments.
//!
//! Decoding and recognition run on their own threads. A long recording is decoded in short runs, between
//! which other uploads have their turns: a run ends when enough audio is decoded ahead of recognition.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::decoding::{BadRecording, Part, RecordingDecoder, RecordingLimits};
use super::part_queue::{AHEAD, PartQueue};
pub(crate) use super::recording_job::{Charge, WorkPermits};
use super::recording_job::{Recognised, RecordingJob};
use crate::admission::capacity::{DecodePool, RequestCapacity};
use crate::http::error::ApiError;
use crate::scheduler::{JobHandle, Scheduler};
use voxline::decode::Cancellation;
use voxline::engine::{EngineError, RecognitionRequest, Recognizer, RecognizerStream, Segment};
use voxline::error::chain;
use voxline::source::Source;

/// Decoding in progress.
type Feeding = Pin<Box<dyn Future<Output = Result<(), ApiError>> + Send>>;

/// When a recording is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Once all of it is decoded, so that nothing of a broken recording is recognised. Its audio takes up
    /// memory.
    WhenDecoded,
    /// While it is decoded.
    AsDecoded,
}

/// A recording, and what is asked of it.
pub(crate) struct RecordingRequest {
    pub(crate) source: Source,
    pub(crate) limits: RecordingLimits,
    pub(crate) pace: Pace,
    pub(crate) recognition: RecognitionRequest,
    pub(crate) charge: Charge,
    pub(crate) permits: WorkPermits,
}

/// A recording under recognition. If this value is dropped, the work ends.
pub(crate) struct Transcription {
    results: mpsc::UnboundedReceiver<Recognised>,
    /// Decoding of the rest; `None` once it has ended.
    feeding: Option<Feeding>,
    channels: usize,
    milliseconds: u64,
    _job: Arc<JobHandle>,
}

impl Transcription {
    /// Opens the recording and starts its recognition, in the capacity of the client.
    ///
    /// # Errors
    /// Returns [`ApiError`] if the recording can't be decoded or exceeds its limits, or if the recogniser
    /// doesn't support the request or fails.
    pub(crate) async fn start(
        recognizer: Arc<dyn Recognizer>,
        scheduler: &Scheduler,
        capacity: &RequestCapacity,
        request: RecordingRequest,
    ) -> Result<Transcription, ApiError> {
        let RecordingRequest { source, limits, pace, recognition, charge, permits } = request;
        let permits = Arc::new(permits);
        let cancellation = Cancellation::new();
        let open = {
            let (cancellation, permits) = (cancellation.clone(), permits.clone());
            move || {
                // The place and the space stay taken until here, even if the client has left.
                let _permits = permits;
                let decoder = RecordingDecoder::open(source, limits, cancellation)?;
                Opened::new(decoder, pace, &*recognizer, &recognition)
            }
        };
        let Opened { decoder, parts, streams, batch } =
            capacity.decoders.run_under(cancellation.clone(), open).await??;
        let channels = streams.len();
        let queue = Arc::new(PartQueue::default());
        queue.push(parts);
        let (sender, results) = mpsc::unbounded_channel();
        let job = RecordingJob::new(queue.clone(), streams, batch, charge, sender, permits.clone());
        let job = scheduler
            .add(capacity.priority, Box::new(job))
            .map_err(|error| ApiError::internal(&chain(&error)))?;
        let job = Arc::new(job);
        let feeding = decoder.map(|decoder| -> Feeding {
            let job = job.clone();
            let feeder = Feeder { queue, job, pool: capacity.decoders.clone(), cancellation, permits };
            Box::pin(feeder.feed(decoder))
        });
        Ok(Transcription { results, feeding, channels, milliseconds: 0, _job: job })
    }

    /// Returns the next segment with the number of its channel, or `None` after the last one. May be called
    /// again if the returned future is dropped.
    ///
    /// # Errors
    /// Returns [`ApiError`] if the recording is broken or too long, if it can't be paid for, or if the
    /// recogniser fails. Nothing follows then.
    pub(crate) async fn next(&mut self) -> Result<Option<(usize, Segment)>, ApiError> {
        loop {
            let feeding = async {
                match &mut self.feeding {
                    Some(feeding) => feeding.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                fed = feeding => {
                    self.feeding = None;
                    fed?;
                }
                result = self.results.recv() => match result {
                    Some(Recognised::Segment(channel, segment)) => return Ok(Some((channel, segment))),
                    Some(Recognised::End(end)) => {
                        self.milliseconds = end?;
                        return Ok(None);
                    }
                    None => return Err(ApiError::internal(&"recogniser panicked")),
                },
            }
        }
    }

    /// Returns the number of channels, each of which is recognised by itself.
    pub(crate) fn channels(&self) -> usize {
        self.channels
    }

    /// Returns the length of the recording in milliseconds, once all segments were returned.
    pub(crate) fn milliseconds(&self) -> u64 {
        self.milliseconds
    }
}

/// A recording whose recognition can begin.
struct Opened {
    /// Decoder of the rest; `None` if there is none.
    decoder: Option<RecordingDecoder>,
    parts: Vec<Part>,
    /// Recognition streams of the channels.
    streams: Vec<Box<dyn RecognizerStream>>,
    /// Number of samples that a stream is given before it works on them.
    batch: usize,
}

impl Opened {
    fn new(
        mut decoder: RecordingDecoder,
        pace: Pace,
        recognizer: &dyn Recognizer,
        recognition: &RecognitionRequest,
    ) -> Result<Opened, ApiError> {
        let ahead = match pace {
            Pace::WhenDecoded => usize::MAX,
            Pace::AsDecoded => AHEAD,
        };
        let parts = decode(&mut decoder, ahead)?;
        let start = |_| {
            recognizer.start(recognition).map_err(|error| match error {
                EngineError::Unsupported(_) => ApiError::bad_request(400, error.to_string()),
                error => ApiError::internal(&chain(&error)),
            })
        };
        let streams = (0..decoder.channels()).map(start).collect::<Result<_, _>>()?;
        let is_complete = parts.last().is_some_and(|part| part.is_last);
        let batch = recognizer.batch_frames(recognition).unwrap_or(1);
        let batch = usize::try_from(batch).unwrap_or(usize::MAX);
        Ok(Opened { decoder: (!is_complete).then_some(decoder), parts, streams, batch })
    }
}

/// Decodes up to `count` parts.
fn decode(decoder: &mut RecordingDecoder, count: usize) -> Result<Vec<Part>, BadRecording> {
    let mut parts: Vec<Part> = Vec::new();
    while parts.len() < count && !parts.last().is_some_and(|part| part.is_last) {
        parts.push(decoder.next_part()?);
    }
    Ok(parts)
}

/// Supplies a job with the parts of its recording.
struct Feeder {
    queue: Arc<PartQueue>,
    job: Arc<JobHandle>,
    pool: DecodePool,
    /// Stops the decoder.
    cancellation: Cancellation,
    permits: Arc<WorkPermits>,
}

impl Feeder {
    /// Decodes the rest of the recording, no faster than the job recognises it.
    async fn feed(self, mut decoder: RecordingDecoder) -> Result<(), ApiError> {
        let Feeder { queue, job, pool, cancellation, permits } = self;
        loop {
            queue.low().await;
            let held = permits.clone();
            let run = move || {
                let parts = decode(&mut decoder, AHEAD);
                drop(held);
                (decoder, parts)
            };
            let (back, parts) = pool.run_under(cancellation.clone(), run).await?;
            let parts = parts?;
            decoder = back;
            let is_complete = parts.last().is_some_and(|part| part.is_last);
            if is_complete {
                // The job alone holds the permits now, and gives them back when it ends.
                drop((decoder, permits));
                queue.push(parts);
                job.wake();
                return Ok(());
            }
            queue.push(parts);
            job.wake();
        }
    }
}
