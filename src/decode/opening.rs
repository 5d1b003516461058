//! The start of a source, which is examined before its reader is chosen.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use symphonia::core::io::{MediaSource, ReadOnlySource};

use super::meter::Meter;
use crate::source::Input;

/// A source that can be read from its start more than once while little of it has been read. Bytes read
/// from a stream are kept for the next reading; files and memory are rewound.
pub(super) struct Opening {
    input: Input,
    /// Checked before each read.
    meter: Meter,
    /// Bytes that a stream has supplied so far.
    seen: Vec<u8>,
    /// Number of these bytes that were read again.
    at: usize,
    /// Bytes that replace a part of a file, and the position of that part. The file itself is never
    /// written.
    replaced: Option<(u64, Vec<u8>)>,
}

impl Opening {
    /// Creates an opening of `input`, which must be at its start.
    pub(super) fn new(input: Input, meter: Meter) -> Opening {
        Opening { input, meter, seen: Vec::new(), at: 0, replaced: None }
    }

    /// Returns the length in bytes, if it is known.
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

    /// Skips `bytes` bytes, or goes to the end.
    pub(super) fn skip(&mut self, bytes: u64) -> io::Result<()> {
        // The bound is beyond any file; a seek takes signed distances.
        let distance = bytes.min(i64::MAX as u64 / 2).cast_signed();
        match &mut self.input {
            Input::File(file) => file.seek(SeekFrom::Current(distance)).map(drop),
            Input::Memory(held) => held.seek(SeekFrom::Current(distance)).map(drop),
            Input::Stream(_) => io::copy(&mut self.take(bytes), &mut io::sink()).map(drop),
        }
    }

    /// Fills `buffer` until it is full or the source ends, and returns the number of bytes read.
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

    /// Puts `bytes` in the place of the bytes that were read at `start`. Later readers see the
    /// replacement; this one need not.
    pub(super) fn replace(&mut self, start: u64, bytes: Vec<u8>) {
        let overwrite = |held: &mut [u8]| {
            let place =
                usize::try_from(start).ok().and_then(|start| held.get_mut(start..start + bytes.len()));
            place.expect("only what was read is replaced").copy_from_slice(&bytes);
        };
        match &mut self.input {
            Input::File(_) => self.replaced = Some((start, bytes)),
            Input::Memory(held) => overwrite(held.get_mut()),
            Input::Stream(_) => overwrite(&mut self.seen),
        }
    }

    /// Returns a reader of the bytes that were not read yet.
    pub(super) fn rest(mut self) -> Box<dyn Read + Send + Sync> {
        match self.input {
            Input::File(file) => match self.replaced {
                Some((start, bytes)) => Box::new(PatchedFile::new(file, start, bytes)),
                None => Box::new(file),
            },
            Input::Memory(bytes) => Box::new(bytes),
            Input::Stream(reader) => {
                self.seen.drain(..self.at);
                Box::new(Cursor::new(self.seen).chain(reader))
            }
        }
    }

    /// Returns a symphonia source of the bytes that were not read yet. `once` hides that the bytes can be
    /// read in any order. A source that is read front to back must make `progress`.
    pub(super) fn media(self, once: bool, progress: Progress) -> Box<dyn MediaSource> {
        match self.input {
            Input::File(file) if !once => match self.replaced {
                Some((start, bytes)) => Box::new(PatchedFile::new(file, start, bytes)),
                None => Box::new(file),
            },
            Input::Memory(bytes) if !once => Box::new(bytes),
            _ => Box::new(ReadOnlySource::new(GuardedStream { reader: self.rest(), progress })),
        }
    }
}

/// A file of which one part is read from memory.
struct PatchedFile {
    file: File,
    /// Position of the next read in the file.
    at: u64,
    /// `true` if the file's own position differs from `at`.
    moved: bool,
    start: u64,
    bytes: Vec<u8>,
}

impl PatchedFile {
    /// Creates a file with a replaced part. `file` must be at its start.
    fn new(file: File, start: u64, bytes: Vec<u8>) -> PatchedFile {
        PatchedFile { file, at: 0, moved: false, start, bytes }
    }
}

impl Read for PatchedFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let inside = self.at.checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        if let Some(rest) = inside.and_then(|at| self.bytes.get(at..)).filter(|rest| !rest.is_empty()) {
            let read = rest.len().min(buffer.len());
            buffer[..read].copy_from_slice(&rest[..read]);
            self.at += read as u64;
            self.moved = true;
            return Ok(read);
        }
        if std::mem::take(&mut self.moved) {
            self.file.seek(SeekFrom::Start(self.at))?;
        }
        let before = self.start.checked_sub(self.at).filter(|&before| before > 0);
        let most = before.map_or(buffer.len(), |before| (buffer.len() as u64).min(before) as usize);
        let read = self.file.read(&mut buffer[..most])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl Seek for PatchedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Current(distance) => SeekFrom::Start(
                self.at.checked_add_signed(distance).ok_or(io::Error::from(io::ErrorKind::InvalidInput))?,
            ),
            to => to,
        };
        self.at = self.file.seek(to)?;
        self.moved = false;
        Ok(self.at)
    }
}

impl MediaSource for PatchedFile {
    fn is_seekable(&self) -> bool {
        true
    }

    fn byte_len(&self) -> Option<u64> {
        self.file.metadata().ok().map(|metadata| metadata.len())
    }
}

/// Most bytes of a stream that may be read without yielding a packet: twice the longest index.
const BYTES_WITHOUT_PACKET_MAX: u64 = 128 << 20;

/// Number of bytes read since the last packet. A stream need not end, so a demuxer could look for its
/// next packet for ever.
#[derive(Clone, Default)]
pub(super) struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Records that a packet was read.
    pub(super) fn made(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// A stream that fails when too many of its bytes yield no packet.
struct GuardedStream {
    reader: Box<dyn Read + Send + Sync>,
    progress: Progress,
}

impl Read for GuardedStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        let before = self.progress.0.fetch_add(read as u64, Ordering::Relaxed);
        if before > BYTES_WITHOUT_PACKET_MAX {
            Err(io::Error::other(format!("{} MiB hold no audio", BYTES_WITHOUT_PACKET_MAX >> 20)))
        } else {
            Ok(read)
        }
    }
}

impl Read for Opening {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.meter.check()?;
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
