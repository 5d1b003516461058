//! The header of a WAV file that holds PCM or G.711, so that its audio can be read directly.

use std::io::{self, Read};

use super::opening::Opening;
use super::pcm::{HEADER_BYTES_MAX, PcmHeader};
use crate::audio::{Encoding, PcmFormat};

/// Smallest size that means an unknown size. When writing to pipes, ffmpeg states the highest 32-bit
/// number, sox a number a little under 2 GiB.
const UNKNOWN_SIZE: u64 = 0xFFFF_FFFF;
const UNKNOWN_SIZE_OF_STREAM: u64 = 0x7FFF_F000;

/// Reads up to the first byte of the audio. Returns `None` if the source is no WAV, holds something else
/// (ADPCM), or is malformed; the next reader then reports the fault.
///
/// `opening` must be at its start. Afterwards it is at the audio, or anywhere if there is none.
pub(super) fn read(opening: &mut Opening) -> io::Result<Option<PcmHeader>> {
    let mut riff = [0; 12];
    opening.read_exact(&mut riff)?;
    // EBU Tech 3306: above 4 GiB a file is RF64 (or BW64, ITU-R BS.2088), with the real sizes in a chunk
    // of their own.
    let (b"RIFF" | b"RF64" | b"BW64", b"WAVE") = (&riff[..4], &riff[8..]) else { return Ok(None) };
    let length = opening.length()?;
    let (mut format, mut long_size, mut before) = (None, None, 0);
    loop {
        let mut chunk = [0; 8];
        opening.read_exact(&mut chunk)?;
        let [a, b, c, d, size @ ..] = chunk;
        let size = u64::from(u32::from_le_bytes(size));
        if [a, b, c, d] == *b"data" {
            let Some(format) = format else { return Ok(None) };
            let unknown = if length.is_none() { UNKNOWN_SIZE_OF_STREAM } else { UNKNOWN_SIZE };
            let bytes = long_size.or((size < unknown).then_some(size));
            return Ok(Some(PcmHeader { format, bytes, container: "wave" }));
        }
        // The chunk header counts too; otherwise empty chunks could continue without end.
        before += 8 + size;
        if before > HEADER_BYTES_MAX {
            return Ok(None);
        }
        let mut content = vec![0; size as usize];
        opening.read_exact(&mut content)?;
        match &[a, b, c, d] {
            b"fmt " => match pcm_format(&content) {
                None => return Ok(None),
                known => format = known,
            },
            // The size of the whole file comes first, then that of the audio.
            b"ds64" => {
                long_size =
                    content.get(8..16).map(|size| u64::from_le_bytes(size.try_into().expect("8 bytes")));
            }
            _ => {}
        }
        // Chunks start at even offsets.
        opening.skip(size % 2)?;
    }
}

/// Returns the format that a format chunk states; `None` if it is neither PCM nor G.711.
fn pcm_format(chunk: &[u8]) -> Option<PcmFormat> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(chunk.get(at..at + 2)?.try_into().ok()?));
    let sample_rate = u32::from_le_bytes(chunk.get(4..8)?.try_into().ok()?);
    let (channels, frame_bytes, bits) = (u16_at(2)?, u16_at(12)?, u16_at(14)?);
    let code = match u16_at(0)? {
        // WAVE_FORMAT_EXTENSIBLE: the code is at the start of a GUID.
        0xFFFE => u16_at(24)?,
        code => code,
    };
    let encoding = match (code, bits) {
        (1, 8) => Encoding::U8,
        (1, 16) => Encoding::S16Le,
        (1, 24) => Encoding::S24Le,
        (1, 32) => Encoding::S32Le,
        (3, 32) => Encoding::F32Le,
        (3, 64) => Encoding::F64Le,
        (6, 8) => Encoding::ALaw,
        (7, 8) => Encoding::MuLaw,
        _ => return None,
    };
    let format = PcmFormat { encoding, sample_rate, channels: usize::from(channels) };
    let plausible = sample_rate > 0
        && (1..=PcmFormat::CHANNELS_MAX).contains(&format.channels)
        && format.frame_bytes() == usize::from(frame_bytes);
    plausible.then_some(format)
}
