//! Files of audio that clients send, read within the documented limits.

use std::time::Duration;

use axum::body::Body;
use http::StatusCode;

use super::body::{self, BadBody};
use super::busy;
use super::error::ApiError;
use crate::audio::sample;
use crate::decode::{self, Block, DecodeError, Decoder};
use crate::engine::RECOGNIZER_RATE;
use crate::resample::Resampler;
use crate::source::Source;

/// The whole file, unless it has more than `max_bytes` bytes, takes longer than `patience`, or `room` has none for a
/// part of so many bytes.
pub(super) async fn receive(
    body: Body,
    max_bytes: usize,
    patience: Duration,
    room: impl FnMut(usize) -> bool,
) -> Result<Vec<u8>, ApiError> {
    body::read_where(body, max_bytes, patience, room).await.map_err(|refused| match refused {
        BadBody::TooLarge => too_large(max_bytes),
        BadBody::Late => ApiError::new(StatusCode::REQUEST_TIMEOUT, 408, "audio did not arrive in time"),
        BadBody::NoRoom => busy(),
        BadBody::Broken => bad(4034, "audio broke off"),
    })
}

pub(super) fn too_large(max_bytes: usize) -> ApiError {
    bad(4009, format!("audio is larger than {max_bytes} bytes"))
}

pub(super) fn bad(code: u16, message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, code, message)
}

/// A file of one channel, read part by part at the recogniser's rate.
pub(super) struct Recording {
    decoder: Decoder,
    resampler: Resampler,
    block: Block,
    /// Frames decoded.
    frames: u64,
    longest: Duration,
    ended: bool,
}

/// Audio that follows what was read before.
pub(super) struct Part {
    /// How long it is in the file; the last part is the resampler's rest and has none.
    pub(super) milliseconds: u64,
    pub(super) samples: Vec<i16>,
}

impl Recording {
    /// Looks at what `file` is, which may be so long.
    pub(super) fn open(file: Vec<u8>, longest: Duration) -> Result<Recording, ApiError> {
        let wanted = decode::Options { sample_rate: Some(RECOGNIZER_RATE), ..decode::Options::default() };
        let decoder = Decoder::open(Source::bytes("audio", file), wanted).map_err(broken)?;
        let info = decoder.info();
        if info.channels != 1 {
            return Err(bad(4044, format!("audio has {} channels, 1 is supported", info.channels)));
        }
        let rate = decoder.sample_rate();
        let unsupported =
            |_| bad(4045, format!("audio has a sample rate of {rate} Hz, which is not supported"));
        let resampler = Resampler::new(rate, RECOGNIZER_RATE).map_err(unsupported)?;
        Ok(Recording { decoder, resampler, block: Block::new(), frames: 0, longest, ended: false })
    }

    /// What follows; `None` at the end.
    pub(super) fn next_part(&mut self) -> Result<Option<Part>, ApiError> {
        if self.ended {
            return Ok(None);
        }
        let mut resampled = Vec::new();
        let rate = u64::from(self.decoder.sample_rate());
        let before = self.frames;
        if self.decoder.next_block(&mut self.block).map_err(broken)? {
            self.frames += self.block.frames() as u64;
            let longest = self.longest.as_secs();
            if self.frames > longest * rate {
                return Err(bad(4043, format!("audio is longer than {longest} s")));
            }
            self.resampler.push(self.block.samples(), &mut resampled);
        } else {
            self.ended = true;
            self.resampler.finish(&mut resampled);
        }
        // From the sums, so that the roundings don't add up.
        let milliseconds = self.frames * 1000 / rate - before * 1000 / rate;
        Ok(Some(Part { milliseconds, samples: sample::quantise(&resampled) }))
    }
}

fn broken(error: DecodeError) -> ApiError {
    match error {
        DecodeError::UnknownFormat { .. } => bad(4033, error.to_string()),
        error => bad(4034, error.to_string()),
    }
}
