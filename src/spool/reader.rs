//! Reader of a spool.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::Arc;

use tokio::sync::watch;

use super::positioned_io::PositionedReader;
use super::record::{Entry, HEADER_BYTES, Header};
use super::recovery::{PendingKind, PendingRecord};
use super::{Shared, SpoolError};
use crate::audio::{AudioChunk, Feed, FramePos};

/// The reader of a spool: returns what the writer wrote, in order and in the same pieces, from where an
/// earlier process left off.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    written: watch::Receiver<u64>,
    /// Offset of the next record.
    offset: u64,
    /// Position of the next frame. Of a record that begins before it, only the rest is returned.
    position: FramePos,
    ended: bool,
}

impl Reader {
    /// Creates a reader that continues at `offset`, where a record ends, with the frame at `position`.
    pub(super) fn new(
        shared: Arc<Shared>,
        written: watch::Receiver<u64>,
        position: FramePos,
        offset: u64,
    ) -> Reader {
        Reader { shared, written, offset, position, ended: false }
    }

    /// Reads the audio at the start of `pending` until it has `frames` frames or more, and continues
    /// after it.
    pub(super) fn replay(
        &mut self,
        pending: VecDeque<PendingRecord>,
        frames: u64,
    ) -> Result<Vec<AudioChunk>, SpoolError> {
        let (start, end) = (self.position, self.offset);
        let mut replay = Vec::new();
        for record in pending {
            self.offset = record.offset;
            if record.kind != PendingKind::Audio || self.position - start >= frames {
                return Ok(replay);
            }
            let Some(Feed::Audio(chunk)) = self.read()? else { continue };
            replay.push(chunk);
        }
        self.offset = end;
        Ok(replay)
    }

    /// Returns the next item. If there is none yet, waits for the writer. Cancel safe: nothing is lost
    /// when the future is dropped. Returns `None` after [`Feed::End`], and if the writer was dropped
    /// without an end.
    ///
    /// Reads block the task: they come from the page cache, or from the disk if the session is far
    /// behind, and a chunk is only a few KB.
    ///
    /// # Errors
    /// Returns [`SpoolError::Io`] if the file can't be read, and [`SpoolError::Damaged`] if another
    /// program changed the file. The next call tries again.
    pub async fn next(&mut self) -> Result<Option<Feed>, SpoolError> {
        while !self.ended {
            let written = *self.written.borrow_and_update();
            while self.offset < written {
                if let Some(feed) = self.read()? {
                    return Ok(Some(feed));
                }
            }
            // The error means that the writer is gone and that everything it wrote was read.
            if self.written.changed().await.is_err() {
                break;
            }
        }
        Ok(None)
    }

    /// Reads one record; `None` if the record is not for the session.
    fn read(&mut self) -> Result<Option<Feed>, SpoolError> {
        let io_error = |source| self.shared.io_error(source);
        let damaged = || SpoolError::Damaged {
            path: self.shared.path.clone(),
            offset: self.offset,
            position: self.position,
        };
        let mut input = PositionedReader::new(&self.shared.file, self.offset);
        let mut header = [0; HEADER_BYTES];
        input.read_exact(&mut header).map_err(io_error)?;
        let header = Header::decode(header).ok_or_else(damaged)?;
        let next = self.offset + header.record_bytes();
        if !header.kind.is_feed() {
            self.offset = next;
            return Ok(None);
        }
        let mut body = vec![0; header.length];
        input.read_exact(&mut body).map_err(io_error)?;
        let feed = match header.open(body).ok_or_else(damaged)? {
            (Entry::Audio { .. }, Some(chunk)) => {
                let rest = chunk.from(self.position);
                self.position = self.position.max(chunk.range().end);
                rest.map(Feed::Audio)
            }
            (Entry::Lost(range), _) => {
                let start = range.start.max(self.position);
                self.position = self.position.max(range.end);
                (start < range.end).then(|| Feed::Gap(start.to(range.end)))
            }
            (Entry::End(_), _) => {
                self.ended = true;
                Some(Feed::End)
            }
            _ => Some(Feed::Flush),
        };
        self.offset = next;
        Ok(feed)
    }
}
