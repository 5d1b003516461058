//! From the bytes of a source to mono floats.
//!
//! Formats: WAV and AIFF (PCM of every width, float, mu-law, A-law, ADPCM), FLAC, MP3, Ogg Vorbis, M4A (AAC, ALAC)
//! and CAF. The demuxers and decoders are symphonia's; this module decides what is an error, and makes sure that
//! hostile input ends in one: panics are caught, and packets without audio are counted.

mod error;
mod isomp4;
mod mix;
#[expect(dead_code, reason = "not wired in yet")]
mod opus;
mod probe;
mod trim;

use symphonia::core::errors::Error;
use symphonia::core::formats::FormatReader;

pub use error::{At, DecodeError};

use crate::source::Source;
use probe::{AudioTrack, Fault, Opened, guarded};

/// How many packets in a row may be broken: some 6 s of MP3. A file that is worse is not worth going through.
const BROKEN_RUN_MAX: u64 = 256;

/// How many packets in a row may carry no audio of the track, such as those of a video beside it: 18 min at 60
/// pictures a second. A reader that never ends would otherwise never be noticed.
const SILENT_RUN_MAX: u64 = 1 << 16;

/// What a stream is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamInfo {
    /// The container's short name, such as `wave` or `isomp4`.
    pub container: &'static str,
    /// The codec's short name, such as `pcm_s16le` or `vorbis`.
    pub codec: &'static str,
    /// Frames per second.
    pub sample_rate: u32,
    /// Channels, before they are mixed to one.
    pub channels: usize,
    /// How many frames the container says there are; `None` where it does not, such as in a stream. M4A's count may
    /// be a few frames off.
    pub frames: Option<u64>,
}

/// Decodes one source, block by block.
///
/// Frames come at the stream's own rate, as the mean of its channels. A packet that is broken is left out and
/// counted; what follows it is then early by its length.
pub struct Decoder {
    name: String,
    format: Box<dyn FormatReader>,
    track: AudioTrack,
    info: StreamInfo,
    /// The first block, decoded when opening.
    first: Option<Vec<f32>>,
    /// Frames delivered.
    position: u64,
    /// Frames that broken packets should have had.
    lost: u64,
    skipped_packets: u64,
    ended: bool,
}

impl Decoder {
    /// Recognises the format and decodes the first block, so that what [`info`](Decoder::info) says is what was
    /// decoded. Reads, so it blocks until a stream has that much.
    ///
    /// # Errors
    /// If the source holds no known format, or no audio, or none that can be decoded.
    pub fn open(source: Source) -> Result<Decoder, DecodeError> {
        let Opened { name, format, track } = probe::open(source)?;
        if track.frames_are_exact && track.frames == Some(0) {
            return Err(DecodeError::NoAudio { name });
        }
        let info = StreamInfo {
            container: format.format_info().short_name,
            codec: track.decoder.codec_info().short_name,
            sample_rate: 0,
            channels: 0,
            frames: track.frames,
        };
        let mut decoder = Decoder {
            name,
            format,
            track,
            info,
            first: None,
            position: 0,
            lost: 0,
            skipped_packets: 0,
            ended: false,
        };
        let mut first = Vec::new();
        decoder.advance(&mut first)?;
        decoder.first = Some(first);
        Ok(decoder)
    }

    /// What the stream is.
    #[must_use]
    pub fn info(&self) -> &StreamInfo {
        &self.info
    }

    /// How many packets were broken and left out so far.
    #[must_use]
    pub fn skipped_packets(&self) -> u64 {
        self.skipped_packets
    }

    /// Replaces what `mono` holds by the next block, of at least one frame; `false` at the end, when it is empty.
    /// After the end and after an error there is nothing more.
    ///
    /// # Errors
    /// If the rest cannot be decoded, is missing, or has another rate or channel count. All blocks before were
    /// delivered.
    pub fn next_block(&mut self, mono: &mut Vec<f32>) -> Result<bool, DecodeError> {
        if let Some(mut first) = self.first.take() {
            std::mem::swap(mono, &mut first);
            return Ok(true);
        }
        mono.clear();
        if self.ended {
            return Ok(false);
        }
        let more = self.advance(mono);
        if !matches!(more, Ok(true)) {
            mono.clear();
            self.ended = true;
        }
        more
    }

    /// Decodes packets until one gives audio.
    fn advance(&mut self, mono: &mut Vec<f32>) -> Result<bool, DecodeError> {
        let (mut silent_run, mut broken_run) = (0, 0);
        loop {
            if silent_run > SILENT_RUN_MAX {
                return Err(self.corrupt(format!("{SILENT_RUN_MAX} packets in a row hold no audio")));
            }
            silent_run += 1;
            let packet = match guarded(|| self.format.next_packet()) {
                Ok(Some(packet)) => packet,
                Ok(None) => return self.end(),
                // Another stream follows in the same file, as Ogg allows.
                Err(Fault::Error(Error::ResetRequired)) => {
                    self.track = probe::audio_track(&self.name, self.format.as_ref())?;
                    continue;
                }
                Err(fault) if fault.is_end_of_file() => return self.end_of_file(),
                Err(fault) => return Err(self.stopped(fault)),
            };
            if packet.track_id != self.track.id {
                continue;
            }
            let block = match guarded(|| self.track.decoder.decode(&packet)) {
                Ok(block) => block,
                // The packet is in memory already: running out of bytes means that it is broken, not the source.
                Err(fault @ Fault::Error(Error::DecodeError(_) | Error::IoError(_))) => {
                    self.skipped_packets += 1;
                    self.lost += packet.dur.get();
                    broken_run += 1;
                    if broken_run >= BROKEN_RUN_MAX {
                        let what = fault.describe();
                        return Err(self.corrupt(format!("{broken_run} packets in a row are broken: {what}")));
                    }
                    continue;
                }
                Err(fault) => return Err(self.stopped(fault)),
            };
            if block.frames() == 0 {
                continue;
            }
            let (rate, channels) = (block.spec().rate(), block.spec().channels().count());
            if self.info.sample_rate == 0 {
                (self.info.sample_rate, self.info.channels) = (rate, channels);
            }
            if (rate, channels) != (self.info.sample_rate, self.info.channels) {
                return Err(DecodeError::Changed {
                    name: self.name.clone(),
                    at: self.at(),
                    channels: self.info.channels,
                    new_rate: rate,
                    new_channels: channels,
                });
            }
            mix::append_mono(&block, mono);
            self.track.trim.apply(mono);
            if mono.is_empty() {
                continue;
            }
            self.position += mono.len() as u64;
            return Ok(true);
        }
    }

    /// The demuxer has no more packets.
    fn end(&self) -> Result<bool, DecodeError> {
        if let Some(expected) = self.track.frames.filter(|_| self.track.frames_are_exact)
            && self.position + self.lost < expected
        {
            return Err(self.truncated());
        }
        if self.position == 0 {
            return Err(DecodeError::NoAudio { name: self.name.clone() });
        }
        Ok(false)
    }

    /// The source has no more bytes, though the demuxer wants some.
    fn end_of_file(&self) -> Result<bool, DecodeError> {
        let has_all = match self.track.frames {
            Some(expected) => self.position + self.lost >= expected,
            None => probe::may_end_anywhere(self.format.as_ref()),
        };
        if has_all { self.end() } else { Err(self.truncated()) }
    }

    fn at(&self) -> At {
        At { frame: self.position, sample_rate: self.info.sample_rate }
    }

    fn truncated(&self) -> DecodeError {
        DecodeError::Truncated { name: self.name.clone(), at: self.at(), expected: self.track.frames }
    }

    fn corrupt(&self, what: String) -> DecodeError {
        DecodeError::Corrupt { name: self.name.clone(), at: self.at(), what }
    }

    fn stopped(&self, fault: Fault) -> DecodeError {
        match fault {
            Fault::Error(Error::IoError(error)) => {
                DecodeError::Read { name: self.name.clone(), at: self.at(), error }
            }
            fault => self.corrupt(fault.describe()),
        }
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Decoder({}, {:?}, frame {})", self.name, self.info, self.position)
    }
}
