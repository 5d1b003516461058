//! What is in a spool that somebody else wrote.

use std::collections::VecDeque;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::at::At;
use super::record::{Entry, HeadBody, Records};
use super::state::State;
use super::{Head, OLDEST_VERSION, SpoolError, VERSION};
use crate::audio::FramePos;
use crate::session::ServerSession;
use crate::transcript::TranscriptEvent;

/// How much is read at once.
const BUFFER: usize = 64 * 1024;

/// What came of reading a spool from its start to its end, or to where it is damaged.
pub(super) struct Scan {
    pub(super) state: State,
    /// Finals and gaps.
    pub(super) told: Vec<TranscriptEvent>,
    /// The recogniser's context behind the last of these finals.
    pub(super) context: Option<String>,
    /// The latest session of the server.
    pub(super) server: Option<ServerSession>,
    /// Where the records are that the session still needs.
    pub(super) waiting: VecDeque<Place>,
    /// Where the last whole record ends.
    pub(super) end: u64,
}

/// Where a record of the source is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) offset: u64,
    /// Where audio goes on behind it.
    end: FramePos,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Audio,
    Flush,
    End,
    Lost,
}

/// Reads the `length` bytes of `file`.
pub(super) fn scan(file: &File, path: &Path, length: u64, head: &Head) -> Result<Scan, SpoolError> {
    let io_error = |source| SpoolError::Io { path: path.to_owned(), source };
    let mut records = Records::new(BufReader::with_capacity(BUFFER, At::new(file, 0)), length);
    let Some(Entry::Head(found)) = records.next().map_err(io_error)? else {
        return Err(SpoolError::NotASpool { path: path.to_owned() });
    };
    check(path, head, &found)?;
    let mut scan = Scan {
        state: State::default(),
        told: Vec::new(),
        context: None,
        server: None,
        waiting: VecDeque::new(),
        end: records.offset,
    };
    while let Some(entry) = records.next().map_err(io_error)? {
        // What was never written in this order is damage too.
        let Ok(state) = scan.state.after(&entry) else { break };
        scan.state = state;
        scan.take(entry);
        scan.end = records.offset;
    }
    // Another service has no such session, and another recogniser, to which the context says nothing.
    if found.service != head.service {
        (scan.server, scan.context) = (None, None);
    }
    Ok(scan)
}

impl Scan {
    fn take(&mut self, entry: Entry) {
        let (offset, end) = (self.end, self.state.accepted);
        match entry {
            Entry::Audio { .. } => self.waiting.push_back(Place { offset, end, what: What::Audio }),
            Entry::Flush(_) => self.waiting.push_back(Place { offset, end, what: What::Flush }),
            Entry::Lost(_) => self.waiting.push_back(Place { offset, end, what: What::Lost }),
            Entry::End(_) => self.waiting.push_back(Place { offset, end, what: What::End }),
            Entry::Opened(server) => self.server = Some(server),
            Entry::Final(mut segment) => {
                // Only the latest is of use, and thousands would take memory.
                self.context = segment.context.take().or(self.context.take());
                self.told.push(TranscriptEvent::Final(segment));
            }
            Entry::Gap(range) => self.told.push(TranscriptEvent::Gap { range }),
            Entry::Head(_) | Entry::Done => {}
        }
        // What lies below the last final is not asked for again; that the audio ended is.
        let past = |place: &Place| place.what != What::End && place.end <= self.state.final_;
        while self.waiting.front().is_some_and(past) {
            self.waiting.pop_front();
        }
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
