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
        BadBody::TooLarge => bad(4009, format!("audio is larger than {max_bytes} bytes")),
        BadBody::Late => ApiError::new(StatusCode::REQUEST_TIMEOUT, 408, "audio did not arrive in time"),
        BadBody::NoRoom => busy(),
        BadBody::Broken => bad(4034, "audio broke off"),
    })
}

pub(super) fn bad(code: u16, message: impl Into<String>) -> ApiError {
    ApiError::new(StatusCode::BAD_REQUEST, code, message)
}

/// A file of one channel that can be brought to the recogniser's rate.
pub(super) struct Recording {
    decoder: Decoder,
    resampler: Resampler,
}

impl Recording {
    /// Looks at what `file` is.
    pub(super) fn open(file: Vec<u8>) -> Result<Recording, ApiError> {
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
        Ok(Recording { decoder, resampler })
    }

    /// Reads all of it, at the recogniser's rate. `take` is told the milliseconds of each part before the next is
    /// decoded; the last part is the resampler's rest and has none.
    pub(super) fn read(
        mut self,
        longest: Duration,
        mut take: impl FnMut(u64, &[i16]) -> Result<(), ApiError>,
    ) -> Result<(), ApiError> {
        let rate = self.decoder.sample_rate();
        let max_frames = longest.as_secs() * u64::from(rate);
        let milliseconds = |frames: u64| frames * 1000 / u64::from(rate);
        let (mut block, mut resampled, mut frames) = (Block::new(), Vec::new(), 0);
        while self.decoder.next_block(&mut block).map_err(broken)? {
            let before = frames;
            frames += block.frames() as u64;
            if frames > max_frames {
                return Err(bad(4043, format!("audio is longer than {} s", longest.as_secs())));
            }
            resampled.clear();
            self.resampler.push(block.samples(), &mut resampled);
            take(milliseconds(frames) - milliseconds(before), &sample::quantise(&resampled))?;
        }
        resampled.clear();
        self.resampler.finish(&mut resampled);
        take(0, &sample::quantise(&resampled))
    }
}

fn broken(error: DecodeError) -> ApiError {
    match error {
        DecodeError::UnknownFormat { .. } => bad(4033, error.to_string()),
        error => bad(4034, error.to_string()),
    }
}
