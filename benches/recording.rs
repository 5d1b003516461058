//! The recording of the user that a benchmark measures instead of the project's samples.
//!
//! Each benchmark uses a part of this module.
#![allow(dead_code, reason = "not every benchmark needs the samples of the recording")]

use std::path::{Path, PathBuf};
use std::{env, fs, process};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, SamplingMode, Throughput};
use voxline::decode::{Block, DecodeError, Decoder, Options};
use voxline::source::Source;

/// Environment variable with the path of the recording.
const VARIABLE: &str = "VOXLINE_BENCH_FILE";

/// Number of measurements of a recording, the least that criterion takes: recordings may be long.
const MEASUREMENTS: usize = 10;

/// A recording that was decoded once, and so can be decoded.
pub(crate) struct Recording {
    /// Name of the file, without its directory.
    pub(crate) name: String,
    bytes: Vec<u8>,
    /// Frames per second after decoding.
    pub(crate) sample_rate: u32,
    /// Number of frames.
    pub(crate) frames: u64,
}

impl Recording {
    /// Returns the recording that `VOXLINE_BENCH_FILE` names; `None` if the variable is not set or empty.
    ///
    /// Ends the process with one line on standard error and exit code 2 if there is no such file, or if it
    /// is not audio.
    #[expect(clippy::disallowed_methods, reason = "a knob of the benchmarks")]
    #[expect(clippy::print_stderr, reason = "the answer to a wrong path")]
    pub(crate) fn of_user() -> Option<Recording> {
        let path = env::var_os(VARIABLE).filter(|path| !path.is_empty())?;
        // cargo runs a benchmark in the directory of its package; PWD is still that of the user's shell.
        let path = env::var_os("PWD").map_or_else(PathBuf::new, PathBuf::from).join(path);
        let recording = Recording::read(&path).unwrap_or_else(|reason| {
            eprintln!("{VARIABLE}: {reason}");
            process::exit(2)
        });
        Some(recording)
    }

    fn read(path: &Path) -> Result<Recording, String> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut recording = Recording { name, bytes, sample_rate: 0, frames: 0 };
        let mut frames = 0;
        // The message names the recording.
        recording.sample_rate =
            recording.decode(|block| frames += block.frames() as u64).map_err(|error| error.to_string())?;
        if frames == 0 {
            return Err(format!("{}: holds no audio", path.display()));
        }
        recording.frames = frames;
        Ok(recording)
    }

    /// Returns the file as a source.
    pub(crate) fn source(&self) -> Source {
        Source::bytes(self.name.clone(), self.bytes.clone())
    }

    /// Returns the samples, all channels mixed.
    pub(crate) fn samples(&self) -> Vec<f32> {
        let mut samples = Vec::new();
        self.decode(|block| samples.extend_from_slice(&block.planes()[0])).expect("it was decoded before");
        samples
    }

    fn decode(&self, mut take: impl FnMut(&Block)) -> Result<u32, DecodeError> {
        let mut decoder = Decoder::open(self.source(), Options::default())?;
        let mut block = Block::new();
        while decoder.next_block(&mut block)? {
            take(&block);
        }
        Ok(decoder.sample_rate())
    }
}

/// Returns the throughput of `frames` of audio, in microseconds of audio: a rate of 1 Melem/s is real time.
pub(crate) fn audio(frames: u64, sample_rate: u32) -> Throughput {
    Throughput::Elements(frames * 1_000_000 / u64::from(sample_rate))
}

/// Takes few measurements of equal length, for work that may take seconds.
pub(crate) fn for_long_work(group: &mut BenchmarkGroup<'_, WallTime>) {
    group.sample_size(MEASUREMENTS).sampling_mode(SamplingMode::Flat);
}
