//! The CTranslate2 model file, `model.bin`: a list of named tensors.
//!
//! All numbers are little-endian. A file is a u32 binary version, the name of the specification, its u32
//! revision, a u32 count of tensors and the tensors; then a u32 count of aliases, each two names. A name
//! is a u16 length, which counts a terminating NUL, and the bytes. A tensor is its name, a u8 rank, a u32
//! per dimension, a u8 element type, a u32 length in bytes, and the elements in row-major order.

use std::collections::HashMap;
use std::ops::Range;

/// Layout version that this module reads; CTranslate2 has written it since 2.0.
const BINARY_VERSION: u32 = 6;

/// A model file, split into its tensors. The elements stay in the file's format until they are asked for.
pub(super) struct ModelFile {
    bytes: Vec<u8>,
    tensors: HashMap<String, Entry>,
}

struct Entry {
    shape: Vec<usize>,
    element: Element,
    data: Range<usize>,
}

/// Storage type of the elements (CTranslate2's `DataType`).
#[derive(Clone, Copy, PartialEq)]
enum Element {
    F32,
    F16,
    I8,
    /// Other integers, which hold settings; only their size is known.
    Other {
        id: u8,
        bytes: usize,
    },
}

impl Element {
    fn from_id(id: u8) -> Option<Element> {
        Some(match id {
            0 => Element::F32,
            4 => Element::F16,
            1 => Element::I8,
            2 | 5 => Element::Other { id, bytes: 2 },
            3 => Element::Other { id, bytes: 4 },
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Element::F32 => 4,
            Element::F16 => 2,
            Element::I8 => 1,
            Element::Other { bytes, .. } => bytes,
        }
    }
}

impl ModelFile {
    /// Splits a file into its tensors.
    ///
    /// # Errors
    /// Returns a description of the fault of the file. No allocation relies on a length that the file
    /// does not confirm.
    pub(super) fn parse(bytes: Vec<u8>) -> Result<ModelFile, String> {
        let mut reader = Reader { bytes: &bytes, at: 0 };
        let version = reader.u32()?;
        if version != BINARY_VERSION {
            return Err(format!("binary version {version}, expected {BINARY_VERSION}"));
        }
        let specification = reader.name()?;
        if specification != "WhisperSpec" {
            return Err(format!("holds a '{specification}', expected a 'WhisperSpec'"));
        }
        let _revision = reader.u32()?;

        let mut tensors = HashMap::new();
        for _ in 0..reader.u32()? {
            let name = reader.name()?;
            let entry = reader.entry().map_err(|reason| format!("{name}: {reason}"))?;
            if tensors.insert(name.clone(), entry).is_some() {
                return Err(format!("{name} occurs twice"));
            }
        }
        for _ in 0..reader.u32()? {
            let (alias, original) = (reader.name()?, reader.name()?);
            if !tensors.contains_key(&original) {
                return Err(format!("{alias} stands for {original}, which is missing"));
            }
        }
        let left = reader.bytes.len() - reader.at;
        if left > 0 {
            return Err(format!("{left} bytes follow the last entry"));
        }
        Ok(ModelFile { bytes, tensors })
    }

    /// Returns the shape of a tensor, if the file holds it.
    pub(super) fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Returns the elements of a tensor of this shape.
    ///
    /// # Errors
    /// Returns a description if the tensor is missing, has another shape, or is not stored as f16, f32 or
    /// int8 with scales.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Vec<f32>, String> {
        let entry = self.tensors.get(name).ok_or_else(|| format!("{name} is missing"))?;
        if entry.shape != shape {
            return Err(format!("{name} has shape {:?}, expected {shape:?}", entry.shape));
        }
        let data = &self.bytes[entry.data.clone()];
        match entry.element {
            Element::F32 => Ok(data.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word)).collect()),
            Element::F16 => {
                Ok(data.as_chunks().0.iter().map(|half| widen(u16::from_le_bytes(*half))).collect())
            }
            // Quantised by CTranslate2: each row was multiplied by its scale.
            Element::I8 if shape.len() > 1 => {
                let scales = self.tensor(&format!("{name}_scale"), &shape[..1])?;
                let row = data.len() / shape[0].max(1);
                let rows = data.chunks_exact(row.max(1)).zip(scales);
                let values = rows.flat_map(|(row, scale)| {
                    row.iter().map(move |level| f32::from(level.cast_signed()) / scale)
                });
                Ok(values.collect())
            }
            Element::I8 => Err(format!("{name} has element type 1 and no rows")),
            Element::Other { id, .. } => {
                Err(format!("{name} has element type {id}, expected float32 (0), float16 (4) or int8 (1)"))
            }
        }
    }
}

/// Converts an IEEE 754 half to a float.
fn widen(half: u16) -> f32 {
    let sign = u32::from(half & 0x8000) << 16;
    let magnitude = u32::from(half & 0x7fff);
    // The exponent and fraction of the half, moved to their place in a float, make the number 2^112 times
    // too small; the product corrects that, for subnormals too.
    let scaled = f32::from_bits(magnitude << 13) * f32::from_bits(0x7780_0000);
    let bits = if magnitude >= 0x7c00 { 0x7f80_0000 | (magnitude & 0x3ff) << 13 } else { scaled.to_bits() };
    f32::from_bits(sign | bits)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..count) else {
            return Err(format!("cut short: {count} bytes expected at {}, {} left", self.at, rest.len()));
        };
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, String> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn size(&mut self) -> Result<usize, String> {
        usize::try_from(self.u32()?).map_err(|_| "a size exceeds this machine's memory".to_owned())
    }

    fn name(&mut self) -> Result<String, String> {
        let at = self.at;
        let length = u16::from_le_bytes(self.array()?);
        match self.take(usize::from(length))?.split_last() {
            Some((0, name)) => {
                String::from_utf8(name.to_vec()).map_err(|_| format!("the name at {at} isn't text"))
            }
            _ => Err(format!("the name at {at} doesn't end in NUL")),
        }
    }

    fn entry(&mut self) -> Result<Entry, String> {
        let rank = self.u8()?;
        let shape = (0..rank).map(|_| self.size()).collect::<Result<Vec<usize>, String>>()?;
        let id = self.u8()?;
        let element = Element::from_id(id).ok_or_else(|| format!("unknown element type {id}"))?;
        let length = self.size()?;
        let expected =
            shape.iter().try_fold(element.bytes(), |bytes, dimension| bytes.checked_mul(*dimension));
        if expected != Some(length) {
            return Err(format!("{length} bytes don't fill the shape {shape:?}"));
        }
        let start = self.at;
        self.take(length)?;
        Ok(Entry { shape, element, data: start..self.at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(out: &mut Vec<u8>, text: &str) {
        out.extend((u16::try_from(text.len()).unwrap() + 1).to_le_bytes());
        out.extend(text.as_bytes());
        out.push(0);
    }

    /// Returns the head of a file of `tensors` tensors.
    fn head(tensors: u32) -> Vec<u8> {
        let mut out = 6u32.to_le_bytes().to_vec();
        name(&mut out, "WhisperSpec");
        out.extend([3, tensors].map(u32::to_le_bytes).concat());
        out
    }

    fn tensor(out: &mut Vec<u8>, title: &str, shape: &[u32], element: u8, data: &[u8]) {
        name(out, title);
        out.push(u8::try_from(shape.len()).unwrap());
        out.extend(shape.iter().flat_map(|size| size.to_le_bytes()));
        out.push(element);
        out.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        out.extend(data);
    }

    /// Returns a file with a 2 x 3 tensor of halves, a scalar setting and an alias.
    fn file() -> Vec<u8> {
        let mut out = head(2);
        let halves = [0x3c00u16, 0xc000, 0x3555, 0x0001, 0x7bff, 0x8000];
        tensor(&mut out, "weight", &[2, 3], 4, &halves.map(u16::to_le_bytes).concat());
        tensor(&mut out, "setting", &[], 1, &[7]);
        out.extend(1u32.to_le_bytes());
        name(&mut out, "other");
        name(&mut out, "weight");
        out
    }

    /// CTranslate2 stores `round(weight * scale)`, and the scale of each row beside it.
    #[test]
    fn whole_numbers_become_floats_by_the_scale_of_their_row() {
        let mut file = head(2);
        let levels = [127i8, -127, 0, 10, -5, 1];
        tensor(&mut file, "weight", &[2, 3], 1, &levels.map(i8::to_le_bytes).concat());
        tensor(&mut file, "weight_scale", &[2], 0, &[254.0f32, 2.0].map(f32::to_le_bytes).concat());
        file.extend(0u32.to_le_bytes());
        let model = ModelFile::parse(file).unwrap();
        assert_eq!(model.tensor("weight", &[2, 3]).unwrap(), [0.5, -0.5, 0.0, 5.0, -2.5, 0.5]);
    }

    #[test]
    fn halves_become_floats() {
        let model = ModelFile::parse(file()).unwrap();
        assert_eq!(model.shape("weight"), Some(&[2, 3][..]));
        let values = model.tensor("weight", &[2, 3]).unwrap();
        assert_eq!(values, [1.0, -2.0, 0.333_251_95, 5.960_464_5e-8, 65_504.0, -0.0]);
        assert_eq!(widen(0x7c00), f32::INFINITY);
        assert!(widen(0x7e00).is_nan());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let model = ModelFile::parse(file()).unwrap();
        assert_eq!(model.tensor("bias", &[3]).unwrap_err(), "bias is missing");
        assert_eq!(model.tensor("weight", &[3, 2]).unwrap_err(), "weight has shape [2, 3], expected [3, 2]");
        assert!(model.tensor("setting", &[]).unwrap_err().contains("element type 1"));
    }

    #[test]
    fn every_cut_is_an_error() {
        let whole = file();
        for length in 0..whole.len() {
            assert!(
                ModelFile::parse(whole[..length].to_vec()).is_err(),
                "{length} bytes were taken as a model"
            );
        }
        let mut longer = whole;
        longer.push(0);
        assert!(ModelFile::parse(longer).is_err());
    }

    #[test]
    fn no_flipped_bit_panics() {
        let whole = file();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(model) = ModelFile::parse(damaged) {
                let _ = model.tensor("weight", &[2, 3]);
            }
        }
    }
}
