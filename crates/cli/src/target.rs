//! Destinations of transcripts: standard output, one file for all recordings, or one file per recording in a
//! directory.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::exit_code::{CliError, Exit, STDOUT};
use super::input;
use voxline::error::chain;
use voxline::transcript::{Format, Subtitles, Writer, WriterError};

/// A transcript writer to any destination.
pub(crate) type Output = Writer<Box<dyn Write + Send>>;

/// The destination of each recording's transcript, determined before anything is written.
pub(crate) struct Target {
    format: Format,
    subtitles: Subtitles,
    sample_rate: u32,
    place: Place,
    /// `true` if several recordings share one output, which then identifies each recording.
    shared: bool,
    /// `true` once a recording has been written to the shared output.
    begun: AtomicBool,
}

enum Place {
    Stdout,
    /// One file for all recordings.
    File(PathBuf),
    /// One file per recording.
    Directory(PathBuf),
}

impl Target {
    /// Determines the destination from `--output`. A path that ends in a slash, or is a directory, receives
    /// one file per recording; `-` is standard output. Without a `format` the file name determines it, as in
    /// [`format_of`]. Creates no files.
    pub(crate) fn new(
        output: Option<PathBuf>,
        format: Option<Format>,
        subtitles: Subtitles,
        sample_rate: u32,
        inputs: &[PathBuf],
    ) -> Result<Target, CliError> {
        let place = match output.clone() {
            None => Place::Stdout,
            Some(path) if path.as_os_str() == "-" => Place::Stdout,
            Some(path) if path.is_dir() || path.as_os_str().as_encoded_bytes().ends_with(b"/") => {
                Place::Directory(path)
            }
            Some(path) => Place::File(path),
        };
        let named = match &place {
            Place::File(path) => format_of(path)?,
            Place::Stdout | Place::Directory(_) => None,
        };
        let format = match (named, format) {
            (Some(named), Some(format)) if named != format => {
                let name = output.as_deref().unwrap_or(Path::new("-")).display();
                let reason = format!("--format {format}: contradicts the extension of {name}");
                return Err(CliError::new(Exit::Setup, reason));
            }
            (named, format) => named.or(format).unwrap_or(Format::Text),
        };
        let shared = inputs.len() > 1 && !matches!(place, Place::Directory(_));
        let target = Target { format, subtitles, sample_rate, place, shared, begun: AtomicBool::new(false) };
        target.check(inputs)?;
        Ok(target)
    }

    fn check(&self, inputs: &[PathBuf]) -> Result<(), CliError> {
        let refused = |reason: String| Err(CliError::new(Exit::Setup, reason));
        let one_timeline = matches!(self.format, Format::Srt | Format::WebVtt);
        if inputs.len() > 1 && one_timeline && !matches!(self.place, Place::Directory(_)) {
            let reason = "several recordings don't fit on one timeline: name a directory with --output DIR/";
            return refused(reason.to_owned());
        }
        let mut taken = HashMap::new();
        for input in inputs {
            let Some(path) = self.path(input) else { continue };
            if same_file(&path, input) {
                return refused(format!("{}: the output is the recording itself", path.display()));
            }
            let shared = matches!(self.place, Place::File(_));
            if let Some(other) = taken.insert(path.clone(), input).filter(|_| !shared) {
                let (other, input) = (input::name(other), input::name(input));
                let (path, other, input) = (path.display(), other.display(), input.display());
                return refused(format!("{path}: would hold the transcripts of both {other} and {input}"));
            }
        }
        Ok(())
    }

    /// Creates the file or directory shared by all recordings. Call it last, since it truncates an existing
    /// file.
    pub(crate) fn create(&self) -> Result<(), CliError> {
        match &self.place {
            Place::Stdout => Ok(()),
            Place::File(path) => File::create(path).map(drop).map_err(|error| failed(path, &error)),
            Place::Directory(path) => fs::create_dir_all(path).map_err(|error| failed(path, &error)),
        }
    }

    /// Returns whether each recording has a file of its own.
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.place, Place::Directory(_))
    }

    /// Opens the writer for the recording `input`.
    pub(crate) fn open(&self, input: &Path) -> Result<Output, CliError> {
        let mut out: Box<dyn Write + Send> = match (&self.place, self.path(input)) {
            (Place::File(path), _) => {
                let file = File::options().append(true).open(path);
                Box::new(file.map_err(|error| failed(path, &error))?)
            }
            (_, Some(path)) => Box::new(File::create(&path).map_err(|error| failed(&path, &error))?),
            (_, None) => Box::new(io::stdout()),
        };
        let follows = self.shared && self.begun.swap(true, Ordering::Relaxed);
        if follows && self.format == Format::Text {
            out.write_all(b"\n").map_err(|error| match self.path(input) {
                Some(path) => failed(&path, &error),
                None => CliError::stdout(&error),
            })?;
        }
        let writer = Writer::new(self.format, self.sample_rate, out).with_subtitles(self.subtitles);
        Ok(if self.shared { writer.of_recording(input::shown(input)) } else { writer })
    }

    /// Syncs the transcript of `input` to the disk, if it is a regular file.
    pub(crate) fn sync(&self, input: &Path) -> Result<(), CliError> {
        let Some(path) = self.path(input) else { return Ok(()) };
        let sync = || if fs::metadata(&path)?.is_file() { File::open(&path)?.sync_all() } else { Ok(()) };
        sync().map_err(|error| failed(&path, &error))
    }

    /// Returns the error for a failed output of `input`.
    pub(crate) fn failed(&self, input: &Path, error: &WriterError) -> CliError {
        match (self.path(input), error) {
            (None, WriterError::Output { error, .. }) if error.kind() == io::ErrorKind::BrokenPipe => {
                CliError::stdout(error)
            }
            (path, error) => {
                let name = path.map_or_else(|| STDOUT.to_owned(), |path| path.display().to_string());
                CliError::new(Exit::Output, format!("{name}: {}", chain(error)))
            }
        }
    }

    /// Returns the path of the transcript of `input`, if it is a file.
    fn path(&self, input: &Path) -> Option<PathBuf> {
        match &self.place {
            Place::Stdout => None,
            Place::File(path) => Some(path.clone()),
            Place::Directory(directory) => {
                let mut name = if input.as_os_str() == "-" {
                    "standard-input".into()
                } else {
                    stem(&input::name(input))
                };
                name.push(".");
                name.push(match self.format {
                    Format::Text => "txt",
                    format => format.name(),
                });
                Some(directory.join(name))
            }
        }
    }
}

/// Returns the format that the extension of a transcript's file name implies, if any.
fn format_of(path: &Path) -> Result<Option<Format>, CliError> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    Ok(Some(match extension.as_str() {
        "txt" | "text" => Format::Text,
        "jsonl" | "ndjson" => Format::JsonLines,
        "srt" => Format::Srt,
        "vtt" => Format::WebVtt,
        "json" | "csv" | "ass" | "ssa" | "sbv" | "ttml" | "xml" | "html" | "docx" | "odt" | "pdf" | "rtf" => {
            let reason = format!("{}: expected a name in .txt, .jsonl, .srt or .vtt", path.display());
            return Err(CliError::new(Exit::Setup, reason));
        }
        _ => return Ok(None),
    }))
}

/// Returns the last component of a path, without its extension.
fn stem(path: &Path) -> OsString {
    path.file_stem().unwrap_or(path.as_os_str()).to_owned()
}

fn failed(path: &Path, error: &io::Error) -> CliError {
    CliError::output(&path.display().to_string(), error)
}

/// Returns whether both paths lead to the same regular file. A missing file is not the same as any other.
pub(crate) fn same_file(one: &Path, other: &Path) -> bool {
    match (fs::canonicalize(one), fs::canonicalize(other)) {
        (Ok(one), Ok(other)) => one == other && one.is_file(),
        _ => false,
    }
}
