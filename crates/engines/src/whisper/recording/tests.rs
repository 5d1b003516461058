//! Tests of recordings that are heard by real models.

use super::*;
use crate::clips;
use crate::models_dir::models_dir;
use crate::whisper::Whisper;
use voxline::engine::{Latency, RecognitionRequest};

/// Returns two minutes of speech: some windows, one of them with a sentence that is said four times,
/// which is heard by itself.
fn recording() -> Vec<i16> {
    let names = ["austen_0870", "austen_0920", "goforward", "austen_0890", "something", "austen_0880"];
    let mut pcm = Vec::new();
    for name in names.iter().cycle().take(3 * names.len()).chain(["goforward"; 4].iter()).chain(&names) {
        pcm.extend(clips::audio("en-16k", name));
        pcm.resize(pcm.len() + 15_000, 0);
    }
    pcm
}

/// Returns the same speech with some in Russian amid it.
fn bilingual() -> Vec<i16> {
    let (english, mut pcm) = (recording(), Vec::new());
    let (begin, end) = english.split_at(english.len() / 2);
    pcm.extend(begin);
    for name in ["queue-youarenext", "tt-allbusy", "hello-world", "privacy-unident"] {
        pcm.extend(clips::audio("ru-telephone", name));
        pcm.resize(pcm.len() + 15_000, 0);
    }
    pcm.extend(end);
    pcm
}

fn whisper() -> Whisper {
    Whisper::load(&models_dir().join("whisper-base")).expect("the model is there")
}

fn stream(whisper: &Whisper, language: Option<&str>) -> RecordingStream {
    let request = RecognitionRequest::new().languages(language).latency(Latency::Relaxed);
    let options = DecodingOptions::new(&whisper.shared.model.tokens, &request).expect("Whisper honours it");
    RecordingStream::new(Arc::clone(&whisper.shared), options, None)
}

/// A recording that was heard.
struct Heard {
    segments: Vec<Segment>,
    /// Largest number of windows that were heard side by side.
    windows: usize,
    /// Number of times that windows were begun again.
    again: usize,
}

/// Hears a recording on so many threads, at most so many windows side by side.
fn hear(mut stream: RecordingStream, pcm: &[i16], most: usize, threads: usize) -> Heard {
    stream.most_windows = most;
    let mut segments = stream.feed(pcm).expect("it is only kept");
    segments.extend(stream.begin_flush().expect("it is only noted"));
    let (mut windows, mut again) = (0, 0);
    loop {
        let language = stream.options.language.clone();
        let Some(more) = stream.work_on(threads).expect("the model works") else {
            return Heard { segments, windows, again };
        };
        segments.extend(more);
        windows = windows.max(stream.open_windows.len());
        again += usize::from(stream.options.language != language && !stream.open_windows.is_empty());
    }
}

/// The segments are the same to the bits of their confidence: no window sees another's tokens.
#[test]
fn windows_side_by_side_are_heard_as_one_after_the_other() {
    let (whisper, pcm) = (whisper(), recording());
    let most = open_windows::side_by_side(&whisper.shared.model);
    let one_by_one = hear(stream(&whisper, Some("en")), &pcm, 1, 1);
    assert_eq!(one_by_one.windows, 1);
    let told = one_by_one.segments.iter().filter(|segment| !segment.text.is_empty()).count();
    assert!(told > 20, "{:?}", one_by_one.segments);
    for threads in [1, 3] {
        let side_by_side = hear(stream(&whisper, Some("en")), &pcm, most, threads);
        assert!(side_by_side.windows >= 4, "{} windows side by side", side_by_side.windows);
        assert_eq!(side_by_side.segments, one_by_one.segments, "on {threads} threads");
    }
}

#[test]
fn windows_after_a_change_of_the_language_are_heard_again() {
    let (whisper, pcm) = (whisper(), bilingual());
    let one_by_one = hear(stream(&whisper, None), &pcm, 1, 1);
    let languages: Vec<_> = one_by_one.segments.iter().filter_map(|s| s.language.as_deref()).collect();
    assert!(languages.contains(&"en") && languages.contains(&"ru"), "{languages:?}");
    let most = open_windows::side_by_side(&whisper.shared.model);
    let side_by_side = hear(stream(&whisper, None), &pcm, most, 2);
    assert!(side_by_side.windows >= 4, "{} windows side by side", side_by_side.windows);
    assert!(side_by_side.again >= 1, "no window was begun in the wrong language");
    assert_eq!(side_by_side.segments, one_by_one.segments);
}

#[test]
fn streams_share_the_windows_that_are_heard_side_by_side() {
    let (whisper, pcm) = (whisper(), recording());
    let mut streams = [(); 3].map(|()| stream(&whisper, Some("en")));
    for stream in &mut streams {
        stream.feed(&pcm).expect("it is only kept");
        stream.work().expect("the model works").expect("a window is complete");
    }
    let share = open_windows::side_by_side(&whisper.shared.model) / streams.len();
    for stream in &mut streams {
        while stream.may_begin() {
            assert!(stream.open_windows.len() < share, "{} windows of {share}", stream.open_windows.len());
            stream.work().expect("the model works").expect("a window is complete");
        }
        assert_eq!(stream.open_windows.len(), share);
    }
    let [first, second, third] = streams;
    drop((second, third));
    assert_eq!(first.side_by_side(), first.most_windows, "the others have ended");
}
