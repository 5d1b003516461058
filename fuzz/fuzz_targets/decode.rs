//! Any bytes, decoded in any way: no panic, no hang, no more frames than allowed.
//!
//! The last byte of an input is how it is decoded, so that a sample is a good input as it stands.
#![no_main]

use std::io::Cursor;
use std::panic;
use std::sync::Once;

use libfuzzer_sys::fuzz_target;
use voxline::decode::{Block, Channels, Decoder, Limits, Options, panic_is_caught};
use voxline::source::Source;

/// A tenth of a second and more, of which each input is cheap.
const FRAMES_MAX: u64 = 8_000;

fuzz_target!(|input: &[u8]| {
    static HOOK: Once = Once::new();
    // libFuzzer's hook aborts. Decoders' panics become errors, so they are no finding.
    HOOK.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !panic_is_caught() {
                hook(info);
            }
        }));
    });
    let Some((&how, bytes)) = input.split_last() else { return };
    let options = Options {
        channels: [Channels::Mix, Channels::Split, Channels::Only(1), Channels::Only(2)]
            [usize::from(how & 3)],
        sample_rate: (how & 4 != 0).then_some(16_000),
        limits: Limits { frames: Some(FRAMES_MAX), time: None },
    };
    let bytes = bytes.to_vec();
    let source =
        if how & 8 != 0 { Source::stream("fuzz", Cursor::new(bytes)) } else { Source::bytes("fuzz", bytes) };
    let source = match how >> 4 {
        0 => source.headerless("s24be:48000:3".parse().expect("a format")),
        _ => source,
    };
    let Ok(mut decoder) = Decoder::open(source, options) else { return };
    let (mut block, mut frames) = (Block::new(), 0);
    while let Ok(true) = decoder.next_block(&mut block) {
        assert!(block.frames() > 0 && block.planes().len() == decoder.planes());
        assert!(block.planes().iter().all(|plane| plane.len() == block.frames()));
        frames += block.frames() as u64;
        assert!(frames <= FRAMES_MAX);
    }
    assert!(matches!(decoder.next_block(&mut block), Ok(false)), "something follows the end");
});
