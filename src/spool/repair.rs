//! Repair of a spool that is damaged in its middle: the damaged file is set aside, and everything
//! readable in it continues in a new file.
//!
//! A damaged record is skipped: by its length if the next record begins there, else by searching for the
//! next record with a valid checksum. A record of which only the length is damaged is recovered: it must
//! end where the next record begins, or at the end of the file, and its checksum confirms that. Missing
//! frames become a record of their own, [`Entry::Lost`], which the session reports as a gap. If a final
//! is missing, it and all later finals and gaps are left out: their audio is still there, and is
//! recognised again.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use super::locked::Locked;
use super::positioned_io::PositionedReader;
use super::record::{AUDIO_HEAD, Entry, HEADER_BYTES, HeadBody, Header, Kind, Records, read_most};
use super::state::State;
use super::{Fsync, VERSION};
use crate::audio::{FRAME_BYTES, FramePos};
use crate::transcript::FinalSegment;
use voxline_support::private_file;

/// Bytes searched at once for the beginning of a record.
const WINDOW: usize = 64 * 1024;
/// Budget of the search: bytes of candidate records that may be checked for each byte searched. False
/// candidates are rare, since their length, kind and position must all be possible.
const CHECKED_PER_BYTE: u64 = 4;

/// A part of the repaired file.
#[derive(Debug)]
pub(super) enum Piece {
    /// Bytes copied from the damaged file.
    Copy { start: u64, end: u64 },
    /// A record in these bytes of the damaged file, whose length must be corrected.
    Corrected { start: u64, end: u64 },
    /// A record inserted in place of damaged ones.
    Record(Entry),
}

/// A survey of what is readable in a damaged file.
pub(super) struct Survey<'a> {
    file: &'a File,
    length: u64,
    state: State,
    pieces: Vec<Piece>,
    /// True if a record was unreadable since the last record of the source: `accepted` may be farther
    /// than is known.
    uncertain: bool,
    /// Estimate of `accepted`, from the lengths of unreadable records.
    estimate: FramePos,
    /// True if a final or gap is missing, so that later ones don't follow.
    lost_event: bool,
}

impl<'a> Survey<'a> {
    /// Returns the readable parts of `file`, which has `length` bytes and is intact up to `at`, with
    /// `state` there. Returns `None` if the only damage is a last record that was not written completely.
    pub(super) fn make(
        file: &'a File,
        length: u64,
        state: State,
        mut at: u64,
    ) -> io::Result<Option<Vec<Piece>>> {
        let pieces = vec![Piece::Copy { start: 0, end: at }];
        let estimate = state.accepted;
        let mut survey =
            Survey { file, length, state, pieces, uncertain: false, estimate, lost_event: false };
        let is_last = survey.next_record(at)?.is_none();
        if is_last && survey.is_torn(at)? && survey.record_to(at, length)?.is_none() {
            return Ok(None);
        }
        while at < length {
            if let Some((entry, end)) = survey.record(at)? {
                survey.take(&entry, Piece::Copy { start: at, end });
                at = end;
                continue;
            }
            // A wrong length may lead to the beginning of a later record instead of the next one.
            let near = survey.search(at)?.unwrap_or(length);
            if let Some(entry) = survey.record_to(at, near)? {
                survey.take(&entry, Piece::Corrected { start: at, end: near });
                at = near;
                continue;
            }
            let next = survey.next_record(at)?.unwrap_or(length);
            survey.pass_over(at, next)?;
            at = next;
        }
        // No record of the source follows that would say how much was lost.
        survey.lose(survey.estimate);
        Ok(Some(survey.pieces))
    }

    /// Reads the record at `at`, and returns it with its end.
    fn record(&self, at: u64) -> io::Result<Option<(Entry, u64)>> {
        let input = BufReader::with_capacity(WINDOW, PositionedReader::new(self.file, at));
        let mut records = Records::starting_at(input, at, self.length);
        Ok(records.next()?.map(|entry| (entry, records.offset)))
    }

    /// Reads the record from `at` to `end`; `None` if more of it than the length is damaged.
    fn record_to(&self, at: u64, end: u64) -> io::Result<Option<Entry>> {
        let Some(header) = corrected_header(self.file, at, end)? else { return Ok(None) };
        let body =
            BufReader::with_capacity(WINDOW, PositionedReader::new(self.file, at + HEADER_BYTES as u64));
        Records::starting_at(header.as_slice().chain(body), at, end).next()
    }

    fn header(&self, at: u64) -> io::Result<Option<Header>> {
        let mut bytes = [0; HEADER_BYTES];
        let filled = read_most(PositionedReader::new(self.file, at), &mut bytes)?;
        Ok((filled == HEADER_BYTES).then(|| Header::decode(bytes)).flatten())
    }

    /// Returns whether a process may have crashed while it wrote the record at `at`, the last one.
    fn is_torn(&self, at: u64) -> io::Result<bool> {
        let left = self.length - at;
        let longer = |header: Header| header.record_bytes() > left;
        Ok(left < HEADER_BYTES as u64 || self.header(at)?.is_some_and(longer))
    }

    /// Returns the offset of the next readable record after the one at `at`.
    fn next_record(&self, at: u64) -> io::Result<Option<u64>> {
        if let Some(header) = self.header(at)? {
            let next = at + header.record_bytes();
            if next == self.length || next < self.length && self.record(next)?.is_some() {
                return Ok(Some(next));
            }
        }
        self.search(at)
    }

    /// Searches for the next readable record after the one at `at`.
    fn search(&self, at: u64) -> io::Result<Option<u64>> {
        let mut budget = (self.length - at).saturating_mul(CHECKED_PER_BYTE);
        let mut window = vec![0; WINDOW];
        let mut start = at + 1;
        while start < self.length {
            let filled = read_most(PositionedReader::new(self.file, start), &mut window)?;
            let last = start + filled as u64 >= self.length;
            // A beginning cut by the end of the window is checked in the next window.
            let whole = if last { filled } else { filled - HEADER_BYTES - AUDIO_HEAD };
            for offset in 0..whole {
                let candidate = start + offset as u64;
                let cost = self.plausible(&window[offset..filled]);
                let Some(cost) = cost.filter(|cost| *cost <= self.length - candidate) else { continue };
                let Some(rest) = budget.checked_sub(cost) else { return Ok(None) };
                budget = rest;
                if self.record(candidate)?.is_some() {
                    return Ok(Some(candidate));
                }
            }
            start += whole.max(1) as u64;
        }
        Ok(None)
    }

    /// Returns the cost of checking the record that `bytes` seem to begin with, or `None` if they can't
    /// begin one.
    fn plausible(&self, bytes: &[u8]) -> Option<u64> {
        let header = Header::decode(bytes.first_chunk().copied()?)?;
        let body = &bytes[HEADER_BYTES..];
        let begins = match header.kind {
            Kind::Audio => {
                let start = u64::from_le_bytes(body.first_chunk().copied()?);
                // The frames missing before this record can't be more than the file could hold.
                (self.state.accepted.0..=self.estimate.0.saturating_add(self.length)).contains(&start)
            }
            Kind::Flush | Kind::End => header.length == 8,
            Kind::Done => header.length == 0,
            Kind::Head => false,
            Kind::Opened | Kind::Final | Kind::Gap | Kind::Lost => body.first() == Some(&b'{'),
        };
        begins.then(|| header.record_bytes())
    }

    /// Skips the bytes from `at` to `next`, and estimates how many frames they contain.
    fn pass_over(&mut self, at: u64, next: u64) -> io::Result<()> {
        self.uncertain = true;
        let mut begin = [0; HEADER_BYTES + AUDIO_HEAD];
        if read_most(PositionedReader::new(self.file, at), &mut begin)? < begin.len() || self.state.ended {
            return Ok(());
        }
        let header = begin.first_chunk().copied().and_then(Header::decode);
        let is_audio = |header: Header| header.kind == Kind::Audio && at + header.record_bytes() == next;
        let is_contiguous = begin[HEADER_BYTES..HEADER_BYTES + 8] == self.estimate.0.to_le_bytes();
        if is_contiguous || header.is_some_and(is_audio) {
            let bytes = (next - at).saturating_sub(begin.len() as u64);
            self.estimate = FramePos(self.estimate.0.saturating_add(bytes / FRAME_BYTES as u64));
        }
        Ok(())
    }

    /// Keeps the record in `piece`, if it still follows.
    fn take(&mut self, entry: &Entry, piece: Piece) {
        match entry {
            Entry::Audio { range, .. } | Entry::Lost(range) => {
                self.lose(range.start);
                self.uncertain = false;
            }
            Entry::Flush(position) | Entry::End(position) => {
                self.lose(*position);
                self.uncertain = false;
            }
            Entry::Final(_) | Entry::Gap(_) if self.lost_event => return,
            Entry::Final(segment) if segment.index > self.state.next_index => {
                self.lost_event = true;
                return;
            }
            Entry::Final(FinalSegment { range, .. }) | Entry::Gap(range) => {
                if range.start > self.state.final_ {
                    self.lost_event = true;
                    return;
                }
                if self.uncertain {
                    self.lose(range.end);
                }
            }
            // Only the end was missing.
            Entry::Done
                if self.uncertain && !self.state.ended && self.state.final_ == self.state.accepted =>
            {
                self.insert(Entry::End(self.state.accepted));
            }
            Entry::Head(_) | Entry::Opened(_) | Entry::Done => {}
        }
        let Ok(state) = self.state.after(entry) else {
            self.uncertain = true;
            return;
        };
        self.state = state;
        self.estimate = if self.uncertain { self.estimate.max(state.accepted) } else { state.accepted };
        match (self.pieces.last_mut(), &piece) {
            (Some(Piece::Copy { end: copied, .. }), Piece::Copy { start, end }) if copied == start => {
                *copied = *end;
            }
            _ => self.pieces.push(piece),
        }
    }

    /// Records the frames from `accepted` to `end` as lost, if there are any.
    fn lose(&mut self, end: FramePos) {
        if end > self.state.accepted && !self.state.ended {
            self.insert(Entry::Lost(self.state.accepted.to(end)));
        }
    }

    fn insert(&mut self, entry: Entry) {
        self.state = self.state.after(&entry).expect("it follows");
        self.pieces.push(Piece::Record(entry));
    }
}

/// Replaces the damaged file at `path` with one made of `pieces`, and sets the damaged one aside. The new
/// file is locked before it gets the name, and the name leads to one or the other at all times. Returns
/// the new file, and the path of the damaged one.
pub(super) fn replace(
    damaged: &File,
    path: &Path,
    head: HeadBody,
    pieces: &[Piece],
    fsync: Fsync,
) -> io::Result<(Locked, PathBuf)> {
    let new = with_suffix(path, "new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    private_file::create_file(&new)?;
    let file = Locked::new(fs::OpenOptions::new().read(true).write(true).open(&new)?)?;
    let mut output = BufWriter::new(&*file);
    // The head of the damaged file may be of an earlier version, which has no record of lost frames.
    output.write_all(&Entry::Head(HeadBody { version: VERSION, ..head }).encode(&[])?)?;
    let mut skip = head_bytes(damaged)?;
    for piece in pieces {
        match piece {
            Piece::Copy { start, end } => {
                let start = start + std::mem::take(&mut skip);
                io::copy(&mut PositionedReader::new(damaged, start).take(end - start), &mut output)?;
            }
            Piece::Corrected { start, end } => {
                let body = start + HEADER_BYTES as u64;
                let header = corrected_header(damaged, *start, *end)?.expect("it was read with this header");
                output.write_all(&header)?;
                io::copy(&mut PositionedReader::new(damaged, body).take(end - body), &mut output)?;
            }
            Piece::Record(entry) => output.write_all(&entry.encode(&[])?)?,
        }
    }
    output.flush()?;
    drop(output);
    if fsync != Fsync::Never {
        file.sync_all()?;
    }
    let aside = set_aside(path)?;
    fs::rename(&new, path)?;
    #[cfg(unix)]
    if fsync != Fsync::Never {
        super::sync_directory_of(path)?;
    }
    Ok((file, aside))
}

/// Reads the header at `start`, and sets its length to that of a record that ends at `end`; `None` if
/// there can't be such a record.
fn corrected_header(file: &File, start: u64, end: u64) -> io::Result<Option<[u8; HEADER_BYTES]>> {
    let length = (end - start).checked_sub(HEADER_BYTES as u64);
    let Some(length) = length.and_then(|length| u32::try_from(length).ok()) else { return Ok(None) };
    let mut header = [0; HEADER_BYTES];
    PositionedReader::new(file, start).read_exact(&mut header)?;
    header[..4].copy_from_slice(&length.to_le_bytes());
    Ok(Some(header))
}

fn head_bytes(file: &File) -> io::Result<u64> {
    let mut header = [0; HEADER_BYTES];
    PositionedReader::new(file, 0).read_exact(&mut header)?;
    Ok(Header::decode(header).expect("it was read before").record_bytes())
}

/// Gives the file a second, unused name, since the recording in it must never be deleted.
fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let mut number = 0;
    loop {
        let suffix = if number == 0 { "damaged".to_owned() } else { format!("damaged-{number}") };
        let aside = with_suffix(path, &suffix);
        match fs::hard_link(path, &aside) {
            Ok(()) => return Ok(aside),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            // The file system has no hard links.
            Err(_) if !aside.try_exists()? => {
                private_file::create_file(&aside)?;
                fs::copy(path, &aside)?;
                return Ok(aside);
            }
            Err(error) => return Err(error),
        }
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}
