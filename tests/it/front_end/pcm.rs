//! PCM and G.711, headerless and in every shape of WAV header.

use std::io::Cursor;

use voxline::audio::{Encoding, PcmFormat};
use voxline::decode::DecodeError;
use voxline::source::Source;

use super::decode;
use voxline_fixtures::formats::{wav, wav_s16};
use voxline_fixtures::random::Random;

fn raw(format: &str, bytes: &[u8]) -> Vec<f32> {
    let source = Source::bytes("raw", bytes.to_vec()).headerless(format.parse().unwrap());
    let decoded = decode(source).unwrap();
    assert!(decoded.error.is_none(), "{:?}", decoded.error);
    assert_eq!((decoded.info.container, decoded.info.frames), ("raw", Some(decoded.mono.len() as u64)));
    decoded.mono
}

#[test]
fn every_encoding_is_scaled_to_one() {
    let expected = [0.0, 0.25, -1.0];
    assert_eq!(raw("u8:8000", &[0x80, 0xA0, 0x00]), expected);
    for (encoding, bytes) in [
        (Encoding::S16Le, [0_i16, 0x2000, -0x8000].map(i16::to_le_bytes).concat()),
        (Encoding::S16Be, [0_i16, 0x2000, -0x8000].map(i16::to_be_bytes).concat()),
        (Encoding::S24Le, vec![0, 0, 0, 0, 0, 0x20, 0, 0, 0x80]),
        (Encoding::S24Be, vec![0, 0, 0, 0x20, 0, 0, 0x80, 0, 0]),
        (Encoding::S32Le, [0, 0x2000_0000, i32::MIN].map(i32::to_le_bytes).concat()),
        (Encoding::S32Be, [0, 0x2000_0000, i32::MIN].map(i32::to_be_bytes).concat()),
        (Encoding::F32Le, [0.0_f32, 0.25, -1.0].map(f32::to_le_bytes).concat()),
        (Encoding::F32Be, [0.0_f32, 0.25, -1.0].map(f32::to_be_bytes).concat()),
        (Encoding::F64Le, [0.0_f64, 0.25, -1.0].map(f64::to_le_bytes).concat()),
        (Encoding::F64Be, [0.0_f64, 0.25, -1.0].map(f64::to_be_bytes).concat()),
    ] {
        assert_eq!(raw(&format!("{}:8000", encoding.name()), &bytes), expected, "{encoding:?}");
    }
}

/// ITU-T G.711, tables 1a and 2a: the values of some codes, for samples of 16 bits.
#[test]
fn g711_decodes_as_in_the_standard() {
    let g711 =
        |law, codes: &[u8]| -> Vec<i32> { raw(law, codes).iter().map(|x| (x * 32_768.0) as i32).collect() };
    assert_eq!(g711("mulaw", &[0xFF, 0x7F, 0x80, 0x00, 0xFE, 0xEF]), [0, 0, 32_124, -32_124, 8, 132]);
    assert_eq!(g711("alaw", &[0xD5, 0x55, 0xAA, 0x2A, 0xD4, 0xC5]), [8, -8, 32_256, -32_256, 24, 264]);
    // Each law has one sign bit, and is monotonic in the rest.
    for law in ["mulaw", "alaw"] {
        let all = g711(law, &(0..=255).collect::<Vec<u8>>());
        let mut positive: Vec<i32> = all.iter().copied().filter(|value| *value > 0).collect();
        let mut negative: Vec<i32> = all.iter().filter(|value| **value < 0).map(|value| -value).collect();
        positive.sort_unstable();
        negative.sort_unstable();
        assert_eq!(positive, negative, "{law}");
        assert!(positive.len() >= 127, "{law}");
    }
}

#[test]
fn half_a_frame_at_the_end_is_none() {
    assert_eq!(raw("s16le:8000:2", &[1, 0, 3, 0, 9]).len(), 1);
    let too_short = Source::bytes("raw", vec![1]).headerless("s16le:8000".parse().unwrap());
    assert!(matches!(decode(too_short), Err(DecodeError::NoAudio { .. })));
}

/// A reader that returns 1 to 7 bytes at a time.
struct Trickle(Cursor<Vec<u8>>, Random);

impl std::io::Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let most = (1 + self.1.below(7)).min(buffer.len());
        self.0.read(&mut buffer[..most])
    }
}

#[test]
fn frames_that_arrive_in_pieces_are_whole() {
    let mut random = Random::for_test("front_end::pcm::frames_that_arrive_in_pieces_are_whole");
    for encoding in Encoding::ALL {
        let format = PcmFormat { encoding, sample_rate: 8_000, channels: 1 + random.below(5) };
        let bytes: Vec<u8> = (0..format.frame_bytes() * 500).map(|_| random.next() as u8).collect();
        let whole = decode(Source::bytes("raw", bytes.clone()).headerless(format)).unwrap().mono;
        let seed = Random::for_test("front_end::pcm::frames_that_arrive_in_pieces_are_whole");
        let trickle = Source::stream("raw", Trickle(Cursor::new(bytes), seed)).headerless(format);
        let pieces = decode(trickle).unwrap().mono;
        assert_eq!(whole.len(), 500);
        assert!(whole.iter().zip(&pieces).all(|(a, b)| a.to_bits() == b.to_bits()), "{format}");
    }
}

/// Chunks without audio, one of an odd length.
const OTHER_CHUNKS: &[u8] = b"JUNK\x03\0\0\0abc\0LIST\x04\0\0\0INFO";

#[test]
fn other_chunks_before_the_audio_are_passed_over() {
    let plain = wav_s16(16_000, &[1, 2, 3]);
    let busy = [&plain[..12], OTHER_CHUNKS, &plain[12..36], OTHER_CHUNKS, &plain[36..]].concat();
    assert_eq!(
        decode(Source::bytes("a.wav", busy)).unwrap().mono,
        decode(Source::bytes("a.wav", plain)).unwrap().mono
    );
}

/// Some telephone recorders write the shortest format chunk, without the extension that the standard asks
/// for.
#[test]
fn g711_with_the_short_format_chunk_is_read() {
    let mut file = wav(7, 1, 8_000, 8, &[0x80, 0x00]);
    file.drain(36..38);
    file[16] = 16;
    let decoded = decode(Source::bytes("a.wav", file)).unwrap();
    assert_eq!((decoded.info.codec, decoded.mono.len()), ("pcm_mulaw", 2));
    assert!(decoded.error.is_none(), "{:?}", decoded.error);
}

#[test]
fn an_extensible_format_chunk_is_read() {
    let plain = wav(1, 2, 48_000, 24, &[0, 0, 0x20, 0, 0, 0x40]);
    // The code moves into a GUID, after the length of the extension, the valid bits and the speakers.
    let mut file = [&plain[..16], &40_u32.to_le_bytes(), &0xFFFE_u16.to_le_bytes(), &plain[22..36]].concat();
    file.extend([22, 0, 24, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71]);
    file.extend(&plain[36..]);
    let decoded = decode(Source::bytes("a.wav", file)).unwrap();
    assert_eq!((decoded.info.codec, decoded.info.channels), ("pcm_s24le", 2));
    assert_eq!(decoded.mono, [0.375]);
}

#[test]
fn a_wav_above_4_gib_states_its_size_elsewhere() {
    let plain = wav_s16(16_000, &[1, 2, 3]);
    let mut sizes = b"ds64\x1C\0\0\0".to_vec();
    sizes.extend([0_u64, 6, 3].map(u64::to_le_bytes).concat());
    sizes.extend(0_u32.to_le_bytes());
    for magic in [b"RF64", b"BW64"] {
        let mut file = [magic, &[0xFF; 4], &plain[8..12], &sizes, &plain[12..]].concat();
        let data = file.len() - 10;
        file[data..data + 4].fill(0xFF);
        // The chunks after the audio are not audio.
        file.extend(OTHER_CHUNKS);
        let decoded = decode(Source::bytes("a.wav", file)).unwrap();
        assert!(decoded.error.is_none(), "{:?}", decoded.error);
        assert_eq!((decoded.mono.len(), decoded.info.frames), (3, Some(3)));
    }
}

#[test]
fn a_pipe_whose_writer_knew_no_size_goes_to_its_end() {
    // Sizes that ffmpeg and sox write.
    for size in [0xFFFF_FFFF_u32, 0x7FFF_F024] {
        let mut file = wav_s16(16_000, &[5; 3_000]);
        file[40..44].copy_from_slice(&size.to_le_bytes());
        let decoded = decode(Source::stream("pipe", Cursor::new(file))).unwrap();
        assert!(decoded.error.is_none(), "{:?}", decoded.error);
        assert_eq!((decoded.mono.len(), decoded.info.frames), (3_000, None));
    }
}
