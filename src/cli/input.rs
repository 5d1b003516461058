//! What the commands that read recordings have in common.

use std::path::Path;

use clap::Args;

use super::exit_code::CliError;
use crate::audio::PcmFormat;
use crate::decode::Channels;
use crate::source::Source;

/// The most that is fetched of a recording on the web: three hours of CD audio.
const DOWNLOAD_BYTES_MAX: u64 = 2 << 30;

/// How recordings are read.
#[derive(Args, Clone, Copy)]
pub(super) struct Reading {
    /// Channels to hear: mix, left, right, split (each by itself), or a number from 1
    #[arg(long, default_value = "mix", value_name = "WHICH")]
    pub(super) channels: Channels,
    /// Take the bytes as headerless audio: ENCODING:RATE:CHANNELS, such as s16le:16000 or mulaw
    #[arg(long, value_name = "FORMAT")]
    pub(super) raw: Option<PcmFormat>,
}

impl Reading {
    /// The recording at a path or URL; `-` is standard input. Blocks while a server is asked.
    pub(super) fn open(self, input: &Path) -> Result<Source, CliError> {
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
    pub(super) fn check(self, input: &Path) -> Result<(), CliError> {
        match url(input) {
            Some(_) => Ok(()),
            None => self.open(input).map(drop),
        }
    }
}

/// The input as a URL, if it is one.
fn url(input: &Path) -> Option<&str> {
    input.to_str().filter(|text| text.starts_with("https://") || text.starts_with("http://"))
}
