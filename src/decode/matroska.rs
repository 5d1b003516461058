//! Detection of a missing end of a Matroska or WebM file (RFC 8794, RFC 9559).

use std::io::{self, Read};

use super::opening::Opening;

/// ID of the element that holds all others except the header.
const SEGMENT: [u8; 4] = [0x18, 0x53, 0x80, 0x67];

/// Returns whether the file claims to be longer than it is. (With the length known, symphonia ignores a
/// segment that is longer than the file, and finds nothing; reading front to back, it finds the part that
/// is present.) Returns `false` for a stream, whose end cannot be seen yet, and for a recording whose
/// writer knew no length.
///
/// `opening` must be at its start.
pub(super) fn is_cut_short(opening: &mut Opening) -> io::Result<bool> {
    // Looking at a stream would keep as much of it in memory as its header claims.
    let Some(length) = opening.length()? else { return Ok(false) };
    match segment_end(opening) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
        Ok(end) => Ok(end.is_some_and(|end| end > length)),
    }
}

fn segment_end(opening: &mut Opening) -> io::Result<Option<u64>> {
    let mut id = [0; 4];
    opening.read_exact(&mut id)?;
    let (Some(header), header_bytes) = element_size(opening)? else { return Ok(None) };
    opening.skip(header)?;
    opening.read_exact(&mut id)?;
    let (size, size_bytes) = element_size(opening)?;
    let start = 4 + header_bytes + header + 4 + size_bytes;
    Ok(size.filter(|_| id == SEGMENT).map(|size| start.saturating_add(size)))
}

/// Returns the size of an element, and the number of bytes that the size takes: one more than the first
/// byte has leading zeros (RFC 8794, 4). A size of all ones is unknown.
fn element_size(opening: &mut Opening) -> io::Result<(Option<u64>, u64)> {
    let mut bytes = [0; 8];
    opening.read_exact(&mut bytes[..1])?;
    let more = bytes[0].leading_zeros() as usize;
    if more > 7 {
        return Ok((None, 1));
    }
    opening.read_exact(&mut bytes[1..=more])?;
    let bits = 7 * (more + 1);
    let value = u64::from_be_bytes(bytes) >> (8 * (7 - more));
    let mask = (1 << bits) - 1;
    let size = value & mask;
    Ok(((size != mask).then_some(size), more as u64 + 1))
}
