//! What an M4A file says beyond its packets: whether its end is missing, and which of its frames are audio.
//! (ISO/IEC 14496-12; symphonia reads edit lists, and makes nothing of them.)

use std::io::{self, Read};

use super::opening::Opening;
use super::trim::Trim;

/// The longest index that is read: 8 bytes for each packet of 40 hours of AAC.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// What was found before the audio, or anywhere if the source can be read in any order.
#[derive(Default)]
pub(super) struct Layout {
    /// Whether the audio goes beyond the end of the source, with the index before it: what is there can then be
    /// decoded, by reading front to back. (With the length known, symphonia ignores a box that is longer than the
    /// file, and finds no audio at all.)
    pub(super) is_cut_short: bool,
    /// Of each track with an edit, its number and the edit.
    edits: Vec<(u32, Edit)>,
}

/// The part of a track that is to be heard, in its own frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edit {
    /// Units of the track's clock per second.
    scale: u32,
    /// Frames before it, which the encoder added.
    delay: u64,
    /// Frames it has; `None`: all that follow.
    frames: Option<u64>,
}

impl Layout {
    /// Goes through the boxes of `opening`, which must be at its start.
    pub(super) fn read(opening: &mut Opening) -> io::Result<Layout> {
        let mut layout = Layout::default();
        match layout.walk(opening) {
            // Too few bytes for another header: there is nothing more to know.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(layout),
            walked => walked.map(|()| layout),
        }
    }

    /// What is to be taken from the frames of a track, and how many are then left. `None` if nothing is known, or its
    /// clock does not count frames.
    pub(super) fn trim(&self, track: u32, sample_rate: u32) -> Option<(Trim, Option<u64>)> {
        let (_, edit) = self.edits.iter().find(|(id, edit)| *id == track && edit.scale == sample_rate)?;
        Some((Trim::edited(edit.delay, edit.frames), edit.frames))
    }

    fn walk(&mut self, opening: &mut Opening) -> io::Result<()> {
        let length = opening.length()?;
        let (mut start, mut has_index) = (0_u64, false);
        loop {
            let mut header = [0; 8];
            opening.read_exact(&mut header)?;
            let [a, b, c, d, kind @ ..] = header;
            let (size, header_bytes) = match u32::from_be_bytes([a, b, c, d]) {
                // Up to the end of the file, wherever that is.
                0 => return Ok(()),
                1 => {
                    let mut large = [0; 8];
                    opening.read_exact(&mut large)?;
                    (u64::from_be_bytes(large), 16)
                }
                size => (u64::from(size), 8),
            };
            let end = start.saturating_add(size);
            let Some(content) = size.checked_sub(header_bytes) else { return Ok(()) };
            let beyond = length.is_some_and(|length| end > length);
            // All that was read of a stream is kept in memory, which small boxes without end would fill too. And where
            // the audio has begun, nothing can be known of what follows.
            if length.is_none() && (end > INDEX_BYTES_MAX || kind == *b"mdat") {
                return Ok(());
            }
            match &kind {
                b"mdat" if beyond => {
                    self.is_cut_short = has_index;
                    return Ok(());
                }
                b"moov" if content <= INDEX_BYTES_MAX && !beyond => {
                    has_index = true;
                    let mut index = Vec::new();
                    opening.take(content).read_to_end(&mut index)?;
                    self.edits = edits(&index);
                }
                _ if beyond => return Ok(()),
                _ => opening.skip(content)?,
            }
            start = end;
        }
    }
}

/// The boxes that stand side by side in `bytes`: their types and contents. Ends at the first that is broken.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    std::iter::from_fn(move || {
        let (header, rest) = bytes.split_first_chunk::<8>()?;
        let [a, b, c, d, kind @ ..] = *header;
        let content = (u32::from_be_bytes([a, b, c, d]) as usize).checked_sub(8)?;
        let (content, rest) = rest.split_at_checked(content)?;
        bytes = rest;
        Some((kind, content))
    })
}

/// The content of the box at the end of `path`, the first of each type.
fn find<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, kind| {
        boxes(bytes).find(|(found, _)| found == *kind).map(|(_, content)| content)
    })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// The edits of all tracks in an index (`moov`).
fn edits(index: &[u8]) -> Vec<(u32, Edit)> {
    let Some((movie_scale, _)) = find(index, &[b"mvhd"]).and_then(times) else { return Vec::new() };
    let tracks = boxes(index).filter(|(kind, _)| kind == b"trak").map(|(_, track)| track);
    let stated = tracks.filter_map(|track| {
        let header = find(track, &[b"tkhd"])?;
        // 8.3.2: in version 1 the two times before it have 8 bytes each.
        let id = u32_at(header, if header.first()? == &1 { 20 } else { 12 })?;
        let media = times(find(track, &[b"mdia", b"mdhd"])?)?;
        let list = find(track, &[b"edts", b"elst"]).and_then(|list| edit(list, movie_scale, media));
        Some((id, list.or_else(|| itunes(index, media.0))?))
    });
    stated.collect()
}

/// The time scale (units per second) and the duration of an `mvhd` or `mdhd` (8.2.2, 8.4.2).
fn times(header: &[u8]) -> Option<(u32, u64)> {
    match header.first()? {
        1 => Some((u32_at(header, 20)?, u64_at(header, 24)?)),
        _ => Some((u32_at(header, 12)?, u32_at(header, 16)?.into())),
    }
}

/// The one part that an edit list (8.6.6) plays. Lists of several parts are left alone: they are compositions, and
/// nobody's encoder writes them.
fn edit(list: &[u8], movie_scale: u32, (media_scale, media_duration): (u32, u64)) -> Option<Edit> {
    let wide = list.first()? == &1;
    let count = u32_at(list, 4)?;
    let mut entries = (0..count as usize).map_while(|entry| {
        let at = 8 + entry * if wide { 20 } else { 12 };
        Some(match wide {
            true => (u64_at(list, at)?, u64_at(list, at + 8)?.cast_signed()),
            false => (u32_at(list, at)?.into(), i64::from(u32_at(list, at + 4)?.cast_signed())),
        })
    });
    // A part that plays nothing (-1) only says that the track starts late.
    let (duration, from) = entries.find(|&(_, from)| from >= 0)?;
    if entries.next().is_some() || movie_scale == 0 {
        return None;
    }
    let delay = from.cast_unsigned();
    let rest = media_duration.saturating_sub(delay);
    let scaled = u128::from(duration) * u128::from(media_scale) / u128::from(movie_scale);
    let scaled = u64::try_from(scaled).ok()?;
    // The film's clock is coarse, often of milliseconds: a length within a unit of the rest is the rest.
    let unit = u64::from(media_scale.div_ceil(movie_scale));
    let frames = if scaled == 0 || scaled.abs_diff(rest) <= unit { rest } else { scaled.min(rest) };
    Some(Edit { scale: media_scale, delay, frames: (frames > 0).then_some(frames) })
}

/// What iTunes writes instead: a comment of hexadecimal numbers, of which the second is the delay, the third the
/// padding and the fourth the length.
fn itunes(index: &[u8], scale: u32) -> Option<Edit> {
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
    Some(Edit { scale, delay, frames: Some(frames) })
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

    /// An index whose film has a clock of milliseconds, with track 7 of 44.1 kHz and so many frames.
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
        // 1,024 of 187,904 frames are the encoder's; 4.237 s, rounded, are the rest.
        assert_eq!(only(&index(187_904, Some(&[(4_237, 1_024)]), &[])), Some((1_024, Some(186_880))));
        // Two seconds out of the middle.
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
        // What the file's own edit list says comes first.
        assert_eq!(only(&index(11_776, Some(&[(0, 1_024)]), &comment)), Some((1_024, Some(10_752))));
    }
}
