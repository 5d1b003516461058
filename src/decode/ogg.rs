//! Detection of a missing end of an Ogg file (RFC 3533), which states its length nowhere else.

use std::io::{self, Read};

use super::opening::Opening;

/// Longest page, in bytes: the header, 255 lengths, and as many segments of 255 bytes.
const PAGE_BYTES_MAX: u64 = 27 + 255 + 255 * 255;

/// Returns whether the last page is incomplete, or not marked as the last. Returns `false` for a stream,
/// whose end cannot be seen yet.
///
/// `opening` must be at its start.
pub(super) fn is_cut_short(opening: &mut Opening) -> io::Result<bool> {
    let Some(length) = opening.length()? else { return Ok(false) };
    // The range of two pages is sure to include a whole one.
    opening.skip(length.saturating_sub(2 * PAGE_BYTES_MAX))?;
    let mut end = Vec::new();
    opening.read_to_end(&mut end)?;
    let last = end.windows(4).rposition(|window| window == b"OggS");
    Ok(last.is_some_and(|at| !is_whole_last_page(&end[at..])))
}

/// Returns whether a page is whole and marked as the last. RFC 3533, 6: the flags are byte 5, and the
/// lengths of the segments follow byte 26.
fn is_whole_last_page(page: &[u8]) -> bool {
    const LAST_PAGE: u8 = 4;
    let (Some(flags), Some(&segments)) = (page.get(5), page.get(26)) else { return false };
    let header = 27 + usize::from(segments);
    let Some(lengths) = page.get(27..header) else { return false };
    let body: usize = lengths.iter().map(|&length| usize::from(length)).sum();
    flags & LAST_PAGE != 0 && page.len() >= header + body
}
