//! The language that the operator of `voxline serve` sets, for clients that name none.

use serde_json::Value;

use crate::cli::{Place, text};
use crate::support::serving::Serving;
use voxline_fixtures::clips;
use voxline_fixtures::gateway::audio::wav_of;
use voxline_fixtures::gateway::http::http_client;

/// Returns whether a text of the API consists of Russian letters.
fn is_russian(text: &str) -> bool {
    text.chars().all(|c| matches!(c, 'а'..='я' | 'ё' | ' ' | '-') || c.is_ascii_digit())
}

/// A word that Whisper alone takes for three words of Polish.
const POLISH: &str = "vm-isunavail";

/// The real program, whose language is set by flag, configuration key or environment variable. Its client
/// names none, like those of the original service.
#[tokio::test]
async fn serve_hears_russian_where_its_operator_says_so() {
    let place = Place::new();
    place.run(&["gateway", "project", "create", "calls", "--state", "state"]);
    let token = place.run(&["gateway", "service-token", "create", "calls", "--state", "state"]);
    let token = text(&token.stdout).trim();
    place.file("russian.toml", "language = \"ru\"\n");
    let recording = wav_of(&clips::audio("ru-telephone", POLISH));
    let cases = [
        (vec!["--language", "ru"], None),
        (vec!["--config", "russian.toml"], None),
        (vec![], Some(("VOXLINE_LANGUAGE", "ru"))),
    ];
    for (flags, variable) in cases {
        let usual =
            ["serve", "--listen", "127.0.0.1:0", "--state", "state", "--threads", "1", "--max-sessions", "1"];
        let mut serve = place.command(&[&usual[..], &flags].concat());
        serve.envs(variable);
        let serving = Serving::start(serve);
        let request = http_client().unwrap().post(format!("{}/asr", serving.endpoint)).bearer_auth(token);
        let answer: Value = request.body(recording.clone()).send().await.unwrap().json().await.unwrap();
        let said = answer["result"]["texts"][0]["text"].as_str().unwrap_or_default();
        assert!(!said.is_empty() && is_russian(said), "{flags:?} {variable:?}: {answer}");
        assert_eq!(serving.stop().0.code(), Some(0));
    }
}
