//! Recordings in the format that recognisers expect.

use std::path::Path;

use crate::exit_code::CliError;
use voxline::audio::Feed;
use voxline::pipeline::{self, Pipeline};
use voxline::source::Source;

/// Sample rate of the session streams, as recognisers expect it.
pub(super) const SAMPLE_RATE: u32 = 16_000;

/// Returns all of a recording, its channels mixed, as 16-bit little-endian PCM.
pub(super) fn pcm(path: &Path) -> Result<Vec<u8>, CliError> {
    let (mut lines, worker) = open(path)?.start();
    let mut line = lines.remove(0);
    let mut pcm = Vec::new();
    while let Some(feed) = line.blocking_recv() {
        if let Feed::Audio(chunk) = feed {
            pcm.extend_from_slice(chunk.payload());
        }
    }
    worker.join()?;
    Ok(pcm)
}

/// Returns the samples of 16-bit little-endian PCM.
pub(super) fn samples(pcm: &[u8]) -> Vec<i16> {
    pcm.as_chunks().0.iter().map(|sample| i16::from_le_bytes(*sample)).collect()
}

/// Checks that the file is a recording, as far as possible without reading all of it.
pub(super) fn check(path: &Path) -> Result<(), CliError> {
    open(path).map(drop)
}

fn open(path: &Path) -> Result<Pipeline, CliError> {
    Ok(Pipeline::open(Source::open(path)?, pipeline::Options::default())?)
}
