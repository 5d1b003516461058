//! Specimens to be damaged, a small file of each format, and the ways of damaging them.

use std::fs;

use voxline::audio::PcmFormat;

use voxline_fixtures::formats::{crc, mend_ogg, wav};
use voxline_fixtures::random::Random;
use voxline_fixtures::samples::sample;

/// Returns a number that programs handle wrongly.
fn interesting(random: &mut Random, length: usize) -> u64 {
    let bits = [7, 8, 15, 16, 31, 32, 63, 64][random.below(8)];
    let power = 1_u64.checked_shl(bits).unwrap_or(0);
    match random.below(6) {
        0 => 0,
        1 => random.next() >> random.below(64),
        2 => (length as u64).wrapping_add(random.below(5) as u64).wrapping_sub(2),
        _ => power.wrapping_add(random.below(3) as u64).wrapping_sub(1),
    }
}

/// A small file to be damaged.
pub(super) struct Specimen {
    pub(super) name: &'static str,
    pub(super) bytes: Vec<u8>,
    /// Format of headerless audio.
    pub(super) format: Option<PcmFormat>,
    /// Length of the header and of a frame, for PCM.
    pub(super) pcm: Option<(usize, usize)>,
    /// Length of the header, in which most defects can be provoked.
    pub(super) head: usize,
    /// Positions of length fields: before and after everything that looks like a chunk's name.
    pub(super) lengths: Vec<usize>,
}

impl Specimen {
    pub(super) fn new(name: &'static str, head: usize, bytes: Vec<u8>) -> Specimen {
        let is_name = |name: &[u8]| name.iter().all(|c| c.is_ascii_alphanumeric() || *c == b' ');
        let names = bytes[..head].windows(4).enumerate().filter(|(_, name)| is_name(name));
        let lengths = names.flat_map(|(at, _)| [at.saturating_sub(4), at + 4]).collect();
        Specimen { name, bytes, format: None, pcm: None, head, lengths }
    }

    pub(super) fn pcm(name: &'static str, frame: usize, bytes: Vec<u8>) -> Specimen {
        let audio = bytes.windows(4).position(|window| matches!(window, b"data" | b"SSND"));
        let audio = audio.expect("a file of PCM has a chunk of audio");
        let head = match &bytes[..4] {
            b"FORM" => audio + 16,
            b"caff" => audio + 16,
            _ => audio + 8,
        };
        Specimen { pcm: Some((head, frame)), ..Specimen::new(name, head, bytes) }
    }

    /// Returns the bytes with some damage. They may be joined with `other`.
    pub(super) fn damaged(&self, other: &[u8], dice: &mut Random) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let rounds = if dice.below(4) > 0 { 1 } else { 2 + dice.below(6) };
        for _ in 0..rounds {
            if bytes.is_empty() {
                break;
            }
            self.damage(&mut bytes, other, dice);
        }
        // Without correct checksums the damage would be found before it reaches deeper code.
        if dice.below(2) == 0 {
            mend_ogg(&mut bytes);
            mend_flac(&mut bytes);
        }
        bytes
    }

    fn damage(&self, bytes: &mut Vec<u8>, other: &[u8], dice: &mut Random) {
        let length = bytes.len();
        let reach = if dice.below(2) == 0 { self.head.clamp(1, length) } else { length };
        let place = dice.below(reach);
        let block = place..(place + 1 + dice.below(64)).min(length);
        match dice.below(12) {
            0 => bytes[place] = dice.next() as u8,
            1 => bytes[place] ^= 1 << dice.below(8),
            2 | 3 => write(bytes, place, interesting(dice, length), dice),
            4 if !self.lengths.is_empty() => {
                let place = self.lengths[dice.below(self.lengths.len())];
                write(bytes, place.min(length - 1), interesting(dice, length), dice);
            }
            4 | 5 => bytes[place] = bytes[place].wrapping_add([1, 255][dice.below(2)]),
            6 => {
                let from = dice.below(length - block.len() + 1);
                bytes.copy_within(from..from + block.len(), place);
            }
            7 => drop(bytes.drain(block)),
            8 => {
                let copy = bytes[block].to_vec();
                let to = dice.below(length);
                bytes.splice(to..to, copy).for_each(drop);
            }
            9 => bytes[block].fill(dice.next() as u8),
            10 => bytes.truncate(dice.below(length)),
            _ => {
                bytes.truncate(place);
                bytes.extend(&other[dice.below(other.len())..]);
            }
        }
    }
}

/// Writes a number of random width and byte order, as far as there is room.
fn write(bytes: &mut [u8], place: usize, number: u64, dice: &mut Random) {
    let width = [1, 2, 4, 8][dice.below(4)];
    let number = match dice.below(2) {
        0 => number.to_le_bytes()[..width].to_vec(),
        _ => number.to_be_bytes()[8 - width..].to_vec(),
    };
    bytes[place..].iter_mut().zip(number).for_each(|(byte, new)| *byte = new);
}

/// Corrects the checksums of all frames (RFC 9639, 9.1.8 and 9.3).
fn mend_flac(bytes: &mut [u8]) {
    if !bytes.starts_with(b"fLaC") {
        return;
    }
    let mut starts: Vec<usize> =
        bytes.windows(2).enumerate().filter(|(_, sync)| *sync == [0xFF, 0xF8]).map(|(at, _)| at).collect();
    starts.push(bytes.len());
    for pair in starts.windows(2) {
        let frame = &mut bytes[pair[0]..pair[1]];
        let Some(&[_, _, sizes, _, number]) = frame.first_chunk::<5>() else { continue };
        let of_number = number.leading_ones().max(1) as usize;
        let of_block = usize::from(sizes >> 4 == 6) + 2 * usize::from(sizes >> 4 == 7);
        let of_rate = usize::from(sizes & 15 == 12) + 2 * usize::from(matches!(sizes & 15, 13 | 14));
        let header = 4 + of_number + of_block + of_rate;
        if frame.len() < header + 3 {
            continue;
        }
        frame[header] = crc(&frame[..header], 8, 0x07) as u8;
        let end = frame.len() - 2;
        let sum = crc(&frame[..end], 16, 0x8005) as u16;
        frame[end..].copy_from_slice(&sum.to_be_bytes());
    }
}

/// Returns a small file of each format. Formats that cannot be cut short are written here.
pub(super) fn corpus() -> Vec<Specimen> {
    let read = |name: &str| fs::read(sample(name)).unwrap();
    let pcm = read("speech-44k1-stereo-s16.wav")[20_000..22_400].to_vec();
    let mut corpus = vec![
        Specimen::pcm("s16.wav", 4, wav(1, 2, 44_100, 16, &pcm)),
        Specimen::pcm("u8.wav", 1, wav(1, 1, 8_000, 8, &pcm)),
        Specimen::pcm("s24.wav", 3, wav(1, 1, 48_000, 24, &pcm)),
        Specimen::pcm("f32.wav", 24, wav(3, 6, 48_000, 32, &pcm)),
        Specimen::pcm("mulaw.wav", 1, wav(7, 1, 8_000, 8, &pcm)),
        Specimen::pcm("extensible.wav", 6, extensible(&wav(1, 2, 48_000, 24, &pcm))),
        Specimen::pcm("rf64.wav", 4, rf64(&wav(1, 2, 16_000, 16, &pcm))),
        Specimen::pcm("s16.aiff", 4, aiff(16, b"", &pcm)),
        Specimen::pcm("sowt.aifc", 4, aiff(16, b"sowt", &pcm)),
        Specimen::pcm("ulaw.aifc", 2, aiff(8, b"ulaw", &pcm)),
        // Symphonia decodes this one.
        Specimen::new("s8.aiff", 54, aiff(8, b"", &pcm)),
        Specimen::pcm("s24.caf", 6, caf(b"lpcm", 0, 6, 1, 24, &pcm)),
        Specimen::pcm("f32.caf", 8, caf(b"lpcm", 3, 8, 1, 32, &pcm)),
        Specimen::pcm("alaw.caf", 2, caf(b"alaw", 0, 2, 1, 8, &pcm)),
        Specimen::new("ima4.caf", 72, caf(b"ima4", 0, 68, 64, 0, &pcm[..34 * 70])),
    ];
    for (name, format) in [("s16le", "s16le:8000:2"), ("f64be", "f64be:48000"), ("alaw", "alaw:8000")] {
        let format: PcmFormat = format.parse().unwrap();
        corpus.push(Specimen {
            format: Some(format),
            pcm: Some((0, format.frame_bytes())),
            ..Specimen::new(name, 0, pcm.clone())
        });
    }
    let mut adpcm = read("speech-8k-mono-adpcm-ima.wav");
    adpcm.truncate(60 + 3 * 1_024);
    adpcm[56..60].copy_from_slice(&(3 * 1_024_u32).to_le_bytes());
    corpus.push(Specimen::new("ima.wav", 60, adpcm));
    // Codes that keep the step small, in blocks that start with a pair of coefficients and a step of 16.
    let mut blocks: Vec<u8> = pcm[..256 * 8].iter().map(|codes| codes & 0x33).collect();
    blocks.chunks_mut(256).for_each(|block| block[..3].copy_from_slice(&[0, 16, 0]));
    let mut microsoft = wav(2, 1, 8_000, 4, &blocks);
    microsoft[32..34].copy_from_slice(&256_u16.to_le_bytes());
    corpus.push(Specimen::new("ms-adpcm.wav", 44, with_extension(&microsoft, &MS_ADPCM)));

    // The stream's description, marked as the last block, and two frames.
    let flac = read("speech-44k1-stereo.flac");
    let mut flac = [&flac[..42], &flac[8_256..13_318]].concat();
    flac[4] |= 0x80;
    corpus.push(Specimen::new("a.flac", 60, flac));
    let mp3 = read("speech-44k1-stereo.mp3");
    corpus.push(Specimen::new("tagged.mp3", 228, mp3[..4_000].to_vec()));
    corpus.push(Specimen::new("a.mp3", 40, mp3[228..4_000].to_vec()));
    // Whole pages.
    corpus.push(Specimen::new("vorbis.ogg", 3_700, read("speech-44k1-stereo-vorbis.ogg")[..14_069].to_vec()));
    corpus.push(Specimen::new("opus.ogg", 200, read("speech-48k-stereo-opus.ogg")[..4_397].to_vec()));
    corpus.push(Specimen::new("a.opus", 200, read("speech-16k-mono-voip.opus")[..3_907].to_vec()));
    let mut surround = read("speech-48k-stereo-opus.ogg")[..4_397].to_vec();
    // One page with a longer header: family 1, with one stream that is a pair.
    surround.splice(46..47, [1, 1, 1, 0, 1]).for_each(drop);
    surround[27] = 23;
    mend_ogg(&mut surround);
    corpus.push(Specimen::new("surround.opus", 200, surround));
    corpus.push(Specimen::new("a.webm", 500, read("speech-48k-stereo-opus.webm")[..3_500].to_vec()));
    for (name, sample, audio) in
        [("aac.m4a", "speech-44k1-stereo-aac.m4a", 1_494), ("alac.m4a", "speech-16k-mono-alac.m4a", 758)]
    {
        let mut file = read(sample);
        corpus.push(Specimen::new(name, audio + 8, file[..audio + 8_000].to_vec()));
        file.truncate(audio + 7_000);
        file[audio..audio + 4].copy_from_slice(&7_000_u32.to_be_bytes());
        corpus.push(Specimen::new(name, audio + 8, file));
    }
    corpus
}

/// Samples per block, and the seven pairs of coefficients that all files have.
const MS_ADPCM: [u8; 32] = [
    0xF4, 0x01, 7, 0, 0, 1, 0, 0, 0, 2, 0, 0xFF, 0, 0, 0, 0, 0xC0, 0, 0x40, 0, 0xF0, 0, 0, 0, 0xCC, 1, 0x30,
    0xFF, 0x88, 1, 0x18, 0xFF,
];

/// Inserts this extension after the 16-byte format chunk of a WAV file.
fn with_extension(wav: &[u8], extension: &[u8]) -> Vec<u8> {
    let length = (18 + extension.len() as u32).to_le_bytes();
    let of_extension = (extension.len() as u16).to_le_bytes();
    let mut file = [&wav[..16], &length, &wav[20..36], &of_extension, extension, &wav[36..]].concat();
    let size = file.len() as u32 - 8;
    file[4..8].copy_from_slice(&size.to_le_bytes());
    file
}

fn extensible(wav: &[u8]) -> Vec<u8> {
    // Valid bits, speakers, and PCM's GUID.
    let extension = [24, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xAA, 0, 0x38, 0x9B, 0x71];
    let mut file = with_extension(wav, &extension);
    file[20..22].copy_from_slice(&0xFFFE_u16.to_le_bytes());
    file
}

fn rf64(wav: &[u8]) -> Vec<u8> {
    let mut sizes = b"ds64\x1C\0\0\0".to_vec();
    sizes.extend([wav.len() as u64, wav.len() as u64 - 44, 0].map(u64::to_le_bytes).concat());
    sizes.extend(0_u32.to_le_bytes());
    let mut file =
        [b"RF64\xFF\xFF\xFF\xFF", &wav[8..12], &sizes, &wav[12..40], &[0xFF; 4], &wav[44..]].concat();
    // A chunk after the audio that is not audio.
    file.extend(b"LIST\x04\0\0\0INFO");
    file
}

/// Returns an AIFF file of two channels; with a codec it is an AIFF-C.
fn aiff(bits: u16, codec: &[u8], pcm: &[u8]) -> Vec<u8> {
    let frames = pcm.len() as u32 / u32::from(bits / 4);
    let mut common = 2_u16.to_be_bytes().to_vec();
    common.extend(frames.to_be_bytes());
    common.extend(bits.to_be_bytes());
    // 16,000 as an 80-bit extended float.
    common.extend([0x40, 0x0C, 0xFA, 0, 0, 0, 0, 0, 0, 0]);
    if !codec.is_empty() {
        common.extend(codec);
        common.extend([0, 0]);
    }
    let mut file = b"FORM".to_vec();
    file.extend((4 + 8 + common.len() as u32 + 16 + pcm.len() as u32).to_be_bytes());
    file.extend(if codec.is_empty() { b"AIFFCOMM" } else { b"AIFCCOMM" });
    file.extend((common.len() as u32).to_be_bytes());
    file.extend(common);
    file.extend(b"SSND");
    file.extend((8 + pcm.len() as u32).to_be_bytes());
    file.extend([0; 8]);
    file.extend(pcm);
    file
}

/// Returns a CAF file of two channels.
fn caf(codec: &[u8; 4], flags: u32, packet_bytes: u32, frames: u32, bits: u32, pcm: &[u8]) -> Vec<u8> {
    let mut file = b"caff\0\x01\0\0desc\0\0\0\0\0\0\0\x20".to_vec();
    file.extend(8_000_f64.to_be_bytes());
    file.extend(codec);
    file.extend([flags, packet_bytes, frames, 2, bits].map(u32::to_be_bytes).concat());
    file.extend(b"data");
    file.extend((4 + pcm.len() as u64).to_be_bytes());
    file.extend([0; 4]);
    file.extend(pcm);
    file
}
