//! Recordings that nobody waits for: utterances are heard together, in long windows.

use voxline::audio::FramePos;
use voxline::engine::{Latency, RecognitionRequest, Recognizer, Segment};
use voxline_engines::Whisper;
use voxline_engines::wer::WordErrors;
use voxline_fixtures::clips::{self, Clip};
use voxline_fixtures::whisper::whisper;

/// Returns a recording of clips with a pause after each, in seconds, and its text.
fn recording(clips: &[(&str, &str, f32)]) -> (Vec<i16>, String) {
    let (mut pcm, mut said) = (Vec::new(), Vec::new());
    for (set, name, pause) in clips {
        let Clip { text, pcm: clip, .. } = clips::clip(set, name);
        pcm.extend(clip);
        pcm.resize(pcm.len() + (pause * 16_000.0) as usize, 0);
        said.push(text);
    }
    (pcm, said.join(" "))
}

/// Forty seconds in English, with pauses of several lengths.
fn english() -> (Vec<i16>, String) {
    recording(&[
        ("en-16k", "austen_0880", 0.7),
        ("en-16k", "austen_0930", 2.5),
        ("en-telephone", "auth-incorrect", 0.3),
        ("en-16k", "goforward", 1.2),
        ("en-telephone", "invalid", 0.9),
        ("en-16k", "austen_0890", 3.0),
        ("en-telephone", "conf-getconfno", 0.6),
        ("en-16k", "something", 1.0),
    ])
}

fn request(language: Option<&str>) -> RecognitionRequest {
    RecognitionRequest::new().languages(language).latency(Latency::Relaxed)
}

/// Recognises audio that is pushed in pieces.
fn hear(whisper: &Whisper, request: &RecognitionRequest, pcm: &[i16], piece: usize) -> Vec<Segment> {
    let mut stream = whisper.start(request).unwrap();
    let mut segments = Vec::new();
    for piece in pcm.chunks(piece) {
        segments.extend(stream.push(piece).unwrap());
    }
    segments.extend(stream.flush().unwrap());
    let ends = segments.iter().map(|segment| segment.range.end);
    let starts = segments.iter().map(|segment| segment.range.start).skip(1);
    assert!(ends.eq(starts.chain([FramePos(pcm.len() as u64)])), "segments aren't contiguous: {segments:?}");
    segments
}

/// Returns each text with its confidence, which depends on all that the decoder has read.
fn judged_texts(segments: &[Segment]) -> Vec<(&str, Option<f32>)> {
    let said = segments.iter().filter(|segment| !segment.text.is_empty());
    said.map(|segment| (segment.text.as_str(), segment.confidence)).collect()
}

fn texts(segments: &[Segment]) -> Vec<&str> {
    segments.iter().map(|segment| segment.text.as_str()).filter(|text| !text.is_empty()).collect()
}

#[test]
fn utterances_heard_together_are_told_apart() {
    let whisper = whisper();
    let (pcm, said) = english();
    let segments = hear(&whisper, &request(Some("en")), &pcm, pcm.len());
    let told = texts(&segments);
    let errors = WordErrors::between(&said, &told.join(" "));
    assert!(errors.percent() <= 8.0, "{} of {} words: {told:?}", errors.errors, errors.words);
    assert_eq!(told.len(), 8, "{told:?}");
    assert!(told[0].to_lowercase().ends_with("young man."), "{told:?}");
    assert!(told[3].to_lowercase().starts_with("go forward"), "{told:?}");
    for segment in segments.iter().filter(|segment| !segment.text.is_empty()) {
        let words: Vec<&str> = segment.words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(words.join(" "), segment.text);
        let mut at = segment.range.start;
        for word in &segment.words {
            assert!(at <= word.range.start && word.range.start <= word.range.end, "{:?}", segment.words);
            at = word.range.end;
        }
        assert!(at <= segment.range.end, "{segment:?}");
    }
    assert_eq!(hear(&whisper, &request(Some("en")), &pcm, 1_237), segments, "in other pieces");
}

/// A session that begins anew at a final, also within a window, tells what the undisturbed session tells.
#[test]
fn a_stream_begun_anew_at_a_final_tells_the_same() {
    let whisper = whisper();
    let (mut pcm, _) = english();
    let (more, _) =
        recording(&[("ru-telephone", "queue-youarenext", 0.8), ("ru-telephone", "tt-allbusy", 1.0)]);
    pcm.extend(more);
    for latency in [Latency::Relaxed, Latency::Live] {
        let whole = hear(&whisper, &request(None).latency(latency), &pcm, pcm.len());
        let mut context = None;
        let mut cuts = 0;
        for (at, segment) in whole.iter().enumerate() {
            context = segment.context.clone().or(context);
            if segment.text.is_empty() || at % 3 != 0 {
                continue;
            }
            let mut anew = request(None).latency(latency);
            anew.context.clone_from(&context);
            let cut = segment.range.end.0;
            let rest = hear(&whisper, &anew, &pcm[cut as usize..], pcm.len());
            let undisturbed = judged_texts(&whole[at + 1..]);
            assert_eq!(judged_texts(&rest), undisturbed, "{latency:?}, begun anew at {cut}");
            let words = |segments: &[Segment], origin: u64| -> Vec<u64> {
                segments.iter().flat_map(|s| &s.words).map(|word| word.range.start.0 + origin).collect()
            };
            assert_eq!(words(&rest, cut), words(&whole[at + 1..], 0), "{latency:?}, begun anew at {cut}");
            cuts += 1;
        }
        assert!(cuts >= 2, "{whole:?}");
    }
}

#[test]
fn a_flush_cuts_the_segments_known_from_the_context() {
    let whisper = whisper();
    let (pcm, _) = english();
    let whole = hear(&whisper, &request(Some("en")), &pcm, pcm.len());
    let first = whole.iter().find(|segment| !segment.text.is_empty()).unwrap();
    let mut anew = request(Some("en"));
    anew.context.clone_from(&first.context);
    let short = &pcm[first.range.end.0 as usize..][..20_000];
    let rest = hear(&whisper, &anew, short, 20_000);
    assert!(!texts(&rest).is_empty(), "{rest:?}");
}

/// A sentence that is said again is told again, also where all are heard together.
#[test]
fn a_sentence_said_again_is_told_again() {
    let whisper = whisper();
    for (name, pause, times) in [("austen_0930", 0.65, 2), ("austen_0920", 0.6, 3), ("goforward", 0.9, 4)] {
        let (pcm, said) = recording(&vec![("en-16k", name, pause); times]);
        let told = hear(&whisper, &request(Some("en")), &pcm, pcm.len());
        let errors = WordErrors::between(&said, &texts(&told).join(" "));
        assert!(errors.errors <= 2, "{name}: {told:?}");
    }
}

/// Without a long pause all are one utterance, of which Whisper tells the words once.
#[test]
fn a_sentence_said_again_at_once_is_told_again() {
    let whisper = whisper();
    for (name, pause, times) in [("austen_0920", 0.1, 2), ("austen_0930", 0.1, 2), ("austen_0930", 0.35, 3)] {
        let (pcm, said) = recording(&vec![("en-16k", name, pause); times]);
        for latency in [Latency::Relaxed, Latency::Live] {
            let told = hear(&whisper, &request(Some("en")).latency(latency), &pcm, pcm.len());
            let errors = WordErrors::between(&said, &texts(&told).join(" "));
            assert!(errors.errors <= 2, "{name}, {latency:?}: {told:?}");
            let words = told.iter().flat_map(|segment| &segment.words);
            let starts: Vec<FramePos> = words.map(|word| word.range.start).collect();
            assert!(starts.is_sorted() && starts.len() >= errors.words - 2, "{name}, {latency:?}: {told:?}");
        }
    }
}

#[test]
fn a_client_must_keep_more_of_a_recording() {
    let whisper = whisper();
    let (pcm, _) = english();
    let live = whisper.longest_pending(&RecognitionRequest::new()).unwrap();
    let relaxed = whisper.longest_pending(&request(None)).unwrap();
    assert!(live < relaxed && relaxed < 60 * 16_000, "{live}, {relaxed}");
    let translation = request(None).task(voxline::engine::Task::Translate);
    assert_eq!(whisper.longest_pending(&translation), Some(live), "a translation is heard by utterance");
    let mut stream = whisper.start(&request(None)).unwrap();
    let (mut pushed, mut end) = (0, FramePos::ZERO);
    for packet in pcm.repeat(2).chunks(1_600) {
        pushed += packet.len() as u64;
        end = stream.push(packet).unwrap().last().map_or(end, |segment| segment.range.end);
        assert!(pushed - end.0 <= relaxed, "{} frames wait", pushed - end.0);
    }
}

/// A context comes back from a client, which may have made it up.
#[test]
fn a_context_that_no_window_has_is_ignored() {
    let whisper = whisper();
    let far = u64::MAX;
    let hostile = [
        format!(r#"{{"ahead":[{{"frames":{far}}},{{"frames":{far}}}]}}"#),
        r#"{"ahead":[{"frames":0}]}"#.to_owned(),
        r#"{"ahead":[{"frames":800001}]}"#.to_owned(),
        format!(r#"{{"ahead":[{{"frames":9000,"words":[[{far},1,0.5,"x"]]}}]}}"#),
        r#"{"ahead":[{"frames":9000,"tokens":[4000000000]}]}"#.to_owned(),
        r#"{"language":7,"ahead":"none"}"#.to_owned(),
    ];
    let (pcm, _) = recording(&[("en-16k", "goforward", 0.7), ("en-16k", "something", 0.7)]);
    for context in hostile {
        let mut hostile = request(Some("en"));
        hostile.context = Some(context.clone());
        let told = hear(&whisper, &hostile, &pcm, pcm.len());
        assert!(texts(&told).join(" ").to_lowercase().contains("forward"), "{context}: {told:?}");
    }
}
