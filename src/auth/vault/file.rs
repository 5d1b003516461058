//! Files that only their owner can read, replaced atomically.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use voxline_support::private_file;

use super::VaultError;

/// Largest file that is read, in bytes. Real files have a few kilobytes.
const MAX_FILE: u64 = 256 * 1024;

/// File operations that replace the file of a vault. Tests put a disk that fails, or that saves late,
/// between a vault and [`SystemDisk`].
#[cfg_attr(not(feature = "test-util"), expect(unreachable_pub, reason = "tests implement it"))]
pub trait VaultDisk: Send + Sync {
    /// Creates an empty file that only its owner can read.
    ///
    /// # Errors
    /// Returns [`io::Error`] if the file exists or cannot be created.
    fn create(&self, path: &Path) -> io::Result<File>;

    /// Writes the whole contents of a new file.
    ///
    /// # Errors
    /// Returns [`io::Error`] if not all bytes are written.
    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()>;

    /// Flushes the contents of a file to disk.
    ///
    /// # Errors
    /// Returns [`io::Error`] if the contents may not be on disk.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Renames a file to `to`, whose file it replaces.
    ///
    /// # Errors
    /// Returns [`io::Error`] if the file is not renamed.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Flushes the names in a directory to disk.
    ///
    /// # Errors
    /// Returns [`io::Error`] if the names may not be on disk.
    fn sync_directory(&self, directory: &Path) -> io::Result<()>;
}

/// File operations of the operating system.
#[cfg_attr(not(feature = "test-util"), expect(unreachable_pub, reason = "disks of tests end in it"))]
#[derive(Clone, Copy, Debug)]
pub struct SystemDisk;

impl VaultDisk for SystemDisk {
    fn create(&self, path: &Path) -> io::Result<File> {
        private_file::options().write(true).create_new(true).open(path)
    }

    fn write(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_directory(&self, directory: &Path) -> io::Result<()> {
        // Other systems cannot open a directory as a file, and write renames through.
        if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
    }
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
        // First, since no mode makes another user's file acceptable.
        metadata if !private_file::is_ours(metadata) => Err(VaultError::NotOurs { path: path.to_owned() }),
        metadata if private_file::is_exposed(metadata) => Err(VaultError::Exposed { path: path.to_owned() }),
        _ => Ok(()),
    }
}

/// Replaces the file at `path` with `bytes`. The file is the old one or the new one, even after a crash.
/// The caller must hold the lock: the temporary file always has the same name, so that a crash leaves at
/// most one behind.
pub(super) fn replace(disk: &dyn VaultDisk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = new_name(path);
    remove(&new)?;
    let mut file = disk.create(&new)?;
    disk.write(&mut file, bytes)?;
    disk.sync(&file)?;
    disk.rename(&new, path)?;
    // The rename is durable only once the directory is flushed.
    disk.sync_directory(directory(path))
}

fn new_name(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Removes the file at `path`, together with a temporary file left by a crash and a damaged file set
/// aside.
pub(super) fn remove_all(disk: &dyn VaultDisk, path: &Path) -> io::Result<()> {
    remove(&new_name(path))?;
    remove(&path.with_extension("damaged"))?;
    remove(path)?;
    disk.sync_directory(directory(path))
}

/// Removes a file, if it exists.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// Returns the directory of the vault's file at `path`.
pub(super) fn directory(path: &Path) -> &Path {
    path.parent().expect("a vault is a file in a directory")
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
