//! The transcriber of the Python package `vosk`, as a client of a server.

use serde_json::Value;

use super::{SENTENCE, SENTENCE_SECONDS, STEREO, Stage, assert_timed, assert_words, human, list, string};
use crate::cli::path;
use voxline_fixtures::gateway::audio::wav_of;
use voxline_fixtures::samples::sample;

/// The transcriber sends both recordings at once, to the listener without tokens and to the gateway itself.
#[test]
fn vosk_transcriber() {
    let mut stage = Stage::new(&[
        "--model",
        "whisper-tiny.en",
        "--vosk-listen",
        "127.0.0.1:0",
        "--open-project",
        "calls",
    ]);
    let human = human();
    let second = stage.place.file("second.wav", wav_of(&human.pcm));
    let first = sample(STEREO);
    let line = stage.serving.line();
    let open = line.split(' ').find(|word| word.starts_with("ws://")).unwrap_or_else(|| panic!("{line}"));
    let guarded = stage.serving.endpoint.replacen("http", "ws", 1);
    let guarded = format!("{guarded}/vosk?token={}", stage.token);
    let recordings = [path(&first), path(&second)].join(",");
    let arguments = [env!("CARGO_BIN_EXE_voxline"), &[open, &guarded].join(","), &recordings];
    let results = stage.run("vosk_client.py", &arguments);

    let said = [(SENTENCE, SENTENCE_SECONDS), (&human.text, human.seconds())];
    assert_eq!(list(&results).len(), 2);
    for result in list(&results) {
        for ((said, _), text) in said.iter().zip(list(&result["texts"])) {
            assert_words(string(text), said);
        }
        assert_replies(list(&result["replies"]), said);
    }
}

/// Asserts that the replies hold the words of both recordings, with times within these.
fn assert_replies(replies: &[Value], said: [(&str, f64); 2]) {
    let is_result = |reply: &&Value| reply["text"].as_str().is_some_and(|text| !text.is_empty());
    let (results, others): (Vec<&Value>, Vec<&Value>) = replies.iter().partition(is_result);
    assert!(others.iter().any(|reply| reply["partial"].is_string()), "{others:?}");
    for (said, seconds) in said {
        let first = said.split(' ').next().unwrap().to_lowercase();
        let own = results.iter().filter(|result| result["result"][0]["word"] == first.as_str());
        let words: Vec<Value> = own.flat_map(|result| list(&result["result"])).cloned().collect();
        assert_timed(&words, "word", said, [0.0, seconds]);
    }
}
