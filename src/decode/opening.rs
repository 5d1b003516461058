//! The start of a source, looked at before it is known who reads the rest.

use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use symphonia::core::io::{MediaSource, ReadOnlySource};

use crate::source::Input;

/// A source that can be read from its start more than once, as long as little of it was read. What is read of a
/// stream is kept for the next reading; everything else is rewound.
pub(super) struct Opening {
    input: Input,
    /// What a stream has given so far.
    seen: Vec<u8>,
    /// How much of that was read again.
    at: usize,
}

impl Opening {
    /// `input` must be at its start.
    pub(super) fn new(input: Input) -> Opening {
        Opening { input, seen: Vec::new(), at: 0 }
    }

    /// How many bytes there are, where that is known.
    pub(super) fn length(&self) -> io::Result<Option<u64>> {
        Ok(match &self.input {
            Input::File(file) => Some(file.metadata()?.len()),
            Input::Memory(bytes) => Some(bytes.get_ref().len() as u64),
            Input::Stream(_) => None,
        })
    }

    /// Goes back to the start.
    pub(super) fn rewind(&mut self) -> io::Result<()> {
        self.at = 0;
        match &mut self.input {
            Input::File(file) => file.rewind(),
            Input::Memory(bytes) => bytes.rewind(),
            Input::Stream(_) => Ok(()),
        }
    }

    /// Goes forward over `bytes` bytes, or to the end.
    pub(super) fn skip(&mut self, bytes: u64) -> io::Result<()> {
        // Beyond any file; a seek takes signed distances.
        let distance = bytes.min(i64::MAX as u64 / 2).cast_signed();
        match &mut self.input {
            Input::File(file) => file.seek(SeekFrom::Current(distance)).map(drop),
            Input::Memory(held) => held.seek(SeekFrom::Current(distance)).map(drop),
            Input::Stream(_) => io::copy(&mut self.take(bytes), &mut io::sink()).map(drop),
        }
    }

    /// Fills `buffer` as far as the source goes, and says how far.
    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    /// What was not read yet.
    pub(super) fn rest(mut self) -> Box<dyn Read + Send + Sync> {
        match self.input {
            Input::File(file) => Box::new(file),
            Input::Memory(bytes) => Box::new(bytes),
            Input::Stream(reader) => {
                self.seen.drain(..self.at);
                Box::new(Cursor::new(self.seen).chain(reader))
            }
        }
    }

    /// What was not read yet, for symphonia; `once` hides that it can be read in any order. What is read front to back
    /// must make `progress`.
    pub(super) fn media(self, once: bool, progress: Progress) -> Box<dyn MediaSource> {
        match self.input {
            Input::File(file) if !once => Box::new(file),
            Input::Memory(bytes) if !once => Box::new(bytes),
            _ => Box::new(ReadOnlySource::new(Watched { reader: self.rest(), progress })),
        }
    }
}

/// How much of a stream may be read without a packet coming of it: twice the longest index.
const BYTES_WITHOUT_PACKET_MAX: u64 = 128 << 20;

/// Bytes read since the last packet. Streams need not end, so a demuxer could look for its next packet for ever.
#[derive(Clone, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

impl Progress {
    /// There was a packet.
    pub(super) fn made(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// A stream that fails when too much of it gives nothing.
struct Watched {
    reader: Box<dyn Read + Send + Sync>,
    progress: Progress,
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let before = self.progress.0.fetch_add(read as u64, Ordering::Relaxed);
        match before > BYTES_WITHOUT_PACKET_MAX {
            true => Err(io::Error::other(format!("{} MiB hold no audio", BYTES_WITHOUT_PACKET_MAX >> 20))),
            false => Ok(read),
        }
    }
}

impl Read for Opening {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let reader = match &mut self.input {
            Input::File(file) => return file.read(buffer),
            Input::Memory(bytes) => return bytes.read(buffer),
            Input::Stream(reader) => reader,
        };
        if self.at == self.seen.len() {
            let read = reader.read(buffer)?;
            self.seen.extend_from_slice(&buffer[..read]);
            self.at += read;
            return Ok(read);
        }
        let read = (&self.seen[self.at..]).read(buffer)?;
        self.at += read;
        Ok(read)
    }
}
