//! The index of an M4A file (ISO/IEC 14496-12): whether the end of the file is missing, which frames are
//! audio, and the part of the index that symphonia is shown.
//!
//! symphonia walks the time table of every track for each packet, and a table may have an entry per
//! packet, so the work is quadratic in the number of bytes of the file. Hence symphonia is shown an index
//! rebuilt from the audio tracks alone, whose time table has two entries, and fragments only if their
//! tables are short. All work in this module is linear.

use std::io::{self, Read};

use super::opening::Opening;
use super::trim::Trim;

/// Longest index that is read, in bytes: 8 bytes for each packet of 40 hours of AAC.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// Largest number of audio tracks that are examined. Films have one per language; the first track that
/// can be decoded is used.
const TRACKS_MAX: usize = 8;

/// Longest description of a track's codec, in bytes. The descriptions of AAC, ALAC, FLAC and Opus have
/// some hundred bytes.
const DESCRIPTION_BYTES_MAX: usize = 64 << 10;

/// Largest number of table entries that symphonia may have to walk for the packets of all fragments: a
/// constant, and more for each byte of the file. A fragment lasts some seconds and has a few hundred
/// packets, which is 10 steps for each. (A step takes about a nanosecond.)
const FRAGMENT_STEPS: u64 = 50_000_000;
const FRAGMENT_STEPS_A_BYTE: u64 = 16;

/// Findings before the audio, or anywhere if the source can be read in any order.
#[derive(Default)]
pub(super) struct Layout {
    /// `true` if the audio goes beyond the end of the source, with the index before it. The part that is
    /// present can then be decoded by reading front to back. (With the length known, symphonia ignores a
    /// box that is longer than the file, and finds no audio at all.)
    pub(super) is_cut_short: bool,
    /// Number and edit of each track that has an edit.
    edits: Vec<(u32, Edit)>,
}

/// Reason why a file is not handed to symphonia.
pub(super) enum LayoutError {
    Io(io::Error),
    /// The file is valid, but not supported.
    Refused(String),
    /// The header of the file is broken.
    Broken(&'static str),
}

impl From<io::Error> for LayoutError {
    fn from(error: io::Error) -> LayoutError {
        LayoutError::Io(error)
    }
}

/// The part of a track that is to be played, in frames of the track.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edit {
    /// Units of the track's clock per second.
    scale: u32,
    /// Number of frames before the part, which the encoder added.
    delay: u64,
    /// Number of frames of the part; `None` for all that follow.
    frames: Option<u64>,
}

/// Boxes that a walk has visited.
#[derive(Default)]
struct VisitedBoxes {
    file_type: bool,
    index: bool,
    /// Steps of all fragments.
    steps: u64,
    packets: u64,
}

impl Layout {
    /// Walks the boxes of `opening`, which must be at its start, and rebuilds the index in it.
    pub(super) fn read(opening: &mut Opening) -> Result<Layout, LayoutError> {
        let mut layout = Layout::default();
        let mut visited = VisitedBoxes::default();
        match layout.walk(opening, &mut visited) {
            // Too few bytes are left for another header, so there is nothing more to learn.
            Err(LayoutError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            walked => walked?,
        }
        // symphonia must find no index that was not rebuilt, not even in bytes that seem to belong to no
        // box.
        if !visited.index {
            return Err(LayoutError::Broken(NO_INDEX));
        }
        Ok(layout)
    }

    /// Returns the trimmer for the frames of a track, and the number of frames that it leaves. Returns
    /// `None` if no edit is known, or if the track's clock does not count frames.
    pub(super) fn trim(&self, track: u32, sample_rate: u32) -> Option<(Trim, Option<u64>)> {
        let (_, edit) = self.edits.iter().find(|(id, edit)| *id == track && edit.scale == sample_rate)?;
        Some((Trim::edited(edit.delay, edit.frames), edit.frames))
    }

    fn walk(&mut self, opening: &mut Opening, visited: &mut VisitedBoxes) -> Result<(), LayoutError> {
        let length = opening.length()?;
        let mut start = 0_u64;
        loop {
            let mut header = [0; 8];
            opening.read_exact(&mut header)?;
            let [a, b, c, d, kind @ ..] = header;
            let (size, header_bytes) = match u32::from_be_bytes([a, b, c, d]) {
                // The box extends to the end of the file. Only audio may, and only after the index: in
                // any other box, symphonia would continue to look for boxes.
                0 if kind == *b"mdat" && visited.index && visited.file_type => return Ok(()),
                0 => return Err(LayoutError::Broken("a box without a size stands before the audio")),
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
            // All bytes read from a stream are kept in memory, which small boxes without end would fill
            // too. Once the audio has begun, nothing can be known of what follows.
            if length.is_none() && (end > INDEX_BYTES_MAX || kind == *b"mdat") {
                return Ok(());
            }
            match &kind {
                b"mdat" if beyond => {
                    self.is_cut_short = visited.index;
                    return Ok(());
                }
                _ if beyond => return Ok(()),
                b"ftyp" => {
                    visited.file_type = true;
                    opening.skip(content)?;
                }
                b"moov" if visited.index => {
                    return Err(LayoutError::Refused("more than one index (moov)".to_owned()));
                }
                b"moov" if content > INDEX_BYTES_MAX => {
                    return Err(LayoutError::Refused(format!("an index of {content} bytes")));
                }
                b"moov" => {
                    let mut index = Vec::new();
                    opening.take(content).read_to_end(&mut index)?;
                    if (index.len() as u64) < content {
                        return Err(LayoutError::Broken("the file ends inside its header"));
                    }
                    self.edits = edits(&index);
                    opening.replace(start + header_bytes, rebuilt(&index).map_err(LayoutError::Refused)?);
                    visited.index = true;
                }
                b"moof" if length.is_some() && content <= INDEX_BYTES_MAX => {
                    let mut fragment = Vec::new();
                    opening.take(content).read_to_end(&mut fragment)?;
                    visited.add_fragment(&fragment);
                    visited.check(length.unwrap_or(0)).map_err(LayoutError::Refused)?;
                }
                b"moof" if length.is_some() => {
                    return Err(LayoutError::Refused(format!("a fragment's index of {content} bytes")));
                }
                _ => opening.skip(content)?,
            }
            start = end;
        }
    }
}

/// Message for a missing index, used for files and streams alike.
const NO_INDEX: &str = "no index (moov): it stands at the end, which a stream cannot go to, or is missing";

impl VisitedBoxes {
    /// Counts the cost of the packets of a fragment (8.8.4): symphonia walks the runs before the run of a
    /// packet, and adds up the durations of the packets before it in its run.
    fn add_fragment(&mut self, fragment: &[u8]) {
        for (_, track) in boxes(fragment).filter(|(kind, _)| kind == b"traf") {
            let runs = boxes(track).filter(|(kind, _)| kind == b"trun");
            for (before, (_, run)) in runs.enumerate() {
                let (Some(flags), Some(packets)) = (u32_at(run, 0), u32_at(run, 4)) else { continue };
                let packets = u64::from(packets);
                // 8.8.8.1: one duration per packet.
                let durations = if flags & 0x100 != 0 { packets.saturating_mul(packets) / 2 } else { 0 };
                let steps = packets.saturating_mul(before as u64 + 1).saturating_add(durations);
                self.steps = self.steps.saturating_add(steps);
                self.packets = self.packets.saturating_add(packets);
            }
        }
    }

    /// Fails if the fragments so far cost too much for a file of `length` bytes.
    fn check(&self, length: u64) -> Result<(), String> {
        if self.packets > length {
            return Err(format!("fragments of {} packets in {length} bytes", self.packets));
        }
        if self.steps > FRAGMENT_STEPS.saturating_add(length.saturating_mul(FRAGMENT_STEPS_A_BYTE)) {
            return Err(format!("fragments as long as these ({} packets so far)", self.packets));
        }
        Ok(())
    }
}

/// Returns the types and contents of the adjacent boxes in `bytes`. Ends at the first broken box.
fn boxes(mut bytes: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
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
fn find<'a>(bytes: &'a [u8], path: &[&[u8; 4]]) -> Option<&'a [u8]> {
    path.iter().try_fold(bytes, |bytes, kind| {
        boxes(bytes).find(|(found, _)| found == *kind).map(|(_, content)| content)
    })
}

/// Appends a box. `content` comes from an index, which is shorter than 4 GiB.
fn put(out: &mut Vec<u8>, kind: &[u8; 4], content: &[u8]) {
    out.extend((content.len() as u32 + 8).to_be_bytes());
    out.extend(kind);
    out.extend(content);
}

/// Rebuilds `index` from the boxes that symphonia needs, reduced to what it needs of them, in the same
/// number of bytes.
fn rebuilt(index: &[u8]) -> Result<Vec<u8>, String> {
    let header = find(index, &[b"mvhd"]);
    let (mut tracks, mut numbers) = (Vec::new(), Vec::new());
    let audio = boxes(index).filter(|(kind, track)| kind == b"trak" && is_audio(track));
    for (_, track) in audio.take(TRACKS_MAX) {
        put(&mut tracks, b"trak", &rebuilt_track(track)?);
        numbers.extend(number(track));
    }
    // 8.8.1: the mark of a fragmented file, with the defaults (8.8.3) of each track, in the order of the
    // tracks.
    if let Some(extends) = find(index, &[b"mvex"]) {
        let mut defaults = Vec::new();
        for track in numbers {
            let own =
                boxes(extends).find(|(kind, content)| kind == b"trex" && u32_at(content, 4) == Some(track));
            own.into_iter().for_each(|(_, content)| put(&mut defaults, b"trex", content));
        }
        put(&mut tracks, b"mvex", &defaults);
    }
    let mut out = Vec::new();
    if let Some(header) = header {
        let left = index.len() - 8 - header.len() - tracks.len();
        // A remainder too short for a box of its own extends the header, where no reader looks at it.
        let slack = if left < 8 { left } else { 0 };
        put(&mut out, b"mvhd", &[header, &[0; 8][..slack]].concat());
    }
    out.extend(tracks);
    let left = index.len() - out.len();
    if left >= 8 {
        put(&mut out, b"free", &vec![0; left - 8]);
    }
    out.resize(index.len(), 0);
    Ok(out)
}

/// Returns whether a track's handler (8.4.3) is that of audio.
fn is_audio(track: &[u8]) -> bool {
    find(track, &[b"mdia", b"hdlr"]).is_some_and(|handler| handler.get(8..12) == Some(b"soun"))
}

/// Returns the number of a track (8.3.2). In version 1 the two times before it have 8 bytes each.
fn number(track: &[u8]) -> Option<u32> {
    let header = find(track, &[b"tkhd"])?;
    u32_at(header, if header.first()? == &1 { 20 } else { 12 })
}

/// Rebuilds a track. Missing boxes are left out, and symphonia reports them.
fn rebuilt_track(track: &[u8]) -> Result<Vec<u8>, String> {
    let (mut out, mut media, mut information, mut table) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    if let Some(boxed) = find(track, &[b"mdia", b"minf", b"stbl"]) {
        for kind in [b"stsd", b"stts", b"stsc", b"stsz", b"stco", b"co64"] {
            let Some(content) = find(boxed, &[kind]) else { continue };
            match kind {
                b"stsd" if content.len() > DESCRIPTION_BYTES_MAX => {
                    return Err(format!("a codec's description of {} bytes", content.len()));
                }
                b"stts" => put(&mut table, kind, &short_times(content)?),
                kind => put(&mut table, kind, content),
            }
        }
        put(&mut information, b"stbl", &table);
    }
    for kind in [b"mdhd", b"hdlr"] {
        if let Some(content) = find(track, &[b"mdia", kind]) {
            put(&mut media, kind, content);
        }
    }
    put(&mut media, b"minf", &information);
    if let Some(header) = find(track, &[b"tkhd"]) {
        put(&mut out, b"tkhd", header);
    }
    put(&mut out, b"mdia", &media);
    Ok(out)
}

/// Returns a time table (8.6.1.2) of at most two entries, for the same number of packets and the same
/// total duration: each packet has the mean duration. Single durations matter only where a broken packet
/// becomes silence.
fn short_times(table: &[u8]) -> Result<Vec<u8>, String> {
    let count = u32_at(table, 4).unwrap_or(0) as usize;
    let entries = table.get(8..).unwrap_or_default().as_chunks::<8>().0;
    let Some(entries) = entries.get(..count) else {
        return Err(format!("a time table (stts) of {count} entries with {} of them", entries.len()));
    };
    if count <= 2 {
        return Ok(table[..table.len().min(8 + 8 * count)].to_vec());
    }
    let (mut packets, mut duration) = (0_u64, 0_u64);
    for &[a, b, c, d, delta @ ..] in entries {
        let (count, delta) = (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes(delta));
        packets += u64::from(count);
        duration = duration
            .checked_add(u64::from(count) * u64::from(delta))
            .ok_or("a time table (stts) of more than 2^64 units")?;
    }
    if packets > u64::from(u32::MAX) {
        return Err(format!("a time table (stts) of {packets} packets"));
    }
    let (mean, longer) = duration.checked_div(packets).map_or((0, 0), |mean| (mean, duration % packets));
    let short = [(packets - longer, mean), (longer, mean + 1)];
    let mut out = [&table[..4], &2_u32.to_be_bytes()].concat();
    for (packets, duration) in short {
        // invariant: the mean of 32-bit numbers fits 32 bits; so does one more, if any packet has it,
        // since the mean is then below the largest number
        out.extend((packets as u32).to_be_bytes());
        out.extend((duration as u32).to_be_bytes());
    }
    Ok(out)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// Returns the edits of all tracks in an index (`moov`).
fn edits(index: &[u8]) -> Vec<(u32, Edit)> {
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
