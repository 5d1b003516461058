//! Files that only their owner can read, replaced as a whole.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use voxline_support::private_file;

use super::VaultError;

/// The longest file read: a real one has a few kilobytes.
const MAX_FILE: u64 = 256 * 1024;

/// What a replacement has done so far.
#[cfg_attr(not(feature = "test-util"), expect(unreachable_pub, reason = "faults are for tests"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VaultStep {
    /// The new file is there, empty.
    Created,
    /// Half of it is written.
    HalfWritten,
    /// All of it is written.
    Written,
    /// It is on the disk.
    Synced,
    /// It has taken the place of the old one.
    Renamed,
    /// That, too, is on the disk.
    DirectorySynced,
}

/// What is in the file at `path`; `None` where there is no file. Refuses one that others could have read or changed.
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
        // Removed since.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io_error)?,
    };
    // Of what was opened, not of what the name led to a moment ago.
    check(path, &file.metadata().map_err(io_error)?)?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE).read_to_end(&mut bytes).map_err(io_error)?;
    Ok(Some(bytes))
}

/// Refuses a file that is exposed, or somebody else's.
fn check(path: &Path, metadata: &Metadata) -> Result<(), VaultError> {
    match metadata {
        metadata if private_file::is_exposed(metadata) => Err(VaultError::Exposed { path: path.to_owned() }),
        metadata if !private_file::is_ours(metadata) => Err(VaultError::NotOurs { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// Puts `bytes` in the place of the file at `path`. Whatever happens, the file is the old one or the new one. Whoever
/// calls this holds the lock: the name of the new file is always the same, so that a crash leaves one at most.
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
    // The rename itself is durable only once the directory is.
    sync_directory(path)?;
    step(VaultStep::DirectorySynced)
}

fn new_name(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Removes the file at `path`, and what a crash may have left beside it, or damage.
pub(super) fn remove_all(path: &Path) -> io::Result<()> {
    remove(&new_name(path))?;
    remove(&path.with_extension("damaged"))?;
    remove(path)?;
    sync_directory(path)
}

/// Removes a file, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    match cfg!(unix) {
        true => File::open(path.parent().expect("a vault is a file in a directory"))?.sync_all(),
        // Elsewhere a directory can't be opened as a file, and renames are written through.
        false => Ok(()),
    }
}

/// Refuses a directory in which others could replace files.
pub(super) fn check_directory(directory: &Path) -> Result<(), VaultError> {
    let metadata = fs::metadata(directory).map_err(|error| VaultError::io(directory, error))?;
    if private_file::is_changeable_by_others(&metadata) {
        return Err(VaultError::ExposedDirectory { path: directory.to_owned() });
    }
    Ok(())
}

/// The file that says by its lock who may change the vault. It is never removed: two processes must not hold two.
pub(super) fn open_lock(path: &Path) -> io::Result<File> {
    private_file::options().append(true).create(true).open(path)
}
