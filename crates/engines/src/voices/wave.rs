//! Parsing of the WAV that a speech program writes to its stdout.

/// Returns the sample rate and the samples of a 16-bit mono PCM WAV, or a description of its fault.
///
/// A program that writes to a pipe cannot go back to fill in the sizes: espeak-ng leaves 0x7ffff000
/// there, festival 0. A data chunk of either size extends to the end.
pub(super) fn read(wav: &[u8]) -> Result<(u32, Vec<i16>), String> {
    if wav.get(..4) != Some(b"RIFF") || wav.get(8..12) != Some(b"WAVE") {
        return Err(format!("answered {} bytes that are not WAV", wav.len()));
    }
    let mut rate = None;
    let mut rest = &wav[12..];
    while let Some((id, size, body)) = chunk(rest) {
        let body = if id == b"data" && size == 0 { &rest[8..] } else { body };
        match id {
            b"fmt " => rate = Some(sample_rate(body)?),
            b"data" => {
                let rate = rate.ok_or("its WAV has no format before the data")?;
                return Ok((
                    rate,
                    body.as_chunks().0.iter().map(|&bytes| i16::from_le_bytes(bytes)).collect(),
                ));
            }
            _ => {}
        }
        // Chunks are padded to an even length (RIFF 1.0, "chunks").
        rest = rest.get(8 + size + size % 2..).unwrap_or(&[]);
    }
    Err("its WAV has no data".to_owned())
}

/// Returns the ID of the next chunk, its stated size, and the part of its body that is present.
fn chunk(bytes: &[u8]) -> Option<(&[u8; 4], usize, &[u8])> {
    let (id, after) = bytes.split_first_chunk::<4>()?;
    let (size, after) = after.split_first_chunk::<4>()?;
    let size = usize::try_from(u32::from_le_bytes(*size)).ok()?;
    Some((id, size, &after[..size.min(after.len())]))
}

/// Returns the rate that a format chunk states, if the rest of it states 16-bit mono PCM.
fn sample_rate(format: &[u8]) -> Result<u32, String> {
    let word = |at: usize| format.get(at..at + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    let (Some(tag), Some(channels), Some(low), Some(high), Some(bits)) =
        (word(0), word(2), word(4), word(6), word(14))
    else {
        return Err(format!("its WAV format has {} bytes instead of 16", format.len()));
    };
    if (tag, channels, bits) != (1, 1, 16) {
        return Err(format!(
            "its WAV has format {tag}, {channels} channels, {bits} bits instead of PCM, 1 channel, 16 bits"
        ));
    }
    Ok(u32::from(low) | u32::from(high) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(size: u32, body: &[u8]) -> Vec<u8> {
        let mut wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0".to_vec();
        wav.extend(22_050u32.to_le_bytes());
        wav.extend([0, 0, 0, 0, 2, 0, 16, 0]);
        wav.extend(b"LIST\x03\0\0\0abc\0data");
        wav.extend(size.to_le_bytes());
        wav.extend(body);
        wav
    }

    #[test]
    fn reads_exact_and_streamed_sizes() {
        assert_eq!(read(&wav(4, &[1, 0, 255, 255, 9, 9])).unwrap(), (22_050, vec![1, -1]));
        assert_eq!(read(&wav(0x7fff_f000, &[1, 0, 255, 255, 9])).unwrap(), (22_050, vec![1, -1]));
        assert_eq!(read(&wav(0, &[1, 0, 255, 255])).unwrap(), (22_050, vec![1, -1]));
        assert_eq!(read(&wav(0, &[])).unwrap(), (22_050, vec![]));
    }

    #[test]
    fn every_cut_is_an_error_or_shorter_never_a_panic() {
        let whole = wav(4, &[1, 0, 2, 0]);
        for length in 0..whole.len() {
            if let Ok((_, samples)) = read(&whole[..length]) {
                assert!(samples.len() < 2);
            }
        }
        assert!(read(b"").unwrap_err().contains("0 bytes"));
    }
}
