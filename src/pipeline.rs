//! Audio front end on one worker thread: source, decode, resample, chunk, and the bounded channel to the
//! session.
//!
//! ```text
//! source -> decode -> resample -> chunk ==bounded channel==> session
//! ```
//!
//! If the channels of a recording are split, each has a resampler, a chunker and a bounded channel of its
//! own: a *channel stream*, for a session of its own.
//!
//! The stages are plain structs, called in turn by one thread. Audio waits only in the bounded channel:
//! while that is full, the thread blocks and reads nothing more. A slow session therefore slows down the
//! reading of a file, instead of filling memory. No audio is dropped.

use std::mem;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::audio::{AudioChunk, Feed};
use crate::chunk::Chunker;
use crate::decode::{self, Block, Channels, DecodeError, Decoder, Limits, StreamInfo};
use crate::resample::{ResampleError, Resampler};
use crate::source::Source;

/// Longest chunk: a recogniser should get audio at least this often.
const CHUNK_MAX: Duration = Duration::from_secs(60);

/// Time that the resampler's blocks take to fill: half the work of blocks of 20 ms. The value does not
/// depend on the chunk length, which therefore does not affect the samples.
const FILL: Duration = Duration::from_millis(40);

/// Error starting or running the front end. Audio that was delivered before the error is good, and followed
/// by the end of its stream.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The source holds nothing that can be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The source's sample rate cannot be converted to the session's.
    #[error("{name}: sample rate cannot be used")]
    Resample {
        /// Name of the source.
        name: String,
        /// Underlying error, which names the rates.
        #[source]
        error: ResampleError,
    },
    /// The requested chunks are shorter than a frame or longer than a minute.
    #[error("a chunk of {chunk:?} at {sample_rate} Hz, expected 1 frame to {CHUNK_MAX:?}")]
    Chunk {
        /// Requested duration.
        chunk: Duration,
        /// Sample rate of the session, in Hz.
        sample_rate: u32,
    },
    /// Voice marks were requested for a session of another rate than 16 kHz.
    #[cfg(feature = "vad")]
    #[error("voice cannot be marked at {sample_rate} Hz, expected 16000 Hz")]
    Voice {
        /// Sample rate of the session, in Hz.
        sample_rate: u32,
    },
    /// The requested capacity is zero, or more than tokio supports.
    #[error("a capacity of {capacity} chunks, expected 1 to {}", usize::MAX >> 3)]
    Capacity {
        /// Requested capacity.
        capacity: usize,
    },
    /// Decoding stopped early. All audio before the failure was delivered, followed by the end of the
    /// stream.
    #[error("decoding stopped early")]
    Stopped {
        /// Underlying error.
        #[source]
        error: DecodeError,
        /// Work done until the failure.
        report: Report,
    },
    /// The worker thread could not be started.
    #[error("the audio worker cannot be started")]
    Thread(#[source] std::io::Error),
    /// The worker panicked, which is a defect of this crate.
    #[error("the audio worker panicked")]
    Panicked,
}

/// Options of the front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Sample rate of the session, in frames per second.
    pub sample_rate: u32,
    /// Duration of a chunk; the last may be shorter.
    pub chunk: Duration,
    /// Capacity of each channel to a session, in chunks.
    pub capacity: usize,
    /// Channels of the recording: one channel stream in all, or with [`Channels::Split`] one for each
    /// channel.
    pub channels: Channels,
    /// Limits beyond which a source is given up.
    pub limits: Limits,
}

/// Defaults: 16 kHz, chunks of 100 ms, a capacity of 16 chunks, all channels as one stream, and no
/// limits.
impl Default for Options {
    fn default() -> Options {
        Options {
            sample_rate: 16_000,
            chunk: Duration::from_millis(100),
            capacity: 16,
            channels: Channels::Mix,
            limits: Limits::default(),
        }
    }
}

/// Statistics of the worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Frames decoded, at the rate of the decoder: the session's for Opus if possible, otherwise the
    /// source's.
    pub frames_in: u64,
    /// Frames delivered to all channel streams together, at the session's rate.
    pub frames_out: u64,
    /// Chunks delivered to all channel streams together.
    pub chunks: u64,
    /// Packets skipped because they were damaged.
    pub skipped_packets: u64,
    /// True if a receiver was dropped before the end of the stream.
    pub cancelled: bool,
}

/// A source whose format was recognised, with stages ready to run.
#[derive(Debug)]
pub struct Pipeline {
    decoder: Decoder,
    stages: Vec<(Resampler, Chunker)>,
    capacity: usize,
    #[cfg(feature = "vad")]
    sample_rate: u32,
    /// True if chunks are marked as voiced or silent.
    #[cfg(feature = "vad")]
    mark_voice: bool,
}

impl Pipeline {
    /// Recognises the source's format and prepares all stages. Blocks while reading.
    ///
    /// # Errors
    /// Returns [`PipelineError`] if the source holds no audio that can be decoded and resampled, or if an
    /// option is out of range.
    pub fn open(source: Source, options: Options) -> Result<Pipeline, PipelineError> {
        let Options { sample_rate, chunk, capacity, channels, limits } = options;
        if capacity == 0 || capacity > usize::MAX >> 3 {
            return Err(PipelineError::Capacity { capacity });
        }
        let frames = chunk_frames(chunk, sample_rate).ok_or(PipelineError::Chunk { chunk, sample_rate })?;
        let name = source.name().to_owned();
        let wanted = decode::Options { channels, sample_rate: Some(sample_rate), limits };
        let decoder = Decoder::open(source, wanted)?;
        let stages = (0..decoder.planes()).map(|_| {
            let resampler = Resampler::with_fill(decoder.sample_rate(), sample_rate, FILL)?;
            Ok((resampler, Chunker::new(frames)))
        });
        let stages = stages.collect::<Result<_, _>>();
        let stages = stages.map_err(|error| PipelineError::Resample { name, error })?;
        Ok(Pipeline {
            decoder,
            stages,
            capacity,
            #[cfg(feature = "vad")]
            sample_rate,
            #[cfg(feature = "vad")]
            mark_voice: false,
        })
    }

    /// Marks chunks as [voiced](crate::audio::AudioChunk::voiced) or silent. No audio is dropped.
    ///
    /// # Errors
    /// Returns [`PipelineError::Voice`] if the rate of the session is not 16 kHz.
    #[cfg(feature = "vad")]
    pub fn mark_voice(self) -> Result<Pipeline, PipelineError> {
        let Pipeline { sample_rate, .. } = self;
        if sample_rate != crate::vad::VOICE_RATE {
            return Err(PipelineError::Voice { sample_rate });
        }
        Ok(Pipeline { mark_voice: true, ..self })
    }

    /// Returns the name of the source in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        self.decoder.name()
    }

    /// Returns the properties of the source.
    #[must_use]
    pub fn info(&self) -> &StreamInfo {
        self.decoder.info()
    }

    /// Returns the number of channel streams: one, or with [`Channels::Split`] one per channel.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.stages.len()
    }

    /// Starts the worker thread and returns the receiver of each channel stream: one, or with
    /// [`Channels::Split`] one per channel, in the order of the recording.
    ///
    /// The worker ends after the end of the stream, or once all receivers are dropped. The worker waits
    /// for the slowest channel stream, so all of them must be received from concurrently.
    #[must_use]
    pub fn start(self) -> (Vec<mpsc::Receiver<Feed>>, Worker) {
        let (mut streams, mut receivers) = (Vec::new(), Vec::new());
        for (resampler, chunker) in self.stages {
            let (sender, receiver) = mpsc::channel(self.capacity);
            receivers.push(receiver);
            streams.push(ChannelStream {
                resampler,
                chunker,
                #[cfg(feature = "vad")]
                voice: self.mark_voice.then(crate::vad::VoiceMarker::new),
                sender,
                resampled: Vec::new(),
                frames: 0,
                chunks: 0,
                cancelled: false,
            });
        }
        let run = Run { decoder: self.decoder, streams, report: Report::default() };
        let thread = thread::Builder::new().name("voxline-audio".to_owned()).spawn(|| run.feed_all());
        (receivers, Worker { thread })
    }
}

/// The running worker.
#[derive(Debug)]
pub struct Worker {
    /// Thread of the worker. If it could not be started, `join` returns the error; the channels are
    /// closed then.
    thread: std::io::Result<JoinHandle<Result<Report, PipelineError>>>,
}

impl Worker {
    /// Returns whether the worker has ended, so that [`join`](Worker::join) returns at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().map_or(true, JoinHandle::is_finished)
    }

    /// Waits for the worker to end. Blocks while the worker waits for capacity in the channel: first
    /// receive until [`Feed::End`], or drop the receiver.
    ///
    /// # Errors
    /// Returns [`PipelineError`] if decoding stopped early, or if the worker could not start or panicked.
    pub fn join(self) -> Result<Report, PipelineError> {
        let thread = self.thread.map_err(PipelineError::Thread)?;
        thread.join().unwrap_or(Err(PipelineError::Panicked))
    }
}

/// State of the worker thread.
struct Run {
    decoder: Decoder,
    streams: Vec<ChannelStream>,
    report: Report,
}

impl Run {
    /// Feeds the channel streams until the end of the stream. If decoding stops early, the audio before
    /// the failure and the end of the stream are delivered all the same.
    fn feed_all(mut self) -> Result<Report, PipelineError> {
        let mut block = Block::new();
        let stopped = loop {
            // Check here as well as on sending, since a source may be read for long before a chunk is
            // full.
            if self.streams.iter_mut().all(ChannelStream::is_cancelled) {
                break None;
            }
            match self.decoder.next_block(&mut block) {
                Ok(true) => {}
                Ok(false) => break None,
                Err(error) => break Some(error),
            }
            self.report.frames_in += block.frames() as u64;
            for (stream, samples) in self.streams.iter_mut().zip(block.planes()) {
                stream.push(samples);
            }
        };
        for stream in &mut self.streams {
            stream.finish();
            self.report.frames_out += stream.frames;
            self.report.chunks += stream.chunks;
            self.report.cancelled |= stream.cancelled;
        }
        self.report.skipped_packets = self.decoder.skipped_packets();
        match stopped {
            Some(error) => Err(PipelineError::Stopped { error, report: self.report }),
            None => Ok(self.report),
        }
    }
}

/// Stages of one channel stream, up to its bounded channel.
struct ChannelStream {
    resampler: Resampler,
    chunker: Chunker,
    #[cfg(feature = "vad")]
    voice: Option<crate::vad::VoiceMarker>,
    sender: mpsc::Sender<Feed>,
    /// Latest output of the resampler.
    resampled: Vec<f32>,
    /// Numbers of frames and chunks delivered to the receiver.
    frames: u64,
    chunks: u64,
    /// True once the receiver is dropped: nothing is left to do.
    cancelled: bool,
}

impl ChannelStream {
    fn is_cancelled(&mut self) -> bool {
        self.cancelled |= self.sender.is_closed();
        self.cancelled
    }

    fn push(&mut self, samples: &[f32]) {
        if self.cancelled {
            return;
        }
        self.resampled.clear();
        self.resampler.push(samples, &mut self.resampled);
        self.send_chunks();
    }

    fn finish(&mut self) {
        self.resampled.clear();
        self.resampler.finish(&mut self.resampled);
        self.send_chunks();
        if let Some(chunk) = self.chunker.finish() {
            self.send_chunk(chunk);
        }
        self.send(Feed::End);
    }

    fn send_chunks(&mut self) {
        let resampled = mem::take(&mut self.resampled);
        let mut samples = resampled.as_slice();
        while let Some(chunk) = self.chunker.push(&mut samples) {
            self.send_chunk(chunk);
        }
        self.resampled = resampled;
    }

    fn send_chunk(&mut self, chunk: AudioChunk) {
        #[cfg(feature = "vad")]
        let chunk = match &mut self.voice {
            Some(voice) => voice.mark(chunk),
            None => chunk,
        };
        self.send(Feed::Audio(chunk));
    }

    fn send(&mut self, feed: Feed) {
        if self.cancelled {
            return;
        }
        let frames = match &feed {
            Feed::Audio(chunk) => chunk.range().len(),
            Feed::Flush | Feed::Gap(_) | Feed::End => 0,
        };
        match self.sender.blocking_send(feed) {
            Ok(()) => {
                self.frames += frames;
                self.chunks += u64::from(frames > 0);
            }
            Err(_) => self.cancelled = true,
        }
    }
}

/// Returns the number of frames in a chunk, rounded to the nearest.
fn chunk_frames(chunk: Duration, sample_rate: u32) -> Option<usize> {
    if chunk > CHUNK_MAX {
        return None;
    }
    let frames = (chunk.as_nanos() * u128::from(sample_rate) + 500_000_000) / 1_000_000_000;
    usize::try_from(frames).ok().filter(|&frames| frames > 0)
}
