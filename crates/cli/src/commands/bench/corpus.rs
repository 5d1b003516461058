//! A directory of recordings with their transcripts.

use std::fs;
use std::path::{Path, PathBuf};

use super::recording;
use crate::exit_code::{CliError, Exit};

/// Name of the optional list of all recordings and their texts.
const LIST: &str = "transcripts.tsv";
/// File extensions of recordings: a recording without a text is reported, and a README is not.
const EXTENSIONS: [&str; 16] = [
    "aif", "aifc", "aiff", "caf", "flac", "m4a", "mka", "mkv", "mov", "mp3", "mp4", "oga", "ogg", "opus",
    "wav", "webm",
];

/// A recording with its transcript.
pub(super) struct Item {
    /// Name of the recording: its path below the directory.
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// Transcript of the recording.
    pub(super) said: String,
}

/// Reads the recordings in `directory`, sorted by name. Each is opened, so that an invalid one is reported
/// before an hour's work on the others.
pub(super) fn read(directory: &Path) -> Result<Vec<Item>, CliError> {
    let list = directory.join(LIST);
    let mut items = if list.exists() { listed(directory, &list)? } else { paired(directory)? };
    if items.is_empty() {
        let expected = format!("NAME.wav beside NAME.txt, or {LIST}");
        return Err(bad(directory, format!("no recordings with transcripts in it: {expected}")));
    }
    for item in &items {
        recording::check(&item.path)?;
    }
    items.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(items)
}

/// Reads the recordings of a list: one line each, with a path, a tab, and a text. Empty lines and lines that
/// begin with # are skipped.
fn listed(directory: &Path, list: &Path) -> Result<Vec<Item>, CliError> {
    let text = text(list)?;
    let lines = text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty() && !line.starts_with('#'));
    let items = lines.map(|(line, number)| {
        let (name, said) = line.split_once('\t').ok_or_else(|| {
            CliError::new(Exit::Input, format!("{}, line {number}: no tab after the file", list.display()))
        })?;
        Ok(Item { name: name.to_owned(), path: directory.join(name), said: said.to_owned() })
    });
    items.collect()
}

/// Reads the recordings that have a text file of the same name beside them.
fn paired(directory: &Path) -> Result<Vec<Item>, CliError> {
    let cannot = |error: std::io::Error| bad(directory, error);
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(cannot)? {
        paths.push(entry.map_err(cannot)?.path());
    }
    paths.sort();
    let is = |path: &Path, extensions: &[&str]| {
        let extension = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
        extensions.iter().any(|known| extension.eq_ignore_ascii_case(known))
    };
    let recordings: Vec<&PathBuf> = paths.iter().filter(|path| is(path, &EXTENSIONS)).collect();
    let lonely = paths.iter().filter(|path| is(path, &["txt"])).find(|text| {
        !recordings.iter().any(|recording| recording.with_extension("") == text.with_extension(""))
    });
    if let Some(lonely) = lonely {
        return Err(bad(lonely, "no recording of that name is beside it"));
    }
    let items = recordings.into_iter().map(|path| {
        let beside = path.with_extension("txt");
        if !beside.exists() {
            return Err(bad(path, format!("{} is missing, with what is said in it", beside.display())));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Item { name, path: path.clone(), said: text(&beside)? })
    });
    items.collect()
}

fn text(path: &Path) -> Result<String, CliError> {
    fs::read_to_string(path).map_err(|error| bad(path, error))
}

fn bad(path: &Path, reason: impl std::fmt::Display) -> CliError {
    CliError::new(Exit::Input, format!("{}: {reason}", path.display()))
}
