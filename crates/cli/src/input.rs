//! What the commands that read recordings have in common.

use std::path::{Path, PathBuf};

use clap::Args;

use super::exit_code::CliError;
use voxline::audio::PcmFormat;
use voxline::decode::Channels;
use voxline::source::{self, Source};

/// The most that is fetched of a recording on the web: three hours of CD audio.
const DOWNLOAD_BYTES_MAX: u64 = 2 << 30;

/// How recordings are read.
#[derive(Args, Clone, Copy)]
pub(crate) struct Reading {
    /// Channels to hear: mix, left, right, split (each by itself), or a number from 1
    #[arg(long, default_value = "mix", value_name = "WHICH")]
    pub(crate) channels: Channels,
    /// Take the bytes as headerless audio: ENCODING:RATE:CHANNELS, such as s16le:16000 or mulaw
    #[arg(long, value_name = "FORMAT")]
    pub(crate) raw: Option<PcmFormat>,
}

impl Reading {
    /// The recording at a path or URL; `-` is standard input. Blocks while a server is asked.
    pub(crate) fn open(self, input: &Path) -> Result<Source, CliError> {
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

    /// Whether the recording is there, as far as can be said without reading it.
    pub(crate) fn check(self, input: &Path) -> Result<(), CliError> {
        match url(input) {
            Some(_) => Ok(()),
            None => self.open(input).map(drop),
        }
    }
}

/// What messages and files are called after: the path, or the URL without what may be secret.
pub(crate) fn name(input: &Path) -> PathBuf {
    url(input).map_or_else(|| input.to_owned(), |url| source::url_name(url).into())
}

/// Returns what transcripts and messages call the recording.
pub(crate) fn shown(input: &Path) -> String {
    if input.as_os_str() == "-" { "standard input".to_owned() } else { name(input).display().to_string() }
}

/// Whether it is fetched from the web.
pub(crate) fn is_url(input: &Path) -> bool {
    url(input).is_some()
}

/// The input as a URL, if it is one. Schemes may be written in capitals (RFC 3986, 3.1).
fn url(input: &Path) -> Option<&str> {
    let is_scheme = |scheme: &str| ["https", "http"].iter().any(|known| scheme.eq_ignore_ascii_case(known));
    input.to_str().filter(|text| text.split_once("://").is_some_and(|(scheme, _)| is_scheme(scheme)))
}
