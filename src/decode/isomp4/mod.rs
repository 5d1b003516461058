//! The index of an M4A file (ISO/IEC 14496-12): whether the end of the file is missing, which frames are
//! audio, and the part of the index that symphonia is shown.
//!
//! symphonia walks the time table of every track for each packet, and a table may have an entry per
//! packet, so the work is quadratic in the number of bytes of the file. Hence symphonia is shown an index
//! rebuilt from the audio tracks alone, whose time table has two entries, and fragments only if their
//! tables are short. All work in this module is linear.

mod boxes;
mod edits;
mod rebuilding;

use std::io::{self, Read};

use self::boxes::{boxes, u32_at};
use self::edits::{Edit, edits};
use self::rebuilding::rebuilt;
use super::DecodeFault;
use super::opening::Opening;
use super::trim::Trim;

/// Longest index that is read, in bytes: 8 bytes for each packet of 40 hours of AAC.
const INDEX_BYTES_MAX: u64 = 64 << 20;

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
    Broken(DecodeFault),
}

impl From<io::Error> for LayoutError {
    fn from(error: io::Error) -> LayoutError {
        LayoutError::Io(error)
    }
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
            return Err(LayoutError::Broken(DecodeFault::NoIndex));
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
        while let Some(BoxHeader { kind, size, content }) = BoxHeader::read(opening, visited)? {
            let end = start.saturating_add(size);
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
                b"moov" => {
                    self.read_index(opening, end, content)?;
                    visited.index = true;
                }
                b"moof" if length.is_some() => {
                    visited.read_fragment(opening, content, length.unwrap_or(0))?;
                }
                _ => opening.skip(content)?,
            }
            start = end;
        }
        Ok(())
    }

    /// Reads the edits of an index of `content` bytes that ends at `end`, and replaces it by one rebuilt.
    fn read_index(&mut self, opening: &mut Opening, end: u64, content: u64) -> Result<(), LayoutError> {
        if content > INDEX_BYTES_MAX {
            return Err(LayoutError::Refused(format!("an index of {content} bytes")));
        }
        let mut index = Vec::new();
        opening.take(content).read_to_end(&mut index)?;
        if (index.len() as u64) < content {
            return Err(LayoutError::Broken(DecodeFault::CutShort));
        }
        self.edits = edits(&index);
        opening.replace(end - content, rebuilt(&index).map_err(LayoutError::Refused)?);
        Ok(())
    }
}

/// The header of a box of the file (4.2).
struct BoxHeader {
    kind: [u8; 4],
    /// Number of bytes of the box, and of its content alone.
    size: u64,
    content: u64,
}

impl BoxHeader {
    /// Reads the next header. Returns `None` if nothing more can be learnt: the box extends to the end of the
    /// file, or has an impossible size.
    fn read(opening: &mut Opening, visited: &VisitedBoxes) -> Result<Option<BoxHeader>, LayoutError> {
        let mut header = [0; 8];
        opening.read_exact(&mut header)?;
        let [a, b, c, d, kind @ ..] = header;
        let (size, header_bytes) = match u32::from_be_bytes([a, b, c, d]) {
            // The box extends to the end of the file. Only audio may, and only after the index: in any other
            // box, symphonia would continue to look for boxes.
            0 if kind == *b"mdat" && visited.index && visited.file_type => return Ok(None),
            0 => {
                return Err(LayoutError::Broken(DecodeFault::Malformed(
                    "a box without a size stands before the audio".to_owned(),
                )));
            }
            1 => {
                let mut large = [0; 8];
                opening.read_exact(&mut large)?;
                (u64::from_be_bytes(large), 16)
            }
            size => (u64::from(size), 8),
        };
        Ok(size.checked_sub(header_bytes).map(|content| BoxHeader { kind, size, content }))
    }
}

impl VisitedBoxes {
    /// Reads a fragment's index of `content` bytes. Fails if the fragments so far cost too much for a file of
    /// `length` bytes.
    fn read_fragment(&mut self, opening: &mut Opening, content: u64, length: u64) -> Result<(), LayoutError> {
        if content > INDEX_BYTES_MAX {
            return Err(LayoutError::Refused(format!("a fragment's index of {content} bytes")));
        }
        let mut fragment = Vec::new();
        opening.take(content).read_to_end(&mut fragment)?;
        self.add_fragment(&fragment);
        self.check(length).map_err(LayoutError::Refused)
    }

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
