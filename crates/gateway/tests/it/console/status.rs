//! `/console/status` and `/console/voices`: the load of the whole gateway, and the activity of the caller's
//! own project.

use std::sync::Arc;
use std::time::Duration;

use humantime::parse_rfc3339;
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use voxline::auth::{AccessToken, TokenGeneration};
use voxline_gateway::Dialect;
use voxline_gateway::authority::{Scope, Scopes, Terms};
use voxline_testing::DigestRecognizer;

use crate::stream::audio;
use voxline_fixtures::gateway::http::http_client;
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::socket::Socket;
use voxline_fixtures::gateway::tokens::minted;
use voxline_fixtures::gateway::voice::Tone;

async fn server() -> Server {
    let setup = Setup { voices: Tone::voices(), ..Setup::default() };
    Server::with(Arc::new(DigestRecognizer::new(8_000)), setup).await
}

async fn ask(server: &Server, path: &str, token: &str) -> (StatusCode, Value) {
    let asked = http_client().unwrap().get(format!("http://{}{path}", server.address)).bearer_auth(token);
    let answer = asked.send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

async fn status(server: &Server, token: &SecretString) -> Value {
    let (code, status) = ask(server, "/console/status", token.expose_secret()).await;
    assert_eq!(code, StatusCode::OK, "{status}");
    status
}

#[tokio::test]
async fn a_project_sees_the_load_of_all_and_the_sessions_of_its_own() {
    let server = server().await;
    let authority = server.gateway.authority();
    let other = authority.create_project("other").unwrap();
    let others = authority.client_credentials(&other.client_id, &other.client_secret).unwrap().access_token;
    let ours = minted(&server);
    let bearer = AccessToken::new(&ours, TokenGeneration(0)).unwrap();
    let (mut socket, ready) = Socket::start(&server, &bearer).await;
    socket.audio(&audio(20_000), 0, 20_000);
    socket.acknowledged(20_000).await;
    while socket.final_ < 16_000 {
        socket.hear("ack").await;
    }

    let seen = status(&server, &ours).await;
    assert_eq!(seen["project"]["name"], "test");
    let session = json!([{
        "session": ready["session"], "holder": server.credentials.client_id, "sample_rate": 16_000,
        "received": 20_000, "final": 16_000, "finals": 2,
    }]);
    assert_eq!(seen["project"]["sessions"], session);
    assert_eq!(seen["project"]["usage"][0]["today"]["audio_ms"], 1_250);
    assert_eq!(seen["load"][0], json!({ "what": "sessions", "now": 1, "limit": 64 }));
    assert_eq!(seen["load"][1], json!({ "what": "requests", "now": 0, "limit": 16 }));
    assert_eq!((&seen["state"], &seen["recognizer"]), (&json!("ready"), &json!("digest")));
    let vosk = json!({ "name": "vosk", "paths": ["/vosk"] });
    let dialects = seen["dialects"].as_array().unwrap();
    assert!(dialects.len() == Dialect::ALL.len() && dialects.contains(&vosk), "{dialects:?}");
    let tokens = seen["project"]["tokens"].as_array().unwrap();
    let kinds: Vec<&Value> = tokens.iter().map(|token| &token["kind"]).collect();
    assert_eq!(kinds, ["refresh", "access"]);
    // Times are dates in UTC, all by the gateway's clock.
    let time = |value: &Value| parse_rfc3339(value.as_str().expect("a time is text")).unwrap();
    let (now, created) = (time(&seen["now"]), time(&tokens[1]["created"]));
    let last_used = time(&seen["project"]["usage"][0]["last_used"]);
    assert!(created <= last_used && last_used <= now, "{seen}");
    assert_eq!(time(&tokens[1]["expires"]).duration_since(created).unwrap(), Duration::from_secs(3600));

    let seen = status(&server, &others).await;
    assert_eq!(seen["project"]["name"], "other");
    assert_eq!(seen["project"]["sessions"], json!([]));
    assert_eq!(seen["load"][0]["now"], 1);
    let told = seen.to_string();
    let ours = [ready["session"].as_str().unwrap(), &server.credentials.client_id];
    assert!(!ours.iter().any(|ours| told.contains(ours)), "{told}");
    socket.end(20_000).await;
    server.stop().await;
}

#[tokio::test]
async fn any_scope_may_look_and_looking_is_no_use() {
    let server = server().await;
    let authority = server.gateway.authority();
    for scope in [Scope::AsrShort, Scope::AsrStream, Scope::Tts] {
        let terms = Terms { scopes: Scopes::from_iter([scope]), ..Terms::default() };
        let token = authority.create_service_token("test", terms).unwrap().token;
        let seen = status(&server, &token).await;
        assert_eq!(seen["token"]["scopes"], json!([scope.name()]));
        assert_eq!(seen["token"]["expires_in_seconds"], Value::Null);
        assert!(!seen.to_string().contains(token.expose_secret()));
        let (code, voices) = ask(&server, "/console/voices", token.expose_secret()).await;
        assert_eq!((code, &voices["voices"][0]["name"]), (StatusCode::OK, &json!("tone")));
    }
    assert_eq!(authority.usage(None).unwrap(), []);
    let short = Terms { expires_in: Some(3600), ..Terms::default() };
    let token = authority.create_service_token("test", short).unwrap().token;
    let left = status(&server, &token).await["token"]["expires_in_seconds"].as_u64().unwrap();
    assert!((1..=Duration::from_secs(3600).as_secs()).contains(&left), "{left}");
    server.stop().await;
}

#[tokio::test]
async fn nobody_else_may_look() {
    let server = server().await;
    let elsewhere = Terms { networks: vec!["192.0.2.0/24".parse().unwrap()], ..Terms::default() };
    let elsewhere = server.gateway.authority().create_service_token("test", elsewhere).unwrap().token;
    for path in ["/console/status", "/console/voices"] {
        for (token, expected) in
            [("nobodys", StatusCode::UNAUTHORIZED), (elsewhere.expose_secret(), StatusCode::FORBIDDEN)]
        {
            let (code, refusal) = ask(&server, path, token).await;
            assert_eq!((code, &refusal["error"]["code"]), (expected, &json!(4048)), "{path}");
        }
    }
    server.stop().await;
}
