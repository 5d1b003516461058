//! Audio encoders of speech, for its three formats.

use axum::body::Bytes;
use rusty_mp3::{Mp3Encoder, Mp3EncoderConfig};

use super::ogg_opus::OggOpus;
use voxline::audio::sample;
use voxline::engine::EngineError;
use voxline::protocol::tts::PCM_RATE;

/// Bit rate of MP3, in kbit/s. The decoded spectrum is as close to the input as that of LAME at this rate
/// (log-spectral distances of 1.8, 1.3 and 0.7 dB against 1.8, 1.2 and 0.8, for three voices, both decoded by
/// mpg123), at 200 to 400 times real time.
const MP3_KBPS: u32 = 64;

/// Documented values of `encoder`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Headerless PCM, 16-bit, big-endian.
    Pcm,
    Mp3,
    /// Opus in an Ogg container.
    Opus,
}

impl Format {
    /// Returns the format that `name`, a value of `encoder`, stands for.
    pub(super) fn named(name: &str) -> Option<Format> {
        match name {
            "pcm" => Some(Format::Pcm),
            "mp3" => Some(Format::Mp3),
            "opus" => Some(Format::Opus),
            _ => None,
        }
    }

    /// Returns the content type. That of PCM is as documented, and its rate is [`PCM_RATE`].
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Format::Pcm => "audio/l16;rate=24000;channels=1;endianness=big-endian",
            Format::Mp3 => "audio/mpeg",
            Format::Opus => "audio/ogg; codecs=opus",
        }
    }

    /// Creates an encoder of mono audio at [`PCM_RATE`].
    pub(super) fn encoder(self) -> Result<Encoder, EngineError> {
        Ok(match self {
            Format::Pcm => Encoder::Pcm,
            Format::Mp3 => Encoder::Mp3(Box::new(Mp3::new())),
            Format::Opus => Encoder::Opus(Box::new(OggOpus::new()?)),
        })
    }
}

/// A streaming encoder.
pub(super) enum Encoder {
    Pcm,
    Mp3(Box<Mp3>),
    Opus(Box<OggOpus>),
}

impl Encoder {
    /// Encodes samples. Returns the bytes that they complete, if any.
    pub(super) fn push(&mut self, samples: &[f32]) -> Result<Bytes, EngineError> {
        match self {
            Encoder::Pcm => Ok(big_endian(samples)),
            Encoder::Mp3(mp3) => mp3.push(samples),
            Encoder::Opus(opus) => opus.push(samples),
        }
    }

    /// Ends the stream. Returns the remaining bytes.
    pub(super) fn finish(&mut self) -> Result<Bytes, EngineError> {
        match self {
            Encoder::Pcm => Ok(Bytes::new()),
            Encoder::Mp3(mp3) => Ok(mp3.finish()),
            Encoder::Opus(opus) => opus.finish(),
        }
    }
}

fn big_endian(samples: &[f32]) -> Bytes {
    samples.iter().flat_map(|&value| sample::to_s16(value).to_be_bytes()).collect()
}

/// An MP3 encoder whose frames are each complete in themselves, as a stream needs them.
pub(super) struct Mp3 {
    encoder: Mp3Encoder,
    /// True once the first frame was dropped. That frame tells the length and carries no audio; in a stream
    /// the length isn't known yet.
    tag_has_passed: bool,
}

impl Mp3 {
    fn new() -> Mp3 {
        let config = Mp3EncoderConfig { bitrate_kbps: MP3_KBPS, vbr_quality: None };
        Mp3 { encoder: Mp3Encoder::new(config), tag_has_passed: false }
    }

    fn push(&mut self, samples: &[f32]) -> Result<Bytes, EngineError> {
        self.encoder
            .push_pcm_f32(samples, 1, PCM_RATE)
            .map_err(|error| EngineError::inference("mp3 encoder", error))?;
        Ok(self.frames())
    }

    fn finish(&mut self) -> Bytes {
        self.encoder.finish();
        self.frames()
    }

    fn frames(&mut self) -> Bytes {
        let mut frames = Vec::new();
        while let Ok(frame) = self.encoder.next_packet() {
            if self.tag_has_passed {
                frames.extend(frame);
            }
            self.tag_has_passed = true;
        }
        frames.into()
    }
}
