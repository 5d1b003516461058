//! The ends of a spool: who writes audio, who reads it, who keeps the log.

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

/// Takes what the source has, and never waits for the session.
///
/// A source that is read again from its start after a restart is simply written again: what is there already is passed
/// over. Dropped without [`end`](Writer::end), it leaves a spool whose reader stops there, and that a later process can
/// continue.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    /// How far there is something to read; the reader waits for it to change.
    written: watch::Sender<u64>,
    /// Where the source's frame 0 is in the spool.
    origin: FramePos,
    /// How far the source came, on the spool's timeline.
    position: FramePos,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, written: watch::Sender<u64>) -> Writer {
        Writer { shared, written, origin: FramePos::ZERO, position: FramePos::ZERO }
    }

    /// The writer for a source that can't be read again, such as a microphone: the positions it counts in this process
    /// go on where the spool ends.
    #[must_use]
    pub fn live(self) -> Writer {
        let accepted = self.accepted();
        Writer { origin: accepted, position: accepted, ..self }
    }

    /// Where audio goes on: the spool has all frames below.
    #[must_use]
    pub fn accepted(&self) -> FramePos {
        self.shared.state().accepted
    }

    /// Writes whatever `feed` is.
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
    /// [`SpoolError::Io`]: what could not be written is not there, and may be written again. [`SpoolError::OutOfOrder`]
    /// where the chunk leaves a hole, or goes on behind the end.
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

    /// Writes that the source has lost these frames, as far as the spool doesn't have them.
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

    /// Writes that the utterance ends where the source is. Twice in one place it is written once.
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

    /// Writes that no audio follows what the spool has. Twice it is written once.
    ///
    /// # Errors
    /// [`SpoolError::Io`], as of [`append`](Writer::append).
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

/// Hands out what the writer wrote, in order and in the same pieces, from where an earlier process left off.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
    written: watch::Receiver<u64>,
    /// The next record.
    offset: u64,
    /// The next frame: of a record that begins before, the rest is handed out.
    position: FramePos,
    ended: bool,
}

impl Reader {
    /// A reader of what follows the record that ends at `offset`, from the frame at `position` on.
    pub(super) fn new(
        shared: Arc<Shared>,
        written: watch::Receiver<u64>,
        position: FramePos,
        offset: u64,
    ) -> Reader {
        Reader { shared, written, offset, position, ended: false }
    }

    /// Reads the audio that `waiting` begins with until that is `frames` or more, and goes on behind it.
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

    /// What comes next. Where there is nothing yet, waits for the writer; nothing is lost when the wait is given up.
    /// `None` behind [`Feed::End`], and where the writer was dropped without it.
    ///
    /// Reads from the page cache, or from the disk where the session is far behind, without leaving the task: a chunk is
    /// a few KB.
    ///
    /// # Errors
    /// [`SpoolError::Io`], and [`SpoolError::Damaged`] where the file was changed by others. The next call tries again.
    pub async fn next(&mut self) -> Result<Option<Feed>, SpoolError> {
        while !self.ended {
            let written = *self.written.borrow_and_update();
            while self.offset < written {
                if let Some(feed) = self.read()? {
                    return Ok(Some(feed));
                }
            }
            // An error says that the writer is gone and that all it wrote was seen.
            if self.written.changed().await.is_err() {
                break;
            }
        }
        Ok(None)
    }

    /// Reads one record; `None` where it is not for the session.
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

/// The journal of the session: finals, gaps and the server's session, in the same file as the audio.
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
        // Without it a later process starts a new session, which costs recognition and no audio.
        self.shared.append(Weight::Light, &[], |_| Some(Entry::Opened(server.clone())))?;
        Ok(())
    }

    fn told(&mut self, event: &TranscriptEvent) -> io::Result<()> {
        self.shared.append(Weight::Told, &[], |state| match event {
            TranscriptEvent::Final(segment) => Some(Entry::Final(segment.clone())),
            TranscriptEvent::Gap { range } => Some(Entry::Gap(*range)),
            // A session whose source broke off ends as well: what is missing may still come, in a later process.
            TranscriptEvent::End { .. } => (state.is_whole() && !state.done).then_some(Entry::Done),
            TranscriptEvent::Partial { .. } | TranscriptEvent::Reconnected { .. } => None,
        })?;
        Ok(())
    }
}
