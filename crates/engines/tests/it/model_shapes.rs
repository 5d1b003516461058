//! Whisper models of every size are loaded and run. For the larger sizes only the shapes matter, so the
//! models here have nothing else in common with them.

use voxline::engine::{RECOGNIZER_RATE, RecognitionRequest, Recognizer};
use voxline_engines::Whisper;

use voxline_fixtures::clips;
use voxline_fixtures::synthetic_whisper::{Shape, write};

const SMALL: Shape = Shape { width: 768, bands: 80, decoder_layers: 2, third: false, hears: ("en", "hello") };

/// Asserts that a model of this shape loads, and produces its word for a recording.
#[track_caller]
fn assert_runs(shape: &Shape) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), shape);
    let whisper = Whisper::load(dir.path()).unwrap();
    let mut stream = whisper.start(&RecognitionRequest::new()).unwrap();
    // Of longer speech, one word would leave something out, which is heard once more.
    let pcm = &clips::clip("en-telephone", "auth-incorrect").pcm[..RECOGNIZER_RATE as usize * 3 / 2];
    let mut segments = stream.push(pcm).unwrap();
    segments.extend(stream.flush().unwrap());
    let said: Vec<_> = segments.iter().filter(|segment| !segment.text.is_empty()).collect();
    assert!(!said.is_empty(), "{segments:?}");
    for segment in said {
        assert_eq!((segment.language.as_deref(), &*segment.text), (Some(shape.hears.0), shape.hears.1));
        assert!(segment.confidence.is_some_and(|confidence| confidence > 0.9), "{segment:?}");
    }
}

#[test]
fn the_shape_of_small() {
    assert_runs(&SMALL);
}

#[test]
fn the_shape_of_medium() {
    assert_runs(&Shape { width: 1024, hears: ("ru", "yes"), ..SMALL });
}

#[test]
fn the_shape_of_large_v3() {
    assert_runs(&Shape { width: 1280, bands: 128, third: true, hears: ("yue", "yes"), ..SMALL });
}

#[test]
fn the_shape_of_turbo() {
    assert_runs(&Shape { width: 1280, bands: 128, decoder_layers: 4, third: true, hears: ("en", "turbo") });
}
