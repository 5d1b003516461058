//! Input options shared by the commands that read recordings.

use std::path::{Path, PathBuf};

use clap::Args;

use super::exit_code::CliError;
use voxline::audio::PcmFormat;
use voxline::decode::Channels;
use voxline::source::{self, Source, SourceError};

/// Largest download of a recording by URL: three hours of CD audio.
const DOWNLOAD_BYTES_MAX: u64 = 2 << 30;

/// Options for reading recordings.
#[derive(Args, Clone, Copy)]
pub(crate) struct Reading {
    /// Channels to use: mix, left, right, split (each by itself), or a number from 1
    #[arg(long, default_value = "mix", value_name = "WHICH")]
    pub(crate) channels: Channels,
    /// Read the input as headerless audio: ENCODING:RATE:CHANNELS, such as s16le:16000 or mulaw
    #[arg(long, value_name = "FORMAT")]
    pub(crate) raw: Option<PcmFormat>,
}

impl Reading {
    /// Opens the recording at a path or URL; `-` is standard input. Blocks on the server's response.
    pub(crate) fn open(self, input: &Path) -> Result<Source, CliError> {
        Ok(self.source(input)?)
    }

    /// Opens the recording as [`open`](Reading::open) does, for the library.
    pub(crate) fn source(self, input: &Path) -> Result<Source, SourceError> {
        let source = match url(input) {
            Some(url) => Source::url(url, DOWNLOAD_BYTES_MAX)?,
            None if input.as_os_str() == "-" => Source::stdin(),
            None => Source::open(input)?,
        };
        Ok(match self.raw {
            Some(format) => source.headerless(format),
            None => source,
        })
    }

    /// Checks that the recording exists, as far as possible without reading it.
    pub(crate) fn check(self, input: &Path) -> Result<(), CliError> {
        match url(input) {
            Some(_) => Ok(()),
            None => self.open(input).map(drop),
        }
    }
}

/// Returns the name for messages and files: the path, or the URL without the parts that may be secret.
pub(crate) fn name(input: &Path) -> PathBuf {
    url(input).map_or_else(|| input.to_owned(), |url| source::url_name(url).into())
}

/// Returns the recording's name for transcripts and messages.
pub(crate) fn shown(input: &Path) -> String {
    if input.as_os_str() == "-" { "standard input".to_owned() } else { name(input).display().to_string() }
}

/// Returns whether audio may still be added to the input while it is read: standard input, a pipe, a device.
pub(crate) fn is_live(input: &Path) -> bool {
    !is_url(input) && !std::fs::metadata(input).is_ok_and(|metadata| metadata.is_file())
}

/// Returns whether the input is a URL.
pub(crate) fn is_url(input: &Path) -> bool {
    url(input).is_some()
}

/// Returns the input as a URL, if it is one. Schemes are case-insensitive (RFC 3986, 3.1).
fn url(input: &Path) -> Option<&str> {
    let is_scheme = |scheme: &str| ["https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    input.to_str().filter(|text| text.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme)))
}
