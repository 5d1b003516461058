//! The header of a CAF file that holds PCM or G.711, so that its audio can be read directly. (Apple Core
//! Audio Format Specification 1.0; symphonia's reader refuses G.711, and streams.)

use std::io::{self, Read};

use super::opening::Opening;
use super::pcm::{HEADER_BYTES_MAX, PcmHeader};
use crate::audio::{Encoding, PcmFormat};

/// Largest number of packets that a table may name; symphonia keeps 32 bytes for each. The limit is 13
/// hours of AAC and 54 hours of ALAC.
const PACKETS_MAX: i64 = 1 << 21;

/// Fails if the packet table (Core Audio Format Specification 1.0, "Packet Table Chunk") names too many
/// packets, or if a stream has too many bytes before its audio. Broken chunks are left to symphonia.
///
/// `opening` must be at its start.
pub(super) fn check(opening: &mut Opening) -> io::Result<Result<(), String>> {
    let is_stream = opening.length()?.is_none();
    opening.skip(8)?;
    let mut before = 0;
    loop {
        let mut chunk = [0; 12];
        if opening.fill(&mut chunk)? < chunk.len() {
            return Ok(Ok(()));
        }
        let [a, b, c, d, size @ ..] = chunk;
        let kind = [a, b, c, d];
        // The last chunk to read is one of unknown size, or one that a stream cannot skip.
        let Some(size) =
            u64::try_from(i64::from_be_bytes(size)).ok().filter(|_| !is_stream || kind != *b"data")
        else {
            return Ok(Ok(()));
        };
        before += 12 + size;
        if is_stream && before > HEADER_BYTES_MAX {
            return Ok(Err(format!("more than {HEADER_BYTES_MAX} bytes before the audio of a stream")));
        }
        let mut counted = 0;
        if kind == *b"pakt" {
            let mut count = [0; 8];
            counted = opening.fill(&mut count)? as u64;
            let packets = i64::from_be_bytes(count);
            if packets > PACKETS_MAX {
                return Ok(Err(format!("a table of {packets} packets, expected at most {PACKETS_MAX}")));
            }
        }
        opening.skip(size.saturating_sub(counted))?;
    }
}

/// Reads up to the first byte of the audio. Returns `None` if the source is no CAF, holds something else
/// (ALAC, ADPCM), or is malformed; the next reader then reports the fault.
///
/// `opening` must be at its start. Afterwards it is at the audio, or anywhere if there is none.
pub(super) fn read(opening: &mut Opening) -> io::Result<Option<PcmHeader>> {
    let mut file = [0; 8];
    opening.read_exact(&mut file)?;
    if file != *b"caff\0\x01\0\0" {
        return Ok(None);
    }
    let (mut format, mut before) = (None, 0);
    loop {
        let mut chunk = [0; 12];
        opening.read_exact(&mut chunk)?;
        let [a, b, c, d, size @ ..] = chunk;
        let size = i64::from_be_bytes(size);
        if [a, b, c, d] == *b"data" {
            let Some(format) = format else { return Ok(None) };
            // A count of edits stands before the audio; a size of -1 means an unknown size.
            opening.read_exact(&mut [0; 4])?;
            let bytes = u64::try_from(size).ok().map(|size| size.saturating_sub(4));
            return Ok(Some(PcmHeader { format, bytes, container: "caf" }));
        }
        let Ok(size) = u64::try_from(size) else { return Ok(None) };
        // The chunk header counts too; otherwise empty chunks could continue without end.
        before += 12 + size;
        if before > HEADER_BYTES_MAX {
            return Ok(None);
        }
        let mut content = vec![0; size as usize];
        opening.read_exact(&mut content)?;
        if [a, b, c, d] == *b"desc" {
            match pcm_format(&content) {
                None => return Ok(None),
                known => format = known,
            }
        }
    }
}

/// Returns the format that a description states; `None` if it is neither PCM nor G.711.
fn pcm_format(description: &[u8]) -> Option<PcmFormat> {
    let (rate, rest) = description.split_first_chunk::<8>()?;
    let (codec, rest) = rest.split_first_chunk::<4>()?;
    let (numbers, _) = rest.as_chunks::<4>();
    let [flags, packet_bytes, _frames, channels, bits] = *numbers.first_chunk::<5>()?;
    let [flags, packet_bytes, channels, bits] = [flags, packet_bytes, channels, bits].map(u32::from_be_bytes);
    let (is_float, is_little_endian) = (flags & 1 != 0, flags & 2 != 0);
    let encoding = match (codec, is_float, bits, is_little_endian) {
        (b"ulaw", ..) => Encoding::MuLaw,
        (b"alaw", ..) => Encoding::ALaw,
        (b"lpcm", false, 16, false) => Encoding::S16Be,
        (b"lpcm", false, 16, true) => Encoding::S16Le,
        (b"lpcm", false, 24, false) => Encoding::S24Be,
        (b"lpcm", false, 24, true) => Encoding::S24Le,
        (b"lpcm", false, 32, false) => Encoding::S32Be,
        (b"lpcm", false, 32, true) => Encoding::S32Le,
        (b"lpcm", true, 32, false) => Encoding::F32Be,
        (b"lpcm", true, 32, true) => Encoding::F32Le,
        (b"lpcm", true, 64, false) => Encoding::F64Be,
        (b"lpcm", true, 64, true) => Encoding::F64Le,
        _ => return None,
    };
    let rate = f64::from_be_bytes(*rate);
    let format = PcmFormat { encoding, sample_rate: rate as u32, channels: channels as usize };
    let plausible = f64::from(format.sample_rate) == rate
        && format.sample_rate > 0
        && (1..=PcmFormat::CHANNELS_MAX).contains(&format.channels)
        && format.frame_bytes() == packet_bytes as usize;
    plausible.then_some(format)
}
