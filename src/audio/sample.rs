//! Conversion of samples between 32-bit floats, used in the front end, and 16-bit integers, used in
//! sessions.
//!
//! Full scale is 32768 in both directions, so that an integer sample survives the conversion to a float
//! and back.

/// Converts a 16-bit sample to a float in -1.0..1.0.
#[inline]
#[must_use]
pub const fn to_f32(sample: i16) -> f32 {
    sample as f32 * (1.0 / 32_768.0)
}

/// Converts a float to a 16-bit sample: rounds to the nearest (halves to even) and saturates at full
/// scale; NaN becomes 0.
#[inline]
#[must_use]
pub fn to_s16(sample: f32) -> i16 {
    // 1.5 * 2^23: a float of this size has no fractional bits, so the addition rounds, and leaves the
    // integer in the low bits of the mantissa. Unlike `f32::round` this is plain arithmetic on every
    // target, and vectorises.
    const ROUND: f32 = 12_582_912.0;
    let scaled = if sample.is_nan() { 0.0 } else { sample * 32_768.0 };
    let rounded = scaled.clamp(-32_768.0, 32_767.0) + ROUND;
    (rounded.to_bits() as u16).cast_signed()
}

/// Converts `samples` to 16-bit ones.
#[must_use]
pub fn quantise(samples: &[f32]) -> Vec<i16> {
    samples.iter().map(|&sample| to_s16(sample)).collect()
}

/// Appends `samples` to `out` as 16-bit little-endian PCM.
pub fn write_s16le(samples: &[f32], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + samples.len() * 2, 0);
    to_s16le(samples, &mut out[start..]);
}

/// Fills `pcm`, two bytes per sample, with `samples` as 16-bit little-endian PCM. Excess samples or bytes
/// are left untouched.
pub fn to_s16le(samples: &[f32], pcm: &mut [u8]) {
    for (bytes, &sample) in pcm.as_chunks_mut::<2>().0.iter_mut().zip(samples) {
        *bytes = to_s16(sample).to_le_bytes();
    }
}

/// Converts 16-bit little-endian PCM to floats; an odd last byte is ignored.
pub fn read_s16le(pcm: &[u8]) -> impl Iterator<Item = f32> + '_ {
    pcm.as_chunks::<2>().0.iter().map(|&bytes| to_f32(i16::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_integer_sample_survives_the_way_through_a_float() {
        for sample in i16::MIN..=i16::MAX {
            assert_eq!(to_s16(to_f32(sample)), sample);
        }
    }

    #[test]
    fn rounds_to_the_nearest_and_saturates() {
        let at = |steps: f32| to_s16(steps / 32_768.0);
        assert_eq!([at(0.4), at(0.6), at(-0.4), at(-0.6), at(1.5), at(2.5)], [0, 1, 0, -1, 2, 2]);
        assert_eq!([at(32_766.6), at(32_767.4), at(-32_768.4)], [32_767, 32_767, -32_768]);
        assert_eq!(
            [to_s16(1.0), to_s16(-1.0), to_s16(9e9), to_s16(-9e9)],
            [32_767, -32_768, 32_767, -32_768]
        );
        assert_eq!([to_s16(f32::INFINITY), to_s16(f32::NEG_INFINITY)], [32_767, -32_768]);
        assert_eq!([to_s16(f32::NAN), to_s16(-f32::NAN), to_s16(1e-40)], [0, 0, 0]);
    }

    #[test]
    fn pcm_is_little_endian_and_appended() {
        let mut pcm = vec![7];
        write_s16le(&[to_f32(0x0102), to_f32(-2)], &mut pcm);
        assert_eq!(pcm, [7, 0x02, 0x01, 0xFE, 0xFF]);
        assert!(read_s16le(&pcm[1..]).eq([to_f32(0x0102), to_f32(-2)]));
    }
}
