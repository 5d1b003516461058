//! PCM and G.711, read directly from the source into floats: there is nothing to demux, and symphonia's
//! packets and planes would be most of the work.

use std::io::{self, Read};

use super::channels::{Block, Channels};
use super::packets::Stop;
use crate::audio::{Encoding, PcmFormat, g711, sample};

/// Number of bytes read at once: few enough to stay in a core's cache until they are converted.
const READ_BYTES: usize = 64 * 1024;

/// Most bytes that may stand before the audio, such as titles and cue points. A longer header is left to
/// symphonia.
pub(super) const HEADER_BYTES_MAX: u64 = 1 << 20;

/// The header of a file that holds PCM or G.711.
pub(super) struct PcmHeader {
    /// Short name of the container.
    pub(super) container: &'static str,
    pub(super) format: PcmFormat,
    /// Number of bytes of audio; `None` if the audio continues to the end of the source.
    pub(super) bytes: Option<u64>,
}

/// A reader of frames of one format, up to the end of the audio.
pub(super) struct PcmReader {
    input: Box<dyn Read + Send + Sync>,
    format: PcmFormat,
    /// Number of frames expected, and number of bytes still to come; `None` if only the end of the source
    /// ends the audio.
    frames: Option<u64>,
    left: Option<u64>,
    buffer: Box<[u8]>,
    /// Number of bytes at the start of the buffer that belong to a frame whose end was not read yet.
    partial: usize,
}

impl PcmReader {
    /// Creates a reader of `bytes` bytes of audio, or up to the end of `input`.
    pub(super) fn new(
        input: Box<dyn Read + Send + Sync>,
        format: PcmFormat,
        bytes: Option<u64>,
    ) -> PcmReader {
        let frames = bytes.map(|bytes| bytes / format.frame_bytes() as u64);
        PcmReader { input, format, frames, left: bytes, buffer: vec![0; READ_BYTES].into(), partial: 0 }
    }

    pub(super) fn format(&self) -> PcmFormat {
        self.format
    }

    /// Returns the number of frames expected.
    pub(super) fn frames(&self) -> Option<u64> {
        self.frames
    }

    /// Converts the bytes of one read into `block`, at least one frame. `position` is the number of
    /// frames read before.
    pub(super) fn read(&mut self, position: u64, channels: Channels, block: &mut Block) -> Result<(), Stop> {
        block.clear(channels.planes(self.format.channels).ok_or(Stop::NoChannel(self.format.channels))?);
        let frame = self.format.frame_bytes();
        loop {
            let room = (self.buffer.len() - self.partial) as u64;
            let wanted = self.left.map_or(room, |left| left.min(room)) as usize;
            let read = match self.input.read(&mut self.buffer[self.partial..self.partial + wanted]) {
                Ok(0) if self.frames.is_some_and(|frames| position < frames) => return Err(Stop::CutShort),
                Ok(0) => return Err(Stop::End),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Stop::Unreadable(error)),
            };
            self.left = self.left.map(|left| left - read as u64);
            let filled = self.partial + read;
            let whole = filled - filled % frame;
            if whole > 0 {
                convert(self.format, channels, &self.buffer[..whole], block.planes_mut());
                self.buffer.copy_within(whole..filled, 0);
                self.partial = filled - whole;
                return Ok(());
            }
            self.partial = filled;
        }
    }
}

/// Appends whole frames to the planes. Integers are scaled to -1.0..1.0; floats are copied unchanged.
fn convert(format: PcmFormat, channels: Channels, bytes: &[u8], planes: &mut [Vec<f32>]) {
    let from = Interleaved { bytes, channels: format.channels };
    match format.encoding {
        Encoding::U8 => from.spread(channels, planes, |[b]| (f32::from(b) - 128.0) * (1.0 / 128.0)),
        Encoding::S16Le => from.spread(channels, planes, |b| sample::to_f32(i16::from_le_bytes(b))),
        Encoding::S16Be => from.spread(channels, planes, |b| sample::to_f32(i16::from_be_bytes(b))),
        Encoding::S24Le => from.spread(channels, planes, |[a, b, c]| from_s32([0, a, b, c])),
        Encoding::S24Be => from.spread(channels, planes, |[a, b, c]| from_s32([0, c, b, a])),
        Encoding::S32Le => from.spread(channels, planes, from_s32),
        Encoding::S32Be => from.spread(channels, planes, |[a, b, c, d]| from_s32([d, c, b, a])),
        Encoding::F32Le => from.spread(channels, planes, f32::from_le_bytes),
        Encoding::F32Be => from.spread(channels, planes, f32::from_be_bytes),
        Encoding::F64Le => from.spread(channels, planes, |b| f64::from_le_bytes(b) as f32),
        Encoding::F64Be => from.spread(channels, planes, |b| f64::from_be_bytes(b) as f32),
        Encoding::MuLaw => from.spread(channels, planes, |[b]| MU_LAW[usize::from(b)]),
        Encoding::ALaw => from.spread(channels, planes, |[b]| A_LAW[usize::from(b)]),
    }
}

fn from_s32(little_endian: [u8; 4]) -> f32 {
    i32::from_le_bytes(little_endian) as f32 * (1.0 / 2_147_483_648.0)
}

/// Whole frames, sample by sample.
struct Interleaved<'a> {
    bytes: &'a [u8],
    channels: usize,
}

impl Interleaved<'_> {
    /// Converts the samples and appends them to the planes. The common layouts have loops of their own,
    /// which the compiler vectorises.
    fn spread<const N: usize>(
        &self,
        channels: Channels,
        planes: &mut [Vec<f32>],
        value: impl Fn([u8; N]) -> f32,
    ) {
        let samples = self.bytes.as_chunks::<N>().0;
        match (channels, self.channels) {
            (_, 1) => planes[0].extend(samples.iter().map(|&sample| value(sample))),
            (Channels::Mix, 2) => {
                let pairs = samples.as_chunks::<2>().0;
                planes[0].extend(pairs.iter().map(|&[left, right]| (value(left) + value(right)) * 0.5));
            }
            (Channels::Mix, count) => {
                let scale = 1.0 / count as f32;
                let mean = |frame: &[[u8; N]]| frame.iter().map(|&sample| value(sample)).sum::<f32>() * scale;
                planes[0].extend(samples.chunks_exact(count).map(mean));
            }
            (Channels::Only(channel), count) => {
                let one = samples.iter().skip(channel - 1).step_by(count);
                planes[0].extend(one.map(|&sample| value(sample)));
            }
            (Channels::Split, count) => {
                for (channel, plane) in planes.iter_mut().enumerate() {
                    let one = samples.iter().skip(channel).step_by(count);
                    plane.extend(one.map(|&sample| value(sample)));
                }
            }
        }
    }
}

/// Sample value of each code.
static MU_LAW: [f32; 256] = {
    let (mut table, mut code) = ([0.0; 256], 0);
    while code < table.len() {
        table[code] = sample::to_f32(g711::mu_law(code as u8));
        code += 1;
    }
    table
};
static A_LAW: [f32; 256] = {
    let (mut table, mut code) = ([0.0; 256], 0);
    while code < table.len() {
        table[code] = sample::to_f32(g711::a_law(code as u8));
        code += 1;
    }
    table
};
