//! Whisper against human recordings, against noise, and against damaged model files.

use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use voxline::audio::FramePos;
use voxline::engine::whisper::Whisper;
use voxline::engine::{EngineError, Recognizer, RecognizerStream, Segment, StreamOptions};

use crate::support::clips::{self, Clip};
use crate::support::words::WordErrors;

/// The directory of the models: `$VOXLINE_MODELS`, or where `voxline models pull` puts them.
#[expect(clippy::disallowed_methods, reason = "a test's settings come from its environment")]
fn models() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("VOXLINE_MODELS").unwrap_or_else(|| {
        let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
        cache.expect("HOME is set").join("voxline/models")
    })
}

/// The model, for one test at a time: what its threads cost would otherwise be counted twice.
fn whisper() -> MutexGuard<'static, Whisper> {
    static WHISPER: LazyLock<Mutex<Whisper>> = LazyLock::new(|| {
        let loaded = Whisper::load(&models().join("whisper-base"));
        Mutex::new(loaded.unwrap_or_else(|error| panic!("{error} (or set VOXLINE_MODELS)")))
    });
    WHISPER.lock().unwrap_or_else(PoisonError::into_inner)
}

fn start(whisper: &Whisper, language: Option<&str>) -> Box<dyn RecognizerStream> {
    let options = StreamOptions { language: language.map(str::to_owned) };
    whisper.start(&options).expect("the language is known")
}

/// Recognises audio pushed 20 ms at a time, as a telephone does.
fn recognize(whisper: &Whisper, language: Option<&str>, pcm: &[i16]) -> Vec<Segment> {
    let mut stream = start(whisper, language);
    let mut segments = Vec::new();
    for packet in pcm.chunks(320) {
        segments.extend(stream.push(packet).expect("recognition works"));
    }
    segments.extend(stream.flush().expect("recognition works"));
    assert_contiguous(&segments, pcm.len());
    segments
}

fn assert_contiguous(segments: &[Segment], frames: usize) {
    let mut at = FramePos::ZERO;
    for segment in segments {
        assert_eq!(segment.range.start, at, "segments aren't contiguous");
        assert!(!segment.range.is_empty(), "a segment covers nothing");
        at = segment.range.end;
    }
    assert_eq!(at, FramePos(frames as u64), "segments don't cover what was pushed");
}

fn text(segments: &[Segment]) -> String {
    segments.iter().map(|segment| segment.text.as_str()).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// CPU seconds used so far by the threads Whisper computes on.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists its tasks");
    let nanoseconds = tasks.flatten().map(|task| {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let spent = read("schedstat").split(' ').next().and_then(|field| field.parse::<u64>().ok());
        if read("comm").trim_end() == "whisper" { spent.unwrap_or(0) } else { 0 }
    });
    nanoseconds.sum::<u64>() as f64 / 1e9
}

/// Recognises a set of clips and returns the word error rate in percent and the real-time factor of one thread.
fn measure(set: &str, language: &str) -> (f64, f64) {
    let whisper = whisper();
    let clips = clips::set(set);
    let before = cpu_seconds();
    let mut errors = WordErrors::default();
    for clip in &clips {
        let heard = text(&recognize(&whisper, Some(language), &clip.pcm));
        let of_clip = WordErrors::between(&clip.text, &heard);
        if of_clip.errors > 0 {
            println!(
                "{set} {}: {} of {} words\n  said  {}\n  heard {heard}",
                clip.name, of_clip.errors, of_clip.words, clip.text
            );
        }
        errors = errors.and(of_clip);
    }
    let seconds: f64 = clips.iter().map(Clip::seconds).sum();
    let factor = (cpu_seconds() - before) / seconds;
    println!(
        "{set}: word error rate {:.1} % ({} of {} words), real-time factor {factor:.3} ({seconds:.1} s, one thread)",
        errors.percent(),
        errors.errors,
        errors.words
    );
    (errors.percent(), factor)
}

#[test]
fn english_is_recognised() {
    let (rate, _) = measure("en-16k", "en");
    assert!(rate <= 6.0, "word error rate {rate:.1} %");
}

#[test]
fn english_on_the_telephone_is_recognised() {
    let (rate, _) = measure("en-telephone", "en-US");
    assert!(rate <= 6.0, "word error rate {rate:.1} %");
}

#[test]
fn russian_on_the_telephone_is_recognised() {
    let (rate, _) = measure("ru-telephone", "ru-RU");
    assert!(rate <= 15.0, "word error rate {rate:.1} %");
}
