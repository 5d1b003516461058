//! Headers that were made to harm: without an end, or with claims that nothing backs.

use std::fs;
use std::io::{self, Cursor, Read};

use voxline::error::chain;
use voxline::source::Source;

use super::{BYTES_MAX, quiet_caught_panics};
use crate::front_end::decode;
use crate::front_end::specimens::corpus;
use voxline_fixtures::allocations::Meter;
use voxline_fixtures::random::{self, Random};
use voxline_fixtures::samples::sample;

#[test]
fn noise_behind_each_magic_number_never_panics() {
    let mut random =
        Random::for_test("front_end::hostile::headers::noise_behind_each_magic_number_never_panics");
    let magics: [&[u8]; 10] = [
        b"RIFF\xFF\xFF\xFF\xFFWAVEfmt ",
        b"FORM\0\xFF\xFF\xFFAIFFCOMM",
        b"caff\0\x01\0\0desc",
        b"fLaC\0\0\0\x22",
        b"OggS\0\x02",
        b"\x1A\x45\xDF\xA3",
        b"ID3\x04\0\0\0\0\0\x0A",
        b"\xFF\xFB\x90\x00",
        b"\0\0\0\x18ftypM4A ",
        b"\0\0\0\x18moov",
    ];
    quiet_caught_panics();
    for magic in magics {
        for _ in 0..40 {
            let mut bytes = magic.to_vec();
            let length = random.below(20_000);
            bytes.extend((0..length).map(|_| random.next() as u8));
            let _ = decode(Source::bytes("noise", bytes.clone()));
            let _ = decode(Source::stream("noise", Cursor::new(bytes)));
        }
    }
}

/// A header, followed by the same bytes again and again: an endless stream.
struct Looping {
    head: Cursor<Vec<u8>>,
    /// The repeated bytes, many times.
    turns: Vec<u8>,
    at: usize,
}

impl Read for Looping {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.head.read(buffer)?;
        if read > 0 {
            return Ok(read);
        }
        let read = (&self.turns[self.at..]).read(buffer)?;
        self.at = (self.at + read) % self.turns.len();
        Ok(read)
    }
}

/// The bytes of a stream that are read before its format is known stay in memory, so they must not be the
/// whole stream. If no format is found, reading must end.
#[test]
fn headers_without_end_have_an_end() {
    static METER: Meter = Meter::new();
    quiet_caught_panics();
    let cases: [(&str, &[u8], &[u8]); 8] = [
        ("empty chunks", b"RIFF\xFF\xFF\xFF\xFFWAVE", b"JUNK\0\0\0\0"),
        ("empty chunks", b"FORM\xFF\xFF\xFF\xFFAIFF", b"JUNK\0\0\0\0"),
        ("empty chunks", b"caff\0\x01\0\0", b"free\0\0\0\0\0\0\0\0"),
        ("empty boxes", b"\0\0\0\x0CftypM4A ", b"\0\0\0\x08free"),
        ("large boxes", b"\0\0\0\x0CftypM4A ", b"\x03\0\0\0free\0\0\0\0\0\0\0\0\0\0\0\0"),
        ("a long header", b"\x1A\x45\xDF\xA3\x01\xFF\xFF\xFF\xFF\xFF\xFF\xFE", b"\xEC\x80"),
        (
            "audio far away",
            b"FORM\xFF\xFF\xFF\xFFAIFFCOMM\0\0\0\x12\0\x01\0\0\x0F\xA0\0\x10\x40\x0C\xFA\0\0\0\0\0\0\0SSND\xFF\xFF\xFF\xFF\
              \xFF\xFF\xFF\0\0\0\0\0",
            b"\0\0",
        ),
        ("a long tag", b"ID3\x04\0\0\x7F\x7F\x7F\x7F", b"\0\0\0\0"),
    ];
    for (name, head, turn) in cases {
        let _counted = METER.join();
        METER.reset();
        let stream = Looping { head: Cursor::new(head.to_vec()), turns: turn.repeat(4_096), at: 0 };
        let error = decode(Source::stream(name, stream)).map(|_| ()).unwrap_err();
        assert!(error.to_string().starts_with(name), "{error}");
        // An M4A file's index may have 64 MiB, and a vector that grows is there twice, once at double
        // length.
        assert!(METER.peak() <= 3 * (64 << 20), "{name}: {} bytes", METER.peak());
    }
}

/// An M4A file whose index says that each packet has a million frames, and in which most packets are
/// broken. The silence in their place must not be as long as they claim.
#[test]
fn broken_packets_that_claim_to_be_long_do_not_fill_the_memory() {
    static METER: Meter = Meter::new();
    quiet_caught_panics();
    let mut file = fs::read(sample("speech-44k1-stereo-aac.m4a")).unwrap();
    let at = |name: &[u8; 4]| file.windows(4).position(|window| window == name).unwrap();
    let (times, audio) = (at(b"stts") + 4, at(b"mdat") + 4);
    // After version and count each entry is a number of packets and their length.
    let entries = u32::from_be_bytes(*file[times + 4..].first_chunk().unwrap()) as usize;
    for entry in 0..entries {
        let length = times + 12 + 8 * entry;
        file[length..length + 4].copy_from_slice(&(1_u32 << 20).to_be_bytes());
    }
    // Some packets at both ends stay intact.
    let broken = audio + 1_000..file.len() - 3_000;
    let mut dice = Random::seeded(random::seed());
    file[broken].fill_with(|| dice.next() as u8);
    let _counted = METER.join();
    METER.reset();
    let error = decode(Source::bytes("long", file)).unwrap().error;
    let message = error.map(|error| chain(&error).to_string()).unwrap_or_default();
    assert!(message.contains("frames in a row are broken"), "{message}");
    assert!(METER.peak() <= BYTES_MAX, "{} bytes", METER.peak());
}

/// Only formats other than PCM reach a decoder with a rate of 0.
#[test]
fn a_rate_of_0_hz_is_an_error() {
    let mut file = corpus().into_iter().find(|specimen| specimen.name == "ima.wav").unwrap().bytes;
    file[24..28].fill(0);
    let error = decode(Source::bytes("still", file)).map(|_| ()).unwrap_err();
    assert!(chain(&error).to_string().ends_with("0 Hz, 1 channels"), "{error}");
}

/// A decoder allocates a packet of every channel before the first packet is read.
#[test]
fn channels_that_nobody_has_are_refused() {
    static METER: Meter = Meter::new();
    let mut file = corpus().into_iter().find(|specimen| specimen.name == "s8.aiff").unwrap().bytes;
    file[20..22].fill(0xFF);
    let _counted = METER.join();
    METER.reset();
    let error = decode(Source::bytes("crowd", file)).map(|_| ()).unwrap_err();
    assert!(error.to_string().ends_with("65535 channels"), "{error}");
    assert!(METER.peak() <= 1 << 20, "{} bytes", METER.peak());
}
