//! WAV files that other programs can read.

use std::fs;
use std::io::{self, Cursor, Seek, SeekFrom, Write};

use voxline::audio::{WavError, WavWriter};
use voxline::error::chain;
use voxline::source::Source;

use super::decode;

#[test]
fn a_file_is_what_an_independent_reader_expects() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.wav");
    let mut writer = WavWriter::create(&path, 16_000, 1).unwrap();
    writer.write(&[0.0, 0.25, -1.0]).unwrap();
    writer.write_s16le(&[0xFF, 0x7F]).unwrap();
    assert_eq!(writer.frames(), 4);
    writer.finish().unwrap();

    let mut reader = hound::WavReader::open(&path).unwrap();
    let expected = hound::WavSpec {
        channels: 1,
        sample_rate: 16_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    assert_eq!((reader.spec(), reader.duration()), (expected, 4));
    let samples: Vec<i16> = reader.samples().map(Result::unwrap).collect();
    assert_eq!(samples, [0, 8_192, -32_768, 32_767]);
    assert_eq!(fs::metadata(&path).unwrap().len(), 44 + 8);
}

#[test]
fn an_empty_file_is_a_valid_one() {
    let writer = WavWriter::seekable("a", Cursor::new(Vec::new()), 8_000, 1).unwrap();
    let file = writer.finish().unwrap().into_inner();
    assert_eq!(hound::WavReader::new(file.as_slice()).unwrap().duration(), 0);
}

#[test]
fn a_pipe_gets_unknown_sizes_and_can_be_read_to_its_end() {
    let mut pipe = Vec::new();
    let mut writer = WavWriter::streaming("pipe", &mut pipe, 16_000, 1).unwrap();
    writer.write(&[0.5; 2_000]).unwrap();
    writer.finish().unwrap();
    assert_eq!((&pipe[4..8], &pipe[40..44]), (&[0xFF; 4][..], &[0xFF; 4][..]));
    let decoded = decode(Source::stream("pipe", Cursor::new(pipe))).unwrap();
    assert!(decoded.error.is_none(), "{:?}", decoded.error);
    assert_eq!(decoded.mono, vec![0.5; 2_000]);
}

#[test]
fn a_file_that_was_never_finished_can_be_read() {
    let mut file = Cursor::new(Vec::new());
    let mut writer = WavWriter::seekable("a", &mut file, 16_000, 1).unwrap();
    writer.write(&[0.5; 100]).unwrap();
    drop(writer);
    assert_eq!(decode(Source::bytes("a", file.into_inner())).unwrap().mono, vec![0.5; 100]);
}

/// A disk with room for `room` bytes.
struct SmallDisk {
    room: usize,
}

impl Write for SmallDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(self.room);
        self.room -= taken;
        if taken == 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(taken) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for SmallDisk {
    fn seek(&mut self, _: SeekFrom) -> io::Result<u64> {
        Ok(0)
    }
}

#[test]
fn a_full_disk_is_reported_by_name_wherever_it_fills_up() {
    // The disk fills up in the header, in the samples, in the buffered bytes, and when the sizes are
    // patched.
    for room in [0, 20, 44, 60, 44 + 200, 44 + 200 + 4] {
        let written = (|| {
            let out = io::BufWriter::with_capacity(16, SmallDisk { room });
            let mut writer = WavWriter::seekable("talk.wav", out, 16_000, 1)?;
            writer.write(&[0.5; 100])?;
            writer.finish().map(|_| ())
        })();
        match written {
            Err(error @ WavError::Write { .. }) => {
                assert!(error.to_string().starts_with("talk.wav: cannot be written after "), "{error}");
            }
            other => panic!("{room} bytes: {other:?}"),
        }
    }
}

#[test]
fn a_file_that_cannot_be_created_is_named() {
    let error = WavWriter::create("no/such/place.wav", 16_000, 1).unwrap_err();
    assert!(matches!(error, WavError::Create { .. }));
    assert!(chain(&error).to_string().starts_with("no/such/place.wav: cannot be created: "), "{error}");
}
