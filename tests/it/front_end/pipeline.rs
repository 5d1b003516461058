//! The pipeline's worker: its output, its waits, and its end.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use voxline::audio::Feed;
use voxline::audio::{FramePos, sample as samples};
use voxline::error::chain;
use voxline::pipeline::{Options, Pipeline, PipelineError, Report, Worker};
use voxline::resample::frames_at;
use voxline::source::Source;

use super::decode_sample;
use voxline_fixtures::formats::wav_s16;
use voxline_fixtures::samples::{SAMPLES, sample};

fn start(source: Source, options: Options) -> (Receiver<Feed>, Worker) {
    let (mut streams, worker) = Pipeline::open(source, options).unwrap().start();
    assert_eq!(streams.len(), 1);
    (streams.remove(0), worker)
}

/// Receives to the end and checks the ranges. Returns the PCM.
fn drain(receiver: &mut Receiver<Feed>, frames_per_chunk: u64) -> Vec<u8> {
    let (mut pcm, mut position, mut short) = (Vec::new(), FramePos::ZERO, false);
    loop {
        match receiver.blocking_recv().expect("the end is announced before the channel closes") {
            Feed::Audio(chunk) => {
                assert!(!short, "only the last chunk is short");
                assert_eq!(chunk.range().start, position);
                short = chunk.range().len() < frames_per_chunk;
                position = chunk.range().end;
                pcm.extend_from_slice(chunk.payload());
            }
            Feed::Flush | Feed::Gap(_) => panic!("the worker asks for no flush and loses nothing"),
            Feed::End => {
                assert!(receiver.blocking_recv().is_none(), "nothing follows the end");
                return pcm;
            }
        }
    }
}

#[test]
fn every_sample_arrives_whole_at_the_session_rate() {
    for (name, _, codec, rate, _, frames) in SAMPLES {
        let (mut receiver, worker) = start(Source::open(sample(name)).unwrap(), Options::default());
        let pcm = drain(&mut receiver, 1_600);
        let report = worker.join().unwrap();
        let expected = frames_at(frames as u64, rate, 16_000);
        assert_eq!(pcm.len() as u64, 2 * expected, "{name}");
        // Opus is decoded straight to the session's rate.
        let decoded = if codec == "opus" { expected } else { frames as u64 };
        assert_eq!((report.frames_in, report.frames_out), (decoded, expected), "{name}");
        assert_eq!((report.chunks, report.skipped_packets), (expected.div_ceil(1_600), 0), "{name}");
        assert!(!report.cancelled);
    }
}

#[test]
fn audio_at_the_session_rate_arrives_bit_for_bit() {
    let (mut receiver, worker) =
        start(Source::open(sample("speech-16k-mono-s16.wav")).unwrap(), Options::default());
    let pcm = drain(&mut receiver, 1_600);
    let mut expected = Vec::new();
    samples::write_s16le(&decode_sample("speech-16k-mono-s16.wav").mono, &mut expected);
    assert!(pcm == expected);
    worker.join().unwrap();
}

#[test]
fn chunk_size_and_capacity_do_not_change_the_audio() {
    let pcm = |chunk, capacity, frames| {
        let options = Options { chunk: Duration::from_millis(chunk), capacity, ..Options::default() };
        let (mut receiver, worker) = start(Source::open(sample("speech-44k1-stereo.mp3")).unwrap(), options);
        let pcm = drain(&mut receiver, frames);
        worker.join().unwrap();
        pcm
    };
    let whole = pcm(60_000, 1, 960_000);
    assert!(whole == pcm(20, 1, 320));
    assert!(whole == pcm(37, 3, 592));
}

/// Endless silence as a WAV stream that counts the bytes read from it.
struct Endless {
    header: io::Cursor<Vec<u8>>,
    read: Arc<AtomicU64>,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let header = self.header.read(buffer)?;
        buffer[header..].fill(0);
        self.read.fetch_add(buffer.len() as u64, Ordering::SeqCst);
        Ok(buffer.len())
    }
}

fn endless() -> (Source, Arc<AtomicU64>) {
    let mut header = wav_s16(16_000, &[]);
    header[4..8].fill(0xFF);
    header[40..44].fill(0xFF);
    let read = Arc::new(AtomicU64::new(0));
    (Source::stream("endless", Endless { header: io::Cursor::new(header), read: read.clone() }), read)
}

#[test]
fn a_full_channel_stops_the_worker_and_its_reading() {
    let (source, read) = endless();
    let options = Options { capacity: 3, chunk: Duration::from_millis(20), ..Options::default() };
    let chunk_bytes = 640;
    // Bytes that may be under way besides: a chunk that waits for room, a chunk that fills, and the
    // read-ahead.
    let underway = 2 * chunk_bytes + 64 * 1024;
    let (mut receiver, worker) = start(source, options);
    for received in 0..2_000 {
        // The worker fills the channel although nothing is received...
        while receiver.len() < 3 {
            assert!(!worker.is_finished());
            std::thread::yield_now();
        }
        // ...and never reads further than that.
        let ahead = read.load(Ordering::SeqCst) - received * chunk_bytes;
        assert!(ahead <= 3 * chunk_bytes + underway, "{ahead} bytes were read ahead of chunk {received}");
        assert!(matches!(receiver.blocking_recv(), Some(Feed::Audio(_))));
    }
    assert!(!worker.is_finished());
    drop(receiver);
    assert!(worker.join().unwrap().cancelled);
}

#[test]
fn exactly_the_capacity_fits_without_receiving() {
    // Two chunks and the end fit: the worker ends by itself.
    let options = Options { capacity: 3, ..Options::default() };
    let (receiver, worker) = start(Source::bytes("a", wav_s16(16_000, &[1; 3_200])), options);
    let report = worker.join().unwrap();
    assert_eq!((receiver.len(), report.chunks, report.cancelled), (3, 2, false));

    // With one frame more the end does not fit, and the worker waits. Dropping the receiver ends it.
    let (receiver, worker) = start(Source::bytes("a", wav_s16(16_000, &[1; 3_201])), options);
    while receiver.len() < 3 {
        std::thread::yield_now();
    }
    drop(receiver);
    let report = worker.join().unwrap();
    assert_eq!((report.chunks, report.frames_out, report.cancelled), (3, 3_201, true));
}

#[test]
fn a_dropped_receiver_stops_the_worker() {
    let (source, _) = endless();
    let (receiver, worker) = start(source, Options::default());
    drop(receiver);
    let report = worker.join().unwrap();
    assert!(report.cancelled);
}

#[test]
fn a_truncated_file_is_delivered_then_ended_then_reported() {
    let mut file = wav_s16(8_000, &[9; 8_000]);
    file.truncate(44 + 9_000);
    let (mut receiver, worker) = start(Source::bytes("talk.wav", file), Options::default());
    let pcm = drain(&mut receiver, 1_600);
    assert_eq!(pcm.len(), 2 * 9_000);
    match worker.join() {
        Err(PipelineError::Stopped { error, report }) => {
            assert_eq!(
                error.to_string(),
                "talk.wav: is cut short at 0.562 s (frame 4500), expected 8000 frames"
            );
            let Report { frames_in, frames_out, cancelled, .. } = report;
            assert_eq!((frames_in, frames_out, cancelled), (4_500, 9_000, false));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_source_that_panics_closes_the_channel_or_reports() {
    struct Defect(io::Cursor<Vec<u8>>);
    impl Read for Defect {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let read = self.0.read(buffer)?;
            assert!(read > 0, "a reader with a defect");
            Ok(read)
        }
    }
    let mut file = wav_s16(16_000, &[1; 16_000]);
    file[40..44].fill(0xFF);
    file[4..8].fill(0xFF);
    let (mut receiver, worker) =
        start(Source::stream("defect", Defect(io::Cursor::new(file))), Options::default());
    // The source runs inside the decoder's guard, so the panic is an error like any other.
    assert!(!drain(&mut receiver, 1_600).is_empty());
    let error = chain(&worker.join().unwrap_err()).to_string();
    assert!(error.ends_with("the decoder panicked: a reader with a defect"), "{error}");
}

#[test]
fn options_out_of_range_are_refused() {
    let refused = |options| {
        let source = Source::bytes("a.wav", wav_s16(16_000, &[1; 100]));
        chain(&Pipeline::open(source, options).unwrap_err()).to_string()
    };
    let options = Options::default();
    assert!(
        refused(Options { capacity: 0, ..options }).starts_with("a capacity of 0 chunks, expected 1 to ")
    );
    let chunk = |chunk| refused(Options { chunk, ..options });
    assert_eq!(chunk(Duration::ZERO), "a chunk of 0ns at 16000 Hz, expected 1 frame to 60s");
    assert_eq!(chunk(Duration::MAX).split(" at ").nth(1), Some("16000 Hz, expected 1 frame to 60s"));
    assert_eq!(
        refused(Options { sample_rate: 1_000, ..options }),
        "a.wav: sample rate cannot be used: cannot resample from 16000 Hz to 1000 Hz, \
         expected rates from 8000 to 192000 Hz"
    );
}
