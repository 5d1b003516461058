//! Recovery of a spool that an earlier process wrote.

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::positioned_io::PositionedReader;
use super::record::{Entry, HeadBody, Records};
use super::state::State;
use super::{Head, OLDEST_VERSION, SpoolError, VERSION};
use crate::audio::FramePos;
use crate::session::ServerSession;
use crate::transcript::TranscriptEvent;

/// Size of the read buffer in bytes.
const BUFFER: usize = 64 * 1024;

/// The result of reading a spool from its start to its end, or to the first damage.
pub(super) struct Scan {
    pub(super) state: State,
    /// Finals and gaps.
    pub(super) events: Vec<TranscriptEvent>,
    /// Recogniser context after the last of these finals.
    pub(super) context: Option<String>,
    /// Latest session of the server.
    pub(super) server: Option<ServerSession>,
    /// Records of the source that the session still needs.
    pub(super) pending: VecDeque<PendingRecord>,
    /// End of the last intact record.
    pub(super) end: u64,
}

/// A record of the source that the session still needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct PendingRecord {
    pub(super) offset: u64,
    /// Position at which audio continues after the record.
    end: FramePos,
    pub(super) kind: PendingKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PendingKind {
    Audio,
    Flush,
    End,
    Lost,
}

/// Reads the `length` bytes of `file`.
pub(super) fn scan(file: &File, path: &Path, length: u64, head: &Head) -> Result<Scan, SpoolError> {
    let io_error = |source| SpoolError::Io { path: path.to_owned(), source };
    let mut records = Records::new(BufReader::with_capacity(BUFFER, PositionedReader::new(file, 0)), length);
    let Some(Entry::Head(found)) = records.next().map_err(io_error)? else {
        return Err(SpoolError::NotASpool { path: path.to_owned() });
    };
    check(path, head, &found)?;
    let mut scan = Scan {
        state: State::default(),
        events: Vec::new(),
        context: None,
        server: None,
        pending: VecDeque::new(),
        end: records.offset,
    };
    while let Some(entry) = records.next().map_err(io_error)? {
        // Records in an impossible order are damage too.
        let Ok(state) = scan.state.after(&entry) else { break };
        scan.state = state;
        scan.take(entry);
        scan.end = records.offset;
    }
    // Another service doesn't have this session. Its recogniser is another too, which can't read the
    // context.
    if found.service != head.service {
        (scan.server, scan.context) = (None, None);
    }
    Ok(scan)
}

impl Scan {
    fn take(&mut self, entry: Entry) {
        match entry {
            Entry::Audio { .. } => self.keep(PendingKind::Audio),
            Entry::Flush(_) => self.keep(PendingKind::Flush),
            Entry::Lost(_) => self.keep(PendingKind::Lost),
            Entry::End(_) => self.keep(PendingKind::End),
            Entry::Opened(server) => self.server = Some(server),
            Entry::Final(mut segment) => {
                // Only the latest context is of use, and thousands would take memory.
                self.context = segment.context.take().or(self.context.take());
                self.events.push(TranscriptEvent::Final(segment));
            }
            Entry::Gap(range) => self.events.push(TranscriptEvent::Gap { range }),
            Entry::Head(_) | Entry::Done => {}
        }
        // Audio below the last final is not needed again; the end of the audio is.
        let past =
            |record: &PendingRecord| record.kind != PendingKind::End && record.end <= self.state.final_;
        while self.pending.front().is_some_and(past) {
            self.pending.pop_front();
        }
    }

    /// Keeps the place of the record of the source that starts at `self.end`.
    fn keep(&mut self, kind: PendingKind) {
        let record = PendingRecord { offset: self.end, end: self.state.accepted, kind };
        self.pending.push_back(record);
    }
}

fn check(path: &Path, head: &Head, found: &HeadBody) -> Result<(), SpoolError> {
    let path = path.to_owned();
    if !(OLDEST_VERSION..=VERSION).contains(&found.version) {
        return Err(SpoolError::Version { path, expected: VERSION, actual: found.version });
    }
    let (rate, identity) = (head.sample_rate, &head.identity);
    let (what, expected, actual) = if found.sample_rate != rate {
        ("sample rate", rate.to_string(), found.sample_rate.to_string())
    } else if found.identity != *identity {
        ("identity", format!("`{identity}`"), format!("`{}`", found.identity))
    } else {
        return Ok(());
    };
    Err(SpoolError::Mismatch { path, what, expected, actual })
}
