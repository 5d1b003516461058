//! Requests that Whisper honours, and the figures that it reports in a segment.

use voxline::engine::{
    Accuracy, EngineError, RecognitionRequest, Recognizer, Segment, Task, UnsupportedRequest,
};
use voxline_engines::Whisper;
use voxline_engines::wer::WordErrors;

use voxline_fixtures::clips::{self, Clip};
use voxline_fixtures::samples::models_dir;
use voxline_fixtures::whisper::whisper;
use voxline_testing::check_recognizer;

/// Returns the segments of a recording that have a text.
fn spoken(whisper: &Whisper, request: &RecognitionRequest, pcm: &[i16]) -> Vec<Segment> {
    let mut stream = whisper.start(request).unwrap();
    let mut segments = stream.push(pcm).unwrap();
    segments.extend(stream.flush().unwrap());
    segments.retain(|segment| !segment.text.is_empty());
    segments
}

fn english_only() -> Whisper {
    Whisper::load(&models_dir().join("whisper-tiny.en")).unwrap()
}

#[test]
fn whisper_conforms_to_the_contract_of_recognisers() {
    let mut pcm = clips::audio("en-16k", "goforward");
    pcm.extend([0; 20_000]);
    pcm.extend(clips::audio("ru-telephone", "hello-world"));
    let segments = check_recognizer(&*whisper(), &pcm).unwrap();
    let spoken = segments.iter().filter(|segment| !segment.text.is_empty());
    assert_eq!(spoken.count(), 2, "{segments:?}");
    check_recognizer(&english_only(), &clips::audio("en-16k", "goforward")).unwrap();
}

/// Returns the reason why a request is refused.
fn refusal(whisper: &Whisper, request: &RecognitionRequest) -> Option<UnsupportedRequest> {
    match whisper.start(request) {
        Ok(_) => None,
        Err(EngineError::Unsupported(reason)) => Some(reason),
        Err(error) => panic!("another error: {error}"),
    }
}

/// whisper-base translates roughly; a word or two of each sentence are beyond doubt.
#[test]
fn russian_is_translated_into_english() {
    let whisper = whisper();
    let cases = [
        ("auth-incorrect", Some("ru"), "password"),
        ("queue-youarenext", None, "first"),
        ("tt-allbusy", Some("ru"), "stay on the line"),
    ];
    for (name, language, expected) in cases {
        let clip = clips::clip("ru-telephone", name);
        let request = RecognitionRequest::new().languages(language).task(Task::Translate);
        let segments = spoken(&whisper, &request, &clip.pcm);
        let text: Vec<&str> = segments.iter().map(|segment| segment.text.as_str()).collect();
        let text = text.join(" ").to_lowercase();
        assert!(text.contains(expected), "{name}: {text}");
        assert!(!text.chars().any(|c| ('а'..='я').contains(&c)), "{name}: {text}");
        for segment in segments {
            assert_eq!(segment.language.as_deref(), Some("ru"), "{segment:?}");
            assert!(segment.words.is_empty(), "a word of a translation is placed: {segment:?}");
        }
    }
}

#[test]
fn an_english_only_model_neither_translates_nor_knows_other_languages() {
    let whisper = english_only();
    assert_eq!(whisper.capabilities().tasks, [Task::Transcribe]);
    let request = RecognitionRequest::new;
    let translation = request().task(Task::Translate);
    assert_eq!(refusal(&whisper, &translation), Some(UnsupportedRequest::Task(Task::Translate)));
    let russian = Some(UnsupportedRequest::Language("ru".to_owned()));
    assert_eq!(refusal(&whisper, &request().language("ru")), russian);
    assert_eq!(refusal(&whisper, &request().languages(["ru", "de"])), russian);
    for languages in [&[][..], &["en-GB"], &["ru", "en"]] {
        assert_eq!(refusal(&whisper, &request().languages(languages.iter().copied())), None);
    }
}

#[test]
fn what_is_not_honoured_is_refused_by_its_name() {
    let whisper = whisper();
    let request = RecognitionRequest::new;
    let refused = [request().temperature(0.2), request().languages(["en", "tlh"])];
    let fields = refused.map(|request| refusal(&whisper, &request).map(|reason| reason.field()));
    let expected = ["temperature", "languages"];
    assert_eq!(fields, expected.map(Some));
    // A temperature of 0 excludes the fallback, as does an accuracy of `fast`.
    let honoured =
        [request().temperature(0.0), request().accuracy(Accuracy::Fast), request().accuracy(Accuracy::Best)];
    assert_eq!(honoured.map(|request| refusal(&whisper, &request)), [None, None, None]);
}

/// Of these 91 words a beam search gets 10 wrong, and greedy decoding 13.
#[test]
fn the_best_accuracy_makes_fewer_errors() {
    let whisper = whisper();
    let errors = |accuracy: Accuracy| {
        let request = RecognitionRequest::new().language("ru").accuracy(accuracy);
        let of_clip = |clip: &Clip| {
            let heard = spoken(&whisper, &request, &clip.pcm);
            for segment in &heard {
                assert!(segment.words.is_sorted_by_key(|word| word.range.start), "{segment:?}");
                assert!(!segment.words.is_empty(), "{segment:?}");
            }
            let heard: Vec<&str> = heard.iter().map(|segment| segment.text.as_str()).collect();
            WordErrors::between(&clip.text, &heard.join(" ")).errors
        };
        clips::set("ru-telephone").iter().map(of_clip).sum::<usize>()
    };
    let (best, balanced) = (errors(Accuracy::Best), errors(Accuracy::Balanced));
    assert!(best < balanced, "{best} errors instead of {balanced}");
}

/// The recording says both spellings alike. Of a prompt that is too long for the model its end counts.
#[test]
fn a_prompt_sets_the_spelling() {
    let whisper = whisper();
    let pcm = clips::audio("en-16k", "goforward");
    let request = || RecognitionRequest::new().language("en");
    let heard = |request: &RecognitionRequest| {
        let texts: Vec<String> =
            spoken(&whisper, request, &pcm).into_iter().map(|segment| segment.text).collect();
        texts.join(" ").to_lowercase()
    };
    assert!(heard(&request()).contains("meters"));
    let british = "The first run was twelve metres, the second was eleven metres, and the third nine metres.";
    for prompt in [british.to_owned(), format!("{} {british}", "They counted the sheep. ".repeat(150))] {
        let text = heard(&request().prompt(prompt));
        assert!(text.starts_with("go forward") && text.contains("metres"), "{text}");
    }
}

/// The confidence is the model's own, without what the keywords add.
#[test]
fn a_keyword_lowers_the_confidence_by_its_cost() {
    let whisper = whisper();
    let pcm = clips::audio("en-16k", "goforward");
    let sum = |request: &RecognitionRequest| {
        let segments = spoken(&whisper, request, &pcm);
        let [segment] = &segments[..] else { panic!("{segments:?}") };
        // The tokens of the text, and its end.
        let tokens = segment.tokens.len() as f32 + 1.0;
        (segment.text.to_lowercase(), segment.avg_log_probability.unwrap() * tokens)
    };
    for accuracy in [Accuracy::Balanced, Accuracy::Best] {
        let request = RecognitionRequest::new().language("en").accuracy(accuracy);
        let (plain, before) = sum(&request);
        let (british, after) = sum(&request.clone().keywords(["metres"]));
        assert!(plain.contains("meters") && british.contains("metres"), "{accuracy}: {plain} {british}");
        assert!(after < before - 0.1, "{accuracy}: {before} {after}");
        let (same, unchanged) = sum(&request.keywords(["Wakabayashi"]));
        assert_eq!((same, unchanged), (plain, before), "{accuracy}");
    }
}

/// The figures are those of OpenAI's `verbose_json`.
#[test]
fn segments_report_the_figures_of_the_decoding() {
    let whisper = whisper();
    let clip = clips::clip("en-16k", "goforward");
    let segments = spoken(&whisper, &RecognitionRequest::new().language("en"), &clip.pcm);
    let [segment] = &segments[..] else { panic!("{segments:?}") };
    let log_probability = segment.avg_log_probability.unwrap();
    assert_eq!(Some(log_probability.exp()), segment.confidence);
    assert!(log_probability > -0.5, "{segment:?}");
    assert!(segment.no_speech_probability.unwrap() < 0.2, "{segment:?}");
    // A word or a mark is a token or more.
    assert!(segment.tokens.len() > segment.words.len(), "{segment:?}");
    // "Go forward ten meters." is shorter than its zlib stream.
    assert!((0.5..1.0).contains(&segment.compression_ratio.unwrap()), "{segment:?}");
}
