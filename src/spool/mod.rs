//! A session on disk: audio that waits to be sent, and what a later process needs to go on.
//!
//! A spool is one file, appended to while a session runs. It does two things:
//!
//! - *A live source never waits.* Audio goes to the file as it arrives ([`Writer`]), and the session takes it from there
//!   at its own pace ([`Reader`]): a queue between them that is as long as the disk is large.
//! - *A session outlives its process.* What the server's session is called and every final and gap are taken down before
//!   anybody is told ([`Log`]). A later [`Spool::open`] says how far the session came, and hands out what it needs to go
//!   on there.
//!
//! The file holds recorded speech and the key of the server's session, so it is its owner's alone (mode 0600), and one
//! process has it at a time. A process that dies in the middle of a write leaves half a record, which is cut
//! off when the file is opened again. A file that is damaged elsewhere is set aside, and all that can be read
//! of it goes on in a new one: frames that can't are told as a gap, and what is behind a final that can't is
//! recognised again.
//!
//! ```no_run
//! use voxline::spool::{Fsync, Head, Opened, Spool, SpoolError};
//!
//! # async fn example(path: &std::path::Path, chunk: voxline::audio::AudioChunk) -> Result<(), SpoolError> {
//! let head = Head { sample_rate: 16_000, identity: "call.wav".to_owned(), service: String::new() };
//! let Opened { spool, mut writer, mut reader, log, recovered } =
//!     Spool::open(path, &head, 60 * 16_000, Fsync::Finals)?;
//! println!("going on at frame {}", recovered.checkpoint.final_);
//! writer.append(&chunk)?; // in the task that has the source
//! writer.end()?;
//! while let Some(feed) = reader.next().await? { /* to the session, which has `log` and the checkpoint */ }
//! spool.remove()?; // the transcript is whole
//! # Ok(())
//! # }
//! ```

mod at;
mod ends;
mod error;
mod locked;
mod record;
mod recovery;
mod repair;
mod state;

use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

pub use ends::{Log, Reader, Writer};
pub use error::SpoolError;

use self::locked::Locked;
use self::record::{Entry, HeadBody};
use self::recovery::Scan;
use self::repair::Survey;
use self::state::State;
use crate::audio::FramePos;
use crate::session::{Checkpoint, Ledger};
use crate::transcript::TranscriptEvent;
use voxline_support::private_file;

/// The format's version. A file of a later one is not read, nor one before [`OLDEST_VERSION`].
const VERSION: u32 = 2;
/// The first version, which has no record of lost frames.
const OLDEST_VERSION: u32 = 1;

/// Whose spool it is: a file of another sample rate or identity is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Frames per second of the session stream.
    pub sample_rate: u32,
    /// What the session is about, such as the recording's path, size and time of change, the line and the language, in
    /// any form: it is only compared. Errors show it.
    pub identity: String,
    /// The service that the session is carried by, in any form. This may change: then the key of the session there is not
    /// handed out, so that no other service sees it.
    pub service: String,
}

/// When what was written is forced to the disk. A process that dies, by `kill -9` too, loses nothing under any of these:
/// the kernel has it. They differ in what a loss of power costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// Never: anything since the kernel last wrote may be lost. What was told may be told again, and otherwise.
    Never,
    /// When the user is told something: no final or gap is lost once it was told. Audio behind the last of them may be;
    /// a file is decoded again, a live source has lost it. Costs a few milliseconds a final.
    #[default]
    Finals,
    /// After every record: nothing is lost that [`Writer::append`] returned for. Costs as much for each chunk, which the
    /// source waits for.
    Always,
}

/// What an opened spool consists of, each for the part of the program that uses it.
#[derive(Debug)]
pub struct Opened {
    /// The file as a whole.
    pub spool: Spool,
    /// For the task that has the source.
    pub writer: Writer,
    /// For the task that feeds the session. Starts behind the replay.
    pub reader: Reader,
    /// For the session.
    pub log: Log,
    /// What an earlier process left.
    pub recovered: Recovered,
}

/// What an earlier process left. Of a new file: nothing.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Where the session goes on.
    pub checkpoint: Checkpoint,
    /// Finals and gaps that were taken down, in order. The last of them may not have been told: what tells them goes
    /// over all.
    pub told: Vec<TranscriptEvent>,
    /// Where audio goes on: what is below need not come from the source again.
    pub accepted: FramePos,
    /// Whether all audio is there, and the source need not be opened.
    pub ended: bool,
    /// Whether the session is over, and all of it in `told`.
    pub done: bool,
    /// Bytes of a half record at the end of the file, which were cut off.
    pub dropped_bytes: u64,
    /// Where a damaged file was set aside. All that could be read of it went on in a new one; frames that
    /// could not are a gap, unless their text was there.
    pub damaged: Option<PathBuf>,
}

impl Recovered {
    /// The ledger of what earlier processes brought to its end.
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

/// The file of one session, for as long as it is needed. Others can't open it until this and all that came with it are
/// dropped.
#[derive(Debug)]
pub struct Spool {
    shared: Arc<Shared>,
}

impl Spool {
    /// Opens the spool at `path` and recovers what is in it, or begins a new one; its directory is created too. Blocks
    /// while it reads the file through, but holds no more of it in memory than the transcript and the replay.
    ///
    /// The checkpoint's replay is the audio above its `final_`, in the chunks that were written, until it holds
    /// `replay_frames` or more: give the session's [`replay_frames`](crate::session::Settings::replay_frames). It ends
    /// before a flush, which a replay can't express; the reader begins there.
    ///
    /// # Errors
    /// See [`SpoolError`]. A file of another session, version or owner is left as it is, as is one whose head
    /// is damaged.
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
        let Scan { state, told, context, server, waiting, end } = scan;
        let dropped_bytes = torn_head + (length - end);
        if dropped_bytes > 0 {
            tracing::warn!(spool = %path.display(), dropped_bytes, "the end of the spool was torn");
            file.set_len(end).map_err(io_error)?;
        }
        let tail = Mutex::new(Tail { length: end, state });
        let shared = Arc::new(Shared { path, file, fsync, tail });
        let (written, seen) = watch::channel(end);
        let mut reader = Reader::new(shared.clone(), seen, state.final_, end);
        let replay = reader.replay(waiting, replay_frames)?;
        let State { accepted, final_, next_index, gaps, ended, done, .. } = state;
        let checkpoint = Checkpoint { final_, next_index, gaps, context, server, replay };
        let recovered = Recovered { checkpoint, told, accepted, ended, done, dropped_bytes, damaged };
        let (writer, log) = (Writer::new(shared.clone(), written), Log::new(shared.clone()));
        Ok(Opened { spool: Spool { shared }, writer, reader, log, recovered })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Deletes the file: the transcript is whole, and kept elsewhere.
    ///
    /// # Errors
    /// [`SpoolError::Io`]; a later run finds the session as it was left.
    pub fn remove(self) -> Result<(), SpoolError> {
        fs::remove_file(&self.shared.path).map_err(|source| self.shared.io_error(source))
    }
}

/// The file, and how far it is written.
struct Shared {
    path: PathBuf,
    file: Locked,
    fsync: Fsync,
    tail: Mutex<Tail>,
}

struct Tail {
    /// Where the next record goes.
    length: u64,
    state: State,
}

/// What a record is, for [`Fsync`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// It can be had again, or done without.
    Light,
    /// The user is told of it.
    Told,
}

impl Shared {
    /// Appends what `entry` makes of the state: a record with `pcm` behind it, or nothing. Returns how long the file is.
    ///
    /// The write is a plain, blocking one, from async tasks too: a few KB into the page cache take microseconds, and a
    /// thread to hand them to takes longer.
    fn append(
        &self,
        weight: Weight,
        pcm: &[u8],
        entry: impl FnOnce(&State) -> Option<Entry>,
    ) -> Result<u64, SpoolError> {
        let length = {
            let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(entry) = entry(&tail.state) else { return Ok(tail.length) };
            let state = tail.state.after(&entry).map_err(|reason| self.out_of_order(reason))?;
            let record = entry.encode(pcm).map_err(|source| self.io_error(source))?;
            if let Err(error) = at::write_all_at(&self.file, &record, tail.length) {
                // On a full disk a part may be there. The next record would go over it, but may be shorter.
                let _ = self.file.set_len(tail.length);
                return Err(self.io_error(error));
            }
            tail.length += record.len() as u64;
            tail.state = state;
            tail.length
        };
        // Not under the lock: a live source must not wait for the disk because a final came.
        let forced = match self.fsync {
            Fsync::Never => false,
            Fsync::Finals => weight == Weight::Told,
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

/// Opens the file for this process alone; where there is none, creates it and its directory.
fn acquire(path: &Path) -> Result<Locked, SpoolError> {
    let io_error = |source| SpoolError::Io { path: path.to_owned(), source };
    let directory = directory_of(path);
    // Whoever can change it could put another file there, and read what is said from then on.
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
            // Its last owner removed it just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(io_error)?,
        };
        let file = Locked::new(file).map_err(|error| match error {
            TryLockError::WouldBlock => SpoolError::InUse { path: path.to_owned() },
            TryLockError::Error(error) => io_error(error),
        })?;
        // It may have been removed between the opening and the lock; nobody would find what is written to it.
        if is_at(&file, path).map_err(io_error)? {
            return Ok(file);
        }
    }
}

/// Whether `path` still leads to `file`.
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

/// Writes the head of a new spool, or of one whose process died while it wrote the head: then there is a beginning of
/// this very head and nothing else. Returns how many bytes there were of it.
fn begin(file: &File, path: &Path, head: &Head, fsync: Fsync) -> io::Result<u64> {
    let record = Entry::Head(head.into()).encode(&[])?;
    let mut there = vec![0; record.len()];
    let count = record::read_most(at::At::new(file, 0), &mut there)?;
    if count == record.len() || there[..count] != record[..count] {
        return Ok(0);
    }
    at::write_all_at(file, &record, 0)?;
    if fsync != Fsync::Never {
        file.sync_all()?;
        // The name itself is durable only once the directory is.
        #[cfg(unix)]
        sync_directory_of(path)?;
    }
    Ok(count as u64)
}

/// The directory that the file at `path` is in.
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
