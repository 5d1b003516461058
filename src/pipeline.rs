//! The front end as one worker: source, decode, resample, chunk, and the bounded channel into the session.
//!
//! ```text
//! source -> decode -> resample -> chunk ==bounded channel==> session
//! ```
//!
//! Where the channels of a recording are split, each has a resampler, a chunker and a bounded channel of its own: a
//! *line*, for a session of its own.
//!
//! The stages are plain structs called in turn by one thread. The channel is the only place where audio waits: when
//! it is full the thread blocks and reads nothing more, so a slow session slows a file down instead of filling
//! memory. Nothing is dropped.

use std::mem;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc;

use crate::audio::{AudioChunk, Feed};
use crate::chunk::Chunker;
use crate::decode::{self, Block, Channels, DecodeError, Decoder, Limits, StreamInfo};
use crate::resample::{ResampleError, Resampler};
use crate::source::Source;

/// The longest chunk: what a recogniser should see at least that often.
const CHUNK_MAX: Duration = Duration::from_secs(60);

/// How long the resampler's blocks take to fill: half the work of blocks of 20 ms. The same for all chunks, so that
/// their length changes nothing in the audio.
const FILL: Duration = Duration::from_millis(40);

/// Why the front end cannot start, or stopped early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PipelineError {
    /// The source holds nothing that can be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The source's rate cannot be brought to the session's.
    #[error("{name}: {error}")]
    Resample {
        /// The source.
        name: String,
        /// Which rates.
        #[source]
        error: ResampleError,
    },
    /// The chunks asked for are shorter than a frame or longer than a minute.
    #[error("a chunk of {chunk:?} at {sample_rate} Hz, expected 1 frame to {CHUNK_MAX:?}")]
    Chunk {
        /// The duration asked for.
        chunk: Duration,
        /// The session rate.
        sample_rate: u32,
    },
    /// Voice is to be marked, but cannot be.
    #[error("voice cannot be marked at {sample_rate} Hz: it needs 16000 Hz and the feature `engine`")]
    Voice {
        /// The session rate.
        sample_rate: u32,
    },
    /// A channel of no chunks, or of more than tokio can count.
    #[error("a capacity of {capacity} chunks, expected 1 to {}", usize::MAX >> 3)]
    Capacity {
        /// The capacity asked for.
        capacity: usize,
    },
    /// Decoding stopped before the end. All audio before it was delivered, and the end of the stream.
    #[error("{error}")]
    Stopped {
        /// Why.
        #[source]
        error: DecodeError,
        /// What was done until then.
        report: Report,
    },
    /// The worker's thread could not be started.
    #[error("the audio worker cannot be started: {0}")]
    Thread(#[source] std::io::Error),
    /// The worker panicked: a defect of this crate.
    #[error("the audio worker panicked")]
    Panicked,
}

/// What the session wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Frames per second of the session stream.
    pub sample_rate: u32,
    /// How much audio a chunk holds; the last may hold less.
    pub chunk: Duration,
    /// How many chunks may wait in the channel.
    pub capacity: usize,
    /// Which channels of the recording: one line in all, or with [`Channels::Split`] one each.
    pub channels: Channels,
    /// When to give up on the source.
    pub limits: Limits,
    /// Whether chunks are marked as [voiced](crate::audio::AudioChunk::voiced) or silent. Nothing is dropped. Needs the
    /// feature `engine` and a session of 16 kHz.
    pub mark_voice: bool,
}

/// 16 kHz, chunks of 100 ms, and 16 of them in the channel; all channels as one line, without limits.
impl Default for Options {
    fn default() -> Options {
        Options {
            sample_rate: 16_000,
            chunk: Duration::from_millis(100),
            capacity: 16,
            channels: Channels::Mix,
            limits: Limits::default(),
            mark_voice: false,
        }
    }
}

/// What the worker did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Report {
    /// Frames decoded, at the rate they were decoded to: for Opus the session's where it can be, else the source's.
    pub frames_in: u64,
    /// Frames that the lines took together, at the session's rate.
    pub frames_out: u64,
    /// Chunks that the lines took together.
    pub chunks: u64,
    /// Packets that were broken.
    pub skipped_packets: u64,
    /// Whether a receiver was dropped before the end of the stream.
    pub cancelled: bool,
}

/// A source that was probed, and is ready to run.
#[derive(Debug)]
pub struct Pipeline {
    decoder: Decoder,
    stages: Vec<(Resampler, Chunker, Marker)>,
    capacity: usize,
}

impl Pipeline {
    /// Recognises the source's format and prepares all stages. Blocks while it reads.
    ///
    /// # Errors
    /// If the source holds no audio that can be decoded and resampled, or an option is out of range.
    pub fn open(source: Source, options: Options) -> Result<Pipeline, PipelineError> {
        let Options { sample_rate, chunk, capacity, channels, limits, mark_voice } = options;
        if capacity == 0 || capacity > usize::MAX >> 3 {
            return Err(PipelineError::Capacity { capacity });
        }
        let frames = chunk_frames(chunk, sample_rate).ok_or(PipelineError::Chunk { chunk, sample_rate })?;
        if mark_voice && !Marker::can(sample_rate) {
            return Err(PipelineError::Voice { sample_rate });
        }
        let name = source.name().to_owned();
        let wanted = decode::Options { channels, sample_rate: Some(sample_rate), limits };
        let decoder = Decoder::open(source, wanted)?;
        let stages = (0..decoder.planes()).map(|_| {
            let resampler = Resampler::with_fill(decoder.sample_rate(), sample_rate, FILL)?;
            Ok((resampler, Chunker::new(frames), Marker::new(mark_voice)))
        });
        let stages = stages.collect::<Result<_, _>>();
        let stages = stages.map_err(|error| PipelineError::Resample { name, error })?;
        Ok(Pipeline { decoder, stages, capacity })
    }

    /// What messages call the source.
    #[must_use]
    pub fn name(&self) -> &str {
        self.decoder.name()
    }

    /// What the source is.
    #[must_use]
    pub fn info(&self) -> &StreamInfo {
        self.decoder.info()
    }

    /// How many lines it will feed: one, or with [`Channels::Split`] one a channel.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.stages.len()
    }

    /// Starts the worker thread, and gives the receiving end of each line: one, or with [`Channels::Split`] one a
    /// channel, in the recording's order.
    ///
    /// The worker ends after the end of the stream, or when all receivers are dropped. It waits for the slowest line,
    /// so they must be received from at the same time.
    #[must_use]
    pub fn start(self) -> (Vec<mpsc::Receiver<Feed>>, Worker) {
        let (mut lines, mut receivers) = (Vec::new(), Vec::new());
        for (resampler, chunker, marker) in self.stages {
            let (sender, receiver) = mpsc::channel(self.capacity);
            receivers.push(receiver);
            lines.push(Line {
                resampler,
                chunker,
                marker,
                sender,
                resampled: Vec::new(),
                frames: 0,
                chunks: 0,
                cancelled: false,
            });
        }
        let run = Run { decoder: self.decoder, lines, report: Report::default() };
        let thread = thread::Builder::new().name("voxline-audio".to_owned()).spawn(|| run.feed_all());
        (receivers, Worker { thread })
    }
}

/// The running worker.
#[derive(Debug)]
pub struct Worker {
    /// Where the thread could not be started the error waits for `join`; the channel is closed then.
    thread: std::io::Result<JoinHandle<Result<Report, PipelineError>>>,
}

impl Worker {
    /// Whether the worker has ended, so that [`join`](Worker::join) returns at once.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().map_or(true, JoinHandle::is_finished)
    }

    /// Waits for the worker to end. Blocks for as long as it waits for room in the channel: receive until
    /// [`Feed::End`], or drop the receiver, before.
    ///
    /// # Errors
    /// If decoding stopped before the end, or the worker could not start.
    pub fn join(self) -> Result<Report, PipelineError> {
        let thread = self.thread.map_err(PipelineError::Thread)?;
        thread.join().unwrap_or(Err(PipelineError::Panicked))
    }
}

/// What the worker thread owns.
struct Run {
    decoder: Decoder,
    lines: Vec<Line>,
    report: Report,
}

impl Run {
    /// Feeds the lines until the end of the stream. Where decoding stops early, what came before and the end are
    /// delivered all the same.
    fn feed_all(mut self) -> Result<Report, PipelineError> {
        let mut block = Block::new();
        let stopped = loop {
            // Noticed here too: a source may go on for long before a chunk is full.
            if self.lines.iter_mut().all(Line::is_cancelled) {
                break None;
            }
            match self.decoder.next_block(&mut block) {
                Ok(true) => {}
                Ok(false) => break None,
                Err(error) => break Some(error),
            }
            self.report.frames_in += block.frames() as u64;
            for (line, samples) in self.lines.iter_mut().zip(block.planes()) {
                line.push(samples);
            }
        };
        for line in &mut self.lines {
            line.finish();
            self.report.frames_out += line.frames;
            self.report.chunks += line.chunks;
            self.report.cancelled |= line.cancelled;
        }
        self.report.skipped_packets = self.decoder.skipped_packets();
        match stopped {
            Some(error) => Err(PipelineError::Stopped { error, report: self.report }),
            None => Ok(self.report),
        }
    }
}

/// The stages that one channel goes through, up to the bounded channel.
struct Line {
    resampler: Resampler,
    chunker: Chunker,
    marker: Marker,
    sender: mpsc::Sender<Feed>,
    /// What the resampler made last.
    resampled: Vec<f32>,
    /// Frames and chunks that were taken.
    frames: u64,
    chunks: u64,
    /// Whether the receiver is gone: then there is nothing more to do.
    cancelled: bool,
}

impl Line {
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
            let chunk = self.marker.mark(chunk);
            self.send(Feed::Audio(chunk));
        }
        self.send(Feed::End);
    }

    fn send_chunks(&mut self) {
        let resampled = mem::take(&mut self.resampled);
        let mut samples = resampled.as_slice();
        while let Some(chunk) = self.chunker.push(&mut samples) {
            let chunk = self.marker.mark(chunk);
            self.send(Feed::Audio(chunk));
        }
        self.resampled = resampled;
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

/// Marks voice, where that is wanted and built in.
#[derive(Debug)]
struct Marker {
    #[cfg(feature = "vad")]
    voice: Option<crate::voice::VoiceMarker>,
}

#[cfg(feature = "vad")]
impl Marker {
    fn can(sample_rate: u32) -> bool {
        sample_rate == crate::voice::VOICE_RATE
    }

    fn new(wanted: bool) -> Marker {
        Marker { voice: wanted.then(crate::voice::VoiceMarker::new) }
    }

    fn mark(&mut self, chunk: AudioChunk) -> AudioChunk {
        match &mut self.voice {
            Some(voice) => voice.mark(chunk),
            None => chunk,
        }
    }
}

#[cfg(not(feature = "vad"))]
impl Marker {
    fn can(_: u32) -> bool {
        false
    }

    fn new(_: bool) -> Marker {
        Marker {}
    }

    fn mark(&mut self, chunk: AudioChunk) -> AudioChunk {
        chunk
    }
}

/// How many frames a chunk has, rounded to the nearest.
fn chunk_frames(chunk: Duration, sample_rate: u32) -> Option<usize> {
    if chunk > CHUNK_MAX {
        return None;
    }
    let frames = (chunk.as_nanos() * u128::from(sample_rate) + 500_000_000) / 1_000_000_000;
    usize::try_from(frames).ok().filter(|&frames| frames > 0)
}
