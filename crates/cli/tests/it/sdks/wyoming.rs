//! The Python package `wyoming`, which is Home Assistant's client.

use serde_json::{Value, json};

use super::{SENTENCE, SENTENCE_SECONDS, Stage, assert_words, human, list, number, sentence, string};
use crate::cli::{Place, path};
use voxline_fixtures::gateway::audio::wav_of;

#[test]
fn wyoming_client() {
    check("tcp://", |_| "127.0.0.1:0".to_owned());
}

#[test]
fn wyoming_client_of_a_unix_socket() {
    check("unix:", |place| format!("unix:{}", path(&place.path("wyoming.sock"))));
}

/// Runs the client against a gateway that listens at this address, and prints it as `scheme`.
fn check(scheme: &str, address: impl FnOnce(&Place) -> String) {
    let place = Place::new();
    let address = address(&place);
    let mut stage =
        Stage::new(&["--model", "whisper-tiny.en", "--wyoming-listen", &address, "--open-project", "calls"]);
    let line = stage.serving.line();
    let server = line.split(' ').find(|word| word.starts_with(scheme)).unwrap_or_else(|| panic!("{line}"));
    let human = human();
    let files = [("first.wav", sentence()), ("second.wav", human.pcm)];
    let files = files.map(|(name, pcm)| stage.place.file(name, wav_of(&pcm)));
    let arguments = [server, path(&files[0]), path(&files[1]), SENTENCE.trim()];
    let results = stage.run("wyoming_client.py", &arguments);

    assert_described(&results["described"]);
    assert_transcribed(&results["transcribed"], &human.text);
    for name in ["name", "language", "pieces"] {
        assert_spoken(&stage, &results["spoken"][name], name == "pieces");
    }
    for heard in list(&results["heard"]) {
        assert_words(string(heard), SENTENCE);
    }
    let failures = &results["failures"];
    for (name, code) in [("voice", "refused"), ("format", "bad-event"), ("width", "bad-event")] {
        assert_eq!(
            (&failures[name]["code"], &failures[name]["is_over"]),
            (&json!(code), &json!(true)),
            "{name}"
        );
        assert!(!string(&failures[name]["text"]).is_empty(), "{name}");
    }
}

fn assert_described(described: &Value) {
    assert_eq!(described["pong"], "there?");
    let (asr, tts) = (&described["info"]["asr"][0], &described["info"]["tts"][0]);
    assert_eq!((&asr["installed"], &asr["supports_transcript_streaming"]), (&json!(true), &json!(true)));
    assert_eq!((&tts["installed"], &tts["supports_synthesize_streaming"]), (&json!(true), &json!(true)));
    assert_eq!(asr["models"][0]["name"], "whisper-tiny.en");
    assert_eq!(asr["models"][0]["languages"], json!(["en"]));
    let voices = list(&tts["voices"]);
    assert!(voices.iter().any(|voice| voice["name"] == "joe"), "{voices:?}");
}

/// Returns the texts of the events of a class.
fn texts<'a>(events: &'a Value, class: &str) -> Vec<&'a str> {
    let own = list(events).iter().filter(|event| event["class"] == class);
    own.map(|event| string(&event["text"])).collect()
}

/// Asserts that the pieces of a transcript add up to the whole, which has these words.
fn assert_streamed(events: &Value, said: &str) {
    let classes: Vec<&str> = list(events).iter().map(|event| string(&event["class"])).collect();
    let pieces = texts(events, "TranscriptChunk");
    let mut expected = vec!["TranscriptStart"];
    expected.extend(vec!["TranscriptChunk"; pieces.len()]);
    expected.extend(["Transcript", "TranscriptStop"]);
    assert_eq!(classes, expected);
    assert_eq!(texts(events, "Transcript"), [pieces.concat()]);
    assert_words(&pieces.concat(), said);
}

fn assert_transcribed(transcribed: &Value, second: &str) {
    // The first utterance is told before the second one is sent.
    let first = texts(&transcribed["early"], "TranscriptChunk").concat();
    assert!(!first.is_empty() && list(&transcribed["early"]).len() == 2, "{transcribed}");
    let streamed = &transcribed["streamed"];
    assert!(texts(streamed, "TranscriptChunk").len() >= 2, "{streamed}");
    assert_streamed(streamed, &format!("{SENTENCE} {second}"));
    assert_streamed(&transcribed["converted"], second);
    assert_eq!(list(streamed)[0]["language"], "en");
    let silent = list(&transcribed["silent"]);
    assert_eq!((silent.len(), &silent[0]["text"]), (1, &json!("")), "{silent:?}");
}

/// Asserts that the events around a speech are in order, and that the times of its pieces touch.
fn assert_spoken(stage: &Stage, spoken: &Value, is_in_pieces: bool) {
    let classes: Vec<&str> = list(&spoken["others"]).iter().map(|event| string(&event["class"])).collect();
    let end: &[&str] = if is_in_pieces { &["SynthesizeStopped"] } else { &[] };
    assert_eq!(classes, [&["AudioStart", "AudioStop"], end].concat());
    let seconds = stage.seconds_of(&spoken["file"]);
    assert!((0.7..1.4).contains(&(seconds / SENTENCE_SECONDS)), "{seconds}");
    let mut at = 0.0;
    for time in list(&spoken["times"]) {
        assert!((number(&time[0]) - at).abs() <= 1.0, "{time}, not at {at}");
        assert_eq!(time[2], spoken["rate"]);
        at = number(&time[0]) + number(&time[1]);
    }
    let stop = &list(&spoken["others"])[1]["timestamp"];
    assert!((number(stop) / 1_000.0 - seconds).abs() < 0.002, "{stop}, {seconds}");
}
