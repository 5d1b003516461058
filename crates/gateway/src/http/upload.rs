//! Audio files from clients, received and decoded within the documented limits.

use std::time::Duration;

use axum::body::Body;
use http::StatusCode;

use super::body::{self, BadBody};
use super::error::ApiError;
use voxline::audio::sample;
use voxline::decode::{self, Block, Cancellation, CpuLimit, DecodeError, Decoder};
use voxline::engine::RECOGNIZER_RATE;
use voxline::resample::Resampler;
use voxline::source::Source;

/// CPU time that decoding a file may take: 2.6 s for 20 MB, and 12 ms more for each second of audio at 48
/// kHz.
const CPU_LIMIT: CpuLimit = CpuLimit {
    constant: Duration::from_millis(500),
    per_byte: Duration::from_nanos(100),
    per_sample: Duration::from_nanos(250),
};

/// Receives a whole file.
///
/// # Errors
/// Returns [`ApiError`] if the file has more than `max_bytes` bytes, takes longer than `patience`, breaks
/// off, or has a part for whose length `room` finds no memory.
pub(crate) async fn receive(
    body: Body,
    max_bytes: usize,
    patience: Duration,
    room: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, ApiError> {
    body::read_reserving(body, max_bytes, patience, room).await.map_err(|refused| match refused {
        BadBody::TooLarge => too_large(max_bytes),
        BadBody::Late => ApiError::new(StatusCode::REQUEST_TIMEOUT, 408, "audio did not arrive in time"),
        BadBody::NoRoom => ApiError::too_many_requests(),
        BadBody::Broken => ApiError::bad_request(4034, "audio broke off"),
    })
}

pub(crate) fn too_large(max_bytes: usize) -> ApiError {
    ApiError::bad_request(4009, format!("audio is larger than {max_bytes} bytes"))
}

/// A decoded file of one channel: at most five minutes, which take 10 MB.
pub(crate) struct Upload {
    /// Samples at the recogniser's rate.
    pub(crate) samples: Vec<i16>,
    /// Length of the audio in the file.
    pub(crate) milliseconds: u64,
}

impl Upload {
    /// Decodes a `file` of up to `longest`, unless cancelled.
    pub(crate) fn decode(
        file: Vec<u8>,
        longest: Duration,
        cancellation: Cancellation,
    ) -> Result<Upload, ApiError> {
        let wanted = decode::Options {
            sample_rate: Some(RECOGNIZER_RATE),
            limits: decode::Limits { cpu: Some(CPU_LIMIT), ..decode::Limits::default() },
            ..decode::Options::default()
        };
        let source = Source::bytes("audio", file);
        let mut decoder = Decoder::open_cancellable(source, wanted, cancellation).map_err(broken)?;
        let info = decoder.info();
        if info.channels != 1 {
            return Err(ApiError::bad_request(
                4044,
                format!("audio has {} channels, 1 is supported", info.channels),
            ));
        }
        let rate = decoder.sample_rate();
        let unsupported = |_| {
            ApiError::bad_request(
                4045,
                format!("audio has a sample rate of {rate} Hz, which is not supported"),
            )
        };
        let mut resampler = Resampler::new(rate, RECOGNIZER_RATE).map_err(unsupported)?;
        let (mut block, mut resampled, mut samples) = (Block::new(), Vec::new(), Vec::new());
        let (rate, longest) = (u64::from(rate), longest.as_secs());
        let mut frames = 0;
        while decoder.next_block(&mut block).map_err(broken)? {
            frames += block.frames() as u64;
            if frames > longest * rate {
                return Err(ApiError::bad_request(4043, format!("audio is longer than {longest} s")));
            }
            resampled.clear();
            resampler.push(block.samples(), &mut resampled);
            samples.extend(sample::quantise(&resampled));
        }
        resampled.clear();
        resampler.finish(&mut resampled);
        samples.extend(sample::quantise(&resampled));
        Ok(Upload { samples, milliseconds: frames * 1_000 / rate })
    }
}

fn broken(error: DecodeError) -> ApiError {
    match error {
        DecodeError::UnknownFormat { .. } => ApiError::bad_request(4033, error.to_string()),
        error => ApiError::bad_request(4034, error.to_string()),
    }
}
