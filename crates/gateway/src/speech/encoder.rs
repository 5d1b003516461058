//! Audio encoders of speech.

use std::mem;

use axum::body::Bytes;
use http::HeaderValue;
use rusty_mp3::{Mp3Encoder, Mp3EncoderConfig};

use super::flac::Flac;
use super::ogg_opus::OggOpus;
use voxline::audio::sample;
use voxline::engine::EngineError;
use voxline::protocol::tts::PCM_RATE;

/// Bit rate of MP3, in kbit/s. The decoded spectrum is as close to the input as that of LAME at this rate
/// (log-spectral distances of 1.8, 1.3 and 0.7 dB against 1.8, 1.2 and 0.8, for three voices, both decoded by
/// mpg123), at 200 to 400 times real time.
const MP3_KBPS: u32 = 64;

/// Sample format of WAV: integer PCM (RFC 2361, appendix A.1).
const WAV_PCM: u16 = 1;
/// Length in a header of a file whose end isn't known yet, as ffmpeg writes it to a pipe.
const UNKNOWN: u32 = u32::MAX;

/// A format of speech, with its sample rate where that can be chosen. The audio has one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Headerless PCM, 16-bit, big-endian.
    PcmBigEndian,
    /// Headerless PCM, 16-bit, little-endian.
    PcmLittleEndian(u32),
    /// PCM, 16-bit, in a WAV file.
    Wav(u32),
    Mp3,
    /// Opus in an Ogg container.
    Opus,
    Flac(u32),
}

impl Format {
    /// Returns the content type. That of big-endian PCM is as Cloud Voice documents it.
    pub(crate) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Format::PcmBigEndian => "audio/l16;rate=24000;channels=1;endianness=big-endian",
            Format::PcmLittleEndian(sample_rate) => {
                let content_type = format!("audio/pcm;rate={sample_rate};channels=1");
                return HeaderValue::try_from(content_type).expect("a number fits a header");
            }
            Format::Wav(_) => "audio/wav",
            Format::Mp3 => "audio/mpeg",
            Format::Opus => "audio/ogg; codecs=opus",
            Format::Flac(_) => "audio/flac",
        })
    }

    /// Returns the sample rate, in Hz.
    pub(super) fn sample_rate(self) -> u32 {
        match self {
            Format::PcmLittleEndian(sample_rate) | Format::Wav(sample_rate) | Format::Flac(sample_rate) => {
                sample_rate
            }
            Format::PcmBigEndian | Format::Mp3 | Format::Opus => PCM_RATE,
        }
    }

    /// Creates an encoder of mono audio at the [sample rate](Format::sample_rate).
    pub(super) fn encoder(self) -> Result<Encoder, EngineError> {
        Ok(match self {
            Format::PcmBigEndian => Encoder::PcmBigEndian,
            Format::PcmLittleEndian(_) => Encoder::PcmLittleEndian { header: Bytes::new() },
            Format::Wav(sample_rate) => Encoder::PcmLittleEndian { header: wav_header(sample_rate) },
            Format::Mp3 => Encoder::Mp3(Box::new(Mp3::new())),
            Format::Opus => Encoder::Opus(Box::new(OggOpus::new()?)),
            Format::Flac(sample_rate) => Encoder::Flac(Box::new(Flac::new(sample_rate))),
        })
    }
}

/// A streaming encoder.
pub(super) enum Encoder {
    PcmBigEndian,
    /// PCM after a header, which is written with the first samples.
    PcmLittleEndian {
        header: Bytes,
    },
    Mp3(Box<Mp3>),
    Opus(Box<OggOpus>),
    Flac(Box<Flac>),
}

impl Encoder {
    /// Encodes samples. Returns the bytes that they complete, if any.
    pub(super) fn push(&mut self, samples: &[f32]) -> Result<Bytes, EngineError> {
        match self {
            Encoder::PcmBigEndian => {
                Ok(samples.iter().flat_map(|&value| sample::to_s16(value).to_be_bytes()).collect())
            }
            Encoder::PcmLittleEndian { header } => {
                let mut bytes = mem::take(header).to_vec();
                sample::write_s16le(samples, &mut bytes);
                Ok(bytes.into())
            }
            Encoder::Mp3(mp3) => mp3.push(samples),
            Encoder::Opus(opus) => opus.push(samples),
            Encoder::Flac(flac) => Ok(flac.push(&sample::quantise(samples)).into()),
        }
    }

    /// Ends the stream. Returns the remaining bytes.
    pub(super) fn finish(&mut self) -> Result<Bytes, EngineError> {
        match self {
            Encoder::PcmBigEndian => Ok(Bytes::new()),
            Encoder::PcmLittleEndian { header } => Ok(mem::take(header)),
            Encoder::Mp3(mp3) => Ok(mp3.finish()),
            Encoder::Opus(opus) => opus.finish(),
            Encoder::Flac(flac) => Ok(flac.finish().into()),
        }
    }
}

/// Returns the header of a WAV file of unknown length.
fn wav_header(sample_rate: u32) -> Bytes {
    let mut header = b"RIFF".to_vec();
    header.extend(UNKNOWN.to_le_bytes());
    header.extend(b"WAVEfmt ");
    header.extend(16_u32.to_le_bytes());
    for value in [WAV_PCM, 1] {
        header.extend(value.to_le_bytes());
    }
    header.extend(sample_rate.to_le_bytes());
    header.extend((2 * sample_rate).to_le_bytes());
    for value in [2_u16, 16] {
        header.extend(value.to_le_bytes());
    }
    header.extend(b"data");
    header.extend(UNKNOWN.to_le_bytes());
    header.into()
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
