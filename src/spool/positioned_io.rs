//! Positioned I/O: reading and writing at an offset of a file, independent of the file's cursor.

use std::fs::File;
use std::io::{self, Read};
#[cfg(unix)]
use std::os::unix::fs::FileExt;
#[cfg(windows)]
use std::os::windows::fs::FileExt;

/// A reader with an offset of its own, which leaves the file's cursor alone.
#[derive(Debug)]
pub(super) struct PositionedReader<'a> {
    file: &'a File,
    offset: u64,
}

impl PositionedReader<'_> {
    pub(super) fn new(file: &File, offset: u64) -> PositionedReader<'_> {
        PositionedReader { file, offset }
    }
}

impl Read for PositionedReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let count = self.file.read_at(buffer, self.offset)?;
        #[cfg(windows)]
        let count = self.file.seek_read(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Writes all of `bytes` at `offset`.
#[cfg(unix)]
pub(super) fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    file.write_all_at(bytes, offset)
}

/// Writes all of `bytes` at `offset`.
#[cfg(windows)]
pub(super) fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.seek_write(bytes, offset)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            count => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
        }
    }
    Ok(())
}
