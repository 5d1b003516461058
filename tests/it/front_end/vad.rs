//! Voice activity marks: right in plain cases, and never at the cost of a frame.

use voxline::audio::{Feed, FramePos, sample as samples};
use voxline::pipeline::{Options, Pipeline, PipelineError};
use voxline::source::Source;

use super::decode_sample;
use voxline_fixtures::formats::wav_s16;

/// Returns two seconds of faint hiss, a sentence, and two seconds of faint hiss.
fn sentence_between_silences() -> (Vec<i16>, usize) {
    let hiss = (0..32_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 30) as i16 - 2);
    let sentence = samples::quantise(&decode_sample("speech-16k-mono-s16.wav").mono);
    (hiss.clone().chain(sentence.iter().copied()).chain(hiss).collect(), sentence.len())
}

#[test]
fn speech_is_marked_and_silence_is_kept() {
    let (audio, spoken) = sentence_between_silences();
    let source = Source::bytes("a.wav", wav_s16(16_000, &audio));
    let pipeline = Pipeline::open(source, Options::default()).unwrap().mark_voice().unwrap();
    let (mut streams, worker) = pipeline.start();
    let (mut marks, mut pcm, mut position) = (Vec::new(), Vec::new(), FramePos::ZERO);
    while let Some(Feed::Audio(chunk)) = streams[0].blocking_recv() {
        assert_eq!(chunk.range().start, position);
        position = chunk.range().end;
        pcm.extend_from_slice(chunk.payload());
        marks.push(chunk.voiced().expect("it was judged"));
    }
    worker.join().unwrap();
    assert!(pcm == audio.iter().flat_map(|sample| sample.to_le_bytes()).collect::<Vec<_>>());

    // Chunks of 100 ms. The sentence begins at the 20th, and has a little silence of its own at both ends.
    assert!(marks[..20].iter().all(|voiced| !voiced), "{marks:?}");
    let end = 20 + spoken / 1_600;
    let voiced = marks[20..end].iter().filter(|voiced| **voiced).count();
    assert!(voiced * 10 >= (end - 20) * 8, "{voiced} of {} chunks of speech", end - 20);
    // Silence is marked again 0.3 s after the last voiced hop.
    assert!(marks[end + 4..].iter().all(|voiced| !voiced), "{marks:?}");
}

#[test]
fn without_being_asked_nothing_is_marked() {
    let source = Source::bytes("a.wav", wav_s16(16_000, &[1; 1_600]));
    let (mut streams, _worker) = Pipeline::open(source, Options::default()).unwrap().start();
    let Some(Feed::Audio(chunk)) = streams[0].blocking_recv() else { panic!("a chunk comes first") };
    assert_eq!(chunk.voiced(), None);
}

#[test]
fn voice_is_only_marked_at_the_rate_the_detector_knows() {
    let options = Options { sample_rate: 8_000, ..Options::default() };
    let pipeline = Pipeline::open(Source::bytes("a.wav", wav_s16(8_000, &[1; 100])), options).unwrap();
    let refused = pipeline.mark_voice().unwrap_err();
    assert!(matches!(refused, PipelineError::Voice { sample_rate: 8_000 }), "{refused}");
}
