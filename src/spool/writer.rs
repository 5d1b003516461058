//! Writer of a spool.

use std::sync::Arc;

use tokio::sync::watch;

use super::record::Entry;
use super::{Durability, Shared, SpoolError};
use crate::audio::{AudioChunk, Feed, FramePos, FrameRange};

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
        let length = self.shared.append(Durability::Deferred, pcm, |_| Some(entry))?;
        self.written.send_replace(length);
        Ok(())
    }
}
