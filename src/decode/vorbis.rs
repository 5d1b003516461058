//! The codebooks of a Vorbis stream (Vorbis I specification, section 3.2.1). The tables of a codebook may
//! be a hundred thousand times as large as its description, so codebooks are measured before the decoder
//! builds them.

/// Largest number of values that all codebooks of a stream may unpack to. The codebooks of libvorbis have
/// up to half a million; this limit takes 16 MB and some 30 ms.
const VALUES_MAX: u64 = 1 << 22;

/// Longest tables that symphonia accepts; it rejects longer ones.
const ENTRIES_MAX: u32 = 128 * 1024;
const DIMENSIONS_MAX: u32 = 32;

/// Length of the identification header (4.2.2), which comes first, in bytes.
const IDENTIFICATION_BYTES: usize = 30;

/// Fails if the headers of a stream, identification and setup, describe tables that are too large. Broken
/// headers are left to the decoder.
pub(super) fn check(headers: &[u8]) -> Result<(), String> {
    let Some([5, b'v', b'o', b'r', b'b', b'i', b's', setup @ ..]) = headers.get(IDENTIFICATION_BYTES..)
    else {
        return Ok(());
    };
    let values = Bits { bytes: setup, at: 0 }.codebook_values();
    if values > VALUES_MAX {
        return Err(format!("codebooks of {values} values or more, expected at most {VALUES_MAX}"));
    }
    Ok(())
}

/// A bit stream, lowest bit of each byte first (2.1.4).
struct Bits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    /// Returns the next `bits` bits; `None` at the end.
    fn read(&mut self, bits: u32) -> Option<u32> {
        let mut value = 0;
        for bit in 0..bits {
            let byte = *self.bytes.get(self.at / 8)?;
            value |= u32::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Some(value)
    }

    fn skip(&mut self, bits: u64) -> Option<()> {
        self.at =
            self.at.checked_add(usize::try_from(bits).ok()?).filter(|&at| at <= 8 * self.bytes.len())?;
        Some(())
    }

    /// Returns the number of values of the codebooks, up to the end, the first malformed codebook, or the
    /// limit.
    fn codebook_values(&mut self) -> u64 {
        let mut values = 0;
        let Some(more) = self.read(8) else { return 0 };
        for _ in 0..=more {
            if self.codebook(&mut values).is_none() || values > VALUES_MAX {
                break;
            }
        }
        values
    }

    /// Skips a codebook, and adds its values before they are read, since the decoder allocates room for
    /// them first.
    fn codebook(&mut self, values: &mut u64) -> Option<()> {
        let (sync, dimensions, entries) = (self.read(24)?, self.read(16)?, self.read(24)?);
        if sync != 0x564342 || !(1..=DIMENSIONS_MAX).contains(&dimensions) || entries > ENTRIES_MAX {
            return None;
        }
        *values += u64::from(entries);
        let is_ordered = self.read(1)? == 1;
        if is_ordered {
            self.read(5)?;
            let mut left = entries;
            while left > 0 {
                left = left.checked_sub(self.read(32 - left.leading_zeros())?)?;
            }
        } else if self.read(1)? == 1 {
            for _ in 0..entries {
                if self.read(1)? == 1 {
                    self.read(5)?;
                }
            }
        } else {
            self.skip(5 * u64::from(entries))?;
        }
        let lookup = self.read(4)?;
        if lookup == 0 {
            return Some(());
        }
        *values += u64::from(entries) * u64::from(dimensions);
        self.skip(64)?;
        let bits = self.read(4)? + 1;
        self.read(1)?;
        let multiplicands = match lookup {
            1 => root(entries, dimensions),
            2 => u64::from(entries) * u64::from(dimensions),
            _ => return None,
        };
        self.skip(multiplicands * u64::from(bits))
    }
}

/// Returns the largest number whose power of `dimensions` is at most `entries` (9.2.3).
fn root(entries: u32, dimensions: u32) -> u64 {
    // invariant: the root is at most the number of entries (reached with one dimension), which is small
    let fits = |root: &u32| root.checked_pow(dimensions).is_some_and(|power| power <= entries);
    let mut root = f64::from(entries).powf(1.0 / f64::from(dimensions)) as u32;
    while !fits(&root) {
        root -= 1;
    }
    while fits(&(root + 1)) {
        root += 1;
    }
    root.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packs the lowest bits of numbers one after another.
    fn packed(fields: &[(u32, u32)]) -> Vec<u8> {
        let bits = fields.iter().flat_map(|&(value, width)| (0..width).map(move |bit| value >> bit & 1));
        let mut bytes = Vec::new();
        for (at, bit) in bits.enumerate() {
            if at % 8 == 0 {
                bytes.push(0);
            }
            *bytes.last_mut().unwrap() |= (bit as u8) << (at % 8);
        }
        bytes
    }

    fn headers(codebooks: u32, codebook: &[(u32, u32)]) -> Vec<u8> {
        let mut fields = vec![(codebooks - 1, 8)];
        (0..codebooks).for_each(|_| fields.extend(codebook));
        [&[0; IDENTIFICATION_BYTES][..], b"\x05vorbis", &packed(&fields)].concat()
    }

    #[test]
    fn codebooks_are_measured_before_they_are_made() {
        // 131,072 entries of 32 dimensions in 23 bytes: ordered, of one length.
        let large = [
            (0x564342, 24),
            (32, 16),
            (ENTRIES_MAX, 24),
            (1, 1),
            (16, 5),
            (ENTRIES_MAX, 18),
            (1, 4),
            (0, 32),
            (0, 32),
            (0, 4),
            (0, 1),
            (0, 1),
        ];
        assert!(check(&headers(1, &large)).is_err());
        // 625 entries of 4 dimensions, five values each.
        let small = [
            (0x564342, 24),
            (4, 16),
            (625, 24),
            (1, 1),
            (9, 5),
            (625, 10),
            (1, 4),
            (0, 32),
            (0, 32),
            (3, 4),
            (0, 1),
            (0, 20),
        ];
        let all = headers(200, &small);
        assert_eq!(check(&all), Ok(()));
        let mut bits = Bits { bytes: &all[IDENTIFICATION_BYTES + 7..], at: 0 };
        assert_eq!(bits.codebook_values(), 200 * 625 * 5);
    }

    #[test]
    fn a_root_is_whole() {
        for (entries, dimensions, expected) in
            [(0, 1, 0), (1, 32, 1), (361, 2, 19), (360, 2, 18), (560, 3, 8), (ENTRIES_MAX, 1, 131_072)]
        {
            assert_eq!(root(entries, dimensions), expected, "{entries} entries, {dimensions} dimensions");
        }
    }
}
