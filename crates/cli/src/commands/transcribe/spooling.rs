//! `--spool`: which files keep a recording's sessions, and whose they are.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use clap::{Args, ValueEnum};
use sha2::{Digest, Sha256};

use crate::exit_code::{CliError, Exit};
use crate::input::{self, Reading};
use voxline::net::Endpoint;
use voxline::spool::{Fsync, Head, Opened, Spool};
use voxline_support::hex;

/// Characters of a recording's name that its spools are called by. Names of files have at most 255 bytes.
const STEM: usize = 48;

#[derive(Args)]
pub(super) struct Flags {
    /// Keep audio and results in a file in this directory until the transcript is whole: the same command goes on after a crash
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// When the spool is forced to the disk, against loss of power: never, for finals, or always
    #[arg(long, value_name = "WHEN", default_value = "finals", hide_possible_values = true)]
    spool_sync: Sync,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Sync {
    Never,
    Finals,
    Always,
}

/// Where sessions are kept, and how.
pub(super) struct Spooling {
    directory: PathBuf,
    fsync: Fsync,
    replay_frames: u64,
    sample_rate: u32,
    /// The service in use: a gateway inside this process is another each time.
    service: String,
}

impl Flags {
    /// The spooling asked for, of sessions of `sample_rate` that keep `replay_frames` in memory.
    pub(super) fn settle(self, sample_rate: u32, replay_frames: u64) -> Option<Spooling> {
        let fsync = match self.spool_sync {
            Sync::Never => Fsync::Never,
            Sync::Finals => Fsync::Finals,
            Sync::Always => Fsync::Always,
        };
        let service = String::new();
        let spooling = |directory| Spooling { directory, fsync, replay_frames, sample_rate, service };
        self.spool.map(spooling)
    }
}

/// A recording, as its spools know it.
#[derive(Clone)]
pub(super) struct Work {
    /// The beginning of its spools' names.
    stem: String,
    /// What makes it the same work; see [`Head`].
    identity: String,
    piped: bool,
    /// Whether it can't be read again from its start.
    pub(super) live: bool,
}

impl Work {
    /// Whether it comes by standard input.
    pub(super) fn is_stdin(&self) -> bool {
        self.piped
    }

    /// Of the recording `input`, read like this, spoken in `language`.
    pub(super) fn of(input: &Path, reading: Reading, language: Option<&str>) -> Result<Work, CliError> {
        let piped = input.as_os_str() == "-";
        if piped && stdin_is_file() {
            let reason = "standard input is a file: give --spool its name, so that it can be read again";
            return Err(CliError::new(Exit::Setup, reason));
        }
        let name = input::name(input);
        // A URL may end in secrets, but is what tells recordings apart: its digest shows neither.
        let (address, live, version) = match piped || input::is_url(input) {
            true => (input.to_owned(), piped, String::new()),
            false => {
                let address = fs::canonicalize(input).or_else(|_| std::path::absolute(input));
                let metadata = fs::metadata(input);
                let failed = |error| CliError::new(Exit::Input, format!("{}: {error}", name.display()));
                let (address, metadata) = (address.map_err(failed)?, metadata.map_err(failed)?);
                let changed = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
                let changed = changed.unwrap_or_default();
                let version = format!(
                    ", {} bytes, changed at {}.{:09}",
                    metadata.len(),
                    changed.as_secs(),
                    changed.subsec_nanos()
                );
                // A pipe with a name is a pipe.
                (address, !metadata.is_file(), version)
            }
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
        Ok(Work { stem: format!("{stem}-{digest}"), identity, piped, live })
    }
}

impl Spooling {
    /// The spools that an earlier run left of `work`, in the order of its lines.
    pub(super) fn left(&self, work: &Work) -> Result<Vec<Opened>, CliError> {
        let there = (0..).take_while(|line| self.path(work, *line).exists());
        there.map(|line| self.open(work, line)).collect()
    }

    /// The same, for sessions at this service.
    pub(super) fn at(self, service: &Endpoint) -> Spooling {
        Spooling { service: service.to_string(), ..self }
    }

    /// The spool of one line of `work`. Blocks.
    pub(super) fn open(&self, work: &Work, line: usize) -> Result<Opened, CliError> {
        let head = Head {
            sample_rate: self.sample_rate,
            identity: format!("{}, line {line}", work.identity),
            service: self.service.clone(),
        };
        Ok(Spool::open(self.path(work, line), &head, self.replay_frames, self.fsync)?)
    }

    /// Whether what the user has should outlast a loss of power, as the spool would.
    pub(super) fn is_durable(&self) -> bool {
        self.fsync != Fsync::Never
    }

    fn path(&self, work: &Work, line: usize) -> PathBuf {
        self.directory.join(format!("{}-{line}.spool", work.stem))
    }
}

/// Whether standard input was redirected from a file. What came of it could be read again, but not by us: the shell
/// has it start anew.
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

    fn work(input: &Path, language: Option<&str>) -> Work {
        Work::of(input, Reading { channels: Channels::Mix, raw: None }, language).unwrap()
    }

    #[test]
    fn work_is_the_same_while_the_recording_and_the_question_are() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("call.wav");
        fs::write(&path, "audio").unwrap();
        let first = work(&path, None);
        let way_round = directory.path().join(".").join("call.wav");
        assert_eq!(work(&way_round, None).stem, first.stem);
        assert_eq!(work(&path, None).identity, first.identity);
        assert_ne!(work(&path, Some("en")).identity, first.identity);
        fs::write(&path, "other audio").unwrap();
        let changed = work(&path, None);
        assert_eq!(changed.stem, first.stem);
        assert_ne!(changed.identity, first.identity);
        assert!(!first.live && first.stem.starts_with("call-"), "{}", first.stem);
    }

    #[test]
    fn what_is_secret_in_a_url_is_in_no_name() {
        let one = work(Path::new("https://user:pass@host/call.wav?key=secret1"), None);
        let other = work(Path::new("https://user:pass@host/call.wav?key=secret2"), None);
        assert_ne!(one.stem, other.stem);
        let shown = format!("{} {}", one.stem, one.identity);
        assert!(shown.contains("host/call.wav") && !shown.contains("pass") && !shown.contains("secret"));
        assert!(!one.live);
    }
}
