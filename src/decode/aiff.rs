//! The header of an AIFF or AIFF-C file that holds PCM or G.711, so that its audio can be read directly.
//! (Audio Interchange File Format 1.3 and AIFF-C, Apple; symphonia's reader refuses files whose end is
//! missing.)

use std::io::{self, Read};

use super::opening::Opening;
use super::pcm::{HEADER_BYTES_MAX, PcmHeader};
use crate::audio::{Encoding, PcmFormat};

/// Reads up to the first byte of the audio. Returns `None` if the source is no AIFF, holds something else
/// (ADPCM, signed bytes), or is malformed; the next reader then reports the fault.
///
/// `opening` must be at its start. Afterwards it is at the audio, or anywhere if there is none.
pub(super) fn read(opening: &mut Opening) -> io::Result<Option<PcmHeader>> {
    let mut form = [0; 12];
    opening.read_exact(&mut form)?;
    let (b"FORM", b"AIFF" | b"AIFC") = (&form[..4], &form[8..]) else { return Ok(None) };
    let (mut format, mut before) = (None, 0);
    loop {
        let mut chunk = [0; 8];
        opening.read_exact(&mut chunk)?;
        let [a, b, c, d, size @ ..] = chunk;
        let size = u64::from(u32::from_be_bytes(size));
        if [a, b, c, d] == *b"SSND" {
            let Some(format) = format else { return Ok(None) };
            // The offset of the audio in the chunk, then the size of the blocks that it may be aligned
            // to.
            let mut place = [0; 8];
            opening.read_exact(&mut place)?;
            let offset = u64::from(u32::from_be_bytes([place[0], place[1], place[2], place[3]]));
            // Skipped bytes of a stream are kept in memory.
            if offset > HEADER_BYTES_MAX {
                return Ok(None);
            }
            opening.skip(offset)?;
            let bytes = Some(size.saturating_sub(8 + offset));
            return Ok(Some(PcmHeader { format, bytes, container: "aiff" }));
        }
        // The chunk header counts too; otherwise empty chunks could continue without end.
        before += 8 + size;
        if before > HEADER_BYTES_MAX {
            return Ok(None);
        }
        let mut content = vec![0; size as usize];
        opening.read_exact(&mut content)?;
        if [a, b, c, d] == *b"COMM" {
            match pcm_format(&content) {
                None => return Ok(None),
                known => format = known,
            }
        }
        // Chunks start at even offsets.
        opening.skip(size % 2)?;
    }
}

/// Returns the format that a common chunk states; `None` if it is neither PCM nor G.711.
fn pcm_format(common: &[u8]) -> Option<PcmFormat> {
    let (channels, rest) = common.split_first_chunk::<2>()?;
    let (_frames, rest) = rest.split_first_chunk::<4>()?;
    let (bits, rest) = rest.split_first_chunk::<2>()?;
    let (rate, rest) = rest.split_first_chunk::<10>()?;
    // Only AIFF-C states a codec.
    let codec = rest.first_chunk::<4>().unwrap_or(b"NONE");
    let encoding = match (codec, u16::from_be_bytes(*bits)) {
        (b"NONE" | b"twos", 16) => Encoding::S16Be,
        (b"NONE" | b"twos", 24) => Encoding::S24Be,
        (b"NONE" | b"twos", 32) => Encoding::S32Be,
        (b"sowt", 16) => Encoding::S16Le,
        (b"fl32" | b"FL32", _) => Encoding::F32Be,
        (b"fl64" | b"FL64", _) => Encoding::F64Be,
        (b"ulaw" | b"ULAW", _) => Encoding::MuLaw,
        (b"alaw" | b"ALAW", _) => Encoding::ALaw,
        _ => return None,
    };
    let format = PcmFormat {
        encoding,
        sample_rate: whole_number(*rate)?,
        channels: usize::from(u16::from_be_bytes(*channels)),
    };
    let plausible = format.sample_rate > 0 && (1..=PcmFormat::CHANNELS_MAX).contains(&format.channels);
    plausible.then_some(format)
}

/// Converts an IEEE 754 extended number, if it is a whole one: 16 bits of exponent, 64 of mantissa with
/// its leading one.
fn whole_number(extended: [u8; 10]) -> Option<u32> {
    let (exponent, mantissa) = extended.split_first_chunk::<2>()?;
    let mantissa = u64::from_be_bytes(*mantissa.first_chunk()?);
    let shift = (16_383 + 63_u32).checked_sub(u32::from(u16::from_be_bytes(*exponent)))?;
    let number = mantissa.checked_shr(shift)?;
    (number << shift == mantissa).then(|| u32::try_from(number).ok())?
}
