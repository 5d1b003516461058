//! Bytes that were damaged on the way, or on purpose.

use std::fs;

use voxline::source::Source;

use super::{SAMPLES, decode, sample};
use crate::random::Random;

#[test]
fn flipped_bytes_never_panic() {
    let mut random = Random::for_test("front_end::hostile::flipped_bytes_never_panic");
    for (name, ..) in SAMPLES {
        let original = fs::read(sample(name)).unwrap();
        for round in 0..120 {
            let mut bytes = original.clone();
            for _ in 0..=random.below(8) {
                // Half of the damage goes to the headers, which are most of what can be got wrong.
                let reach = if round % 2 == 0 { bytes.len().min(1_024) } else { bytes.len() };
                let place = random.below(reach);
                bytes[place] = random.next() as u8;
            }
            // Errors and damaged audio are both right; only a panic, or no end, is not.
            if let Ok(decoded) = decode(Source::bytes(name, bytes)) {
                assert!(decoded.mono.len() < 100 * original.len(), "{name}: {} frames", decoded.mono.len());
            }
        }
    }
}

#[test]
fn noise_behind_each_magic_number_never_panics() {
    let mut random = Random::for_test("front_end::hostile::noise_behind_each_magic_number_never_panics");
    let magics: [&[u8]; 9] = [
        b"RIFF\xFF\xFF\xFF\xFFWAVEfmt ",
        b"FORM\0\xFF\xFF\xFFAIFFCOMM",
        b"caff\0\x01\0\0desc",
        b"fLaC\0\0\0\x22",
        b"OggS\0\x02",
        b"ID3\x04\0\0\0\0\0\x0A",
        b"\xFF\xFB\x90\x00",
        b"\0\0\0\x18ftypM4A ",
        b"\0\0\0\x18moov",
    ];
    for magic in magics {
        for _ in 0..40 {
            let mut bytes = magic.to_vec();
            let length = random.below(20_000);
            bytes.extend((0..length).map(|_| random.next() as u8));
            let _ = decode(Source::bytes("noise", bytes));
        }
    }
}
