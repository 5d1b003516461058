//! The parts of the tracks that are to be played: edit lists (ISO/IEC 14496-12), and the comment that iTunes
//! writes instead.

use super::boxes::{boxes, find, number, u32_at, u64_at};

/// The part of a track that is to be played, in frames of the track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Edit {
    /// Units of the track's clock per second.
    pub(super) scale: u32,
    /// Number of frames before the part, which the encoder added.
    pub(super) delay: u64,
    /// Number of frames of the part; `None` for all that follow.
    pub(super) frames: Option<u64>,
}

/// Returns the edits of all tracks in an index (`moov`).
pub(super) fn edits(index: &[u8]) -> Vec<(u32, Edit)> {
    let Some((movie_scale, _)) = find(index, &[b"mvhd"]).and_then(times) else { return Vec::new() };
    let tracks = boxes(index).filter(|(kind, _)| kind == b"trak").map(|(_, track)| track);
    // Looked up once for all tracks, since the search covers the whole index.
    let comment = itunes(index);
    let stated = tracks.filter_map(|track| {
        let id = number(track)?;
        let media = times(find(track, &[b"mdia", b"mdhd"])?)?;
        let list = find(track, &[b"edts", b"elst"]).and_then(|list| edit(list, movie_scale, media));
        let stated = comment.map(|(delay, frames)| Edit { scale: media.0, delay, frames: Some(frames) });
        Some((id, list.or(stated)?))
    });
    stated.collect()
}

/// Returns the time scale (units per second) and the duration of an `mvhd` or `mdhd` (8.2.2, 8.4.2).
fn times(header: &[u8]) -> Option<(u32, u64)> {
    match header.first()? {
        1 => Some((u32_at(header, 20)?, u64_at(header, 24)?)),
        _ => Some((u32_at(header, 12)?, u32_at(header, 16)?.into())),
    }
}

/// Returns the single part that an edit list (8.6.6) plays. Lists of several parts are ignored: they are
/// compositions, which no encoder writes.
fn edit(list: &[u8], movie_scale: u32, (media_scale, media_duration): (u32, u64)) -> Option<Edit> {
    let wide = list.first()? == &1;
    let count = u32_at(list, 4)?;
    let mut entries = (0..count as usize).map_while(|entry| {
        let at = 8 + entry * if wide { 20 } else { 12 };
        Some(if wide {
            (u64_at(list, at)?, u64_at(list, at + 8)?.cast_signed())
        } else {
            (u32_at(list, at)?.into(), i64::from(u32_at(list, at + 4)?.cast_signed()))
        })
    });
    // A part that plays nothing (-1) only states that the track starts late.
    let (duration, from) = entries.find(|&(_, from)| from >= 0)?;
    if entries.next().is_some() || movie_scale == 0 {
        return None;
    }
    let delay = from.cast_unsigned();
    let rest = media_duration.saturating_sub(delay);
    let scaled = u128::from(duration) * u128::from(media_scale) / u128::from(movie_scale);
    let scaled = u64::try_from(scaled).ok()?;
    // The movie's clock is coarse, often of milliseconds: a length within one unit of the rest is the
    // rest.
    let unit = u64::from(media_scale.div_ceil(movie_scale));
    let frames = if scaled == 0 || scaled.abs_diff(rest) <= unit { rest } else { scaled.min(rest) };
    Some(Edit { scale: media_scale, delay, frames: (frames > 0).then_some(frames) })
}

/// Returns the delay and the length, in frames, of the comment that iTunes writes instead: hexadecimal
/// numbers, of which the second is the delay, the third the padding and the fourth the length.
fn itunes(index: &[u8]) -> Option<(u64, u64)> {
    let items = find(index, &[b"udta", b"meta"])?;
    // `meta` has four bytes of version before its boxes.
    let items = find(items.get(4..)?, &[b"ilst"])?;
    let free_form = boxes(items).filter(|(kind, _)| kind == b"----").map(|(_, item)| item);
    let is_gapless = |item: &&[u8]| find(item, &[b"name"]).is_some_and(|name| name.ends_with(b"iTunSMPB"));
    let item = free_form.into_iter().find(is_gapless)?;
    // Type and locale come first.
    let text = std::str::from_utf8(find(item, &[b"data"])?.get(8..)?).ok()?;
    let mut numbers = text.split_whitespace().skip(1).map(|number| u64::from_str_radix(number, 16).ok());
    let (delay, _padding, frames) = (numbers.next()??, numbers.next()??, numbers.next()??);
    Some((delay, frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boxed(kind: &[u8; 4], content: &[u8]) -> Vec<u8> {
        [&(content.len() as u32 + 8).to_be_bytes(), &kind[..], content].concat()
    }

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    /// Returns an index whose movie has a clock of milliseconds, with track 7 of 44.1 kHz and `frames`
    /// frames.
    fn index(frames: u32, edits: Option<&[(u32, u32)]>, after: &[u8]) -> Vec<u8> {
        let list = edits.map_or(Vec::new(), |edits| {
            let mut list = words(&[0, edits.len() as u32]);
            edits.iter().for_each(|&(duration, from)| list.extend(words(&[duration, from, 0x1_0000])));
            boxed(b"edts", &boxed(b"elst", &list))
        });
        let media = boxed(b"mdia", &boxed(b"mdhd", &words(&[0, 0, 0, 44_100, frames, 0])));
        let track = boxed(b"trak", &[boxed(b"tkhd", &words(&[0, 0, 0, 7, 0])), list, media].concat());
        [&boxed(b"mvhd", &words(&[0, 0, 0, 1_000, 0]))[..], &track, after].concat()
    }

    fn only(index: &[u8]) -> Option<(u64, Option<u64>)> {
        match edits(index).as_slice() {
            [] => None,
            [(7, Edit { scale: 44_100, delay, frames })] => Some((*delay, *frames)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_edit_list_says_what_is_heard() {
        // 1,024 of 187,904 frames are the encoder's; 4.237 s, rounded, is the rest.
        assert_eq!(only(&index(187_904, Some(&[(4_237, 1_024)]), &[])), Some((1_024, Some(186_880))));
        // Two seconds from the middle.
        assert_eq!(only(&index(187_904, Some(&[(2_000, 44_100)]), &[])), Some((44_100, Some(88_200))));
        // A track that starts late, and one without a length.
        assert_eq!(only(&index(10_000, Some(&[(50, u32::MAX), (0, 24)]), &[])), Some((24, Some(9_976))));
        assert_eq!(only(&index(0, Some(&[(0, 1_024)]), &[])), Some((1_024, None)));
    }

    #[test]
    fn what_is_no_plain_edit_is_left_alone() {
        assert_eq!(only(&index(10_000, None, &[])), None);
        assert_eq!(only(&index(10_000, Some(&[(10, 0), (10, 500)]), &[])), None);
        assert_eq!(only(&index(10_000, Some(&[]), &[])), None);
        let whole = index(187_904, Some(&[(4_237, 1_024)]), &[]);
        for length in 0..whole.len() {
            assert_eq!(only(&whole[..length]), None, "{length} bytes");
        }
    }

    #[test]
    fn the_comment_of_itunes_says_it_too() {
        let text = b" 00000000 00000840 000001C0 0000000000002400 00000000 00000000";
        let item = [
            boxed(b"mean", b"\0\0\0\0com.apple.iTunes"),
            boxed(b"name", b"\0\0\0\0iTunSMPB"),
            boxed(b"data", &[&words(&[1, 0]), &text[..]].concat()),
        ];
        let items = boxed(b"ilst", &boxed(b"----", &item.concat()));
        let comment = boxed(b"udta", &boxed(b"meta", &[words(&[0]), items].concat()));
        assert_eq!(only(&index(11_776, None, &comment)), Some((2_112, Some(9_216))));
        // The file's own edit list takes precedence.
        assert_eq!(only(&index(11_776, Some(&[(0, 1_024)]), &comment)), Some((1_024, Some(10_752))));
    }
}
