//! What the commands that read recordings have in common.

use std::path::Path;

use clap::Args;

use super::exit_code::CliError;
use crate::audio::PcmFormat;
use crate::decode::Channels;
use crate::source::Source;

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
    /// The recording at a path; `-` is standard input.
    pub(super) fn open(self, input: &Path) -> Result<Source, CliError> {
        let source = match input.as_os_str() == "-" {
            true => Source::stdin(),
            false => Source::open(input)?,
        };
        Ok(match self.raw {
            Some(format) => source.headerless(format),
            None => source,
        })
    }
}
