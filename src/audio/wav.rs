//! A writer of WAV files with 16-bit PCM.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

use super::sample;

/// Size that means "up to the end of the file", written if the real size is unknown or above 4 GiB. The
/// standard doesn't define it, but ffmpeg and sox write it to pipes, and readers understand it.
const UNKNOWN_SIZE: u32 = u32::MAX;

/// Bytes before the samples: RIFF header (12), format chunk (24), header of the data chunk (8).
const HEADER_BYTES: u32 = 44;

/// The reason why a WAV file cannot be written. Data written before the error is left as it is: the caller
/// writes the file anew.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WavError {
    /// The file cannot be created.
    #[error("{name}: cannot be created")]
    Create {
        /// Name of the file.
        name: String,
        /// Error of the operating system.
        #[source]
        error: io::Error,
    },
    /// Samples cannot be written, for example since the disk is full or the pipe is closed.
    #[error("{name}: cannot be written after {frames} frames")]
    Write {
        /// Name of the file.
        name: String,
        /// Number of frames accepted before the error.
        frames: u64,
        /// Error of the operating system.
        #[source]
        error: io::Error,
    },
}

/// A writer of a WAV file with 16-bit PCM. The samples of a frame are interleaved, one per channel.
///
/// [`finish`](WavWriter::finish) must be called: no other method reports data that could not be written.
/// A file left without it is readable as far as it was written, since its header says "up to the end".
#[derive(Debug)]
pub struct WavWriter<W: Write> {
    name: String,
    out: W,
    channels: u16,
    frames: u64,
    /// Function that writes the real sizes into the header, if the output can seek.
    patch: Option<fn(&mut W, u32) -> io::Result<()>>,
    /// Buffer for converted samples.
    pcm: Vec<u8>,
}

impl WavWriter<BufWriter<File>> {
    /// Creates or replaces the file at `path`, with this many channels; `sample_rate` is in Hz. A pipe or
    /// a device gets unknown sizes.
    ///
    /// # Errors
    /// Returns [`WavError`] if the file cannot be created or written.
    pub fn create(path: impl AsRef<Path>, sample_rate: u32, channels: u16) -> Result<Self, WavError> {
        let name = path.as_ref().display().to_string();
        let create = |error| WavError::Create { name: name.clone(), error };
        let file = File::create(path.as_ref()).map_err(create)?;
        let is_file = file.metadata().map_err(create)?.is_file();
        let out = BufWriter::new(file);
        if is_file {
            WavWriter::seekable(name, out, sample_rate, channels)
        } else {
            WavWriter::streaming(name, out, sample_rate, channels)
        }
    }
}

impl<W: Write + Seek> WavWriter<W> {
    /// Writes to `out`, which must be at its start, and patches the sizes at the end. `name` is used in
    /// error messages.
    ///
    /// # Errors
    /// Returns [`WavError::Write`] if the header cannot be written.
    pub fn seekable(
        name: impl Into<String>,
        out: W,
        sample_rate: u32,
        channels: u16,
    ) -> Result<Self, WavError> {
        WavWriter::begin(name.into(), out, (sample_rate, channels), Some(patch_sizes))
    }
}

impl<W: Write> WavWriter<W> {
    /// Writes to `out`, which cannot seek (a pipe, a socket): the sizes in the header stay 0xFFFFFFFF.
    ///
    /// # Errors
    /// Returns [`WavError::Write`] if the header cannot be written.
    pub fn streaming(
        name: impl Into<String>,
        out: W,
        sample_rate: u32,
        channels: u16,
    ) -> Result<Self, WavError> {
        WavWriter::begin(name.into(), out, (sample_rate, channels), None)
    }

    /// Writes float samples, converted as by [`sample::to_s16`].
    ///
    /// # Errors
    /// Returns [`WavError::Write`] if the samples cannot be written.
    ///
    /// # Panics
    /// Panics if the last frame is incomplete.
    pub fn write(&mut self, samples: &[f32]) -> Result<(), WavError> {
        let mut pcm = std::mem::take(&mut self.pcm);
        pcm.clear();
        sample::write_s16le(samples, &mut pcm);
        let written = self.write_s16le(&pcm);
        self.pcm = pcm;
        written
    }

    /// Writes 16-bit little-endian PCM, such as a chunk's payload.
    ///
    /// # Errors
    /// Returns [`WavError::Write`] if the samples cannot be written.
    ///
    /// # Panics
    /// Panics if the last frame is incomplete.
    pub fn write_s16le(&mut self, pcm: &[u8]) -> Result<(), WavError> {
        let frame = self.frame_bytes();
        assert!(pcm.len().is_multiple_of(frame), "{} bytes are not whole frames of {frame}", pcm.len());
        self.out.write_all(pcm).map_err(|error| self.failed(error))?;
        self.frames += (pcm.len() / frame) as u64;
        Ok(())
    }

    /// Flushes buffered data, for a reader that follows the output. The header stays as it is.
    ///
    /// # Errors
    /// Returns [`WavError::Write`] if the data cannot be written.
    pub fn flush(&mut self) -> Result<(), WavError> {
        self.out.flush().map_err(|error| self.failed(error))
    }

    /// Returns the number of frames accepted.
    #[must_use]
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Writes buffered data, patches the sizes, and returns the output.
    ///
    /// # Errors
    /// Returns [`WavError::Write`] if any of the data could not be written.
    pub fn finish(mut self) -> Result<W, WavError> {
        let ended = self.end();
        match ended {
            Ok(()) => Ok(self.out),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn begin(
        name: String,
        mut out: W,
        (sample_rate, channels): (u32, u16),
        patch: Option<fn(&mut W, u32) -> io::Result<()>>,
    ) -> Result<Self, WavError> {
        if let Err(error) = out.write_all(&header(sample_rate, channels)) {
            return Err(WavError::Write { name, frames: 0, error });
        }
        Ok(WavWriter { name, out, channels, frames: 0, patch, pcm: Vec::new() })
    }

    fn end(&mut self) -> io::Result<()> {
        self.out.flush()?;
        let Some(patch) = self.patch else { return Ok(()) };
        // A larger file keeps the sizes that mean "up to the end".
        let size =
            self.frames.checked_mul(self.frame_bytes() as u64).and_then(|bytes| u32::try_from(bytes).ok());
        if let Some(size) = size.filter(|&size| size < UNKNOWN_SIZE - HEADER_BYTES) {
            patch(&mut self.out, size)?;
            self.out.flush()?;
        }
        Ok(())
    }

    fn frame_bytes(&self) -> usize {
        2 * usize::from(self.channels)
    }

    fn failed(&self, error: io::Error) -> WavError {
        WavError::Write { name: self.name.clone(), frames: self.frames, error }
    }
}

/// Returns a header with unknown sizes (Multimedia Programming Interface and Data Specifications 1.0,
/// "WAVE").
fn header(sample_rate: u32, channels: u16) -> Vec<u8> {
    let frame_bytes = channels.saturating_mul(2);
    let mut header = Vec::with_capacity(HEADER_BYTES as usize);
    header.extend_from_slice(b"RIFF");
    header.extend_from_slice(&UNKNOWN_SIZE.to_le_bytes());
    header.extend_from_slice(b"WAVEfmt ");
    header.extend_from_slice(&16_u32.to_le_bytes()); // length of the format chunk
    header.extend_from_slice(&1_u16.to_le_bytes()); // PCM
    header.extend_from_slice(&channels.to_le_bytes());
    header.extend_from_slice(&sample_rate.to_le_bytes());
    header.extend_from_slice(&sample_rate.saturating_mul(frame_bytes.into()).to_le_bytes()); // bytes per second
    header.extend_from_slice(&frame_bytes.to_le_bytes());
    header.extend_from_slice(&16_u16.to_le_bytes()); // bits per sample
    header.extend_from_slice(b"data");
    header.extend_from_slice(&UNKNOWN_SIZE.to_le_bytes());
    header
}

/// Writes the sizes for `data_bytes` of samples, and seeks back to the end.
fn patch_sizes<W: Write + Seek>(out: &mut W, data_bytes: u32) -> io::Result<()> {
    out.seek(SeekFrom::Start(4))?;
    // The RIFF chunk contains everything after its own header of 8 bytes.
    out.write_all(&(data_bytes + HEADER_BYTES - 8).to_le_bytes())?;
    out.seek(SeekFrom::Start(u64::from(HEADER_BYTES) - 4))?;
    out.write_all(&data_bytes.to_le_bytes())?;
    out.seek(SeekFrom::End(0))?;
    Ok(())
}
