//! Whisper on human recordings, on noise, and with damaged model files.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use voxline::audio::FramePos;
use voxline::engine::{
    EngineError, PartialResult, RecognitionRequest, Recognizer, RecognizerStream, Segment, UnsupportedRequest,
};
use voxline_engines::whisper::Whisper;

use voxline_engines::wer::{WordErrors, normal};
use voxline_fixtures::clips::{self, Clip};
use voxline_fixtures::samples::models_dir;
use voxline_fixtures::whisper::whisper;

fn start(whisper: &Whisper, language: Option<&str>) -> Box<dyn RecognizerStream> {
    let request = RecognitionRequest::new().languages(language);
    whisper.start(&request).expect("the language is known")
}

/// Recognises audio that is pushed 20 ms at a time, as a telephone sends it.
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

/// Asserts that the segments follow each other without gaps, are not empty, and cover `frames` frames.
fn assert_contiguous(segments: &[Segment], frames: usize) {
    let mut at = FramePos::ZERO;
    for segment in segments {
        assert_eq!(segment.range.start, at, "segments aren't contiguous");
        assert!(!segment.range.is_empty(), "a segment covers nothing");
        at = segment.range.end;
    }
    assert_eq!(at, FramePos(frames as u64), "segments don't cover what was pushed");
}

/// Returns a partial result of the open utterance, if there is one to be made now.
fn partial(stream: &mut dyn RecognizerStream) -> Option<Segment> {
    loop {
        match stream.partial().expect("recognition works") {
            PartialResult::Nothing => return None,
            PartialResult::Unfinished => {}
            PartialResult::Text(segment) => return Some(segment),
        }
    }
}

fn text(segments: &[Segment]) -> String {
    segments.iter().map(|segment| segment.text.as_str()).collect::<Vec<_>>().join(" ").trim().to_owned()
}

/// Returns the CPU seconds that Whisper's threads have used so far.
fn cpu_seconds() -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux lists its tasks");
    let nanoseconds = tasks.flatten().map(|task| {
        let read = |file: &str| std::fs::read_to_string(task.path().join(file)).unwrap_or_default();
        let spent = read("schedstat").split(' ').next().and_then(|field| field.parse::<u64>().ok());
        if read("comm").trim_end() == "whisper" { spent.unwrap_or(0) } else { 0 }
    });
    nanoseconds.sum::<u64>() as f64 / 1e9
}

/// Recognises a set of clips and returns the word error rate in percent and the real-time factor of one
/// thread.
#[expect(clippy::print_stdout, reason = "the figures are what the test is run for")]
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

#[test]
fn the_language_is_detected() {
    let whisper = whisper();
    for (set, name, language) in
        [("en-telephone", "auth-incorrect", "en"), ("ru-telephone", "queue-youarenext", "ru")]
    {
        let clip = clips::clip(set, name);
        let segments = recognize(&whisper, None, &clip.pcm);
        let said: Vec<&Segment> = segments.iter().filter(|segment| !segment.text.is_empty()).collect();
        assert!(!said.is_empty(), "{name}: nothing was recognised");
        for segment in said {
            assert_eq!(segment.language.as_deref(), Some(language), "{}", segment.text);
            assert!(segment.confidence.is_some_and(|confidence| confidence > 0.4), "{segment:?}");
        }
        let errors = WordErrors::between(&clip.text, &text(&segments));
        assert!(errors.percent() <= 30.0, "{name}: {}", text(&segments));
    }
}

/// One word is not enough to distinguish Russian from Polish, unless Russian was spoken just before.
#[test]
fn in_doubt_the_language_is_the_one_before() {
    let whisper = whisper();
    let word = clips::audio("ru-telephone", "vm-isunavail");
    let mut pcm = clips::clip("ru-telephone", "queue-youarenext").pcm;
    pcm.extend([0; 16_000]);
    pcm.extend(&word);
    let segments = recognize(&whisper, None, &pcm);
    let last = segments.iter().rfind(|segment| !segment.text.is_empty()).expect("something was said");
    assert!(last.range.start >= FramePos(48_000), "the word was lost: {segments:?}");
    assert_eq!(last.language.as_deref(), Some("ru"), "{segments:?}");
}

#[test]
fn an_unknown_language_is_refused() {
    let request = RecognitionRequest::new().language("tlh");
    match whisper().start(&request).err() {
        Some(EngineError::Unsupported(error)) => {
            assert_eq!(error, UnsupportedRequest::Language("tlh".to_owned()));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn splits_do_not_change_segments() {
    let whisper = whisper();
    let mut pcm = clips::clip("en-telephone", "auth-incorrect").pcm;
    pcm.extend([0; 20_000]);
    pcm.extend(clips::clip("en-16k", "goforward").pcm);
    let whole = {
        let mut stream = start(&whisper, Some("en"));
        let mut segments = stream.push(&pcm).expect("recognition works");
        segments.extend(stream.flush().expect("recognition works"));
        segments
    };
    assert_contiguous(&whole, pcm.len());
    assert!(whole.len() >= 2, "{whole:?}");
    assert_eq!(recognize(&whisper, Some("en"), &pcm), whole);
    let mut stream = start(&whisper, Some("en"));
    let mut segments = Vec::new();
    let mut rest = &pcm[..];
    for size in [1, 255, 256, 257, 4_001, 33_333].into_iter().cycle() {
        let (piece, tail) = rest.split_at(rest.len().min(size));
        segments.extend(stream.push(piece).expect("recognition works"));
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    segments.extend(stream.flush().expect("recognition works"));
    assert_eq!(segments, whole);
}

/// Partial results are finished, left half done, or not begun, and some of them are right and become the
/// final. The finals are the same in all cases.
#[test]
fn partial_results_change_no_final() {
    let whisper = whisper();
    let mut pcm = clips::clip("en-telephone", "auth-incorrect").pcm;
    pcm.extend([0; 20_000]);
    pcm.extend(clips::clip("en-16k", "goforward").pcm);
    let undisturbed = recognize(&whisper, Some("en"), &pcm);
    for calls in [1, 3, usize::MAX] {
        let mut stream = start(&whisper, Some("en"));
        let mut segments = Vec::new();
        let mut made = 0;
        for packet in pcm.chunks(1_600) {
            segments.extend(stream.push(packet).expect("recognition works"));
            for _ in 0..calls {
                match stream.partial().expect("recognition works") {
                    PartialResult::Unfinished => {}
                    PartialResult::Nothing => break,
                    PartialResult::Text(_) => made += 1,
                }
            }
        }
        segments.extend(stream.flush().expect("recognition works"));
        assert_eq!(segments, undisturbed, "{calls} calls each time");
        assert!(calls == 1 || made >= 3, "{made} partial results were made");
    }
}

/// The words make up the text, follow each other within their segment, and are placed where they were
/// spoken. The recording contains a pause of two seconds.
#[test]
fn words_are_placed_where_they_were_said() {
    let whisper = whisper();
    let clip = clips::clip("en-16k", "goforward");
    let mut pcm = clip.pcm.clone();
    pcm.extend(vec![0; 32_000]);
    let second = pcm.len() as u64;
    pcm.extend(&clip.pcm);
    let segments = recognize(&whisper, Some("en"), &pcm);
    let said: Vec<&Segment> = segments.iter().filter(|segment| !segment.text.is_empty()).collect();
    assert_eq!(said.len(), 2, "{segments:?}");
    for (segment, origin) in said.into_iter().zip([0, second]) {
        let words: Vec<&str> = segment.words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(words.join(" "), segment.text);
        let mut at = segment.range.start;
        for word in &segment.words {
            assert!(at <= word.range.start && word.range.start <= word.range.end, "{:?}", segment.words);
            assert!((0.0..=1.0).contains(&word.confidence), "{word:?}");
            at = word.range.end;
        }
        assert!(at <= segment.range.end, "{segment:?}");
        // "Go forward ten meters": by the spectrogram, "forward" begins 0.63 s and "meters" 1.43 s into
        // the recording.
        for (word, expected) in [(1, 0.63), (3, 1.43)] {
            let start = (segment.words[word].range.start.0 - origin) as f64 / 16_000.0;
            assert!((start - expected).abs() <= 0.2, "{} begins at {start}", segment.words[word].text);
        }
    }
}

#[test]
fn partial_results_grow_with_the_utterance() {
    let whisper = whisper();
    let clip = clips::clip("en-16k", "austen_0890");
    let mut stream = start(&whisper, Some("en"));
    let mut partials: Vec<Segment> = Vec::new();
    let mut finals = Vec::new();
    for packet in clip.pcm.chunks(1_600) {
        finals.extend(stream.push(packet).expect("recognition works"));
        partials.extend(partial(&mut *stream));
    }
    finals.extend(stream.flush().expect("recognition works"));
    assert_eq!(
        stream.partial().expect("recognition works"),
        PartialResult::Nothing,
        "a partial result without an open utterance"
    );
    assert!(partials.len() >= 2, "{partials:?}");
    for pair in partials.windows(2) {
        assert!(pair[1].range.start > pair[0].range.start || pair[1].range.len() > pair[0].range.len());
    }
    let last = partials.last().expect("there are two");
    let (written, said) = (normal(&last.text), normal(&text(&finals)));
    let agreed = written.iter().filter(|word| said.contains(word)).count();
    assert!(agreed * 3 >= written.len() * 2, "written {written:?}, said {said:?}");
}

#[test]
fn what_is_not_speech_gives_no_text() {
    let whisper = whisper();
    let mut seed = 1u32;
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(seed >> 8) / f64::from(1 << 23) - 1.0
    };
    let seconds = 12 * 16_000;
    let tone = |hz: f64| move |i: i32| 8_000.0 * (f64::from(i) * hz / 16_000.0 * std::f64::consts::TAU).sin();
    let dial = tone(440.0);
    let (low, high) = (tone(350.0), tone(425.0));
    let sounds: [(&str, Vec<i16>); 6] = [
        ("silence", vec![0; seconds as usize]),
        ("a 440 Hz tone", (0..seconds).map(|i| dial(i) as i16).collect()),
        ("a dial tone", (0..seconds).map(|i| (low(i) + high(i)) as i16).collect()),
        ("a busy tone", (0..seconds).map(|i| if i / 8_000 % 2 == 0 { high(i) as i16 } else { 0 }).collect()),
        ("loud noise", (0..seconds).map(|_| (noise() * 8_000.0) as i16).collect()),
        ("faint noise", (0..seconds).map(|_| (noise() * 30.0) as i16).collect()),
    ];
    for (name, pcm) in sounds {
        for language in [Some("en"), None] {
            let segments = recognize(&whisper, language, &pcm);
            assert_eq!(text(&segments), "", "{name} was taken for speech: {segments:?}");
        }
    }
}

#[test]
fn silence_lets_go_of_what_was_heard() {
    let whisper = whisper();
    let mut stream = start(&whisper, None);
    let mut done = FramePos::ZERO;
    for second in 1..=60u64 {
        for segment in stream.push(&[0; 16_000]).expect("recognition works") {
            done = segment.range.end;
        }
        assert!(second * 16_000 - done.0 <= 12 * 16_000, "{done} is final after {second} s");
    }
}

/// Returns a copy of the model, for a test to damage.
fn copy_of_model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    for file in ["vocabulary.txt", "config.json", "model.bin"] {
        let from = models_dir().join("whisper-base").join(file);
        if let Err(error) = std::fs::copy(&from, dir.path().join(file)) {
            panic!("{}: {error}; run `voxline models pull whisper-base`", from.display());
        }
    }
    dir
}

/// Loads a model that must be refused, and returns the error message.
fn refusal(dir: &Path) -> String {
    match Whisper::load(dir) {
        Err(error @ EngineError::Model { .. }) => error.to_string(),
        Err(error) => panic!("another error: {error}"),
        Ok(_) => panic!("the model was loaded"),
    }
}

#[test]
fn a_missing_model_is_named_with_what_brings_it() {
    let error = refusal(Path::new("/nowhere/whisper-base"));
    assert!(error.contains("/nowhere/whisper-base/"), "{error}");
    assert!(error.contains("voxline models pull whisper-base"), "{error}");

    let dir = copy_of_model();
    std::fs::remove_file(dir.path().join("model.bin")).expect("it was copied");
    let error = refusal(dir.path());
    assert!(error.contains(&*dir.path().join("model.bin").to_string_lossy()), "{error}");
}

#[test]
fn a_model_cut_short_is_refused() {
    let dir = copy_of_model();
    let file = File::options().write(true).open(dir.path().join("model.bin")).expect("it was copied");
    let whole = file.metadata().expect("it is there").len();
    for length in [whole - 1, whole - 70, whole / 2, 1_000_000, 5_000, 200, 30, 26, 20, 5, 3, 0] {
        file.set_len(length).expect("a file can shrink");
        let error = refusal(dir.path());
        assert!(error.contains("model.bin"), "{error}");
    }
}

#[test]
fn a_model_with_flipped_bits_never_panics() {
    let dir = copy_of_model();
    let file =
        File::options().read(true).write(true).open(dir.path().join("model.bin")).expect("it was copied");
    // The head of the file, and its first tensors with their names and shapes.
    for at in (0..26).chain((26..260).step_by(7)) {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("the file is longer");
        file.write_all_at(&[byte[0] ^ 1 << (at % 8)], at).expect("the disk has room");
        if let Err(error) = Whisper::load(dir.path()) {
            assert!(matches!(error, EngineError::Model { .. }), "{error}");
        }
        file.write_all_at(&byte, at).expect("the disk has room");
    }
}

#[test]
fn files_that_do_not_fit_together_are_refused() {
    let dir = copy_of_model();
    let vocabulary = dir.path().join("vocabulary.txt");
    let whole = std::fs::read_to_string(&vocabulary).expect("it was copied");
    for damaged in
        [String::new(), whole.chars().take(100_000).collect(), whole.replace("<|transcribe|>", "<|x|>")]
    {
        std::fs::write(&vocabulary, damaged).expect("the disk has room");
        assert!(refusal(dir.path()).contains("vocabulary.txt"));
    }
    std::fs::write(&vocabulary, [&whole, "<|one more|>\n"].concat()).expect("the disk has room");
    refusal(dir.path());
    std::fs::write(&vocabulary, &whole).expect("the disk has room");
    std::fs::write(dir.path().join("config.json"), "{}").expect("the disk has room");
    assert!(refusal(dir.path()).contains("config.json"));
}
