//! Selection of channels, in every reader.

use voxline::decode::{Channels, Options};
use voxline::source::Source;

use super::{Decoded, decode_as, decode_sample};
use voxline_fixtures::formats::wav;
use voxline_fixtures::samples::sample;

fn heard(source: Source, channels: Channels) -> Decoded {
    let decoded = decode_as(source, Options { channels, ..Options::default() }).unwrap();
    assert!(decoded.error.is_none(), "{:?}", decoded.error);
    decoded
}

/// Returns three channels of two frames.
fn three() -> Source {
    Source::bytes(
        "three.wav",
        wav(1, 3, 8_000, 16, &[300_i16, 600, -900, 3, 4, 5].map(i16::to_le_bytes).concat()),
    )
}

fn steps(plane: &[f32]) -> Vec<f32> {
    plane.iter().map(|x| (x * 32_768.0).round()).collect()
}

#[test]
fn pcm_channels_are_chosen_or_split() {
    assert_eq!(steps(&heard(three(), Channels::Mix).mono), [0.0, 4.0]);
    assert_eq!(steps(&heard(three(), Channels::Only(2)).mono), [600.0, 4.0]);
    let split = heard(three(), Channels::Split);
    assert_eq!(steps(&split.mono), [300.0, 3.0]);
    assert_eq!(
        split.others.iter().map(|plane| steps(plane)).collect::<Vec<_>>(),
        [[600.0, 4.0], [-900.0, 5.0]]
    );
}

/// The right channel of the samples is the left channel, quieter and later. A decoder may split the
/// channels into two planes, mix them, or choose one: all three must agree.
#[test]
fn every_stereo_sample_is_mixed_chosen_and_split_alike() {
    for name in [
        "speech-44k1-stereo-s16.wav",
        "speech-44k1-stereo.flac",
        "speech-44k1-stereo.mp3",
        "speech-44k1-stereo-vorbis.ogg",
        "speech-44k1-stereo-aac.m4a",
        "speech-48k-stereo-opus.ogg",
        "speech-48k-stereo-opus.webm",
    ] {
        let open = || Source::open(sample(name)).unwrap();
        let split = heard(open(), Channels::Split);
        let [right] = split.others.as_slice() else { panic!("{name} has two channels") };
        assert!(split.mono == heard(open(), Channels::Only(1)).mono, "{name}");
        assert!(*right == heard(open(), Channels::Only(2)).mono, "{name}");
        assert!(split.mono != *right, "{name}");
        let mixed = decode_sample(name).mono;
        assert_eq!(mixed.len(), right.len(), "{name}");
        let mean: Vec<f32> = split.mono.iter().zip(right).map(|(l, r)| (l + r) * 0.5).collect();
        let energy = |of: &mut dyn Iterator<Item = f32>| of.map(|x| x * x).sum::<f32>();
        let error = energy(&mut mean.iter().zip(&mixed).map(|(mean, mixed)| mean - mixed));
        // Opus mixes before its last step, and leaves out what the channels have in opposite phase.
        let bound = if name.contains("opus") { 0.01 } else { 0.0 };
        assert!(error <= bound * energy(&mut mean.iter().copied()), "{name}: {error}");
    }
}

#[test]
fn a_channel_that_is_not_there_is_refused_by_name() {
    let refused = |source, channel| {
        let options = Options { channels: Channels::Only(channel), ..Options::default() };
        decode_as(source, options).err().unwrap().to_string()
    };
    assert_eq!(refused(three(), 4), "three.wav: has no channel 4, only 3");
    let mono = Source::open(sample("speech-16k-mono-alac.m4a")).unwrap();
    assert!(refused(mono, 2).ends_with("speech-16k-mono-alac.m4a: has no channel 2, only 1"));
}
