//! Legs on disk, so that a later process finishes the calls of one that was killed.
//!
//! Each leg has the spool of its session, and beside it a record of what its events need. Both are deleted
//! when all audio of the leg is final.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::event::{Leg, wall_time};
use voxline::client::SpoolFile;
use voxline_support::{private_file, random};

/// Extension of the files of records.
const RECORD: &str = "json";

/// Values that the events of a leg need besides its session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LegRecord {
    pub(crate) call: String,
    /// Name of the call's files.
    pub(crate) stem: String,
    pub(crate) leg: Leg,
    /// Time of the call's beginning since the Unix epoch.
    pub(crate) epoch: Duration,
    /// Time of the leg's first frame since the beginning of the call.
    pub(crate) origin: Duration,
    pub(crate) sample_rate: u32,
    pub(crate) language: Option<String>,
}

/// The files of a leg.
#[derive(Clone, Debug)]
pub(crate) struct LegFiles {
    record: PathBuf,
}

impl LegFiles {
    /// Writes the record of a leg into this directory, which is created if it is missing.
    pub(crate) fn create(directory: &Path, record: &LegRecord) -> io::Result<LegFiles> {
        if !directory.is_dir() {
            private_file::create_dir(directory)?;
        }
        let stem = format!("{}_{}", record.stem, record.leg);
        let path = directory.join(stem).with_extension(RECORD);
        let mut file = private_file::options().write(true).create_new(true).open(&path)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        // The spool is synced by itself, and is of no use without its record.
        file.sync_all()?;
        Ok(LegFiles { record: path })
    }

    /// Returns the files of the legs that earlier processes have left in this directory. A record that can't
    /// be read is left as it is.
    pub(crate) fn left_in(directory: &Path) -> io::Result<Vec<(LegRecord, LegFiles)>> {
        let mut left = Vec::new();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != RECORD) {
                continue;
            }
            match File::open(&path).map_err(serde_json::Error::io).and_then(serde_json::from_reader) {
                Ok(record) => left.push((record, LegFiles { record: path })),
                Err(error) => tracing::warn!(path = %path.display(), %error, "record of a leg can't be read"),
            }
        }
        left.sort_by(|(_, one), (_, other)| one.record.cmp(&other.record));
        Ok(left)
    }

    /// Returns the spool of the leg.
    pub(crate) fn spool(&self) -> SpoolFile {
        let name = self.record.file_stem().unwrap_or_default().to_string_lossy();
        SpoolFile::new(self.record.with_extension("spool")).identity(name)
    }

    /// Deletes the record, once there is no spool any more.
    pub(crate) fn remove(&self) {
        if let Err(error) = fs::remove_file(&self.record) {
            tracing::warn!(path = %self.record.display(), %error, "record of a leg can't be deleted");
        }
    }
}

/// Returns a name for the files of a call that began at this time since the Unix epoch. No other call has it,
/// even if their systems give both one identifier.
pub(crate) fn file_stem(call: &str, epoch: Duration) -> String {
    let time = wall_time(epoch);
    let time = time.split('.').next().unwrap_or_default();
    format!("{}_{}_{:04x}", safe_name(time), safe_name(call), random::seed() as u16)
}

/// Returns the text with characters alone that are safe in the names of files everywhere.
fn safe_name(text: &str) -> String {
    /// Longest part of a name, in characters: file systems take 255 bytes.
    const MAX: usize = 100;
    let is_safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    text.chars().take(MAX).map(|c| if is_safe(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_may_not_choose_another_directory() {
        let stem = file_stem("../../etc/passwd", Duration::ZERO);
        assert!(stem.starts_with("1970-01-01T00_00_00_______etc_passwd_"), "{stem}");
        assert!(file_stem(&"x".repeat(1_000), Duration::ZERO).len() < 150);
    }

    #[test]
    fn what_is_left_is_found() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("spool");
        let record = LegRecord {
            call: "../CA1".to_owned(),
            stem: file_stem("../CA1", Duration::from_millis(1_234_567)),
            leg: Leg::Agent,
            epoch: Duration::from_millis(1_234_567),
            origin: Duration::from_millis(20),
            sample_rate: 8_000,
            language: Some("ru".to_owned()),
        };
        LegFiles::create(&directory, &record).unwrap();
        fs::write(directory.join("broken.json"), "{").unwrap();
        let left = LegFiles::left_in(&directory).unwrap();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0, record);
        left[0].1.remove();
        assert!(LegFiles::left_in(&directory).unwrap().is_empty());
    }
}
