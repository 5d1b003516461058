//! Files that only their owner can read, replaced atomically.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use voxline_support::private_file;

use super::VaultError;

/// Largest file that is read, in bytes. Real files have a few kilobytes.
const MAX_FILE: u64 = 256 * 1024;

/// Completed steps of a file replacement.
#[cfg_attr(not(feature = "test-util"), expect(unreachable_pub, reason = "faults are for tests"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VaultStep {
    /// The new file was created and is empty.
    Created,
    /// Half of the new file is written.
    HalfWritten,
    /// The whole new file is written.
    Written,
    /// The new file is flushed to disk.
    Synced,
    /// The new file has replaced the old one.
    Renamed,
    /// The rename is flushed to disk.
    DirectorySynced,
}

/// Returns the contents of the file at `path`, or `None` if there is no such file. Refuses a file that
/// other users could have read or changed.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, VaultError> {
    let io_error = |error| VaultError::io(path, error);
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        metadata => metadata.map_err(io_error)?,
    };
    if !metadata.is_file() {
        return Err(VaultError::NotAFile { path: path.to_owned() });
    }
    let file = match File::open(path) {
        // The file was removed after its metadata was read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io_error)?,
    };
    // Check the opened file, since the path may have led to another one a moment ago.
    check(path, &file.metadata().map_err(io_error)?)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(io_error)?;
    Ok(Some(bytes))
}

/// Refuses a file that other users can access, or that belongs to another user.
fn check(path: &Path, metadata: &Metadata) -> Result<(), VaultError> {
    match metadata {
        metadata if private_file::is_exposed(metadata) => Err(VaultError::Exposed { path: path.to_owned() }),
        metadata if !private_file::is_ours(metadata) => Err(VaultError::NotOurs { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// Replaces the file at `path` with `bytes`. The file is the old one or the new one, even after a crash.
/// The caller must hold the lock: the temporary file always has the same name, so that a crash leaves at
/// most one behind.
pub(super) fn replace(
    path: &Path,
    bytes: &[u8],
    mut step: impl FnMut(VaultStep) -> io::Result<()>,
) -> io::Result<()> {
    let new = new_name(path);
    remove(&new)?;
    let mut file = private_file::options().write(true).create_new(true).open(&new)?;
    step(VaultStep::Created)?;
    let (first, second) = bytes.split_at(bytes.len() / 2);
    file.write_all(first)?;
    step(VaultStep::HalfWritten)?;
    file.write_all(second)?;
    step(VaultStep::Written)?;
    file.sync_all()?;
    step(VaultStep::Synced)?;
    fs::rename(&new, path)?;
    step(VaultStep::Renamed)?;
    // The rename is durable only once the directory is flushed.
    sync_directory(path)?;
    step(VaultStep::DirectorySynced)
}

fn new_name(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Removes the file at `path`, together with a temporary file left by a crash and a damaged file set
/// aside.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    remove(&new_name(path))?;
    remove(&path.with_extension("damaged"))?;
    remove(path)?;
    sync_directory(path)
}

/// Removes a file, if it exists.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(path.parent().expect("a vault is a file in a directory"))?.sync_all(),
        // Other systems cannot open a directory as a file, and write renames through.
        false => Ok(()),
    }
}

/// Refuses a directory in which other users could replace files.
pub(super) fn check_directory(directory: &Path) -> Result<(), VaultError> {
    let metadata = fs::metadata(directory).map_err(|error| VaultError::io(directory, error))?;
    if private_file::is_changeable_by_others(&metadata) {
        return Err(VaultError::ExposedDirectory { path: directory.to_owned() });
    }
    Ok(())
}

/// Opens the lock file, whose lock is the right to change the vault. The file is never removed: two
/// processes must not hold locks on two different files.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    private_file::options().append(true).create(true).open(path)
}
