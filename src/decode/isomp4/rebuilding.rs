//! The index that symphonia is shown (ISO/IEC 14496-12): the audio tracks alone, with short time tables.

use super::boxes::{boxes, find, number, u32_at};

/// Largest number of audio tracks that are examined. Films have one per language; the first track that
/// can be decoded is used.
const TRACKS_MAX: usize = 8;

/// Longest description of a track's codec, in bytes. The descriptions of AAC, ALAC, FLAC and Opus have
/// some hundred bytes.
const DESCRIPTION_BYTES_MAX: usize = 64 << 10;

/// Appends a box. `content` comes from an index, which is shorter than 4 GiB.
fn put(out: &mut Vec<u8>, kind: &[u8; 4], content: &[u8]) {
    out.extend((content.len() as u32 + 8).to_be_bytes());
    out.extend(kind);
    out.extend(content);
}

/// Rebuilds `index` from the boxes that symphonia needs, reduced to what it needs of them, in the same
/// number of bytes.
pub(super) fn rebuilt(index: &[u8]) -> Result<Vec<u8>, String> {
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
