//! M4A files whose end is missing.

use std::io::{self, Read, Seek, SeekFrom};

/// Whether the file's audio goes beyond its end, with the index before it: what is there can then be decoded, by
/// reading front to back. (With the file's length known, symphonia ignores a box that is longer than the file, and
/// finds no audio at all.)
///
/// `input` is at its start, and is again afterwards.
pub(super) fn is_cut_short(input: &mut (impl Read + Seek)) -> io::Result<bool> {
    let length = input.seek(SeekFrom::End(0))?;
    input.rewind()?;
    let cut = walk(input, length);
    input.rewind()?;
    match cut {
        // Too few bytes for another header: the audio was not reached.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => other,
    }
}

/// Goes through the boxes up to the audio (ISO/IEC 14496-12, 4.2).
fn walk(input: &mut (impl Read + Seek), length: u64) -> io::Result<bool> {
    let (mut start, mut has_index) = (0_u64, false);
    loop {
        let mut header = [0; 8];
        input.read_exact(&mut header)?;
        let [a, b, c, d, kind @ ..] = header;
        let size = match u32::from_be_bytes([a, b, c, d]) {
            // Up to the end of the file, wherever that is.
            0 => return Ok(false),
            1 => {
                let mut large = [0; 8];
                input.read_exact(&mut large)?;
                u64::from_be_bytes(large)
            }
            size => u64::from(size),
        };
        let end = start.saturating_add(size);
        match &kind {
            b"mdat" => return Ok(has_index && end > length),
            b"moov" => has_index = true,
            _ => {}
        }
        // invariant: the walk goes forward, so it ends
        if size < 8 || end > length {
            return Ok(false);
        }
        start = input.seek(SeekFrom::Start(end))?;
    }
}
