//! Conversion of a decoder's block, of any sample format and channel count, to planes of floats.

use symphonia::core::audio::conv::FromSample;
use symphonia::core::audio::sample::Sample;
use symphonia::core::audio::{Audio, AudioBuffer, GenericAudioBufferRef};

use super::channels::Channels;

/// Appends `block` to the planes. Integers are scaled to -1.0..1.0; floats are copied unchanged.
pub(super) fn append(block: &GenericAudioBufferRef<'_>, channels: Channels, planes: &mut [Vec<f32>]) {
    match block {
        GenericAudioBufferRef::U8(b) => select(b, channels, planes),
        GenericAudioBufferRef::U16(b) => select(b, channels, planes),
        GenericAudioBufferRef::U24(b) => select(b, channels, planes),
        GenericAudioBufferRef::U32(b) => select(b, channels, planes),
        GenericAudioBufferRef::S8(b) => select(b, channels, planes),
        GenericAudioBufferRef::S16(b) => select(b, channels, planes),
        GenericAudioBufferRef::S24(b) => select(b, channels, planes),
        GenericAudioBufferRef::S32(b) => select(b, channels, planes),
        GenericAudioBufferRef::F32(b) => select(b, channels, planes),
        GenericAudioBufferRef::F64(b) => select(b, channels, planes),
    }
}

fn select<S: Sample>(block: &AudioBuffer<S>, channels: Channels, planes: &mut [Vec<f32>])
where
    f32: FromSample<S>,
{
    let copy = |from: &[S], plane: &mut Vec<f32>| plane.extend(from.iter().map(|&s| f32::from_sample(s)));
    match channels {
        Channels::Mix => mix(block, &mut planes[0]),
        Channels::Only(channel) => {
            block.plane(channel - 1).into_iter().for_each(|from| copy(from, &mut planes[0]));
        }
        Channels::Split => block.iter_planes().zip(planes).for_each(|(from, plane)| copy(from, plane)),
    }
}

/// Appends the mean of all channels.
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
