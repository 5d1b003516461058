//! From a block of any sample format and channel count to mono floats.

use symphonia::core::audio::conv::FromSample;
use symphonia::core::audio::sample::Sample;
use symphonia::core::audio::{Audio, AudioBuffer, GenericAudioBufferRef};

/// Appends the mean of all channels to `mono`, one float a frame. Integers are scaled to -1.0..1.0; floats are taken
/// as they are.
pub(super) fn append_mono(block: &GenericAudioBufferRef<'_>, mono: &mut Vec<f32>) {
    match block {
        GenericAudioBufferRef::U8(b) => mix(b, mono),
        GenericAudioBufferRef::U16(b) => mix(b, mono),
        GenericAudioBufferRef::U24(b) => mix(b, mono),
        GenericAudioBufferRef::U32(b) => mix(b, mono),
        GenericAudioBufferRef::S8(b) => mix(b, mono),
        GenericAudioBufferRef::S16(b) => mix(b, mono),
        GenericAudioBufferRef::S24(b) => mix(b, mono),
        GenericAudioBufferRef::S32(b) => mix(b, mono),
        GenericAudioBufferRef::F32(b) => mix(b, mono),
        GenericAudioBufferRef::F64(b) => mix(b, mono),
    }
}

fn mix<S: Sample>(block: &AudioBuffer<S>, mono: &mut Vec<f32>)
where
    f32: FromSample<S>,
{
    if let Some((left, right)) = block.plane_pair(0, 1)
        && block.num_planes() == 2
    {
        let mean = |(&l, &r): (&S, &S)| (f32::from_sample(l) + f32::from_sample(r)) * 0.5;
        mono.extend(left.iter().zip(right).map(mean));
        return;
    }
    let Some(first) = block.plane(0) else { return };
    let start = mono.len();
    mono.extend(first.iter().map(|&sample| f32::from_sample(sample)));
    let planes = block.num_planes();
    if planes == 1 {
        return;
    }
    for plane in block.iter_planes().skip(1) {
        for (sum, &sample) in mono[start..].iter_mut().zip(plane) {
            *sum += f32::from_sample(sample);
        }
    }
    let scale = 1.0 / planes as f32;
    mono[start..].iter_mut().for_each(|sum| *sum *= scale);
}
