//! Partial downloads: a file is written in a staging directory, hashed, synced, and renamed last. Blocking.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::progress::Report;
use super::{ModelFile, StoreError};
use voxline_support::hex;

/// Number of bytes read or written at a time.
const BLOCK: usize = 256 << 10;

/// A file of a model that is being written. If dropped before [`commit`](PartialDownload::commit), it
/// stays in the staging directory.
pub(super) struct PartialDownload {
    path: PathBuf,
    out: File,
    hash: Sha256,
    done: u64,
    size: u64,
}

impl PartialDownload {
    /// Starts to write `file` at `path` from the beginning.
    pub(super) fn create(path: PathBuf, file: &ModelFile) -> Result<PartialDownload, StoreError> {
        let out = File::create(&path).map_err(|error| StoreError::writing(&path, file.size, error))?;
        Ok(PartialDownload { path, out, hash: Sha256::new(), done: 0, size: file.size })
    }

    /// Continues after the bytes already at `path`, which are read for the hash. A file that is longer
    /// than `file` should be is started again.
    pub(super) fn resume(path: PathBuf, file: &ModelFile) -> Result<PartialDownload, StoreError> {
        let fail = |error| StoreError::writing(&path, file.size, error);
        let mut out =
            File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
        if out.metadata().map_err(fail)?.len() > file.size {
            drop(out);
            return PartialDownload::create(path, file);
        }
        let mut hash = Sha256::new();
        let done = read_blocks(&mut out, |block| hash.update(block)).map_err(fail)?;
        Ok(PartialDownload { path, out, hash, done, size: file.size })
    }

    /// Returns the number of bytes written.
    pub(super) fn done(&self) -> u64 {
        self.done
    }

    /// Discards the bytes written so far.
    pub(super) fn restart(&mut self) -> Result<(), StoreError> {
        use std::io::Seek as _;
        let fail = |error| StoreError::writing(&self.path, self.size, error);
        self.out.set_len(0).map_err(fail)?;
        self.out.rewind().map_err(fail)?;
        self.hash = Sha256::new();
        self.done = 0;
        Ok(())
    }

    /// Writes the next bytes.
    ///
    /// # Errors
    /// Returns [`StoreError::Size`] as soon as there are more bytes than the file should have, so that a
    /// source cannot fill the disk.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        let done = self.done + bytes.len() as u64;
        if done > self.size {
            let _ = fs::remove_file(&self.path);
            return Err(StoreError::Size { path: self.path.clone(), expected: self.size, actual: done });
        }
        self.out.write_all(bytes).map_err(|error| StoreError::writing(&self.path, self.size, error))?;
        self.hash.update(bytes);
        self.done = done;
        Ok(())
    }

    /// Writes all bytes of `from`.
    pub(super) fn write_from(&mut self, from: &mut impl Read, report: &Report) -> Result<(), StoreError> {
        let mut block = vec![0; BLOCK];
        loop {
            match from.read(&mut block) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    self.write(&block[..length])?;
                    report.done(self.done);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(StoreError::io(&self.path, error)),
            }
        }
    }

    /// Completes the file and moves it to `place` if its size and hash are the pinned ones; otherwise
    /// removes it.
    pub(super) fn commit(self, file: &ModelFile, place: &Path) -> Result<(), StoreError> {
        let actual = hex(&self.hash.finalize());
        let wrong = if self.done != file.size {
            Some(StoreError::Size { path: self.path.clone(), expected: file.size, actual: self.done })
        } else if actual != file.sha256 {
            Some(StoreError::Hash { path: self.path.clone(), expected: file.sha256.clone(), actual })
        } else {
            None
        };
        if let Some(error) = wrong {
            fs::remove_file(&self.path).map_err(|error| StoreError::io(&self.path, error))?;
            return Err(error);
        }
        self.out.sync_all().map_err(|error| StoreError::writing(&self.path, file.size, error))?;
        fs::rename(&self.path, place).map_err(|error| StoreError::io(place, error))?;
        sync_directory(place)
    }
}

/// Compares the hash of a file with the pinned one.
pub(super) fn check(path: &Path, file: &ModelFile) -> Result<(), StoreError> {
    let mut hash = Sha256::new();
    File::open(path)
        .and_then(|mut opened| read_blocks(&mut opened, |block| hash.update(block)))
        .map_err(|error| StoreError::io(path, error))?;
    let actual = hex(&hash.finalize());
    if actual == file.sha256 {
        return Ok(());
    }
    Err(StoreError::Hash { path: path.to_owned(), expected: file.sha256.clone(), actual })
}

/// Passes the rest of a file to `take`, block by block, and returns its length.
fn read_blocks(from: &mut File, mut take: impl FnMut(&[u8])) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut total = 0;
    loop {
        match from.read(&mut block) {
            Ok(0) => return Ok(total),
            Ok(length) => {
                take(&block[..length]);
                total += length as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Makes a rename durable. If a directory cannot be opened as a file (Windows), there is nothing to do.
fn sync_directory(place: &Path) -> Result<(), StoreError> {
    let directory = place.parent().unwrap_or(place);
    match File::open(directory) {
        Ok(opened) => opened.sync_all().map_err(|error| StoreError::io(directory, error)),
        Err(_) => Ok(()),
    }
}
