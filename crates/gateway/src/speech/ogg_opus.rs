//! Ogg Opus (RFC 7845), written while the speech is synthesised.

use std::error::Error;
use std::io;

use axum::body::Bytes;
use ogg::writing::{PacketWriteEndInfo, PacketWriter};
use opus::{Application, Bitrate, Channels, Encoder, Signal};

use crate::authority::random_bytes;
use voxline::engine::EngineError;
use voxline::protocol::tts::PCM_RATE;

/// Samples in a packet: 20 ms, the frame length that the codec is designed for.
const FRAME: usize = PCM_RATE as usize / 50;
/// Granules per sample. Positions and lengths count at 48 kHz, whatever the audio's rate (RFC 7845, section
/// 4).
const GRANULES: u64 = 48_000 / PCM_RATE as u64;
/// Maximum number of packets in a page: one second, as with opusenc, since a stream is played page by page.
const PACKETS_A_PAGE: u64 = 50;
/// Largest packet of 20 ms, in bytes (RFC 6716, section 3.2.1).
const MAX_PACKET: usize = 1_275;
/// Bit rate in bits per second, within the range that RFC 6716, section 2.1.1, gives for fullband speech.
const BITRATE: i32 = 32_000;

/// An Ogg Opus stream in the course of writing.
pub(super) struct OggOpus {
    encoder: Encoder,
    pages: PacketWriter<'static, Vec<u8>>,
    serial: u32,
    /// Samples that don't fill a packet yet.
    rest: Vec<f32>,
    /// Delay of the decoder's output, in samples.
    delay: usize,
    /// Number of samples taken.
    taken: u64,
    /// Number of packets written.
    packets: u64,
}

impl OggOpus {
    /// Creates a stream of mono audio at [`PCM_RATE`]. Its headers are returned with the first audio.
    pub(super) fn new() -> Result<OggOpus, EngineError> {
        let mut encoder = Encoder::new(PCM_RATE, Channels::Mono, Application::Audio).map_err(failed)?;
        encoder.set_signal(Signal::Voice).map_err(failed)?;
        encoder.set_bitrate(Bitrate::Bits(BITRATE)).map_err(failed)?;
        let delay = usize::try_from(encoder.get_lookahead().map_err(failed)?).map_err(failed)?;
        let pages = PacketWriter::new(Vec::new());
        let serial = u32::from_ne_bytes(random_bytes());
        let mut stream = OggOpus { encoder, pages, serial, rest: Vec::new(), delay, taken: 0, packets: 0 };
        stream.write(stream.head(), PacketWriteEndInfo::EndPage, 0).map_err(failed)?;
        stream.write(tags(), PacketWriteEndInfo::EndPage, 0).map_err(failed)?;
        Ok(stream)
    }

    /// Encodes samples. Returns the pages that they fill. The last page may be short, so that the listener
    /// doesn't wait for it.
    pub(super) fn push(&mut self, samples: &[f32]) -> Result<Bytes, EngineError> {
        self.taken += samples.len() as u64;
        self.rest.extend_from_slice(samples);
        let rest = std::mem::take(&mut self.rest);
        let (frames, incomplete) = rest.as_chunks::<FRAME>();
        for (index, frame) in frames.iter().enumerate() {
            let packet = self.encoder.encode_vec_float(frame, MAX_PACKET).map_err(failed)?;
            self.packets += 1;
            let ends = index + 1 == frames.len() || self.packets.is_multiple_of(PACKETS_A_PAGE);
            let end = if ends { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
            self.write(packet, end, self.packets * FRAME as u64 * GRANULES).map_err(failed)?;
        }
        self.rest = incomplete.to_vec();
        Ok(std::mem::take(self.pages.inner_mut()).into())
    }

    /// Ends the stream and returns its last page, whose position tells where the audio ends within the last
    /// packet.
    pub(super) fn finish(&mut self) -> Result<Bytes, EngineError> {
        let position = (self.delay as u64 + self.taken) * GRANULES;
        let left = (self.rest.len() + self.delay).max(1).div_ceil(FRAME);
        self.rest.resize(left * FRAME, 0.0);
        let rest = std::mem::take(&mut self.rest);
        for (index, frame) in rest.chunks(FRAME).enumerate() {
            let packet = self.encoder.encode_vec_float(frame, MAX_PACKET).map_err(failed)?;
            let is_last = index + 1 == left;
            let end = if is_last { PacketWriteEndInfo::EndStream } else { PacketWriteEndInfo::NormalPacket };
            self.write(packet, end, position).map_err(failed)?;
        }
        Ok(std::mem::take(self.pages.inner_mut()).into())
    }

    fn write(&mut self, packet: Vec<u8>, end: PacketWriteEndInfo, position: u64) -> io::Result<()> {
        self.pages.write_packet(packet, self.serial, end, position)
    }

    /// Returns the identification header (RFC 7845, section 5.1).
    fn head(&self) -> Vec<u8> {
        let pre_skip = (self.delay as u64 * GRANULES) as u16;
        let mut head = b"OpusHead\x01\x01".to_vec();
        head.extend(pre_skip.to_le_bytes());
        head.extend(PCM_RATE.to_le_bytes());
        // No gain, and the channel mapping of mono and stereo.
        head.extend([0, 0, 0]);
        head
    }
}

/// Returns the comment header (RFC 7845, section 5.2), with the vendor and no comments.
fn tags() -> Vec<u8> {
    let vendor = b"voxline";
    let mut tags = b"OpusTags".to_vec();
    tags.extend((vendor.len() as u32).to_le_bytes());
    tags.extend(vendor);
    tags.extend(0u32.to_le_bytes());
    tags
}

fn failed(error: impl Error + Send + Sync + 'static) -> EngineError {
    EngineError::inference("opus encoder", error)
}
