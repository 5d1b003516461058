//! The front end, from a file to chunks.

mod channels;
mod chunk;
pub(crate) mod cost;
mod decode;
mod hostile;
mod memory;
mod pcm;
mod pipeline;
mod reference;
mod resample;
pub(crate) mod specimens;
mod voice;
mod wav;

use std::path::{Path, PathBuf};

use voxline::decode::{Block, DecodeError, Decoder, Options, StreamInfo};
use voxline::source::Source;

/// Every sample: name, container, codec, rate, channels, frames. The number of frames is that of `ffmpeg -f
/// s16le`, with two exceptions. For AAC, ffmpeg keeps the frames that the encoder added at the end, and the
/// decoder here does not. For WebM, the 915 frames by which the last packet is too long are kept, because
/// symphonia does not report them.
pub(crate) const SAMPLES: [(&str, &str, &str, u32, usize, usize); 16] = [
    ("source.wav", "wave", "pcm_s16le", 24_000, 1, 101_146),
    ("speech-16k-mono-s16.wav", "wave", "pcm_s16le", 16_000, 1, 67_431),
    ("speech-8k-mono-mulaw.wav", "wave", "pcm_mulaw", 8_000, 1, 33_715),
    ("speech-8k-mono-adpcm-ima.wav", "wave", "adpcm_ima_wav", 8_000, 1, 34_697),
    ("speech-48k-mono-s24.wav", "wave", "pcm_s24le", 48_000, 1, 12_000),
    ("speech-44k1-stereo-s16.wav", "wave", "pcm_s16le", 44_100, 2, 11_025),
    ("speech-44k1-stereo.flac", "flac", "flac", 44_100, 2, 185_856),
    ("speech-44k1-stereo.mp3", "mp3", "mp3", 44_100, 2, 185_856),
    ("speech-44k1-stereo-vorbis.ogg", "ogg", "vorbis", 44_100, 2, 185_856),
    ("speech-44k1-stereo-aac.m4a", "isomp4", "aac", 44_100, 2, 185_856),
    ("speech-16k-mono-alac.m4a", "isomp4", "alac", 16_000, 1, 67_431),
    ("speech-48k-stereo-opus.ogg", "ogg", "opus", 48_000, 2, 202_293),
    ("speech-16k-mono-voip.opus", "ogg", "opus", 48_000, 1, 202_293),
    ("speech-48k-stereo-opus.webm", "matroska", "opus", 48_000, 2, 202_293 + 915),
    ("speech-8k-mono-alaw.caf", "caf", "pcm_alaw", 8_000, 1, 33_715),
    ("speech-16k-mono-s16.aiff", "aiff", "pcm_s16be", 16_000, 1, 4_000),
];

pub(crate) fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples").canonicalize().unwrap().join(name)
}

/// All audio of a source, and the error with which it ended.
struct Decoded {
    info: StreamInfo,
    /// First plane.
    mono: Vec<f32>,
    /// Other planes, if channels are split.
    others: Vec<Vec<f32>>,
    skipped: u64,
    error: Option<DecodeError>,
}

fn decode(source: Source) -> Result<Decoded, DecodeError> {
    decode_as(source, Options::default())
}

fn decode_as(source: Source, options: Options) -> Result<Decoded, DecodeError> {
    let mut decoder = Decoder::open(source, options)?;
    let (mut planes, mut block) = (vec![Vec::new(); decoder.planes()], Block::new());
    let error = loop {
        match decoder.next_block(&mut block) {
            Ok(true) => {
                assert!(block.frames() > 0, "a block has a frame");
                assert_eq!(block.planes().len(), planes.len());
                for (plane, part) in planes.iter_mut().zip(block.planes()) {
                    assert_eq!(part.len(), block.frames(), "planes are equally long");
                    plane.extend_from_slice(part);
                }
            }
            Ok(false) => break None,
            Err(error) => break Some(error),
        }
    };
    assert_eq!(block.frames(), 0, "nothing comes with the end");
    assert!(matches!(decoder.next_block(&mut block), Ok(false)), "nothing follows the end");
    let (info, skipped) = (decoder.info().clone(), decoder.skipped_packets());
    let mono = planes.remove(0);
    Ok(Decoded { info, mono, others: planes, skipped, error })
}

fn decode_sample(name: &str) -> Decoded {
    let decoded = decode(Source::open(sample(name)).unwrap()).unwrap();
    assert!(decoded.error.is_none(), "{name}: {:?}", decoded.error);
    decoded
}

/// Returns a WAV file in memory with the given format code, channels, rate and bits; `data` is the content
/// of the data chunk.
fn wav(code: u16, channels: u16, rate: u32, bits: u16, data: &[u8]) -> Vec<u8> {
    let frame = channels * bits / 8;
    // G.711 has an extension of zero bytes.
    let extension: &[u8] = if matches!(code, 6 | 7) { &[0, 0] } else { &[] };
    let mut file = b"RIFF".to_vec();
    file.extend(((36 + extension.len() + data.len()) as u32).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend((16 + extension.len() as u32).to_le_bytes());
    file.extend(code.to_le_bytes());
    file.extend(channels.to_le_bytes());
    file.extend(rate.to_le_bytes());
    file.extend((rate * u32::from(frame)).to_le_bytes());
    file.extend(frame.to_le_bytes());
    file.extend(bits.to_le_bytes());
    file.extend(extension);
    file.extend(b"data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file
}

/// Returns a mono WAV file of 16-bit samples in memory.
pub(crate) fn wav_s16(rate: u32, samples: &[i16]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    wav(1, 1, rate, 16, &data)
}
