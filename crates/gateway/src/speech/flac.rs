//! FLAC (RFC 9639), written while the speech is synthesised: frames of fixed length, whose samples are
//! predicted by one of the format's fixed predictors and stored as Rice codes.
//!
//! Linear prediction would save some five per cent more on speech. The length and the checksum in the header
//! are left unknown, as the format allows, since the header is sent first.

/// Samples in a frame: 4,096 (RFC 9639, section 9.1.1, block size code 12), 0.17 s at 24 kHz.
const BLOCK: usize = 4_096;
const BLOCK_CODE: u64 = 12;
/// Code of a block size that stands in 16 bits at the end of the frame's header (section 9.1.1).
const BLOCK_IN_HEADER: u64 = 7;
/// Code of 16 bits per sample (section 9.1.4).
const SAMPLE_SIZE_CODE: u64 = 4;
const BITS: u32 = 16;
/// Largest parameter of a Rice code of 4 bits; 15 is the escape code (section 9.2.7).
const MAX_RICE: u32 = 14;

/// A FLAC stream of one channel in the course of writing.
pub(super) struct Flac {
    sample_rate: u32,
    /// Samples that don't fill a frame yet.
    rest: Vec<i16>,
    /// Number of frames written.
    frames: u32,
    has_header: bool,
}

impl Flac {
    /// Creates a stream. Its header is returned with the first frame.
    pub(super) fn new(sample_rate: u32) -> Flac {
        Flac { sample_rate, rest: Vec::new(), frames: 0, has_header: false }
    }

    /// Encodes samples. Returns the frames that they fill.
    pub(super) fn push(&mut self, samples: &[i16]) -> Vec<u8> {
        self.rest.extend_from_slice(samples);
        let mut bytes = Vec::new();
        let rest = std::mem::take(&mut self.rest);
        let (frames, incomplete) = rest.as_chunks::<BLOCK>();
        for frame in frames {
            self.write(frame, &mut bytes);
        }
        self.rest = incomplete.to_vec();
        bytes
    }

    /// Ends the stream. Returns its last frame.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let rest = std::mem::take(&mut self.rest);
        self.write(&rest, &mut bytes);
        bytes
    }

    /// Appends a frame, and the header before the first one.
    fn write(&mut self, samples: &[i16], bytes: &mut Vec<u8>) {
        if !self.has_header {
            self.has_header = true;
            bytes.extend(header(self.sample_rate));
        }
        if !samples.is_empty() {
            bytes.extend(frame(samples, self.frames));
            self.frames += 1;
        }
    }
}

/// Returns the marker and the only metadata block (sections 6 and 8.2).
fn header(sample_rate: u32) -> Vec<u8> {
    let mut bits = Bits::default();
    bits.put(u64::from(u32::from_be_bytes(*b"fLaC")), 32);
    // The last block, of type 0, with 34 bytes.
    bits.put(0x80, 8);
    bits.put(34, 24);
    bits.put(BLOCK as u64, 16);
    bits.put(BLOCK as u64, 16);
    // The sizes of the frames are unknown.
    bits.put(0, 48);
    bits.put(sample_rate.into(), 20);
    // One channel less one, and the bits per sample less one.
    bits.put(0, 3);
    bits.put(u64::from(BITS - 1), 5);
    // The number of samples and their MD5 are unknown.
    bits.put(0, 36);
    bits.put(0, 64);
    bits.put(0, 64);
    bits.bytes
}

/// Returns a frame (section 9) of up to [`BLOCK`] samples.
fn frame(samples: &[i16], number: u32) -> Vec<u8> {
    let is_whole = samples.len() == BLOCK;
    let mut bits = Bits::default();
    // The sync code, and a fixed block size.
    bits.put(0xFFF8, 16);
    bits.put(if is_whole { BLOCK_CODE } else { BLOCK_IN_HEADER }, 4);
    // The sample rate is that of the stream; one channel.
    bits.put(0, 4);
    bits.put(0, 4);
    bits.put(SAMPLE_SIZE_CODE, 3);
    bits.put(0, 1);
    bits.coded_number(number);
    if !is_whole {
        bits.put(samples.len() as u64 - 1, 16);
    }
    bits.put(crc(&bits.bytes, 0x07, 8), 8);
    subframe(samples, &mut bits);
    bits.align();
    bits.put(crc(&bits.bytes, 0x8005, 16), 16);
    bits.bytes
}

/// Writes the samples by the predictor that takes least space (sections 9.2.2 to 9.2.5).
fn subframe(samples: &[i16], bits: &mut Bits) {
    let mut residual: Vec<i32> = samples.iter().map(|sample| i32::from(*sample)).collect();
    let verbatim = samples.len() as u64 * u64::from(BITS);
    let (mut best, mut order) = (None, 0);
    loop {
        let (rice, size) = rice(&residual[order..]);
        let size = size + order as u64 * u64::from(BITS);
        if size < best.as_ref().map_or(verbatim, |(_, _, least, _)| *least) {
            best = Some((order, rice, size, residual.clone()));
        }
        if order == 4 || order + 1 >= samples.len() {
            break;
        }
        // The next predictor leaves the differences between the residuals of this one.
        for at in (order + 1..samples.len()).rev() {
            residual[at] -= residual[at - 1];
        }
        order += 1;
    }
    let warm_up = |samples: &[i16], bits: &mut Bits| {
        samples.iter().for_each(|sample| bits.put(u64::from(sample.cast_unsigned()), BITS));
    };
    // A zero, the type in 6 bits, and no wasted bits.
    let Some((order, rice, _, residual)) = best else {
        bits.put(0b000001, 7);
        bits.put(0, 1);
        return warm_up(samples, bits);
    };
    bits.put(0b001000 + order as u64, 7);
    bits.put(0, 1);
    warm_up(&samples[..order], bits);
    // Rice codes with parameters of 4 bits, in one partition (section 9.2.7).
    bits.put(0, 2);
    bits.put(0, 4);
    bits.put(rice.into(), 4);
    for value in &residual[order..] {
        let folded = fold(*value);
        bits.put_unary(folded >> rice);
        bits.put(u64::from(folded & ((1 << rice) - 1)), rice);
    }
}

/// Returns the Rice parameter that takes least space, and the number of bits that it takes.
fn rice(residual: &[i32]) -> (u32, u64) {
    let size = |rice: u32| {
        residual.iter().map(|value| u64::from(fold(*value) >> rice) + 1 + u64::from(rice)).sum::<u64>()
    };
    let sizes = (0..=MAX_RICE).map(|rice| (rice, size(rice)));
    sizes.min_by_key(|(_, size)| *size).expect("there is a parameter")
}

/// Returns the value as a number without a sign: 0, -1, 1, -2 become 0, 1, 2, 3.
fn fold(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)).cast_unsigned()
}

/// Returns the checksum of `bytes` by a polynomial of `width` bits (section 9.1.8 and 9.3).
fn crc(bytes: &[u8], polynomial: u64, width: u32) -> u64 {
    let (top, mask) = (1 << (width - 1), (1_u64 << width) - 1);
    bytes.iter().fold(0, |crc, byte| {
        let mut crc = crc ^ (u64::from(*byte) << (width - 8));
        for _ in 0..8 {
            crc = if crc & top == 0 { crc << 1 } else { (crc << 1) ^ polynomial } & mask;
        }
        crc
    })
}

/// Writer of bits, the most significant first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits of the next byte, and their number.
    partial: u64,
    filled: u32,
}

impl Bits {
    /// Writes the lowest `count` bits of `value`, which has no others.
    fn put(&mut self, value: u64, count: u32) {
        for shift in (0..count.div_ceil(8)).rev() {
            let width = if shift + 1 == count.div_ceil(8) { count - 8 * shift } else { 8 };
            self.partial = (self.partial << width) | ((value >> (8 * shift)) & 0xFF);
            self.filled += width;
            if self.filled >= 8 {
                self.filled -= 8;
                self.bytes.push((self.partial >> self.filled) as u8);
                self.partial &= (1 << self.filled) - 1;
            }
        }
    }

    /// Writes `zeros` zeros and a one.
    fn put_unary(&mut self, zeros: u32) {
        for _ in 0..zeros / 32 {
            self.put(0, 32);
        }
        self.put(1, zeros % 32 + 1);
    }

    /// Writes zeros up to the next byte.
    fn align(&mut self) {
        if self.filled > 0 {
            self.put(0, 8 - self.filled);
        }
    }

    /// Writes a number as UTF-8 would (section 9.1.5).
    fn coded_number(&mut self, number: u32) {
        if number < 0x80 {
            return self.put(number.into(), 8);
        }
        let significant = 32 - number.leading_zeros();
        // With n continuation bytes of 6 bits, the first byte has 6 - n bits of the number.
        let following = (1..=6).find(|n| significant <= 6 * n + 6 - n).expect("31 bits fit six bytes");
        let first = (0xFF << (7 - following)) & 0xFF;
        self.put(first | u64::from(number >> (6 * following)), 8);
        for index in (0..following).rev() {
            self.put(0x80 | u64::from((number >> (6 * index)) & 0x3F), 8);
        }
    }
}

#[cfg(test)]
mod tests {
    use voxline::audio::sample;
    use voxline::decode::{self, Block, Decoder};
    use voxline::source::Source;

    use super::*;

    /// Encodes samples in pieces of this size.
    fn encoded(samples: &[i16], piece: usize) -> Vec<u8> {
        let mut flac = Flac::new(24_000);
        let mut bytes: Vec<u8> = samples.chunks(piece).flat_map(|piece| flac.push(piece)).collect();
        bytes.extend(flac.finish());
        bytes
    }

    fn decoded(bytes: Vec<u8>) -> Vec<i16> {
        let mut decoder = Decoder::open(Source::bytes("flac", bytes), decode::Options::default()).unwrap();
        assert_eq!(
            (decoder.info().codec, decoder.sample_rate(), decoder.info().channels),
            ("flac", 24_000, 1)
        );
        let (mut block, mut samples) = (Block::new(), Vec::new());
        while decoder.next_block(&mut block).unwrap() {
            samples.extend(sample::quantise(block.samples()));
        }
        samples
    }

    /// Returns noise of up to `amplitude`, by a linear congruential generator.
    fn noise(count: usize, amplitude: i32) -> Vec<i16> {
        let mut state = 1_u32;
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8).cast_signed() % (2 * amplitude + 1) - amplitude) as i16
        };
        (0..count).map(next).collect()
    }

    #[test]
    fn every_sample_comes_back() {
        let sine = |index: usize| (20_000.0 * (index as f64 * 0.05).sin()) as i16;
        let steps = |index: usize| if (index / 7).is_multiple_of(2) { i16::MIN } else { i16::MAX };
        let sounds: [Vec<i16>; 5] = [
            (0..20_000).map(sine).collect(),
            (0..9_000).map(steps).collect(),
            noise(13_000, 32_767),
            noise(4_096, 3),
            vec![0; 10_000],
        ];
        for sound in &sounds {
            for length in [1, 2, 3, 4, 5, 6, 4_095, 4_096, 4_097, sound.len()] {
                let sound = &sound[..length.min(sound.len())];
                for piece in [sound.len(), 1_000] {
                    assert_eq!(decoded(encoded(sound, piece)), sound, "{length} in pieces of {piece}");
                }
            }
        }
        assert!(encoded(&sounds[0], 20_000).len() < 20_000, "a tone takes less than half of its PCM");
        assert!(encoded(&sounds[2], 13_000).len() < 2 * 13_000 + 200, "noise is stored as it is");
    }

    #[test]
    fn frames_are_numbered_beyond_one_byte() {
        let numbers = [
            (0x7F, vec![0x7F]),
            (0x80, vec![0xC2, 0x80]),
            (0x7FF, vec![0xDF, 0xBF]),
            (0x800, vec![0xE0, 0xA0, 0x80]),
        ];
        for (number, expected) in numbers {
            let mut bits = Bits::default();
            bits.coded_number(number);
            assert_eq!(bits.bytes, expected, "{number}");
        }
        // More frames than one byte numbers, and more than two do.
        for first in [0x7E, 0x7FE] {
            let mut flac = Flac { frames: first, ..Flac::new(24_000) };
            let silence = vec![0; BLOCK * 4];
            let bytes = [flac.push(&silence), flac.finish()].concat();
            assert_eq!(decoded(bytes), silence, "from frame {first}");
        }
    }
}
