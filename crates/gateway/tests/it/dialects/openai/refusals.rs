//! Refusals: each in the shape of OpenAI's errors, and before its costs.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use serde_json::json;
use voxline_gateway::authority::{Budget, Scope, Terms};
use voxline_gateway::{Options, RecordingOptions};

use super::{BOUNDARY, SPEECH, Stage, TRANSCRIPTIONS, TRANSLATIONS, form, part, refusal, service_token};
use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::http::url;
use voxline_fixtures::gateway::server::Setup;

fn own(status: u16, param: &str) -> (u16, Option<String>, Option<String>) {
    (status, Some(param.to_owned()).filter(|param| !param.is_empty()), None)
}

fn coded(status: u16, code: &str) -> (u16, Option<String>, Option<String>) {
    (status, None, Some(code.to_owned()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_form_that_is_none_is_refused() {
    let stage = Stage::new().await;
    let file = wav(1, 16_000, 16_000);
    let whole = form(&[("model", "m")], Some(&file));
    let part_of = |name: &str, content: &[u8]| part(name, "", content);
    let end = format!("--{BOUNDARY}--\r\n").into_bytes();
    let bare = [format!("--{BOUNDARY}\r\n\r\n\r\n").as_bytes(), &end].concat();
    for (expected, body) in [
        (own(400, "file"), form(&[("model", "m")], None)),
        (own(400, "file"), form(&[], Some(b""))),
        (own(400, "file"), [&part_of("file", &file)[..], &part_of("file", &file), &end].concat()),
        (own(400, "file"), form(&[], Some(b"no audio at all"))),
        (own(400, "file"), form(&[], Some(&vec![0; 300_000]))),
        (own(400, "file"), form(&[], Some(&file[..file.len() - 100]))),
        (own(400, "file"), form(&[], Some(&wav(1, 4_000, 4_000)))),
        (
            own(400, "prompt"),
            [&part_of("prompt", &vec![b'a'; 200_000])[..], &part_of("file", &file), &end].concat(),
        ),
        (own(400, "prompt"), [&part_of("prompt", b"\xFF")[..], &part_of("file", &file), &end].concat()),
        (own(400, ""), whole[..whole.len() - 10].to_vec()),
        (own(400, ""), Vec::new()),
        (own(400, ""), bare),
    ] {
        let length = body.len();
        assert_eq!(refusal(stage.send_body(TRANSCRIPTIONS, body).await).await, expected, "{length} bytes");
    }
    for content_type in ["application/json", "multipart/form-data", "multipart/form-data; boundary="] {
        let request = stage.http.post(url(&stage.server, TRANSCRIPTIONS)).bearer_auth(&stage.token);
        let answer = request.header("Content-Type", content_type).body(whole.clone()).send().await.unwrap();
        assert_eq!(refusal(answer).await, own(415, ""), "{content_type}");
    }
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_value_is_refused_with_its_field() {
    let stage = Stage::new().await;
    let file = wav(1, 16_000, 1_600);
    for (path, field, value) in [
        (TRANSCRIPTIONS, "response_format", "aac"),
        (TRANSCRIPTIONS, "temperature", "1.5"),
        (TRANSCRIPTIONS, "language", "klingon"),
        (TRANSCRIPTIONS, "timestamp_granularities", "letter"),
        (TRANSCRIPTIONS, "stream", "perhaps"),
        (TRANSLATIONS, "response_format", "diarized_json"),
    ] {
        assert_eq!(refusal(stage.send(path, &[(field, value)], &file).await).await, own(400, field));
    }
    let many = wav(9, 16_000, 1_600);
    let diarized = stage.send(TRANSCRIPTIONS, &[("response_format", "diarized_json")], &many).await;
    assert_eq!(refusal(diarized).await, own(400, "file"));
    assert_eq!(stage.json(TRANSCRIPTIONS, &[], &many).await["text"], "0.");
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_scopes_and_budgets_hold() {
    let stage = Stage::new().await;
    let token = |terms| service_token(&stage.server, terms);
    let only = |scope: Scope| Terms { scopes: [scope].into_iter().collect(), ..Terms::default() };
    let one_second = Budget { per_day: Some(1), total: None };
    let poor = Terms { audio: one_second, ..Terms::default() };
    let (speaker, listener, poor) = (token(only(Scope::Tts)), token(only(Scope::AsrShort)), token(poor));
    let transcribe = |token: &str, file: Vec<u8>| {
        let request = stage.http.post(url(&stage.server, TRANSCRIPTIONS)).bearer_auth(token);
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        request.header("Content-Type", content_type).body(form(&[], Some(&file))).send()
    };
    let file = wav(1, 16_000, 48_000);
    let forbidden = coded(403, "insufficient_permissions");
    assert_eq!(
        refusal(transcribe("sk-none", file.clone()).await.unwrap()).await,
        coded(401, "invalid_api_key")
    );
    assert_eq!(refusal(transcribe(&speaker, file.clone()).await.unwrap()).await, forbidden);
    assert_eq!(transcribe(&listener, file.clone()).await.unwrap().status(), 200);
    // The budget ends within the recording.
    assert_eq!(refusal(transcribe(&poor, file).await.unwrap()).await, coded(429, "rate_limit_exceeded"));
    let speech = stage.http.post(url(&stage.server, SPEECH)).json(&json!({ "input": "a" }));
    let bare = speech.try_clone().unwrap().send().await.unwrap();
    assert_eq!(bare.headers()["www-authenticate"], "Bearer");
    assert_eq!(refusal(bare).await, coded(401, "invalid_api_key"));
    assert_eq!(refusal(speech.bearer_auth(&listener).send().await.unwrap()).await, forbidden);
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_fails_too_often_is_told_so_in_the_same_shape() {
    let stage =
        Stage::with(Setup { options: Options { max_failures: 2, ..Options::default() }, ..Setup::default() })
            .await;
    let ask = || stage.http.get(url(&stage.server, "/v1/models")).bearer_auth("sk-none").send();
    for _ in 0..2 {
        assert_eq!(ask().await.unwrap().status(), 401);
    }
    assert_eq!(refusal(ask().await.unwrap()).await, coded(429, "rate_limit_exceeded"));
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_beyond_the_limits_are_refused() {
    let recordings = RecordingOptions {
        max_duration: std::time::Duration::from_secs(3),
        max_bytes: 400_000,
        disk_bytes: 300_000,
        directory: None,
    };
    let stage =
        Stage::with(Setup { options: Options { recordings, ..Options::default() }, ..Setup::default() })
            .await;
    let long = wav(1, 8_000, 24_001);
    assert_eq!(refusal(stage.send(TRANSCRIPTIONS, &[], &long).await).await, own(400, "file"));
    assert_eq!(stage.json(TRANSCRIPTIONS, &[], &wav(1, 8_000, 24_000)).await["text"], "0. 1. 2.");
    // Too much for the disk, and too much for any.
    let coded = |status: u16, code: Option<&str>| (status, Some("file".to_owned()), code.map(str::to_owned));
    let full = refusal(stage.send(TRANSCRIPTIONS, &[], &wav(1, 48_000, 160_000)).await).await;
    assert_eq!(full, coded(429, Some("rate_limit_exceeded")));
    stage.server.stop().await;

    let recordings = RecordingOptions { max_bytes: 400_000, ..RecordingOptions::default() };
    let stage =
        Stage::with(Setup { options: Options { recordings, ..Options::default() }, ..Setup::default() })
            .await;
    let large = refusal(stage.send(TRANSCRIPTIONS, &[], &wav(1, 48_000, 210_000)).await).await;
    assert_eq!(large, coded(413, None));
    stage.server.stop().await;

    let directory = Some("/proc/nowhere".into());
    let recordings = RecordingOptions { directory, ..RecordingOptions::default() };
    let stage =
        Stage::with(Setup { options: Options { recordings, ..Options::default() }, ..Setup::default() })
            .await;
    let failed = refusal(stage.send(TRANSCRIPTIONS, &[], &wav(1, 48_000, 210_000)).await).await;
    assert_eq!(failed, coded(500, None));
    stage.server.stop().await;
}

/// Sends bytes, and returns the status of the answer; `None` if the gateway closes without one. The gateway
/// may take a client that closes its side for one that leaves.
fn status(stage: &Stage, request: &[u8], closes: bool) -> Option<u16> {
    let mut socket = TcpStream::connect(stage.server.address).unwrap();
    socket.write_all(request).unwrap();
    if closes {
        socket.shutdown(Shutdown::Write).unwrap();
    }
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer);
    answer.split(' ').nth(1).map(|status| status.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn lengths_that_lie_end_in_an_error() {
    let stage = Stage::new().await;
    let file = wav(1, 16_000, 16_000);
    let body = form(&[], Some(&file));
    let head = |length: u64| {
        format!(
            "POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: g\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
             Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {length}\r\n\r\n",
            stage.token
        )
        .into_bytes()
    };
    let with = |length: u64, body: &[u8]| [&head(length)[..], body].concat();
    assert_eq!(status(&stage, &with(body.len() as u64, &body), false), Some(200));
    // A petabyte is refused before any of it is sent.
    assert_eq!(status(&stage, &with(1 << 50, b""), false), Some(413));
    // Less comes than was announced, or the form ends in mid-file.
    assert_ne!(status(&stage, &with(2 * body.len() as u64, &body), true), Some(200));
    assert_eq!(status(&stage, &with(body.len() as u64 / 2, &body[..body.len() / 2]), false), Some(400));
    // The header of the file announces more audio than there is, and less.
    let mut lying = file.clone();
    lying[40..44].copy_from_slice(&1_000_000_u32.to_le_bytes());
    assert_eq!(refusal(stage.send(TRANSCRIPTIONS, &[], &lying).await).await, own(400, "file"));
    lying[40..44].copy_from_slice(&16_000_u32.to_le_bytes());
    let answer = stage.json(TRANSCRIPTIONS, &[("response_format", "verbose_json")], &lying).await;
    assert_eq!(answer["duration"], 0.5);
    assert_eq!(stage.json(TRANSCRIPTIONS, &[], &file).await["text"], "0.");
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dialect_that_is_off_has_no_paths() {
    let options = Options { dialects: Vec::new(), ..Options::default() };
    let stage = Stage::with(Setup { options, ..Setup::default() }).await;
    for path in ["/v1/models", TRANSCRIPTIONS, "/v1/listen", "/v1/status", "/vosk", "/jambonz"] {
        let answer = stage.http.get(url(&stage.server, path)).bearer_auth(&stage.token).send().await.unwrap();
        assert_eq!(answer.status(), 404);
    }
    stage.server.stop().await;
}
