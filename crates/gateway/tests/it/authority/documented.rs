//! The requests of the service's documentation, word for word except for host, credentials and file, run by
//! `curl`, the program that the documentation shows them for.

use std::process::{Command, Stdio};

use secrecy::ExposeSecret;
use serde_json::{Value, json};

use voxline_fixtures::gateway::authority::serving;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::samples::sample;

/// From get-voice-token.md of the documentation, as of 2026.
const BY_CREDENTIALS: &str = r#"curl -X POST --location 'https://mcs.mail.ru/auth/oauth/v1/token' \
--header 'Content-Type: application/json' \
--data '{
"client_id":"mcs5719255887.voice.6Wg9D18XPZN28DWy4wEba",
"client_secret": "1234567890ABCDEFGHIJKLMNOPQRSTUVWXYZ",
"grant_type":"client_credentials"
}'"#;
const BY_REFRESH_TOKEN: &str = r#"curl -X POST --location 'https://mcs.mail.ru/auth/oauth/v1/token' \
--header 'Content-Type: application/json' \
--data '{
"client_id":"mcs5719255887.voice.6Wg9D18XPZN28DWy4wEba",
"refresh_token":"ABCDEFGHIJKLMNOPQRSTUVWXYZ1234567890",
"grant_type":"refresh_token"
}'"#;
/// From speech-recognition.md.
const RECOGNISE: &str = r"curl -L --request POST 'https://voice.mcs.mail.ru/asr' \
--header 'Content-Type: audio/ogg; codecs=opus' \
--header 'Authorization: Bearer xxxxxxxxxx'  \
--data-binary '@/Users/User/tts.ogg'";
/// From text-to-speech.md, which lacks the backslash before its last line.
const SPEAK: &str = r"curl -L --request GET \
    --url 'https://voice.mcs.mail.ru/tts?text=<текст для озвучивания>' \
    --output <имя файла> \
    --header 'Authorization: Bearer <токен доступа>'";

/// Returns the answer to a request, as `curl` prints it.
fn ask(server: &Server, request: &str, replaced: &[(&str, &str)]) -> Vec<u8> {
    let here = format!("http://{}", server.address);
    let mut request =
        request.replace("https://mcs.mail.ru", &here).replace("https://voice.mcs.mail.ru", &here);
    for (from, to) in replaced {
        assert!(request.contains(from), "{request}");
        request = request.replace(from, to);
    }
    // A proxy configured on this machine would not know the host.
    let mut shell = Command::new("sh");
    shell.args(["-c", &request]).env("NO_PROXY", "*").stderr(Stdio::null());
    let answered = shell.output().unwrap();
    assert!(answered.status.success(), "{request}: {}", answered.status);
    answered.stdout
}

fn ask_json(server: &Server, request: &str, replaced: &[(&str, &str)]) -> Value {
    let answer = ask(server, request, replaced);
    serde_json::from_slice(&answer).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&answer)))
}

/// Returns the names of a JSON object's fields.
fn fields(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documented_requests_are_answered_as_documented() {
    let server = serving(Setup::default()).await;
    let id = ("mcs5719255887.voice.6Wg9D18XPZN28DWy4wEba", server.credentials.client_id.as_str());
    let secret = ("1234567890ABCDEFGHIJKLMNOPQRSTUVWXYZ", server.credentials.client_secret.expose_secret());
    let first = ask_json(&server, BY_CREDENTIALS, &[id, secret]);
    let refresh_token = first["refresh_token"].as_str().unwrap();
    let refresh = [id, ("ABCDEFGHIJKLMNOPQRSTUVWXYZ1234567890", refresh_token)];
    let second = ask_json(&server, BY_REFRESH_TOKEN, &refresh);
    for answer in [&first, &second] {
        assert_eq!(fields(answer), ["access_token", "expired_in", "refresh_token", "scope"]);
        assert_eq!(answer["expired_in"], "3600");
        assert_eq!(answer["scope"], json!({ "tts": 1, "asr_short": 1, "asr_stream": 1 }));
    }
    assert_eq!(second["refresh_token"], first["refresh_token"]);
    assert_ne!(second["access_token"], first["access_token"]);

    let token = second["access_token"].as_str().unwrap();
    let recording = sample("speech-16k-mono-voip.opus");
    let heard = ask_json(
        &server,
        RECOGNISE,
        &[("xxxxxxxxxx", token), ("/Users/User/tts.ogg", recording.to_str().unwrap())],
    );
    assert_eq!(fields(&heard), ["qid", "result"]);
    assert_eq!(fields(&heard["result"]), ["phrase_id", "texts"]);
    let texts = heard["result"]["texts"].as_array().unwrap();
    assert_eq!(texts.len(), 1);
    assert_eq!(fields(&texts[0]), ["confidence", "punctuated_text", "text"]);

    let (text, directory) = ("Hello.", tempfile::tempdir().unwrap());
    let file = directory.path().join("speech.pcm");
    let speak = [
        ("<текст для озвучивания>", text),
        ("<имя файла>", file.to_str().unwrap()),
        ("<токен доступа>", token),
    ];
    ask(&server, SPEAK, &speak);
    // The test voice's tone, as big-endian samples.
    let speech = std::fs::read(&file).unwrap();
    assert_eq!(speech.len(), 2 * 100 * text.len());
    assert!(speech.as_chunks().0.iter().all(|sample| *sample == [0x12, 0x34]));
    server.stop().await;
}
