//! The parts of an ONNX file that its runtime neither exposes nor lets the caller set.
//!
//! rten draws new noise in each run and has no option for a seed, but it heeds the attribute `seed` of
//! the operators that draw noise (ONNX, RandomNormalLike), which no Piper voice sets. rten names values
//! but not operators, and only the name of the vocoder's first operator shows where the vocoder begins.
//! Field numbers are those of `onnx.proto`.

use std::ops::Range;

/// Field numbers of `ModelProto.graph` and `GraphProto.node`.
const GRAPH: u64 = 7;
const NODE: u64 = 1;
/// Field numbers of `NodeProto`.
const INPUT: u64 = 1;
const NAME: u64 = 3;
const OPERATOR: u64 = 4;
const ATTRIBUTE: u64 = 5;

/// Returns `model` with a seed for each operator that draws random numbers: 1 for the first, 2 for the
/// second, and so on.
pub(super) fn seeded(model: &[u8]) -> Result<Vec<u8>, String> {
    let mut seeded = Vec::with_capacity(model.len() + 256);
    for field in Fields::of(model) {
        let field = field?;
        if field.number == GRAPH {
            write_graph(&mut seeded, field.held)?;
        } else {
            seeded.extend_from_slice(field.whole);
        }
    }
    Ok(seeded)
}

/// Writes the graph with its seeds. A network is tens of megabytes, so the graph is scanned first, and
/// copied once.
fn write_graph(seeded: &mut Vec<u8>, graph: &[u8]) -> Result<(), String> {
    let (mut parts, mut from, mut at, mut seed) = (Vec::new(), 0, 0, 0.0);
    for part in Fields::of(graph) {
        let part = part?;
        let end = at + part.whole.len();
        if part.number == NODE && Node::read(part.held)?.operator.starts_with(b"Random") {
            seed += 1.0;
            let node = [part.held, &message(ATTRIBUTE, &seed_attribute(seed))].concat();
            parts.push((from..at, message(NODE, &node)));
            from = end;
        }
        at = end;
    }
    parts.push((from..at, Vec::new()));
    let length: usize = parts.iter().map(|(kept, node)| kept.len() + node.len()).sum();
    write_header(seeded, GRAPH, length);
    for (kept, node) in parts {
        seeded.extend_from_slice(&graph[kept]);
        seeded.extend(node);
    }
    Ok(())
}

/// Returns the first input of the operator called `name`.
pub(super) fn first_input(model: &[u8], name: &str) -> Result<Option<String>, String> {
    for field in Fields::of(model) {
        let field = field?;
        for part in Fields::of(if field.number == GRAPH { field.held } else { &[] }) {
            let part = part?;
            if part.number == NODE {
                let node = Node::read(part.held)?;
                if node.name == name.as_bytes() {
                    return Ok(String::from_utf8(node.input.to_vec()).ok());
                }
            }
        }
    }
    Ok(None)
}

/// The fields of a `NodeProto` that are needed.
#[derive(Default)]
struct Node<'a> {
    /// The first input.
    input: &'a [u8],
    name: &'a [u8],
    operator: &'a [u8],
}

impl Node<'_> {
    fn read(bytes: &[u8]) -> Result<Node<'_>, String> {
        let mut node = Node::default();
        for field in Fields::of(bytes) {
            let field = field?;
            match field.number {
                INPUT if node.input.is_empty() => node.input = field.held,
                NAME => node.name = field.held,
                OPERATOR => node.operator = field.held,
                _ => {}
            }
        }
        Ok(node)
    }
}

/// Returns `AttributeProto { name: "seed", f: seed, type: FLOAT }`.
fn seed_attribute(seed: f32) -> Vec<u8> {
    [b"\x0a\x04seed\x15".as_slice(), &seed.to_le_bytes(), b"\xa0\x01\x01"].concat()
}

/// Returns a length-delimited field.
fn message(number: u64, held: &[u8]) -> Vec<u8> {
    let mut field = Vec::with_capacity(held.len() + 12);
    write_header(&mut field, number, held.len());
    field.extend_from_slice(held);
    field
}

/// Writes the header of a length-delimited field of `length` bytes.
fn write_header(bytes: &mut Vec<u8>, number: u64, length: usize) {
    write_varint(bytes, number << 3 | 2);
    write_varint(bytes, length as u64);
}

fn write_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// A field of a protocol buffers message.
struct Field<'a> {
    number: u64,
    /// The field with its number and length.
    whole: &'a [u8],
    /// Content of a length-delimited field; empty for other types.
    held: &'a [u8],
}

/// Iterator over the fields of a message, in order. If the message is cut short, the last item is an
/// error.
struct Fields<'a> {
    rest: &'a [u8],
}

impl Fields<'_> {
    fn of(message: &[u8]) -> Fields<'_> {
        Fields { rest: message }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((number, held, length)) = measure(self.rest) else {
            self.rest = &[];
            return Some(Err("is no ONNX file, or is cut short".to_owned()));
        };
        let (whole, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(Ok(Field { number, whole, held: &whole[held] }))
    }
}

/// Returns the number of the first field in `bytes`, the range of its content, and its total length.
fn measure(bytes: &[u8]) -> Option<(u64, Range<usize>, usize)> {
    let (key, at) = read_varint(bytes, 0)?;
    let (held, end) = match key & 7 {
        0 => (0..0, read_varint(bytes, at)?.1),
        1 => (0..0, at + 8),
        2 => {
            let (length, at) = read_varint(bytes, at)?;
            let end = at.checked_add(usize::try_from(length).ok()?)?;
            (at..end, end)
        }
        5 => (0..0, at + 4),
        _ => return None,
    };
    (end <= bytes.len()).then_some((key >> 3, held, end))
}

fn read_varint(bytes: &[u8], from: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    // Seven bits per byte: ten bytes hold 64 bits.
    for (index, &byte) in bytes.get(from..)?.iter().take(10).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Some((value, from + index + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, operator: &str) -> Vec<u8> {
        [
            message(INPUT, b"x"),
            message(INPUT, b"y"),
            message(NAME, name.as_bytes()),
            message(OPERATOR, operator.as_bytes()),
        ]
        .concat()
    }

    fn model() -> Vec<u8> {
        let nodes = [node("/a", "RandomNormalLike"), node("/b", "Conv"), node("/c", "RandomUniform")];
        let graph: Vec<u8> = nodes.iter().flat_map(|node| message(NODE, node)).collect();
        // A field of each type around the nodes, and a graph longer than 127 bytes.
        let padding = message(9, &[7; 200]);
        [
            b"\x08\x96\x01".as_slice(),
            &message(GRAPH, &[graph, padding].concat()),
            b"\x4d1234",
            b"\x5112345678",
        ]
        .concat()
    }

    #[test]
    fn operators_that_draw_numbers_get_a_seed_and_nothing_else_changes() {
        let seeded = seeded(&model()).unwrap();
        for seed in [1.0, 2.0] {
            let attribute = message(ATTRIBUTE, &seed_attribute(seed));
            assert_eq!(seeded.windows(attribute.len()).filter(|part| *part == attribute).count(), 1);
        }
        assert_eq!(seeded.len(), model().len() + 2 * (2 + 14));
        assert_eq!(super::seeded(&message(9, b"no graph")).unwrap(), message(9, b"no graph"));
    }

    #[test]
    fn an_operator_is_found_by_its_name() {
        assert_eq!(first_input(&model(), "/b").unwrap().as_deref(), Some("x"));
        assert_eq!(first_input(&model(), "/d").unwrap(), None);
    }

    #[test]
    fn every_cut_is_an_error_or_shorter_never_a_panic() {
        let whole = model();
        for length in 0..whole.len() {
            if let Ok(seeded) = seeded(&whole[..length]) {
                assert!(seeded.len() < whole.len() + 2 * (2 + 14));
            }
        }
        assert!(seeded(b"not a network").is_err());
    }
}
