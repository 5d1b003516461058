//! Conversion of the service's bytes into samples.

use bytes::{Buf, Bytes};

/// Converter of 16-bit big-endian samples into little-endian ones, which accepts any split of the bytes
/// by the network.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// Number of bytes still to be skipped.
    skip: u64,
    /// First byte of a sample whose second byte has not arrived.
    half: Option<u8>,
}

impl Samples {
    /// Creates a converter that skips the first `skip` bytes, which are whole samples.
    pub(super) fn after(skip: u64) -> Samples {
        Samples { skip, half: None }
    }

    /// Converts the samples that `bytes` complete.
    pub(super) fn push(&mut self, mut bytes: Bytes) -> Bytes {
        let skipped = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
        bytes.advance(skipped);
        self.skip -= skipped as u64;
        let mut samples = Vec::with_capacity(bytes.len() + 1);
        if let Some(high) = self.half
            && bytes.has_remaining()
        {
            samples.extend([bytes.get_u8(), high]);
            self.half = None;
        }
        let (pairs, rest) = bytes.as_chunks();
        samples.extend(pairs.iter().flat_map(|&[high, low]| [low, high]));
        if let [high] = rest {
            self.half = Some(*high);
        }
        samples.into()
    }

    /// Returns whether a sample is incomplete, which means that more bytes were to come.
    pub(super) fn is_cut(&self) -> bool {
        self.half.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_split_of_the_bytes_gives_the_same_samples() {
        let bytes: Vec<u8> = (0..=40).collect();
        let swapped = |skip: usize| -> Vec<u8> {
            bytes[skip..].as_chunks().0.iter().flat_map(|&[high, low]| [low, high]).collect()
        };
        for skip in [0, 2, 10, 40] {
            for first in 0..bytes.len() {
                for second in first..bytes.len() {
                    let mut samples = Samples::after(skip as u64);
                    let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    let got = pieces.map(|piece| samples.push(Bytes::copy_from_slice(piece)));
                    assert_eq!(got.concat(), swapped(skip), "{skip}, {first}, {second}");
                    assert!(samples.is_cut());
                }
            }
        }
    }

    #[test]
    fn what_ends_before_it_was_reached_is_nothing() {
        let mut samples = Samples::after(100);
        assert!(samples.push(Bytes::from_static(&[1; 9])).is_empty() && !samples.is_cut());
    }
}
