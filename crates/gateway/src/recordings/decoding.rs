//! Decoding of recordings within limits of CPU time and length.

use std::mem;
use std::time::Duration;

use crate::http::error::ApiError;
use voxline::audio::sample;
use voxline::decode::{self, Block, Cancellation, Channels, CpuLimit, DecodeError, Decoder};
use voxline::engine::RECOGNIZER_RATE;
use voxline::error::chain;
use voxline::resample::Resampler;
use voxline::source::Source;

/// CPU time that decoding a file may take: 2.6 s for 20 MB, and 12 ms more for each second of audio at 48
/// kHz.
pub(crate) const CPU_LIMIT: CpuLimit = CpuLimit {
    constant: Duration::from_millis(500),
    per_byte: Duration::from_nanos(100),
    per_sample: Duration::from_nanos(250),
};

/// Frames of a part: one second, which is what one turn of the scheduler recognises.
pub(crate) const PART: usize = RECOGNIZER_RATE as usize;
const PART_MILLISECONDS: u64 = 1_000;

/// Reason why a file can't be recognised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRecording {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("audio has {found} channels, {most} {} supported", if *.most == 1 { "is" } else { "are" })]
    Channels { found: usize, most: usize },
    #[error("audio has a sample rate of {0} Hz, which is not supported")]
    SampleRate(u32),
    #[error("audio is longer than {} s", .0.as_secs())]
    TooLong(Duration),
}

/// The codes are those of the service's documentation.
impl From<BadRecording> for ApiError {
    fn from(error: BadRecording) -> ApiError {
        let code = match error {
            BadRecording::Decode(DecodeError::UnknownFormat { .. }) => 4033,
            BadRecording::Decode(_) => 4034,
            BadRecording::TooLong(_) => 4043,
            BadRecording::Channels { .. } => 4044,
            BadRecording::SampleRate(_) => 4045,
        };
        ApiError::bad_request(code, chain(&error).to_string())
    }
}

/// Limits of a recording, and the channels that it is decoded to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordingLimits {
    /// Longest recording.
    pub(crate) duration: Duration,
    /// Channels to decode.
    pub(crate) channels: Channels,
    /// Maximum number of channels that the recording may have.
    pub(crate) max_channels: usize,
}

impl RecordingLimits {
    /// Returns the limits of a recording of one channel.
    pub(crate) fn mono(duration: Duration) -> RecordingLimits {
        RecordingLimits { duration, channels: Channels::Mix, max_channels: 1 }
    }
}

/// A second of a recording, or the rest at its end.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// Samples of each channel at the recogniser's rate. All channels have the same number.
    pub(crate) channels: Vec<Vec<i16>>,
    /// Length of the audio in the file.
    pub(crate) milliseconds: u64,
    /// True for the part at the end of the recording.
    pub(crate) is_last: bool,
}

/// A recording that is decoded part by part.
pub(crate) struct RecordingDecoder {
    decoder: Decoder,
    limits: RecordingLimits,
    channels: Vec<Channel>,
    block: Block,
    /// Buffer for the resampled frames of one block.
    resampled: Vec<f32>,
    /// Number of frames decoded, at the rate of the file.
    frames: u64,
    /// Number of milliseconds returned.
    returned: u64,
    ended: bool,
}

/// A channel in the course of decoding.
struct Channel {
    resampler: Resampler,
    /// Samples that were not returned yet.
    samples: Vec<i16>,
}

impl RecordingDecoder {
    /// Opens a recording, and decodes its start. Decoding ends soon after `cancellation` is set.
    ///
    /// # Errors
    /// Returns [`BadRecording`] if the source is no recording that can be decoded, or has too many channels.
    pub(crate) fn open(
        source: Source,
        limits: RecordingLimits,
        cancellation: Cancellation,
    ) -> Result<RecordingDecoder, BadRecording> {
        let wanted = decode::Options {
            channels: limits.channels,
            sample_rate: Some(RECOGNIZER_RATE),
            limits: decode::Limits { cpu: Some(CPU_LIMIT), ..decode::Limits::default() },
        };
        let decoder = Decoder::open_cancellable(source, wanted, cancellation)?;
        let found = decoder.info().channels;
        if found > limits.max_channels {
            return Err(BadRecording::Channels { found, most: limits.max_channels });
        }
        let rate = decoder.sample_rate();
        let channel = |_| {
            let resampler = Resampler::new(rate, RECOGNIZER_RATE);
            let resampler = resampler.map_err(|_| BadRecording::SampleRate(rate))?;
            Ok(Channel { resampler, samples: Vec::new() })
        };
        let channels = (0..decoder.planes()).map(channel).collect::<Result<_, BadRecording>>()?;
        Ok(RecordingDecoder {
            decoder,
            limits,
            channels,
            block: Block::new(),
            resampled: Vec::new(),
            frames: 0,
            returned: 0,
            ended: false,
        })
    }

    /// Returns the number of channels of each part.
    pub(crate) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Decodes the next part. Must not be called after the last one.
    ///
    /// # Errors
    /// Returns [`BadRecording`] if the recording is broken or too long.
    pub(crate) fn next_part(&mut self) -> Result<Part, BadRecording> {
        // More than a part is decoded, since only then the part is known not to be the last.
        while !self.ended && self.pending() <= PART {
            self.decode_block()?;
        }
        let length = self.pending().min(PART);
        let is_last = self.ended && length == self.pending();
        // The last part takes what is left, so that rounding errors don't add up.
        let left = self.milliseconds().saturating_sub(self.returned);
        let milliseconds = if is_last { left } else { left.min(PART_MILLISECONDS) };
        self.returned += milliseconds;
        let take = |channel: &mut Channel| {
            let rest = channel.samples.split_off(length);
            mem::replace(&mut channel.samples, rest)
        };
        Ok(Part { channels: self.channels.iter_mut().map(take).collect(), milliseconds, is_last })
    }

    /// Returns the number of decoded samples that were not returned yet, of each channel.
    fn pending(&self) -> usize {
        self.channels.first().map_or(0, |channel| channel.samples.len())
    }

    /// Returns the length of the audio decoded so far.
    fn milliseconds(&self) -> u64 {
        self.frames * 1_000 / u64::from(self.decoder.sample_rate())
    }

    fn decode_block(&mut self) -> Result<(), BadRecording> {
        let RecordingDecoder { decoder, limits, channels, block, resampled, frames, ended, .. } = self;
        *ended = !decoder.next_block(block)?;
        *frames += block.frames() as u64;
        if *frames > limits.duration.as_secs() * u64::from(decoder.sample_rate()) {
            return Err(BadRecording::TooLong(limits.duration));
        }
        for (number, Channel { resampler, samples }) in channels.iter_mut().enumerate() {
            resampled.clear();
            if *ended {
                resampler.finish(resampled);
            } else if let Some(plane) = block.planes().get(number) {
                resampler.push(plane, resampled);
            }
            samples.extend(sample::quantise(resampled));
        }
        Ok(())
    }
}

/// Decodes a whole `file` of one channel and up to `longest`, unless cancelled. Returns its samples at the
/// recogniser's rate.
///
/// # Errors
/// Returns [`BadRecording`] if the file is no recording that can be decoded, is not of one channel, or is
/// too long.
pub(crate) fn decode_whole(
    file: Vec<u8>,
    longest: Duration,
    cancellation: Cancellation,
) -> Result<Vec<i16>, BadRecording> {
    let source = Source::bytes("audio", file);
    let mut decoder = RecordingDecoder::open(source, RecordingLimits::mono(longest), cancellation)?;
    let mut samples = Vec::new();
    loop {
        let part = decoder.next_part()?;
        samples.extend(part.channels.into_iter().next().unwrap_or_default());
        if part.is_last {
            return Ok(samples);
        }
    }
}
