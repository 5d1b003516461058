//! The gateway's HTTP API, called by an independent client with the documented requests.

use std::sync::Arc;

use reqwest::{Client, StatusCode};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use voxline_testing::DigestRecognizer;

use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::http::{access_token, ask_token, by_credentials, http_client, refusal, url};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::voice::Tone;

async fn server() -> (Server, Client) {
    let setup = Setup { voices: Tone::voices(), ..Setup::default() };
    let server = Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await;
    (server, http_client().unwrap())
}

#[tokio::test]
async fn both_grants_have_the_documented_shape() {
    let (server, http) = server().await;
    let first = ask_token(&server, &http, &by_credentials(&server)).await;
    assert_eq!(first.status(), StatusCode::OK);
    let first: Value = first.json().await.unwrap();
    assert_eq!(first["expired_in"], "3600");
    assert_eq!(first["scope"], json!({ "tts": 1, "asr_short": 1, "asr_stream": 1 }));

    let refresh = json!({
        "client_id": server.credentials.client_id,
        "refresh_token": first["refresh_token"],
        "grant_type": "refresh_token",
    });
    let second: Value = ask_token(&server, &http, &refresh).await.json().await.unwrap();
    assert_eq!(second["refresh_token"], first["refresh_token"]);
    assert_ne!(second["access_token"], first["access_token"]);

    // Clients also send forms, with unusual parameters in the content type.
    let secret = server.credentials.client_secret.expose_secret();
    let form = format!(
        "grant_type=client_credentials&client_id={}&client_secret={secret}",
        server.credentials.client_id
    );
    let request = http
        .post(url(&server, "/auth/oauth/v1/token"))
        .header("content-type", "application/x-www-form-urlencoded; boundary=x");
    assert_eq!(request.body(form).send().await.unwrap().status(), StatusCode::OK);
    server.stop().await;
}

#[tokio::test]
async fn wrong_requests_for_tokens_are_refused() {
    let (server, http) = server().await;
    let mut wrong_secret = by_credentials(&server);
    wrong_secret["client_secret"] = json!("no");
    let mut unknown = by_credentials(&server);
    unknown["client_id"] = json!("mcs1.voice.nobody");
    let mut strange = by_credentials(&server);
    strange["grant_type"] = json!("password");
    let dead = json!({
        "client_id": server.credentials.client_id, "refresh_token": "dead", "grant_type": "refresh_token",
    });
    for (body, status, error) in [
        (wrong_secret, 401, "invalid_client"),
        (unknown, 401, "invalid_client"),
        (strange, 400, "unsupported_grant_type"),
        (dead, 400, "invalid_grant"),
        (json!({ "grant_type": "client_credentials" }), 400, "invalid_request"),
        (json!([]), 400, "invalid_request"),
    ] {
        let answer = ask_token(&server, &http, &body).await;
        assert_eq!(answer.status().as_u16(), status, "{body}");
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["error"], error, "{body}");
    }
    server.stop().await;
}

#[tokio::test]
async fn every_route_wants_a_token_before_anything_else() {
    let (server, http) = server().await;
    for (path, post) in [
        ("/asr", true),
        ("/tts", false),
        ("/tts", true),
        ("/asr_stream/ws", false),
        ("/asr_stream/create_task", true),
        ("/asr_stream/add_chunk", true),
        ("/asr_stream/get_result", false),
    ] {
        for token in [None, Some("wrong")] {
            let address = url(&server, path);
            let mut request = if post { http.post(address) } else { http.get(address) };
            if let Some(token) = token {
                request = request.bearer_auth(token);
            }
            let answer = request.send().await.unwrap();
            assert_eq!(answer.headers()["www-authenticate"], "Bearer");
            assert_eq!(refusal(answer).await, (StatusCode::UNAUTHORIZED, 4048), "{path}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn the_stream_refuses_in_plain_http() {
    let (server, http) = server().await;
    let token = access_token(&server, &http).await;
    let ask = |headers: &[(&str, &str)]| {
        let mut request = http.get(url(&server, "/asr_stream/ws")).bearer_auth(&token);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send()
    };
    assert_eq!(ask(&[]).await.unwrap().status(), StatusCode::BAD_REQUEST);
    let protocol = ("sec-websocket-protocol", "voxline.asr.v1");
    assert_eq!(ask(&[protocol]).await.unwrap().status(), StatusCode::UPGRADE_REQUIRED);
    let other = ("sec-websocket-protocol", "chat, superchat");
    assert_eq!(ask(&[other]).await.unwrap().status(), StatusCode::BAD_REQUEST);
    server.stop().await;
}

#[tokio::test]
async fn a_recording_is_answered_with_one_hypothesis() {
    let (server, http) = server().await;
    let token = access_token(&server, &http).await;
    let post = |body: Vec<u8>| {
        http.post(url(&server, "/asr"))
            .bearer_auth(&token)
            .header("content-type", "audio/wave")
            .body(body)
            .send()
    };
    let answer = post(wav(1, 16_000, 20_000)).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer["qid"].as_str().unwrap().len(), 32);
    let [text] = &answer["result"]["texts"].as_array().unwrap()[..] else { panic!("{answer}") };
    assert!(text["punctuated_text"].is_string() && text["confidence"].is_number());
    // The recogniser's two digests: one for the first second, one for the rest.
    assert_eq!(text["text"].as_str().unwrap().split(' ').count(), 2);

    assert_eq!(
        refusal(post(b"no audio at all".to_vec()).await.unwrap()).await,
        (StatusCode::BAD_REQUEST, 4033)
    );
    assert_eq!(refusal(post(wav(2, 16_000, 100)).await.unwrap()).await, (StatusCode::BAD_REQUEST, 4044));
    let long = wav(1, 8_000, 8_000 * 301);
    assert_eq!(refusal(post(long).await.unwrap()).await, (StatusCode::BAD_REQUEST, 4043));
    let large = vec![0; 20 * 1024 * 1024 + 1];
    assert_eq!(refusal(post(large).await.unwrap()).await, (StatusCode::BAD_REQUEST, 4009));
    server.stop().await;
}

#[tokio::test]
async fn speech_is_big_endian_pcm_at_24_khz() {
    let (server, http) = server().await;
    let token = access_token(&server, &http).await;
    let get = http.get(url(&server, "/tts?text=Hello.%20World.&encoder=pcm&tempo=1.0")).bearer_auth(&token);
    let answer = get.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "audio/l16;rate=24000;channels=1;endianness=big-endian");
    let pcm = answer.bytes().await.unwrap();
    assert_eq!(pcm.len(), 2 * 100 * ("Hello.".len() + "World.".len()));
    assert!(pcm.as_chunks().0.iter().all(|sample| *sample == [0x12, 0x34]));

    let post = http.post(url(&server, "/tts")).bearer_auth(&token).body("Hello. World.");
    assert_eq!(post.send().await.unwrap().bytes().await.unwrap(), pcm);

    for query in
        ["", "?text=", "?text=a&encoder=wma", "?text=a&tempo=9", "?text=a&tempo=x", "?text=a&model_name=x"]
    {
        let answer =
            http.get(url(&server, &format!("/tts{query}"))).bearer_auth(&token).send().await.unwrap();
        assert_eq!(refusal(answer).await, (StatusCode::BAD_REQUEST, 4051), "{query}");
    }
    let long = http.post(url(&server, "/tts")).bearer_auth(&token).body("a".repeat(20_001));
    assert_eq!(refusal(long.send().await.unwrap()).await, (StatusCode::BAD_REQUEST, 4051));
    server.stop().await;
}

#[tokio::test]
async fn health_is_told_without_a_token() {
    let (server, http) = server().await;
    let answer = http.get(url(&server, "/healthz")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let answer: Value = answer.json().await.unwrap();
    assert_eq!(answer, json!({ "status": "ok", "recognizer": "digest", "sessions": 0 }));
    server.stop().await;
}
