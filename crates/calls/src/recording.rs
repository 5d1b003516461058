//! Recordings of calls: a WAV file for each, with the agent on the left channel and the customer on the
//! right, as `voxline transcribe --channels split` has them.
//!
//! The legs of a call come apart, and each by its own clock, so a leg is written to its channel of a file
//! that may be ahead already. One thread writes the files of all calls: a slow disk delays recordings, and no
//! call.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use tokio::sync::oneshot;

use super::event::Leg;
use voxline_support::private_file;

/// Most pieces of audio that may wait for the disk, of all calls: each has up to a second.
const WAITING_PIECES: usize = 4_096;
/// Bytes of the header of a WAV file: RIFF (12), format (24), and the start of the samples (8).
const HEADER: u64 = 44;
/// Bytes of a frame: two channels of 16 bits.
const FRAME: u64 = 4;
/// Size of a file that is still being written: readers take it for "up to the end".
const UNKNOWN_SIZE: u32 = u32::MAX;

/// The thread that writes recordings.
pub(crate) struct Recorder {
    directory: PathBuf,
    pieces: Option<SyncSender<Piece>>,
    next: Mutex<u64>,
    thread: Option<JoinHandle<()>>,
}

/// Work of the thread.
enum Piece {
    Audio { file: Arc<RecordedFile>, leg: Leg, position: u64, samples: Vec<i16> },
    End { recording: u64, written: oneshot::Sender<Option<PathBuf>> },
}

/// The file of a recording, which is created with its first audio.
struct RecordedFile {
    /// Number of the recording.
    recording: u64,
    path: PathBuf,
    sample_rate: u32,
    /// Number of samples that are left out, since the disk was too slow.
    lost: AtomicU64,
}

/// The recording of one call. Its legs have clones.
#[derive(Clone)]
pub(crate) struct CallRecording {
    file: Arc<RecordedFile>,
    pieces: SyncSender<Piece>,
}

/// A recording that has ended.
#[derive(Debug, PartialEq)]
pub(crate) struct EndedRecording {
    pub(crate) path: PathBuf,
    /// Audio of the legs that is left out, in seconds.
    pub(crate) lost: f64,
}

impl Recorder {
    /// Starts the thread, for files in this directory, which is created if it is missing.
    ///
    /// # Errors
    /// Returns [`io::Error`] if the directory can't be created, or the thread can't be started.
    pub(crate) fn start(directory: &Path) -> io::Result<Recorder> {
        if !directory.is_dir() {
            private_file::create_dir(directory)?;
        }
        let (pieces, waiting) = sync_channel(WAITING_PIECES);
        let thread = thread::Builder::new().name("recorder".to_owned()).spawn(move || write(&waiting))?;
        Ok(Recorder {
            directory: directory.to_owned(),
            pieces: Some(pieces),
            next: Mutex::new(0),
            thread: Some(thread),
        })
    }

    /// Begins the recording of a call, in a file of this name.
    pub(crate) fn begin(&self, stem: &str, sample_rate: u32) -> CallRecording {
        let recording = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            *next += 1;
            *next
        };
        let pieces = self.pieces.clone().expect("it runs until it is dropped");
        let path = self.directory.join(format!("{stem}.wav"));
        let lost = AtomicU64::new(0);
        CallRecording { file: Arc::new(RecordedFile { recording, path, sample_rate, lost }), pieces }
    }
}

/// Writes what is left.
impl Drop for Recorder {
    fn drop(&mut self) {
        drop(self.pieces.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl CallRecording {
    /// Writes samples of a leg at this position since the beginning of the call.
    pub(crate) fn write(&self, leg: Leg, position: u64, samples: Vec<i16>) {
        let count = samples.len() as u64;
        let audio = Piece::Audio { file: self.file.clone(), leg, position, samples };
        if let Err(TrySendError::Full(_)) = self.pieces.try_send(audio)
            && self.file.lost.fetch_add(count, Ordering::Relaxed) == 0
        {
            let path = self.file.path.display();
            tracing::warn!(%path, "the disk is too slow for the recordings of calls: audio is left out");
        }
    }

    /// Ends the recording. Returns it once it is written, or `None` if there is nothing, or it could not be
    /// written.
    pub(crate) async fn end(self) -> Option<EndedRecording> {
        let (written, path) = oneshot::channel();
        let end = Piece::End { recording: self.file.recording, written };
        // The end must not be lost, so a thread for blocking work waits for room.
        let pieces = self.pieces;
        tokio::task::spawn_blocking(move || pieces.send(end)).await.ok()?.ok()?;
        let path = path.await.ok().flatten()?;
        let lost = self.file.lost.load(Ordering::Relaxed) as f64 / f64::from(self.file.sample_rate);
        Some(EndedRecording { path, lost })
    }
}

/// Writes pieces until all senders are gone.
fn write(pieces: &Receiver<Piece>) {
    // `None` for a file that can't be written any more.
    let mut files: HashMap<u64, Option<CallFile>> = HashMap::new();
    for piece in pieces {
        match piece {
            Piece::Audio { file, leg, position, samples } => {
                let opened = files.entry(file.recording).or_insert_with(|| {
                    let created = CallFile::create(&file.path, file.sample_rate);
                    created.inspect_err(|error| failed(&file.path, error)).ok()
                });
                if let Some(call) = opened
                    && let Err(error) = call.write(leg, position, &samples)
                {
                    // What was written stays, and is readable.
                    failed(&file.path, &error);
                    *opened = None;
                }
            }
            Piece::End { recording, written } => {
                let path = files.remove(&recording).flatten().and_then(|mut file| {
                    file.finish().inspect_err(|error| failed(&file.path, error)).ok()?;
                    Some(file.path)
                });
                let _ = written.send(path);
            }
        }
    }
}

fn failed(path: &Path, error: &io::Error) {
    tracing::error!(path = %path.display(), %error, "recording of a call stopped");
}

/// The file of one call.
struct CallFile {
    path: PathBuf,
    file: File,
    /// Number of frames so far.
    frames: u64,
    /// Bytes of the frames that are being changed.
    block: Vec<u8>,
}

impl CallFile {
    fn create(path: &Path, sample_rate: u32) -> io::Result<CallFile> {
        let mut file = private_file::options().read(true).write(true).create_new(true).open(path)?;
        file.write_all(&header(sample_rate))?;
        Ok(CallFile { path: path.to_owned(), file, frames: 0, block: Vec::new() })
    }

    /// Writes the samples to the channel of their leg, and leaves the other one as it is.
    fn write(&mut self, leg: Leg, position: u64, samples: &[i16]) -> io::Result<()> {
        let end = position + samples.len() as u64;
        if HEADER + end * FRAME >= u64::from(UNKNOWN_SIZE) {
            return Err(io::Error::other("a WAV file has at most 4 GiB"));
        }
        let offset = HEADER + position * FRAME;
        self.block.clear();
        self.block.resize(samples.len() * FRAME as usize, 0);
        let there = self.frames.saturating_sub(position).min(samples.len() as u64) * FRAME;
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.read_exact(&mut self.block[..there as usize])?;
        let channel = match leg {
            Leg::Agent => 0,
            Leg::Customer => 2,
        };
        for (frame, sample) in self.block.chunks_exact_mut(FRAME as usize).zip(samples) {
            frame[channel..channel + 2].copy_from_slice(&sample.to_le_bytes());
        }
        self.file.seek(SeekFrom::Start(offset))?;
        self.file.write_all(&self.block)?;
        self.frames = self.frames.max(end);
        Ok(())
    }

    /// Writes the sizes.
    fn finish(&mut self) -> io::Result<()> {
        let bytes = u32::try_from(self.frames * FRAME).expect("a file has less than 4 GiB");
        for (offset, size) in [(4, bytes + HEADER as u32 - 8), (HEADER - 4, bytes)] {
            self.file.seek(SeekFrom::Start(offset))?;
            self.file.write_all(&size.to_le_bytes())?;
        }
        Ok(())
    }
}

/// Returns the header of a file of unknown size.
fn header(sample_rate: u32) -> [u8; HEADER as usize] {
    let (format, channels, bits) = (1_u16, 2_u16, 16_u16);
    let fields: [&[u8]; 13] = [
        b"RIFF",
        &UNKNOWN_SIZE.to_le_bytes(),
        b"WAVE",
        b"fmt ",
        &16_u32.to_le_bytes(),
        &format.to_le_bytes(),
        &channels.to_le_bytes(),
        &sample_rate.to_le_bytes(),
        &(sample_rate * FRAME as u32).to_le_bytes(),
        &(FRAME as u16).to_le_bytes(),
        &bits.to_le_bytes(),
        b"data",
        &UNKNOWN_SIZE.to_le_bytes(),
    ];
    fields.concat().try_into().expect("a header has 44 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_leg_stands_on_its_channel_whatever_comes_first() {
        let place = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(&place.path().join("calls")).unwrap();
        let recording = recorder.begin("CA1", 8_000);
        recording.write(Leg::Agent, 2, vec![5, 6, 7]);
        recording.write(Leg::Customer, 0, vec![1, 2, 3]);
        recording.write(Leg::Customer, 3, vec![4]);
        let EndedRecording { path, lost } = recording.end().await.unwrap();
        assert_eq!(lost, 0.0);
        let mut reader = hound::WavReader::open(&path).unwrap();
        assert_eq!((reader.spec().sample_rate, reader.spec().channels), (8_000, 2));
        let samples: Vec<i16> = reader.samples().collect::<Result<_, _>>().unwrap();
        assert_eq!(samples, [0, 1, 0, 2, 5, 3, 6, 4, 7, 0]);
    }

    #[tokio::test]
    async fn a_file_that_can_not_be_written_ends_its_recording_alone() {
        let place = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(place.path()).unwrap();
        let lost = recorder.begin("same", 8_000);
        let twice = recorder.begin("same", 8_000);
        lost.write(Leg::Customer, 0, vec![1]);
        twice.write(Leg::Customer, 0, vec![2]);
        assert_eq!(twice.end().await, None);
        assert!(lost.end().await.is_some());
    }
}
