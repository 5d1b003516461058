//! `voxline decode`: decodes any recording to PCM.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::exit_code::{CliError, Exit, STDOUT};
use crate::input::Reading;
use crate::progress::{Displays, Progress};
use crate::target;
use crate::terminal::keep_binary_off_terminal;
use crate::typed::whole;
use voxline::audio::{AudioChunk, FramePos, WavWriter, sample};
use voxline::chunk::Chunker;
use voxline::decode::{self, Block, Decoder};
use voxline::error::chain;
use voxline::resample::{RATES, ResampleError, Resampler};
use voxline::vad::{VOICE_RATE, VoiceMarker};

/// Duration of the resampler's blocks. They take half the work of the shorter blocks that are used for live
/// audio. Longer blocks need more memory and save little more work.
const FILL: Duration = Duration::from_millis(40);

/// Number of frames between updates of the progress bar.
const SHOWN_EVERY: u64 = 1 << 17;

/// Size of the write buffer in bytes.
const WRITE_BYTES: usize = 64 * 1024;

#[derive(Args)]
pub(crate) struct Arguments {
    /// Recording; `-` for standard input
    #[arg(value_name = "FILE")]
    input: PathBuf,
    /// Output file; `-` for standard output
    #[arg(short, long, default_value = "-", value_name = "PATH")]
    output: PathBuf,
    /// Sample rate of the output, in Hz
    #[arg(long, default_value_t = 16_000, value_name = "HZ",
          value_parser = whole(RATES))]
    rate: u32,
    /// Format of the output
    #[arg(long, default_value = "wav")]
    format: Format,
    /// Remove everything but speech, and join what is left; only at 16 kHz and with one channel
    #[arg(long)]
    skip_silence: bool,
    #[command(flatten)]
    reading: Reading,
}

/// Output format. With several channels, the samples of a frame are interleaved.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// WAV of 16-bit PCM
    Wav,
    /// 16-bit little-endian PCM without a header
    S16le,
    /// 32-bit little-endian floats without a header
    F32le,
}

pub(crate) fn run(arguments: Arguments) -> Result<Exit, CliError> {
    let Arguments { input, output, rate, format, skip_silence, reading } = arguments;
    if target::same_file(&output, &input) {
        let output = output.display();
        return Err(CliError::new(Exit::Setup, format!("{output}: the output is the recording itself")));
    }
    keep_binary_off_terminal(&output)?;
    let source = reading.open(&input)?;
    let name = source.name().to_owned();
    let wanted =
        decode::Options { channels: reading.channels, sample_rate: Some(rate), ..decode::Options::default() };
    let mut decoder = Decoder::open(source, wanted)?;
    let mut converter = Converter::new(&decoder, rate, skip_silence).map_err(|error| match error {
        Unsuitable::Rate(error) => CliError::new(Exit::Input, format!("{name}: {}", chain(&error))),
        Unsuitable::Silence => CliError::new(Exit::Setup, "--skip-silence: needs 16000 Hz and one channel"),
    })?;
    let progress = Progress::new(&Displays::new(), &name, decoder.sample_rate(), decoder.info().duration());
    let mut sink = Sink::open(output, format, rate, converter.planes.len())?;
    let mut block = Block::new();
    let (mut position, mut shown) = (FramePos::ZERO, FramePos::ZERO);
    let ended = loop {
        match decoder.next_block(&mut block) {
            Ok(true) => {}
            Ok(false) => break Ok(Exit::Done),
            // The output before the error is kept.
            Err(error) => break Err(error.into()),
        }
        sink.write(converter.push(&block))?;
        position = position + block.frames() as u64;
        if position - shown >= SHOWN_EVERY {
            progress.reach(position);
            shown = position;
        }
    };
    sink.write(converter.finish())?;
    sink.finish()?;
    drop(progress);
    ended
}

/// Converts decoded audio to the frames of the output: at its rate, and without silence if that is wanted.
struct Converter {
    /// One for each plane.
    resamplers: Vec<Resampler>,
    /// Planes of the block that was converted last.
    planes: Vec<Vec<f32>>,
    speech: Option<Speech>,
}

/// Reason why audio can't be converted.
enum Unsuitable {
    Rate(ResampleError),
    /// Silence can be removed from one channel at the rate of voice activity detection only.
    Silence,
}

impl Converter {
    fn new(decoder: &Decoder, rate: u32, skip_silence: bool) -> Result<Converter, Unsuitable> {
        let resampler = |_| Resampler::with_fill(decoder.sample_rate(), rate, FILL);
        let resamplers: Result<Vec<_>, _> = (0..decoder.planes()).map(resampler).collect();
        let resamplers = resamplers.map_err(Unsuitable::Rate)?;
        if skip_silence && (rate, resamplers.len()) != (VOICE_RATE, 1) {
            return Err(Unsuitable::Silence);
        }
        let planes = vec![Vec::new(); resamplers.len()];
        Ok(Converter { resamplers, planes, speech: skip_silence.then(Speech::new) })
    }

    /// Converts a block.
    fn push(&mut self, block: &Block) -> &[Vec<f32>] {
        for ((resampler, samples), plane) in
            self.resamplers.iter_mut().zip(block.planes()).zip(&mut self.planes)
        {
            plane.clear();
            resampler.push(samples, plane);
        }
        if let Some(speech) = &mut self.speech {
            speech.keep(&mut self.planes[0]);
        }
        &self.planes
    }

    /// Returns what is left after the last block.
    fn finish(&mut self) -> &[Vec<f32>] {
        for (resampler, plane) in self.resamplers.iter_mut().zip(&mut self.planes) {
            plane.clear();
            resampler.finish(plane);
        }
        if let Some(speech) = &mut self.speech {
            speech.keep(&mut self.planes[0]);
            speech.finish(&mut self.planes[0]);
        }
        &self.planes
    }
}

/// Removes silence from a stream, chunk by chunk.
struct Speech {
    chunker: Chunker,
    marker: VoiceMarker,
    /// The last chunk, if it was silent: it may contain the first soft sounds of speech that follows.
    before: Option<AudioChunk>,
}

impl Speech {
    fn new() -> Speech {
        // Chunks of 100 ms.
        Speech { chunker: Chunker::new(VOICE_RATE as usize / 10), marker: VoiceMarker::new(), before: None }
    }

    /// Replaces samples by the speech found so far, including a silent chunk just before it.
    fn keep(&mut self, samples: &mut Vec<f32>) {
        let all = std::mem::take(samples);
        let mut rest = all.as_slice();
        while let Some(chunk) = self.chunker.push(&mut rest) {
            self.sort(chunk, samples);
        }
    }

    /// Appends the remaining samples, if they are speech.
    fn finish(&mut self, samples: &mut Vec<f32>) {
        if let Some(chunk) = self.chunker.finish() {
            self.sort(chunk, samples);
        }
    }

    fn sort(&mut self, chunk: AudioChunk, speech: &mut Vec<f32>) {
        let chunk = self.marker.mark(chunk);
        if chunk.voiced() == Some(false) {
            self.before = Some(chunk);
            return;
        }
        for kept in self.before.take().into_iter().chain([chunk]) {
            speech.extend(sample::read_s16le(kept.payload()));
        }
    }
}

/// A writer of frames in the requested format.
struct Sink {
    name: String,
    output: Output,
    /// Interleaved frames, and their bytes.
    frames: Vec<f32>,
    bytes: Vec<u8>,
}

enum Output {
    WavFile(WavWriter<BufWriter<File>>),
    WavStream(WavWriter<BufWriter<io::Stdout>>),
    S16(Box<dyn Write>),
    F32(Box<dyn Write>),
}

impl Sink {
    fn open(path: PathBuf, format: Format, rate: u32, channels: usize) -> Result<Sink, CliError> {
        let is_stdout = path.as_os_str() == "-";
        let name = if is_stdout { STDOUT.to_owned() } else { path.display().to_string() };
        let channels = u16::try_from(channels).expect("no container has that many channels");
        let stdout = || BufWriter::with_capacity(WRITE_BYTES, io::stdout());
        let raw = || -> Result<Box<dyn Write>, CliError> {
            if is_stdout {
                Ok(Box::new(stdout()))
            } else {
                let file = File::create(&path).map_err(|error| CliError::output(&name, &error))?;
                Ok(Box::new(BufWriter::with_capacity(WRITE_BYTES, file)))
            }
        };
        let output = match format {
            Format::Wav if is_stdout => {
                Output::WavStream(WavWriter::streaming(&name, stdout(), rate, channels)?)
            }
            Format::Wav => Output::WavFile(WavWriter::create(&path, rate, channels)?),
            Format::S16le => Output::S16(raw()?),
            Format::F32le => Output::F32(raw()?),
        };
        Ok(Sink { name, output, frames: Vec::new(), bytes: Vec::new() })
    }

    fn write(&mut self, planes: &[Vec<f32>]) -> Result<(), CliError> {
        let frames = match planes {
            [plane] => plane.as_slice(),
            planes => {
                self.frames.clear();
                let count = planes.first().map_or(0, Vec::len);
                self.frames.extend((0..count).flat_map(|frame| planes.iter().map(move |plane| plane[frame])));
                self.frames.as_slice()
            }
        };
        self.bytes.clear();
        let failed = |error| failed(&self.name, &error);
        match &mut self.output {
            Output::WavFile(wav) => wav.write(frames).map_err(CliError::from),
            Output::WavStream(wav) => wav.write(frames).map_err(CliError::from),
            Output::S16(out) => {
                sample::write_s16le(frames, &mut self.bytes);
                out.write_all(&self.bytes).map_err(failed)
            }
            Output::F32(out) => {
                self.bytes.extend(frames.iter().flat_map(|sample| sample.to_le_bytes()));
                out.write_all(&self.bytes).map_err(failed)
            }
        }
    }

    fn finish(self) -> Result<(), CliError> {
        match self.output {
            Output::WavFile(wav) => wav.finish().map(drop).map_err(CliError::from),
            Output::WavStream(wav) => wav.finish().map(drop).map_err(CliError::from),
            Output::S16(mut out) | Output::F32(mut out) => {
                out.flush().map_err(|error| failed(&self.name, &error))
            }
        }
    }
}

/// Returns the error of an output without a header.
fn failed(name: &str, error: &io::Error) -> CliError {
    if name == STDOUT { CliError::stdout(error) } else { CliError::output(name, error) }
}
