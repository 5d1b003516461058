//! Boxes (ISO/IEC 14496-12) in memory, and the numbers in them.

/// Returns the types and contents of the adjacent boxes in `bytes`. Ends at the first broken box.
pub(super) fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (header, rest) = bytes.split_first_chunk::<8>()?;
        let [a, b, c, d, kind @ ..] = *header;
        let (size, rest) = match u32::from_be_bytes([a, b, c, d]) {
            // 4.2: a longer size follows.
            1 => {
                let (size, rest) = rest.split_first_chunk::<8>()?;
                (usize::try_from(u64::from_be_bytes(*size)).ok()?.checked_sub(16)?, rest)
            }
            size => ((size as usize).checked_sub(8)?, rest),
        };
        let (content, rest) = rest.split_at_checked(size)?;
        bytes = rest;
        Some((kind, content))
    })
}

/// Returns the content of the box at the end of `path`, taking the first box of each type.
pub(super) fn find<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, kind| {
        boxes(bytes).find(|(found, _)| found == *kind).map(|(_, content)| content)
    })
}

/// Returns the number of a track (8.3.2). In version 1 the two times before it have 8 bytes each.
pub(super) fn number(track: &[u8]) -> Option<u32> {
    let header = find(track, &[b"tkhd"])?;
    u32_at(header, if header.first()? == &1 { 20 } else { 12 })
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
