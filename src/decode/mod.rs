//! Decoding of audio sources to 32-bit floats, as one plane or one plane per channel.
//!
//! Formats: WAV, AIFF and CAF (PCM of every width, float, mu-law, A-law, ADPCM), FLAC, MP3, Ogg Vorbis,
//! Matroska and WebM, M4A (AAC-LC, ALAC), and headerless PCM and G.711; with the feature `opus` also Opus.
//! The demuxers and most decoders are symphonia's. PCM is converted directly (`pcm`); Opus has libopus
//! (`opus`). This module decides what counts as an error, and makes sure that hostile input ends in one:
//! panics are caught, packets without audio are counted, the number of frames, the time and the CPU time are
//! limited, and tables that a demuxer would walk repeatedly are bounded beforehand.

mod aiff;
mod caf;
mod channels;
mod error;
mod guard;
mod isomp4;
mod matroska;
mod meter;
mod mix;
mod ogg;
mod opening;
#[cfg(feature = "opus")]
mod opus;
#[cfg(feature = "opus")]
mod opus_track;
mod packets;
mod pcm;
mod probe;
mod trim;
mod vorbis;
mod wave;

use std::time::Duration;

use self::channels::Spec;
pub use channels::{Block, Channels, ChannelsError};
pub use error::{At, DecodeError, DecodeFault, ExceededLimit};
pub use guard::panic_is_caught;
pub use meter::{Cancellation, CpuLimit};

use self::guard::guarded;
use self::meter::{Meter, StopReason};
use self::packets::{Packets, Stop};
use self::pcm::PcmReader;
use crate::resample::frames_at;
use crate::source::Source;
use voxline_support::clock::{Clock, SystemClock};

/// Largest number of frames per byte of source. A FLAC frame of digital silence takes 16 bytes for 65,535
/// frames; a higher ratio means that decoding runs in a loop.
const FRAMES_PER_BYTE_MAX: u64 = 8_192;

/// Options for decoding a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Channels to decode.
    pub channels: Channels,
    /// Rate that the caller needs in the end, in Hz. Opus is decoded directly to this rate if it is 8,
    /// 12, 16, 24 or 48 kHz, which halves the work; every other codec has only the rate of the recording.
    pub sample_rate: Option<u32>,
    /// Limits at which decoding is given up.
    pub limits: Limits,
}

/// Limits at which decoding of a source is given up. A source of known size is also limited to 8,192
/// frames per byte, which no real file reaches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Largest number of frames, at the rate that the source is decoded to.
    pub frames: Option<u64>,
    /// Longest time that reading and decoding may take in all. The limit is checked after each packet; a
    /// source that blocks for ever is not interrupted.
    pub time: Option<Duration>,
    /// Most CPU time that opening and decoding may take. The limit is checked on each read of a container
    /// and between packets, so it is exceeded by the cost of one packet at most.
    pub cpu: Option<CpuLimit>,
}

/// Properties of an audio stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// Short name of the container, such as `wave` or `isomp4`; `raw` for headerless audio.
    pub container: &'static str,
    /// Short name of the codec, such as `pcm_s16le` or `vorbis`.
    pub codec: &'static str,
    /// Frames per second.
    pub sample_rate: u32,
    /// Number of channels, before channels are mixed or selected.
    pub channels: usize,
    /// Number of frames that the container states; `None` if it states none, as in a stream.
    pub frames: Option<u64>,
}

impl StreamInfo {
    /// Returns the duration that the container states.
    #[must_use]
    pub fn duration(&self) -> Option<Duration> {
        let seconds = |frames| Duration::from_secs_f64(frames as f64 / f64::from(self.sample_rate));
        self.frames.map(seconds)
    }
}

/// A decoder that yields one source block by block.
///
/// A broken packet is counted and replaced by silence (by concealment for Opus), so that the audio after
/// it keeps its place in time.
pub struct Decoder {
    name: String,
    reader: Reader,
    options: Options,
    info: StreamInfo,
    /// Rate of the decoded frames, in Hz.
    sample_rate: u32,
    /// First block, decoded when the source was opened.
    first: Option<Block>,
    /// Number of frames delivered.
    position: u64,
    /// Largest number of frames that may be delivered.
    frames_max: u64,
    clock: SystemClock,
    /// Time spent reading and decoding, counted only if it is limited.
    spent: Duration,
    meter: Meter,
    ended: bool,
}

/// Source of the frames.
enum Reader {
    Pcm { reader: PcmReader, container: &'static str },
    Packets(Box<Packets>),
}

impl Decoder {
    /// Recognises the format and decodes the first block, so that [`info`](Decoder::info) describes what
    /// was decoded. Blocks until a stream has supplied that much.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if the source holds no known format, no audio, no audio that can be
    /// decoded, or not the channel that `options` asks for.
    pub fn open(source: Source, options: Options) -> Result<Decoder, DecodeError> {
        Decoder::open_cancellable(source, options, Cancellation::new())
    }

    /// Opens a source as [`open`](Decoder::open) does; opening and decoding end soon after `cancellation`
    /// is set.
    ///
    /// # Errors
    /// Returns the errors of [`open`](Decoder::open), and [`DecodeError::Cancelled`].
    pub fn open_cancellable(
        source: Source,
        options: Options,
        cancellation: Cancellation,
    ) -> Result<Decoder, DecodeError> {
        let name = source.name().to_owned();
        let meter = Meter::new(cancellation, options.limits.cpu);
        let opened = meter.count(|| probe::open(source, &options, &meter));
        let (reader, bytes) = opened.map_err(|stopped| stop_error(name.clone(), At::START, stopped))??;
        if reader.is_empty() {
            return Err(DecodeError::NoAudio { name });
        }
        let by_size = bytes.map_or(u64::MAX, |bytes| bytes.saturating_mul(FRAMES_PER_BYTE_MAX));
        let mut decoder = Decoder {
            name,
            info: StreamInfo {
                container: reader.container(),
                codec: reader.codec(),
                sample_rate: 0,
                channels: 0,
                frames: reader.frames(),
            },
            reader,
            options,
            sample_rate: 0,
            first: None,
            position: 0,
            frames_max: options.limits.frames.map_or(by_size, |limit| limit.min(by_size)),
            clock: SystemClock::new(),
            spent: Duration::ZERO,
            meter,
            ended: false,
        };
        let mut first = Block::new();
        if !decoder.advance(&mut first)? {
            return Err(DecodeError::NoAudio { name: decoder.name });
        }
        decoder.first = Some(first);
        Ok(decoder)
    }

    /// Returns the name of the source that messages use.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the properties of the stream.
    #[must_use]
    pub fn info(&self) -> &StreamInfo {
        &self.info
    }

    /// Returns the frames per second of the blocks: the stream's own rate, or for Opus the rate that was
    /// asked for.
    #[must_use]
    pub fn sample_rate(&self) -> u32 {
        self.sample_rate
    }

    /// Returns the number of planes of each block.
    #[must_use]
    pub fn planes(&self) -> usize {
        self.options.channels.planes(self.info.channels).expect("opening found the channels wanted")
    }

    /// Returns the number of broken packets so far.
    #[must_use]
    pub fn skipped_packets(&self) -> u64 {
        match &self.reader {
            Reader::Pcm { .. } => 0,
            Reader::Packets(packets) => packets.skipped,
        }
    }

    /// Replaces the content of `block` by the next frames, at least one, and returns `true`. At the end,
    /// empties `block` and returns `false`. After the end, and after an error, there are no more frames.
    ///
    /// # Errors
    /// Returns [`DecodeError`] if the rest cannot be decoded, is missing, has another rate or channel
    /// count, or exceeds a limit. All blocks before the error were delivered.
    pub fn next_block(&mut self, block: &mut Block) -> Result<bool, DecodeError> {
        if let Some(first) = self.first.take() {
            *block = first;
            return Ok(true);
        }
        if self.ended {
            block.clear(0);
            return Ok(false);
        }
        let more = self.advance(block);
        if !matches!(more, Ok(true)) {
            block.clear(0);
            self.ended = true;
        }
        more
    }

    /// Reads until a packet yields audio.
    fn advance(&mut self, block: &mut Block) -> Result<bool, DecodeError> {
        loop {
            let start = self.options.limits.time.map(|_| self.clock.monotonic());
            let planes = self.options.channels.planes(self.info.channels).unwrap_or(0);
            block.clear(planes);
            let read = self
                .meter
                .count(|| guarded(|| self.reader.read(self.position, self.options.channels, block)))
                .map_err(|stopped| stop_error(self.name.clone(), self.at(), stopped))?;
            if let Some(start) = start {
                self.spent += self.clock.monotonic().saturating_sub(start);
            }
            match read {
                Ok(Ok(())) => {}
                Ok(Err(stop)) => return self.stopped(stop),
                Err(panic) => return Err(self.corrupt(panic)),
            }
            if self.info.sample_rate == 0
                && let Some(spec) = self.reader.spec()
            {
                (self.info.sample_rate, self.info.channels) = (spec.sample_rate, spec.channels);
                self.sample_rate = self.reader.sample_rate();
            }
            let frames = block.frames() as u64;
            if self.position + frames > self.frames_max {
                return Err(self.limit(ExceededLimit::Frames(self.frames_max)));
            }
            if let Some(limit) = self.options.limits.time.filter(|limit| self.spent > *limit) {
                return Err(self.limit(ExceededLimit::Time(limit)));
            }
            if frames > 0 {
                self.position += frames;
                self.meter.add_samples(frames.saturating_mul(self.info.channels as u64));
                return Ok(true);
            }
        }
    }

    fn stopped(&self, stop: Stop) -> Result<bool, DecodeError> {
        let name = self.name.clone();
        Err(match stop {
            Stop::End if self.position == 0 => DecodeError::NoAudio { name },
            Stop::End => return Ok(false),
            Stop::CutShort => {
                let (rate, decoded_rate) = (self.info.sample_rate.max(1), self.sample_rate.max(1));
                let expected = self.info.frames.map(|frames| frames_at(frames, rate, decoded_rate));
                DecodeError::Truncated { name, at: self.at(), expected }
            }
            Stop::Broken(fault) => self.corrupt(fault),
            Stop::Changed(spec) => DecodeError::Changed {
                name,
                at: self.at(),
                rate: self.info.sample_rate,
                channels: self.info.channels,
                new_rate: spec.sample_rate,
                new_channels: spec.channels,
            },
            Stop::NoChannel(channels) => {
                DecodeError::Channel { name, wanted: self.options.channels, channels }
            }
            Stop::Unreadable(error) => DecodeError::Read { name, at: self.at(), error },
        })
    }

    fn at(&self) -> At {
        At { frame: self.position, sample_rate: self.sample_rate }
    }

    fn corrupt(&self, fault: DecodeFault) -> DecodeError {
        DecodeError::Corrupt { name: self.name.clone(), at: self.at(), fault }
    }

    fn limit(&self, limit: ExceededLimit) -> DecodeError {
        DecodeError::Limit { name: self.name.clone(), at: self.at(), limit }
    }
}

/// Converts the reason why decoding was stopped into the decoder's error.
fn stop_error(name: String, at: At, stopped: StopReason) -> DecodeError {
    match stopped {
        StopReason::Cancelled => DecodeError::Cancelled { name },
        StopReason::CpuTime(allowed) => {
            DecodeError::Limit { name, at, limit: ExceededLimit::CpuTime(allowed) }
        }
    }
}

impl Reader {
    fn container(&self) -> &'static str {
        match self {
            Reader::Pcm { container, .. } => container,
            Reader::Packets(packets) => packets.container(),
        }
    }

    fn codec(&self) -> &'static str {
        match self {
            Reader::Pcm { reader, .. } => reader.format().encoding.codec(),
            Reader::Packets(packets) => packets.codec(),
        }
    }

    fn spec(&self) -> Option<Spec> {
        match self {
            Reader::Pcm { reader, .. } => {
                let format = reader.format();
                Some(Spec { sample_rate: format.sample_rate, channels: format.channels })
            }
            Reader::Packets(packets) => packets.spec(),
        }
    }

    /// Returns the rate of the decoded frames, or 0 while the rate is unknown.
    fn sample_rate(&self) -> u32 {
        match self {
            Reader::Pcm { reader, .. } => reader.format().sample_rate,
            Reader::Packets(packets) => packets.sample_rate().unwrap_or(0),
        }
    }

    fn frames(&self) -> Option<u64> {
        match self {
            Reader::Pcm { reader, .. } => reader.frames(),
            Reader::Packets(packets) => packets.frames(),
        }
    }

    /// Returns whether the source states that it holds no frames.
    fn is_empty(&self) -> bool {
        match self {
            Reader::Pcm { reader, .. } => reader.frames() == Some(0),
            Reader::Packets(packets) => packets.is_empty(),
        }
    }

    fn read(&mut self, position: u64, channels: Channels, block: &mut Block) -> Result<(), Stop> {
        match self {
            Reader::Pcm { reader, .. } => reader.read(position, channels, block),
            Reader::Packets(packets) => packets.read(position, block),
        }
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Decoder({}, {:?}, frame {})", self.name, self.info, self.position)
    }
}
