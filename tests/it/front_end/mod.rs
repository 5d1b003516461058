//! The front end, from a file to chunks.

mod channels;
mod chunk;
mod cost;
mod decode;
mod hostile;
mod memory;
mod pcm;
mod pipeline;
mod reference;
mod resample;
mod specimens;
mod vad;
mod wav;

use voxline::decode::{Block, DecodeError, Decoder, Options, StreamInfo};
use voxline::source::Source;
use voxline_fixtures::samples::sample;

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
