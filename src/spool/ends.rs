//! The writer, the reader and the journal of a spool.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use tokio::sync::watch;

use super::at::At;
use super::record::{Entry, HEADER_BYTES, Header};
use super::recovery::{Place, What};
use super::{Shared, SpoolError, Weight};
use crate::audio::{AudioChunk, Feed, FramePos, FrameRange};
use crate::session::{Journal, ServerSession};
use crate::transcript::TranscriptEvent;

/// The writer of a spool: stores the audio of a source without ever waiting for the session.
///
/// A source that is read again from its start after a restart can simply be written again: frames already
/// in the spool are skipped. A writer dropped without [`end`](Writer::end) leaves a spool whose reader
/// stops there and which a later process can continue.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    /// Length of the written file, which the reader watches.
    written: watch::Sender<u64>,
    /// Position in the spool of the source's frame 0.
    origin: FramePos,
    /// Position that the source has reached, on the spool's timeline.
    position: FramePos,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, written: watch::Sender<u64>) -> Writer {
        Writer { shared, written, origin: FramePos::ZERO, position: FramePos::ZERO }
    }

    /// Returns the writer for a source that can't be read again, such as a microphone: the positions that
    /// the source counts in this process continue where the spool ends.
    #[must_use]
    pub fn live(self) -> Writer {
        let accepted = self.accepted();
        Writer { origin: accepted, position: accepted, ..self }
    }

    /// Returns the position at which audio continues: the spool has all frames below it.
    #[must_use]
    pub fn accepted(&self) -> FramePos {
        self.shared.state().accepted
    }

    /// Writes `feed`, of any kind.
    ///
    /// # Errors
    /// See [`append`](Writer::append).
    pub fn push(&mut self, feed: &Feed) -> Result<(), SpoolError> {
        match feed {
            Feed::Audio(chunk) => self.append(chunk),
            Feed::Flush => self.flush(),
            Feed::End => self.end(),
            Feed::Gap(range) => self.lose(*range),
        }
    }

    /// Writes the frames of `chunk` that the spool doesn't have yet.
    ///
    /// # Errors
    /// Returns [`SpoolError::Io`] if the chunk can't be written; it is then not in the spool, and may be
    /// written again. Returns [`SpoolError::OutOfOrder`] if the chunk would leave a hole, or follows the
    /// end.
    pub fn append(&mut self, chunk: &AudioChunk) -> Result<(), SpoolError> {
        let shift = self.origin.0;
        let range = (chunk.range().start + shift).to(chunk.range().end + shift);
        let moved = AudioChunk::new(range, chunk.payload().clone());
        if let Some(new) = moved.from(self.accepted()) {
            let entry = Entry::Audio { range: new.range(), voiced: chunk.voiced() };
            self.write(new.payload(), entry)?;
        }
        self.position = range.end;
        Ok(())
    }

    /// Records that the source has lost the frames of `range`, as far as the spool doesn't have them.
    ///
    /// # Errors
    /// See [`append`](Writer::append).
    fn lose(&mut self, range: FrameRange) -> Result<(), SpoolError> {
        let (start, end) = (range.start + self.origin.0, range.end + self.origin.0);
        let accepted = self.accepted();
        if end > accepted {
            self.write(&[], Entry::Lost(start.max(accepted).to(end)))?;
        }
        self.position = end;
        Ok(())
    }

    /// Records a flush: the utterance ends at the source's position. Repeated at the same position, a
    /// flush is written once.
    ///
    /// # Errors
    /// See [`append`](Writer::append).
    pub fn flush(&mut self) -> Result<(), SpoolError> {
        let state = self.shared.state();
        if self.position < state.accepted || state.flushed == Some(self.position) {
            return Ok(());
        }
        self.write(&[], Entry::Flush(self.position))
    }

    /// Records that no audio follows. A repeated end is written once.
    ///
    /// # Errors
    /// Returns [`SpoolError::Io`] as [`append`](Writer::append) does.
    pub fn end(&mut self) -> Result<(), SpoolError> {
        let state = self.shared.state();
        if state.ended {
            return Ok(());
        }
        self.write(&[], Entry::End(state.accepted))
    }

    fn write(&self, pcm: &[u8], entry: Entry) -> Result<(), SpoolError> {
        let length = self.shared.append(Weight::Light, pcm, |_| Some(entry))?;
        self.written.send_replace(length);
        Ok(())
    }
}

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

    /// Reads the audio at the start of `waiting` until it has `frames` frames or more, and continues
    /// after it.
    pub(super) fn replay(
        &mut self,
        waiting: VecDeque<Place>,
        frames: u64,
    ) -> Result<Vec<AudioChunk>, SpoolError> {
        let (start, end) = (self.position, self.offset);
        let mut replay = Vec::new();
        for place in waiting {
            self.offset = place.offset;
            if place.what != What::Audio || self.position - start >= frames {
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
        let mut input = At::new(&self.shared.file, self.offset);
        let mut header = [0; HEADER_BYTES];
        input.read_exact(&mut header).map_err(io_error)?;
        let header = Header::decode(header).ok_or_else(damaged)?;
        let behind = self.offset + header.record_bytes();
        if !header.kind.is_feed() {
            self.offset = behind;
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
        self.offset = behind;
        Ok(feed)
    }
}

/// The journal of a session: finals, gaps and the server's session, in the same file as the audio.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
}

impl Log {
    pub(super) fn new(shared: Arc<Shared>) -> Log {
        Log { shared }
    }
}

impl Journal for Log {
    fn opened(&mut self, server: &ServerSession) -> io::Result<()> {
        // Without this record a later process starts a new session, which costs recognition but no audio.
        self.shared.append(Weight::Light, &[], |_| Some(Entry::Opened(server.clone())))?;
        Ok(())
    }

    fn told(&mut self, event: &TranscriptEvent) -> io::Result<()> {
        self.shared.append(Weight::Told, &[], |state| match event {
            TranscriptEvent::Final(segment) => Some(Entry::Final(segment.clone())),
            TranscriptEvent::Gap { range } => Some(Entry::Gap(*range)),
            // A session whose source broke off ends as well; the missing audio may still come, in a later
            // process.
            TranscriptEvent::End { .. } => (state.is_whole() && !state.done).then_some(Entry::Done),
            TranscriptEvent::Partial { .. } | TranscriptEvent::Reconnected { .. } => None,
        })?;
        Ok(())
    }
}
