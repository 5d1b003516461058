//! Snippets of the console for curl and Python, run as a user would paste them.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::{SENTENCE, Stage, assert_words, installed, list, string};
use voxline_fixtures::samples::sample;

#[test]
fn snippets_of_the_console_run() {
    let stage = Stage::new(&["--model", "whisper-tiny.en"]);
    fs::copy(sample("speech-16k-mono-s16.wav"), stage.place.path("recording.wav")).unwrap();
    let file = format!("{}/console/snippets.json", stage.serving.endpoint);
    let snippets: Value =
        serde_json::from_str(&stage.output(Command::new("curl").args(["-sS", &file]))).unwrap();
    let mut apis = Vec::new();
    for snippet in list(&snippets) {
        let (api, language) = (string(&snippet["dialect"]), string(&snippet["language"]));
        let lines: Vec<&str> = list(&snippet["code"]).iter().map(string).collect();
        let code = lines
            .join("\n")
            .replace("{http}", &stage.serving.endpoint)
            .replace("{ws}", &stage.serving.endpoint.replacen("http", "ws", 1))
            .replace("YOUR_TOKEN", &stage.token);
        let printed = match language {
            "curl" => stage.output(Command::new("sh").args(["-c", &code])),
            "Python" => {
                let mut python = Command::new("python3");
                stage.output(python.args(["-c", &code]).env("PYTHONPATH", installed("client-sdks")))
            }
            // A browser runs it in the tests of the console.
            "JavaScript" => continue,
            // What an operator enters elsewhere.
            other => {
                assert_eq!((api, other), ("jambonz", "Settings"));
                continue;
            }
        };
        apis.push((api, language));
        let said = if language == "curl" { transcript(api, &printed) } else { printed };
        assert_words(&said, SENTENCE);
    }
    let expected = [("openai", "curl"), ("openai", "Python"), ("deepgram", "curl"), ("deepgram", "Python")];
    assert_eq!(apis, [&expected[..], &[("vosk", "Python")]].concat());
}

/// Returns the text in an answer.
fn transcript(api: &str, answer: &str) -> String {
    let answer: Value = serde_json::from_str(answer).unwrap();
    let text = match api {
        "openai" => &answer["text"],
        _ => &answer["results"]["channels"][0]["alternatives"][0]["transcript"],
    };
    string(text).to_owned()
}
