//! Headerless audio of clients: bytes in messages of any size to PCM by channel.

use bytes::Bytes;

use voxline::audio::{g711, sample};

/// Encoding of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PcmEncoding {
    /// 16-bit signed, little-endian.
    S16Le,
    /// 32-bit float, little-endian.
    F32Le,
    /// G.711 mu-law.
    MuLaw,
    /// G.711 A-law.
    ALaw,
}

impl PcmEncoding {
    /// Returns the number of bytes of a sample.
    fn bytes(self) -> usize {
        match self {
            PcmEncoding::MuLaw | PcmEncoding::ALaw => 1,
            PcmEncoding::S16Le => 2,
            PcmEncoding::F32Le => 4,
        }
    }
}

/// A converter of headerless audio to 16-bit little-endian PCM: a plane for each channel, or one for their
/// mean.
pub(crate) struct PcmInput {
    encoding: PcmEncoding,
    channels: usize,
    /// True if the channels are mixed.
    is_mixed: bool,
    /// Start of a frame whose end has not come.
    rest: Vec<u8>,
}

impl PcmInput {
    /// Creates a converter.
    ///
    /// # Panics
    /// Panics if there are no channels.
    pub(crate) fn new(encoding: PcmEncoding, channels: usize, is_mixed: bool) -> PcmInput {
        assert!(channels > 0, "audio has channels");
        PcmInput { encoding, channels, is_mixed, rest: Vec::new() }
    }

    /// Returns the number of planes.
    pub(crate) fn planes(&self) -> usize {
        if self.is_mixed { 1 } else { self.channels }
    }

    /// Takes the next bytes. Returns the PCM that they complete, by plane.
    pub(crate) fn push(&mut self, bytes: Bytes) -> Vec<Bytes> {
        let frame = self.encoding.bytes() * self.channels;
        let bytes = if self.rest.is_empty() {
            bytes
        } else {
            let mut joined = std::mem::take(&mut self.rest);
            joined.extend_from_slice(&bytes);
            Bytes::from(joined)
        };
        let whole = bytes.len() - bytes.len() % frame;
        self.rest.extend_from_slice(&bytes[whole..]);
        let whole = bytes.slice(..whole);
        if self.encoding == PcmEncoding::S16Le && self.channels == 1 {
            return vec![whole];
        }
        match self.encoding {
            PcmEncoding::MuLaw => self.spread(&whole, |[code]| g711::mu_law(code)),
            PcmEncoding::ALaw => self.spread(&whole, |[code]| g711::a_law(code)),
            PcmEncoding::F32Le => self.spread(&whole, |bytes| sample::to_s16(f32::from_le_bytes(bytes))),
            PcmEncoding::S16Le => self.spread(&whole, i16::from_le_bytes),
        }
    }

    /// Converts whole frames.
    fn spread<const N: usize>(&self, bytes: &[u8], value: impl Fn([u8; N]) -> i16) -> Vec<Bytes> {
        let samples = bytes.as_chunks::<N>().0;
        if self.is_mixed {
            let mean = |frame: &[[u8; N]]| {
                let sum: i64 = frame.iter().map(|&sample| i64::from(value(sample))).sum();
                (sum / frame.len().cast_signed() as i64) as i16
            };
            return vec![
                samples.chunks_exact(self.channels).flat_map(|frame| mean(frame).to_le_bytes()).collect(),
            ];
        }
        let plane = |channel| {
            let one = samples.iter().skip(channel).step_by(self.channels);
            one.flat_map(|&sample| value(sample).to_le_bytes()).collect()
        };
        (0..self.channels).map(plane).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pushes `bytes` in pieces of this length. Returns the samples of each plane.
    fn pushed(mut input: PcmInput, bytes: &[u8], piece: usize) -> Vec<Vec<i16>> {
        let mut planes = vec![Vec::new(); input.planes()];
        for piece in bytes.chunks(piece) {
            for (plane, pcm) in planes.iter_mut().zip(input.push(Bytes::copy_from_slice(piece))) {
                plane.extend(pcm.as_chunks().0.iter().map(|&sample| i16::from_le_bytes(sample)));
            }
        }
        planes
    }

    #[test]
    fn any_split_yields_the_same_samples() {
        let samples: Vec<i16> = (0..600).map(|number: i16| number * 37 - 9_000).collect();
        let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
        let (left, right): (Vec<i16>, Vec<i16>) =
            samples.as_chunks::<2>().0.iter().map(|[left, right]| (*left, *right)).unzip();
        let mixed: Vec<i16> =
            left.iter().zip(&right).map(|(&l, &r)| ((i32::from(l) + i32::from(r)) / 2) as i16).collect();
        for piece in [1, 2, 3, 5, 7, 64, 1_200] {
            let input = |channels, is_mixed| PcmInput::new(PcmEncoding::S16Le, channels, is_mixed);
            assert_eq!(pushed(input(1, false), &bytes, piece), std::slice::from_ref(&samples), "{piece}");
            assert_eq!(pushed(input(2, false), &bytes, piece), [left.clone(), right.clone()], "{piece}");
            assert_eq!(pushed(input(2, true), &bytes, piece), std::slice::from_ref(&mixed), "{piece}");
        }
    }

    #[test]
    fn every_encoding_is_on_the_scale_of_16_bits() {
        let one = |encoding, bytes: &[u8]| pushed(PcmInput::new(encoding, 1, false), bytes, 3)[0].clone();
        assert_eq!(one(PcmEncoding::MuLaw, &[0xFF, 0x00, 0x80]), [0, -32_124, 32_124]);
        assert_eq!(one(PcmEncoding::ALaw, &[0xD5, 0xAA, 0x2A]), [8, 32_256, -32_256]);
        let floats: Vec<u8> = [0.0_f32, 0.5, -2.0, f32::NAN].iter().flat_map(|f| f.to_le_bytes()).collect();
        assert_eq!(one(PcmEncoding::F32Le, &floats), [0, 16_384, -32_768, 0]);
    }
}
