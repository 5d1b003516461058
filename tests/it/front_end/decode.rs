//! Decoding of each format, and the inputs that are refused.

use std::fs;
use std::io::Cursor;

use voxline::decode::{DecodeError, Decoder};
use voxline::error::chain;
use voxline::source::{Source, SourceError};

use super::{Decoded, decode, decode_sample};
use voxline_fixtures::formats::{wav, wav_s16};
use voxline_fixtures::samples::{SAMPLES, sample};

#[test]
fn every_sample_is_recognised_and_has_all_its_frames() {
    for (name, container, codec, rate, channels, frames) in SAMPLES {
        let Decoded { info, mono, skipped, .. } = decode_sample(name);
        let got = (info.container, info.codec, info.sample_rate, info.channels, mono.len());
        assert_eq!(got, (container, codec, rate, channels, frames), "{name}");
        assert_eq!(skipped, 0, "{name}");
        // Matroska counts time in milliseconds, not frames.
        let stated = (container != "matroska").then_some(frames as u64);
        assert_eq!(info.frames, stated, "{name}");
    }
}

#[test]
fn pcm_samples_are_what_an_independent_reader_reads() {
    for name in
        ["source.wav", "speech-16k-mono-s16.wav", "speech-48k-mono-s24.wav", "speech-44k1-stereo-s16.wav"]
    {
        assert!(decode_sample(name).mono == hound_mono(name), "{name}");
    }
}

#[test]
fn flac_is_lossless() {
    // The WAV is the start of the FLAC.
    let original = hound_mono("speech-44k1-stereo-s16.wav");
    assert!(decode_sample("speech-44k1-stereo.flac").mono[..original.len()] == original);
}

#[test]
fn alac_is_lossless() {
    assert!(decode_sample("speech-16k-mono-alac.m4a").mono == hound_mono("speech-16k-mono-s16.wav"));
}

#[test]
fn lossy_formats_are_on_time() {
    let original = decode_sample("speech-44k1-stereo.flac").mono;
    for name in ["speech-44k1-stereo.mp3", "speech-44k1-stereo-vorbis.ogg", "speech-44k1-stereo-aac.m4a"] {
        let mono = decode_sample(name).mono;
        let energy: f32 = original.iter().map(|x| x * x).sum();
        let error = |of: &[f32], from: &[f32]| -> f32 {
            of.iter().zip(from).map(|(x, y)| (x - y) * (x - y)).sum::<f32>() / energy
        };
        let in_time = error(&original, &mono);
        assert!(in_time < 0.2, "{name}: error {in_time}");
        assert!(in_time * 2.0 < error(&original, &mono[8..]), "{name} is late");
        assert!(in_time * 2.0 < error(&original[8..], &mono), "{name} is early");
    }
}

#[test]
fn adpcm_is_near_the_original() {
    // IMA ADPCM has 4 bits a sample; mu-law is nearer to the original and has the same rate.
    let (adpcm, mulaw) =
        (decode_sample("speech-8k-mono-adpcm-ima.wav").mono, decode_sample("speech-8k-mono-mulaw.wav").mono);
    let energy: f32 = mulaw.iter().map(|x| x * x).sum();
    let error: f32 = mulaw.iter().zip(&adpcm).map(|(x, y)| (x - y) * (x - y)).sum();
    // ffmpeg's decoder has an error of 0.027 too: the encoder made it.
    assert!(error / energy < 0.03, "{}", error / energy);
}

#[test]
fn every_width_of_pcm_is_scaled_to_one() {
    let quarter =
        |code, bits, data: &[u8]| decode(Source::bytes("a", wav(code, 1, 8_000, bits, data))).unwrap().mono;
    assert_eq!(quarter(1, 8, &[0x80, 0xA0, 0x00]), [0.0, 0.25, -1.0]);
    assert_eq!(quarter(1, 16, &[0, 0, 0, 0x20, 0, 0x80]), [0.0, 0.25, -1.0]);
    assert_eq!(quarter(1, 24, &[0, 0, 0, 0, 0, 0x20, 0, 0, 0x80]), [0.0, 0.25, -1.0]);
    assert_eq!(quarter(1, 32, &[0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0, 0x80]), [0.0, 0.25, -1.0]);
    assert_eq!(quarter(3, 32, &[0.0_f32, 0.25, -1.0].map(f32::to_le_bytes).concat()), [0.0, 0.25, -1.0]);
    assert_eq!(quarter(3, 64, &[0.0_f64, 0.25, -1.0].map(f64::to_le_bytes).concat()), [0.0, 0.25, -1.0]);
}

#[test]
fn aiff_and_caf_are_read() {
    let samples: [i16; 3] = [1, -2, 30_000];
    let expected = samples.map(voxline::audio::sample::to_f32);
    let big_endian = samples.map(i16::to_be_bytes).concat();

    let mut aiff = b"FORM\0\0\0\x34AIFFCOMM\0\0\0\x12\0\x01\0\0\0\x03\0\x10".to_vec();
    aiff.extend([0x40, 0x0C, 0xFA, 0, 0, 0, 0, 0, 0, 0]); // 16 kHz as an 80-bit float
    aiff.extend(b"SSND\0\0\0\x0E\0\0\0\0\0\0\0\0");
    aiff.extend(&big_endian);
    let decoded = decode(Source::bytes("a.aiff", aiff)).unwrap();
    assert_eq!((decoded.info.container, decoded.info.sample_rate), ("aiff", 16_000));
    assert!(decoded.error.is_none(), "{:?}", decoded.error);
    assert_eq!(decoded.mono, expected);

    let mut caf = b"caff\0\x01\0\0desc\0\0\0\0\0\0\0\x20".to_vec();
    caf.extend(16_000_f64.to_be_bytes());
    caf.extend(b"lpcm");
    // Flags (big-endian integers), bytes and frames per packet, channels, bits.
    caf.extend([0_u32, 2, 1, 1, 16].map(u32::to_be_bytes).concat());
    caf.extend(b"data\0\0\0\0\0\0\0\x0A\0\0\0\0");
    caf.extend(&big_endian);
    let decoded = decode(Source::bytes("a.caf", caf)).unwrap();
    assert_eq!((decoded.info.container, decoded.info.sample_rate), ("caf", 16_000));
    assert!(decoded.error.is_none(), "{:?}", decoded.error);
    assert_eq!(decoded.mono, expected);
}

#[test]
fn a_stream_decodes_like_a_file() {
    for (name, ..) in SAMPLES {
        let streamed = decode(Source::stream(name, fs::File::open(sample(name)).unwrap())).unwrap();
        assert!(streamed.error.is_none(), "{name}: {:?}", streamed.error);
        assert!(streamed.mono == decode_sample(name).mono, "{name}");
    }
}

#[test]
fn mp3_without_a_length_is_not_cut_off() {
    // Without its information frame (the first frame), the length is only estimated.
    let mp3 = fs::read(sample("speech-44k1-stereo.mp3")).unwrap();
    let whole = decode_sample("speech-44k1-stereo.mp3").mono.len();
    let decoded = decode(Source::bytes("b.mp3", mp3[mpeg_frames(&mp3)[1]..].to_vec())).unwrap();
    assert_eq!(decoded.info.frames, None);
    // The padding at both ends is audio now.
    assert!((whole..whole + 3 * 1_152).contains(&decoded.mono.len()), "{} of {whole}", decoded.mono.len());
}

#[test]
fn two_mp3_files_in_one_are_both_heard() {
    let one = fs::read(sample("speech-44k1-stereo.mp3")).unwrap();
    let single = decode_sample("speech-44k1-stereo.mp3").mono;
    let double = decode(Source::bytes("two.mp3", [one.clone(), one].concat())).unwrap();
    assert!(double.mono.len() >= 2 * single.len(), "{} of {}", double.mono.len(), 2 * single.len());
    assert!(double.mono[..single.len()] == single);
}

#[test]
fn a_truncated_file_gives_what_it_has_and_an_error() {
    for (name, _, _, _, _, frames) in SAMPLES {
        let bytes = fs::read(sample(name)).unwrap();
        let decoded = decode(Source::bytes(name, bytes[..bytes.len() * 2 / 3].to_vec())).unwrap();
        let whole = decode_sample(name).mono;
        let got = decoded.mono.len();
        assert!(got > frames / 3 && got < frames, "{name}: {got} of {frames} frames");
        assert!(decoded.mono == whole[..got], "{name}");
        match decoded.error {
            Some(DecodeError::Truncated { name: named, at, .. }) => {
                assert_eq!((named.as_str(), at.frame), (name, got as u64));
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[test]
fn a_truncated_file_names_the_place() {
    let mut file = wav_s16(16_000, &[5; 16_000]);
    file.truncate(44 + 24_000);
    let error = decode(Source::bytes("talk.wav", file)).unwrap().error.unwrap();
    assert_eq!(error.to_string(), "talk.wav: is cut short at 0.750 s (frame 12000), expected 16000 frames");
}

#[test]
fn a_broken_packet_is_counted_and_becomes_silence() {
    let mut mp3 = fs::read(sample("speech-44k1-stereo.mp3")).unwrap();
    let whole = decode_sample("speech-44k1-stereo.mp3").mono;
    let frames = mpeg_frames(&mp3);
    let middle = frames[frames.len() / 2];
    // Side information (ISO/IEC 11172-3, 2.4.1.7) with all bits set asks for more data than a frame can
    // have.
    mp3[middle + 4..middle + 36].fill(0xFF);
    let decoded = decode(Source::bytes("c.mp3", mp3)).unwrap();
    assert!(decoded.error.is_none(), "{:?}", decoded.error);
    assert!(decoded.skipped >= 1);
    // The packet became silence: the audio after it is in its place, once the decoder has recovered.
    assert_eq!(decoded.mono.len(), whole.len());
    assert!(decoded.mono.ends_with(&whole[whole.len() / 2 + 4 * 1_152..]));
}

#[test]
fn what_is_no_audio_is_refused_by_name() {
    let refused = |bytes: Vec<u8>| chain(&decode(Source::bytes("notes", bytes)).err().unwrap()).to_string();
    let text = "the quick brown fox jumps over the lazy dog\n".repeat(9_000);
    assert_eq!(refused(text.into_bytes()), "notes: not a known audio format");
    assert_eq!(refused(vec![0; 100_000]), "notes: not a known audio format");
    assert_eq!(refused(vec![b'x']), "notes: not a known audio format");
    assert_eq!(refused(b"RIFF\x24\0\0\0AVI LIST".to_vec()), "notes: not a known audio format");
    assert_eq!(refused(Vec::new()), "notes: holds no audio");
    assert_eq!(refused(wav_s16(16_000, &[])), "notes: holds no audio");
    assert_eq!(
        refused(b"RIFF\x24\0\0\0WAVEfmt ".to_vec()),
        "notes: broken header: the file ends inside its header"
    );
}

#[test]
fn an_m4a_with_its_index_at_the_end_needs_a_file() {
    // The index (moov) and the audio (mdat) swap places.
    let m4a = fs::read(sample("speech-16k-mono-alac.m4a")).unwrap();
    let box_at = |kind: &[u8]| m4a.windows(4).position(|window| window == kind).unwrap() - 4;
    let (moov, mdat) = (box_at(b"moov"), box_at(b"mdat"));
    let moov_end = moov + u32::from_be_bytes(m4a[moov..moov + 4].try_into().unwrap()) as usize;
    let mut late = [&m4a[..moov], &m4a[mdat..], &m4a[moov..moov_end]].concat();
    // The box stco holds the positions of the audio, counted from the start of the file.
    let stco = late.windows(4).position(|window| window == b"stco").unwrap();
    let places = u32::from_be_bytes(late[stco + 8..stco + 12].try_into().unwrap()) as usize;
    for place in late[stco + 12..stco + 12 + 4 * places].as_chunks_mut::<4>().0 {
        *place = (u32::from_be_bytes(*place) - (mdat - moov) as u32).to_be_bytes();
    }
    let from_file = decode(Source::bytes("late.m4a", late.clone())).unwrap();
    assert!(from_file.mono == decode_sample("speech-16k-mono-alac.m4a").mono);
    let error = chain(&decode(Source::stream("late.m4a", Cursor::new(late))).err().unwrap()).to_string();
    assert_eq!(
        error,
        "late.m4a: broken header: no index (moov): it stands at the end, which a stream cannot go to, or is missing"
    );
}

#[test]
fn a_stream_that_changes_is_refused() {
    // Ogg may chain streams. The second stream here states another rate.
    let ogg = fs::read(sample("speech-44k1-stereo-vorbis.ogg")).unwrap();
    let whole = decode_sample("speech-44k1-stereo-vorbis.ogg").mono;
    let chained = decode(Source::bytes("chain.ogg", [ogg.clone(), ogg.clone()].concat())).unwrap();
    assert!(chained.error.is_none(), "{:?}", chained.error);
    assert_eq!(chained.mono.len(), 2 * whole.len());

    let slower = with_vorbis_rate(&ogg, 22_050);
    let decoded = decode(Source::bytes("chain.ogg", [ogg, slower].concat())).unwrap();
    assert_eq!(
        decoded.error.unwrap().to_string(),
        "chain.ogg: changes at 4.214 s (frame 185856) from 44100 Hz, 2 channels to 22050 Hz, 2 channels"
    );
    assert!(decoded.mono == whole);
}

#[test]
fn sources_that_cannot_be_opened_are_named() {
    let missing = Source::open("no/such.wav").unwrap_err();
    assert_eq!(missing.to_string(), "no/such.wav: no such file");
    let directory = Source::open(sample("")).unwrap_err();
    assert!(matches!(directory, SourceError::Directory { .. }), "{directory}");
    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("empty.wav");
    fs::write(&empty, b"").unwrap();
    let error = Source::open(&empty).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: is empty, expected an audio file", empty.display()));
}

#[test]
fn a_source_knows_its_name_extension_and_seekability() {
    let file = Source::open(sample("source.wav")).unwrap();
    assert!(file.name().ends_with("source.wav"));
    assert_eq!((file.extension(), file.is_seekable()), (Some("wav"), true));
    assert_eq!((Source::stdin().name(), Source::stdin().is_seekable()), ("standard input", false));
}

#[test]
fn the_decoder_can_be_moved_to_another_thread() {
    fn is_send<T: Send>() {}
    is_send::<Decoder>();
}

/// Returns the positions of the MPEG frames. The header of our sample is FF FB (version 1, layer III, no
/// checksum), 64 kbit/s, 44.1 kHz.
fn mpeg_frames(mp3: &[u8]) -> Vec<usize> {
    (0..mp3.len() - 2).filter(|&i| mp3[i..i + 2] == [0xFF, 0xFB] && mp3[i + 2] & 0xFC == 0x50).collect()
}

/// Returns the mean of the channels, read by hound.
fn hound_mono(name: &str) -> Vec<f32> {
    let mut reader = hound::WavReader::open(sample(name)).unwrap();
    let spec = reader.spec();
    let scale = (1_i64 << (spec.bits_per_sample - 1)) as f32;
    let samples: Vec<i32> = reader.samples().map(Result::unwrap).collect();
    samples
        .chunks(usize::from(spec.channels))
        .map(|frame| frame.iter().map(|&x| x as f32 / scale).sum::<f32>() / f32::from(spec.channels))
        .collect()
}

/// Returns the Ogg file with another rate in its Vorbis header and another serial number. All page
/// checksums are computed anew.
fn with_vorbis_rate(ogg: &[u8], rate: u32) -> Vec<u8> {
    let mut ogg = ogg.to_vec();
    let mut page = 0;
    while page < ogg.len() {
        let segments = usize::from(ogg[page + 26]);
        let body: usize = ogg[page + 27..page + 27 + segments].iter().map(|&n| usize::from(n)).sum();
        let end = page + 27 + segments + body;
        ogg[page + 14..page + 18].copy_from_slice(&77_u32.to_le_bytes());
        if page == 0 {
            let header = page + 27 + segments;
            ogg[header + 12..header + 16].copy_from_slice(&rate.to_le_bytes());
        }
        ogg[page + 22..page + 26].fill(0);
        let checksum = ogg_checksum(&ogg[page..end]);
        ogg[page + 22..page + 26].copy_from_slice(&checksum.to_le_bytes());
        page = end;
    }
    ogg
}

/// Returns the checksum of a page (RFC 3533, 6): CRC-32 with the polynomial 0x04c11db7, nothing reflected
/// or inverted.
fn ogg_checksum(page: &[u8]) -> u32 {
    page.iter().fold(0, |crc, &byte| {
        (0..8).fold(crc ^ (u32::from(byte) << 24), |crc, _| {
            if crc & 0x8000_0000 == 0 { crc << 1 } else { (crc << 1) ^ 0x04C1_1DB7 }
        })
    })
}
