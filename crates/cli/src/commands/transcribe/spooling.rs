//! The flag `--spool`: the spool files of a recording's sessions, and their identity.

use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use clap::{Args, ValueEnum};
use sha2::{Digest, Sha256};

use crate::exit_code::{CliError, Exit};
use crate::input::{self, Reading};
use voxline::client::SpoolFile;
use voxline::engine::Task;
use voxline::spool::{Fsync, Repeatability};
use voxline_support::hex;

/// Number of characters of a recording's name in the names of its spools. File names have at most 255 bytes.
const STEM: usize = 48;

#[derive(Args)]
pub(super) struct Flags {
    /// Keep audio and results in files in this directory until the transcript is complete, so that the same
    /// command resumes after a crash
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// When to sync the spool to disk, against loss of power: never, finals (for each final result), or
    /// always
    #[arg(long, value_name = "WHEN", default_value = "finals", hide_possible_values = true)]
    spool_sync: Sync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sync {
    Never,
    Finals,
    Always,
}

/// Location and settings of the spools.
#[derive(Clone)]
pub(super) struct Spooling {
    directory: PathBuf,
    fsync: Fsync,
}

impl Flags {
    /// Returns whether there are spools.
    pub(super) fn is_on(&self) -> bool {
        self.spool.is_some()
    }

    /// Returns the spooling requested.
    pub(super) fn settle(self) -> Option<Spooling> {
        let fsync = match self.spool_sync {
            Sync::Never => Fsync::Never,
            Sync::Finals => Fsync::Finals,
            Sync::Always => Fsync::Always,
        };
        self.spool.map(|directory| Spooling { directory, fsync })
    }
}

/// A recording, as identified by its spools.
#[derive(Clone)]
pub(super) struct SpooledRecording {
    /// Prefix of the spools' file names.
    stem: String,
    /// Identity of the recording; see [`SpoolFile::identity`].
    identity: String,
    /// `true` if the recording can't be read again from its start.
    live: bool,
}

impl SpooledRecording {
    /// Identifies the recording `input`, read with the options `reading` and spoken in `language`, for a
    /// `task`.
    pub(super) fn of(
        input: &Path,
        reading: Reading,
        language: Option<&str>,
        task: Task,
    ) -> Result<SpooledRecording, CliError> {
        let piped = input.as_os_str() == "-";
        if piped && stdin_is_file() {
            let reason = "standard input is a file: give --spool its name, so that it can be read again";
            return Err(CliError::new(Exit::Setup, reason));
        }
        let name = input::name(input);
        // A URL identifies the recording, but may contain secrets: its digest does not reveal them.
        let (address, live, version) = if piped || input::is_url(input) {
            (input.to_owned(), piped, String::new())
        } else {
            let address = fs::canonicalize(input).or_else(|_| std::path::absolute(input));
            let metadata = fs::metadata(input);
            let failed = |error| CliError::new(Exit::Input, format!("{}: {error}", name.display()));
            let (address, metadata) = (address.map_err(failed)?, metadata.map_err(failed)?);
            // A named pipe is live as well.
            (address, !metadata.is_file(), version(&metadata))
        };
        let digest = Sha256::digest(address.as_os_str().as_encoded_bytes());
        let digest = hex(&digest[..8]);
        let shown = if piped { "standard input".to_owned() } else { name.display().to_string() };
        let stem = if piped { OsStr::new("standard-input") } else { name.file_stem().unwrap_or_default() };
        let stem: String = stem.to_string_lossy().chars().take(STEM).collect();
        let mut identity = format!("{shown} ({digest}){version}, channels {}", reading.channels);
        if let Some(raw) = reading.raw {
            identity += &format!(", raw {raw}");
        }
        identity += &format!(", language {}", language.unwrap_or("detected"));
        if task != Task::Transcribe {
            identity += &format!(", task {task}");
        }
        Ok(SpooledRecording { stem: format!("{stem}-{digest}"), identity, live })
    }
}

impl Spooling {
    /// Returns the spool of one channel of `spooled`.
    pub(super) fn file(&self, spooled: &SpooledRecording, channel: usize) -> SpoolFile {
        let repeatability = if spooled.live { Repeatability::Live } else { Repeatability::Repeatable };
        SpoolFile::new(self.path(spooled, channel))
            .identity(format!("{}, line {channel}", spooled.identity))
            .fsync(self.fsync)
            .repeatability(repeatability)
    }

    /// Returns the path of the spool of one channel of `spooled`.
    pub(super) fn path(&self, spooled: &SpooledRecording, channel: usize) -> PathBuf {
        self.directory.join(format!("{}-{channel}.spool", spooled.stem))
    }

    /// Returns whether the user's output should survive a loss of power, like the spool.
    pub(super) fn is_durable(&self) -> bool {
        self.fsync != Fsync::Never
    }
}

/// Returns what tells versions of a file apart.
fn version(metadata: &Metadata) -> String {
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let changed = changed.unwrap_or_default();
    let (bytes, seconds, nanos) = (metadata.len(), changed.as_secs(), changed.subsec_nanos());
    format!(", {bytes} bytes, changed at {seconds}.{nanos:09}")
}

/// Returns whether standard input is redirected from a file. Such a file could be read again, but not by this
/// program: the shell would open it from its start.
#[cfg(unix)]
fn stdin_is_file() -> bool {
    use std::os::fd::AsFd;
    let file = std::io::stdin().as_fd().try_clone_to_owned().map(fs::File::from);
    file.and_then(|file| file.metadata()).is_ok_and(|metadata| metadata.is_file())
}

#[cfg(not(unix))]
fn stdin_is_file() -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use voxline::decode::Channels;

    fn spooled(input: &Path, language: Option<&str>) -> SpooledRecording {
        spooled_for(input, language, Task::Transcribe)
    }

    fn spooled_for(input: &Path, language: Option<&str>, task: Task) -> SpooledRecording {
        SpooledRecording::of(input, Reading { channels: Channels::Mix, raw: None }, language, task).unwrap()
    }

    #[test]
    fn work_is_the_same_while_the_recording_and_the_question_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("call.wav");
        fs::write(&path, "audio").unwrap();
        let first = spooled(&path, None);
        let way_round = directory.path().join(".").join("call.wav");
        assert_eq!(spooled(&way_round, None).stem, first.stem);
        assert_eq!(spooled(&path, None).identity, first.identity);
        assert_ne!(spooled(&path, Some("en")).identity, first.identity);
        assert_ne!(spooled_for(&path, None, Task::Translate).identity, first.identity);
        fs::write(&path, "other audio").unwrap();
        let changed = spooled(&path, None);
        assert_eq!(changed.stem, first.stem);
        assert_ne!(changed.identity, first.identity);
        assert!(!first.live && first.stem.starts_with("call-"), "{}", first.stem);
    }

    #[test]
    fn what_is_secret_in_a_url_is_in_no_name() {
        let one = spooled(Path::new("https://user:pass@host/call.wav?key=secret1"), None);
        let other = spooled(Path::new("https://user:pass@host/call.wav?key=secret2"), None);
        assert_ne!(one.stem, other.stem);
        let shown = format!("{} {}", one.stem, one.identity);
        assert!(shown.contains("host/call.wav") && !shown.contains("pass") && !shown.contains("secret"));
        assert!(!one.live);
    }
}
