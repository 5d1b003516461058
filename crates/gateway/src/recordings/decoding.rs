//! Decoding of recordings within limits of CPU time and length.

use std::time::Duration;

use crate::http::error::ApiError;
use voxline::audio::sample;
use voxline::decode::{self, Block, Cancellation, CpuLimit, DecodeError, Decoder};
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

/// Reason why a file can't be recognised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadRecording {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("audio has {0} channels, 1 is supported")]
    Channels(usize),
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
            BadRecording::Channels(_) => 4044,
            BadRecording::SampleRate(_) => 4045,
        };
        ApiError::bad_request(code, chain(&error).to_string())
    }
}

/// A decoded recording of one channel: at most five minutes, which take 10 MB.
pub(crate) struct Recording {
    /// Samples at the recogniser's rate.
    pub(crate) samples: Vec<i16>,
    /// Length of the audio in the file.
    pub(crate) milliseconds: u64,
}

impl Recording {
    /// Decodes a `file` of up to `longest`, unless cancelled.
    ///
    /// # Errors
    /// Returns [`BadRecording`] if the file is no recording that can be decoded, is not of one channel, or is
    /// too long.
    pub(crate) fn decode(
        file: Vec<u8>,
        longest: Duration,
        cancellation: Cancellation,
    ) -> Result<Recording, BadRecording> {
        let wanted = decode::Options {
            sample_rate: Some(RECOGNIZER_RATE),
            limits: decode::Limits { cpu: Some(CPU_LIMIT), ..decode::Limits::default() },
            ..decode::Options::default()
        };
        let source = Source::bytes("audio", file);
        let mut decoder = Decoder::open_cancellable(source, wanted, cancellation)?;
        let channels = decoder.info().channels;
        if channels != 1 {
            return Err(BadRecording::Channels(channels));
        }
        let rate = decoder.sample_rate();
        let mut resampler =
            Resampler::new(rate, RECOGNIZER_RATE).map_err(|_| BadRecording::SampleRate(rate))?;
        let (mut block, mut resampled, mut samples) = (Block::new(), Vec::new(), Vec::new());
        let mut frames = 0;
        while decoder.next_block(&mut block)? {
            frames += block.frames() as u64;
            if frames > longest.as_secs() * u64::from(rate) {
                return Err(BadRecording::TooLong(longest));
            }
            resampled.clear();
            resampler.push(block.samples(), &mut resampled);
            samples.extend(sample::quantise(&resampled));
        }
        resampled.clear();
        resampler.finish(&mut resampled);
        samples.extend(sample::quantise(&resampled));
        Ok(Recording { samples, milliseconds: frames * 1_000 / u64::from(rate) })
    }
}
