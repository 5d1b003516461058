//! A spool: a session on disk, with the audio that waits to be sent and the state that a later process
//! needs to resume.
//!
//! A spool is one file, appended to while a session runs. It does two things:
//!
//! - *A live source never waits.* Audio is written to the file as it arrives ([`Writer`]), and the
//!   session reads it at its own pace ([`Reader`]): a queue between them that is as long as the disk is
//!   large.
//! - *A session outlives its process.* The name of the server's session, every final and every gap are
//!   recorded before the event is emitted ([`Log`]). A later [`Spool::open`] reports the progress of the
//!   session, and returns what is needed to continue.
//!
//! The file holds recorded speech and the key of the server's session, so only its owner has access (mode
//! 0600), and one process has it open at a time. A process that crashes in the middle of a write leaves
//! half a record, which is cut off when the file is opened again. A file that is damaged elsewhere is set
//! aside, and everything readable in it continues in a new one: unreadable frames are reported as a gap,
//! and the audio after an unreadable final is recognised again.
//!
//! ```no_run
//! use voxline::spool::{Fsync, Head, Opened, Spool, SpoolError};
//!
//! # async fn example(path: &std::path::Path, chunk: voxline::audio::AudioChunk) -> Result<(), SpoolError> {
//! let head = Head { sample_rate: 16_000, identity: "call.wav".to_owned(), service: String::new() };
//! let Opened { spool, mut writer, mut reader, log, recovered } =
//!     Spool::open(path, &head, 60 * 16_000, Fsync::Finals)?;
//! println!("resuming at frame {}", recovered.checkpoint.final_);
//! writer.append(&chunk)?; // in the task that has the source
//! writer.end()?;
//! while let Some(feed) = reader.next().await? { /* to the session, which has `log` and the checkpoint */ }
//! spool.remove()?; // the transcript is complete
//! # Ok(())
//! # }
//! ```

mod error;
mod locked;
mod log;
mod positioned_io;
mod reader;
mod record;
mod recovery;
mod repair;
mod run;
mod state;
mod writer;

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

pub use self::log::Log;
pub use error::SpoolError;
pub use reader::Reader;
pub use run::{Repeatability, SpooledEnd, SpooledError};
pub use writer::Writer;

use self::locked::Locked;
use self::record::{Entry, HeadBody};
use self::recovery::Scan;
use self::repair::Survey;
use self::state::State;
use crate::audio::FramePos;
use crate::session::{Checkpoint, Ledger};
use crate::transcript::TranscriptEvent;
use voxline_support::private_file;

/// Version of the format. Files of later versions are not read, nor those before [`OLDEST_VERSION`].
const VERSION: u32 = 2;
/// First version of the format, which has no record of lost frames.
const OLDEST_VERSION: u32 = 1;

/// The identity of a spool: a file with another sample rate or identity is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Frames per second of the session stream.
    pub sample_rate: u32,
    /// Identity of the session, such as the recording's path, size and modification time, the channel and
    /// the language, in any form: it is only compared. Errors show it.
    pub identity: String,
    /// Service that carries the session, in any form. If it has changed, the key of the server's session
    /// is not returned, so that no other service sees it.
    pub service: String,
}

/// The policy for forcing written data to the disk. A process that crashes, even by `kill -9`, loses nothing
/// under any policy, since the kernel has the data. The policies differ in what a power failure costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// Never. Anything since the kernel last wrote may be lost, so results may be reported twice, and
    /// differently.
    Never,
    /// Before an event is emitted: no final or gap is lost once it was reported. Audio after the
    /// last of them may be lost; a file is decoded again, but a live source has lost it. Costs a few
    /// milliseconds per final.
    #[default]
    Finals,
    /// After every record: nothing is lost once [`Writer::append`] has returned. Costs a few milliseconds
    /// for each chunk, during which the source waits.
    Always,
}

/// The parts of an opened spool, each for the part of the program that uses it. [`run`](Opened::run) puts
/// them together around a session.
#[derive(Debug)]
pub struct Opened {
    /// The file as a whole.
    pub spool: Spool,
    /// Writer, for the task that has the source.
    pub writer: Writer,
    /// Reader, for the task that feeds the session. Starts after the replay.
    pub reader: Reader,
    /// Journal, for the session.
    pub log: Log,
    /// State that an earlier process left.
    pub recovered: Recovered,
}

/// State that an earlier process left; empty for a new file.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Point at which the session continues.
    pub checkpoint: Checkpoint,
    /// Finals and gaps recorded, in order. The user may not have seen the last of them, so a caller that
    /// reports them should go through all.
    pub events: Vec<TranscriptEvent>,
    /// Position at which audio continues: the source need not deliver the frames below it again.
    pub accepted: FramePos,
    /// True if all audio is in the spool, so that the source need not be opened.
    pub ended: bool,
    /// True if the session is over, and `events` has all of its finals and gaps.
    pub done: bool,
    /// Number of bytes of an incomplete record at the end of the file, which were cut off.
    pub dropped_bytes: u64,
    /// Path at which a damaged file was set aside. Everything readable in it was copied to a new file;
    /// unreadable frames are a gap, unless their text was readable.
    pub damaged: Option<PathBuf>,
}

impl Recovered {
    /// Returns the ledger of what earlier processes completed.
    #[must_use]
    pub fn ledger(&self) -> Ledger {
        let Checkpoint { final_, gaps, next_index, .. } = &self.checkpoint;
        Ledger {
            accepted: self.accepted.0,
            recognised: final_.0.saturating_sub(*gaps),
            gaps: *gaps,
            finals: *next_index,
            ..Ledger::default()
        }
    }
}

/// The file of one session. Other processes can't open it until this value, and everything returned with
/// it, is dropped.
#[derive(Debug)]
pub struct Spool {
    shared: Arc<Shared>,
}

impl Spool {
    /// Opens the spool at `path` and recovers its contents, or creates a new one, along with its
    /// directory. Blocks while it reads through the file, of which it keeps only the transcript and the
    /// replay in memory.
    ///
    /// The replay of the checkpoint is the audio above its `final_`, in the chunks that were written,
    /// until it has `replay_frames` frames or more: pass the capacity of the session's
    /// [replay buffer](crate::session::ReplaySettings::frames). The replay ends before a flush, which it
    /// can't express; the reader begins there.
    ///
    /// # Errors
    /// Returns [`SpoolError`]. A file of another session, version or owner is left as it is, as is one
    /// with a damaged head.
    pub fn open(
        path: impl Into<PathBuf>,
        head: &Head,
        replay_frames: u64,
        fsync: Fsync,
    ) -> Result<Opened, SpoolError> {
        let path = path.into();
        let mut file = acquire(&path)?;
        let io_error = |source| SpoolError::Io { path: path.clone(), source };
        let torn_head = begin(&file, &path, head, fsync).map_err(io_error)?;
        let mut length = file.metadata().map_err(io_error)?.len();
        let mut scan = recovery::scan(&file, &path, length, head)?;
        let mut damaged = None;
        if scan.end < length
            && let Some(pieces) = Survey::make(&file, length, scan.state, scan.end).map_err(io_error)?
        {
            let (new, aside) =
                repair::replace(&file, &path, head.into(), &pieces, fsync).map_err(io_error)?;
            tracing::error!(spool = %path.display(), aside = %aside.display(), "spool is damaged, set aside; what can be read goes on");
            (file, damaged) = (new, Some(aside));
            length = file.metadata().map_err(io_error)?.len();
            scan = recovery::scan(&file, &path, length, head)?;
        }
        let Scan { state, events, context, server, pending, end } = scan;
        let dropped_bytes = torn_head + (length - end);
        if dropped_bytes > 0 {
            tracing::warn!(spool = %path.display(), dropped_bytes, "the end of the spool was torn");
            file.set_len(end).map_err(io_error)?;
        }
        let tail = Mutex::new(Tail { length: end, state });
        let shared = Arc::new(Shared { path, file, fsync, tail });
        let (written, seen) = watch::channel(end);
        let mut reader = Reader::new(shared.clone(), seen, state.final_, end);
        let replay = reader.replay(pending, replay_frames)?;
        let State { accepted, final_, next_index, gaps, ended, done, .. } = state;
        let checkpoint = Checkpoint { final_, next_index, gaps, context, server, replay };
        let recovered = Recovered { checkpoint, events, accepted, ended, done, dropped_bytes, damaged };
        let (writer, log) = (Writer::new(shared.clone(), written), Log::new(shared.clone()));
        Ok(Opened { spool: Spool { shared }, writer, reader, log, recovered })
    }

    /// Returns the path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Deletes the file, once the transcript is complete and stored elsewhere.
    ///
    /// # Errors
    /// Returns [`SpoolError::Io`] if the file can't be deleted; a later run then finds the session as it
    /// was left.
    pub fn remove(self) -> Result<(), SpoolError> {
        self.delete()
    }

    /// Deletes the file, and may be called again after an error.
    pub(crate) fn delete(&self) -> Result<(), SpoolError> {
        fs::remove_file(&self.shared.path).map_err(|source| self.shared.io_error(source))
    }
}

/// The file, and its state at the last record.
struct Shared {
    path: PathBuf,
    file: Locked,
    fsync: Fsync,
    tail: Mutex<Tail>,
}

struct Tail {
    /// Offset of the next record.
    length: u64,
    state: State,
}

/// The moment by which a record must be on the disk under [`Fsync::Finals`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Durability {
    /// No particular moment: the record can be recovered otherwise, or done without.
    Deferred,
    /// Before the event that it records is emitted.
    BeforeEvent,
}

impl Shared {
    /// Appends the record, if any, that `entry` returns for the present state, with `pcm` after it.
    /// Returns the length of the file.
    ///
    /// The write blocks, even in async tasks: writing a few KB to the page cache takes microseconds, and
    /// handing them to a thread takes longer.
    fn append(
        &self,
        durability: Durability,
        pcm: &[u8],
        entry: impl FnOnce(&State) -> Option<Entry>,
    ) -> Result<u64, SpoolError> {
        let length = {
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(entry) = entry(&tail.state) else { return Ok(tail.length) };
            let state = tail.state.after(&entry).map_err(|reason| self.out_of_order(reason))?;
            let record = entry.encode(pcm).map_err(|source| self.io_error(source))?;
            if let Err(error) = positioned_io::write_all_at(&self.file, &record, tail.length) {
                // On a full disk part of the record may be written. The next record would overwrite it,
                // but may be shorter.
                let _ = self.file.set_len(tail.length);
                return Err(self.io_error(error));
            }
            tail.length += record.len() as u64;
            tail.state = state;
            tail.length
        };
        // The lock is released before the sync: a live source must not wait for the disk because a final
        // came.
        let forced = match self.fsync {
            Fsync::Never => false,
            Fsync::Finals => durability == Durability::BeforeEvent,
            Fsync::Always => true,
        };
        if forced {
            self.file.sync_data().map_err(|source| self.io_error(source))?;
        }
        Ok(length)
    }

    fn state(&self) -> State {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).state
    }

    fn io_error(&self, source: io::Error) -> SpoolError {
        SpoolError::Io { path: self.path.clone(), source }
    }

    fn out_of_order(&self, reason: String) -> SpoolError {
        SpoolError::OutOfOrder { path: self.path.clone(), reason }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spool").field("path", &self.path).finish_non_exhaustive()
    }
}

/// Opens the file exclusively for this process; creates it and its directory if it doesn't exist.
fn acquire(path: &Path) -> Result<Locked, SpoolError> {
    let io_error = |source| SpoolError::Io { path: path.to_owned(), source };
    let directory = directory_of(path);
    // A user who can change the directory could put another file there, and read what is said from then
    // on.
    let check_directory = || {
        if private_file::is_changeable_by_others(&fs::metadata(directory).map_err(io_error)?) {
            return Err(SpoolError::ExposedDirectory { path: directory.to_owned() });
        }
        Ok(())
    };
    loop {
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                private_file::create_dir(directory).map_err(io_error)?;
                check_directory()?;
                private_file::create_file(path).map_err(io_error)?;
            }
            Err(error) => return Err(io_error(error)),
            Ok(metadata) if !metadata.is_file() => {
                return Err(SpoolError::NotAFile { path: path.to_owned() });
            }
            Ok(metadata) if !private_file::is_ours(&metadata) => {
                return Err(SpoolError::NotOurs { path: path.to_owned() });
            }
            Ok(metadata) if private_file::is_exposed(&metadata) => {
                return Err(SpoolError::Exposed { path: path.to_owned() });
            }
            Ok(_) => check_directory()?,
        }
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            // Its last owner removed the file just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(io_error)?,
        };
        let file = Locked::new(file).map_err(|error| match error {
            TryLockError::WouldBlock => SpoolError::InUse { path: path.to_owned() },
            TryLockError::Error(error) => io_error(error),
        })?;
        // The file may have been removed between opening and locking; no later run would find what is
        // written to it.
        if is_at(&file, path).map_err(io_error)? {
            return Ok(file);
        }
    }
}

/// Returns whether `path` still leads to `file`.
#[cfg(unix)]
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(not(unix))]
fn is_at(_: &File, path: &Path) -> io::Result<bool> {
    path.try_exists()
}

/// Writes the head of a new spool, or of one whose process crashed while it wrote the head: such a file
/// contains the beginning of this very head and nothing else. Returns how many bytes of the head were
/// there.
fn begin(file: &File, path: &Path, head: &Head, fsync: Fsync) -> io::Result<u64> {
    let record = Entry::Head(head.into()).encode(&[])?;
    let mut there = vec![0; record.len()];
    let count = record::read_most(positioned_io::PositionedReader::new(file, 0), &mut there)?;
    if count == record.len() || there[..count] != record[..count] {
        return Ok(0);
    }
    positioned_io::write_all_at(file, &record, 0)?;
    if fsync != Fsync::Never {
        file.sync_all()?;
        // The name is durable only once the directory is synced.
        #[cfg(unix)]
        sync_directory_of(path)?;
    }
    Ok(count as u64)
}

/// Returns the directory of the file at `path`.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(unix)]
fn sync_directory_of(path: &Path) -> io::Result<()> {
    File::open(directory_of(path))?.sync_all()
}

impl From<&Head> for HeadBody {
    fn from(head: &Head) -> HeadBody {
        let Head { sample_rate, identity, service } = head.clone();
        HeadBody { version: VERSION, sample_rate, identity, service }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_of_another_version_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("spool");
        private_file::create_file(&path).unwrap();
        let body = HeadBody {
            version: 3,
            sample_rate: 16_000,
            identity: "call.wav".to_owned(),
            service: String::new(),
        };
        let mut later = Entry::Head(body).encode(&[]).unwrap();
        later.extend(b"records that nobody here can read");
        fs::write(&path, &later).unwrap();
        let head = Head { sample_rate: 16_000, identity: "call.wav".to_owned(), service: String::new() };
        let refused = Spool::open(&path, &head, 0, Fsync::Never).unwrap_err().to_string();
        assert!(refused.contains("has version 3, expected 2"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), later);
    }
}
