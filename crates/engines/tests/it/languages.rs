//! The language that Whisper detects: one of those allowed, and kept where a stream starts anew.

use voxline::engine::{RecognitionRequest, Recognizer};
use voxline::language::Languages;

use voxline_fixtures::clips;
use voxline_fixtures::whisper::whisper;

/// Prompts of a word or two, which Whisper alone takes for Polish, Bulgarian or Serbian.
const SHORT: [&str; 3] = ["vm-goodbye", "vm-isunavail", "hello-world"];

#[test]
fn what_is_detected_is_one_of_the_languages_allowed() {
    let whisper = whisper();
    let request = RecognitionRequest::from(&"ru,en".parse::<Languages>().unwrap());
    let mut russian = 0;
    for set in ["ru-telephone", "en-telephone"] {
        for prompt in SHORT {
            let mut stream = whisper.start(&request).unwrap();
            let mut segments = stream.push(&clips::audio(set, prompt)).unwrap();
            segments.extend(stream.flush().unwrap());
            for segment in segments.iter().filter(|segment| !segment.text.is_empty()) {
                let language = segment.language.as_deref().unwrap();
                assert!(["ru", "en"].contains(&language), "{set} {prompt}: {segment:?}");
                russian += usize::from(set == "ru-telephone" && language == "ru");
            }
        }
    }
    assert!(russian >= 2, "only {russian} of {} prompts are Russian", SHORT.len());
}

/// One word is too little to tell Russian from Polish. A stream that starts anew after Russian speech knows
/// the language from its context.
#[test]
fn the_language_settled_on_travels_with_the_context() {
    let whisper = whisper();
    let listen = |pcm: &[i16], context: Option<String>| {
        let mut request = RecognitionRequest::new();
        request.context = context;
        let mut stream = whisper.start(&request).unwrap();
        let mut segments = stream.push(pcm).unwrap();
        segments.extend(stream.flush().unwrap());
        segments.into_iter().rfind(|segment| !segment.text.is_empty()).expect("something is said")
    };
    let word = clips::audio("ru-telephone", "vm-isunavail");
    let before = listen(&clips::audio("ru-telephone", "queue-youarenext"), None);
    assert_eq!(before.language.as_deref(), Some("ru"));
    let context = before.context.expect("what was detected is told");
    assert_ne!(listen(&word, None).language.as_deref(), Some("ru"), "the word alone is clear by now");
    let behind = listen(&word, Some(context));
    assert_eq!(behind.language.as_deref(), Some("ru"), "{behind:?}");
    // A context of another version.
    listen(&word, Some("{\"language\":7}".to_owned()));
}
