//! Short-lived keys, which a page has instead of a token.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::{Method, Response};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use voxline::auth::{AccessToken, TokenGeneration};
use voxline_gateway::admin::backup;
use voxline_gateway::authority::{Amount, Budget, Scope, Terms};
use voxline_testing::NullRecognizer;

use super::peer::{Peer, Said};
use super::{key, limited_key};
use voxline_fixtures::gateway::authority::clock;
use voxline_fixtures::gateway::http::{http_client, url};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::socket::Socket;
use voxline_fixtures::gateway::tokens::minted;

const SECRETS: &str = "/v1/realtime/client_secrets";
const GRANT: &str = "/v1/auth/grant";
const LISTEN: &str = "/v1/listen?encoding=linear16&sample_rate=16000";
const REALTIME: &str = "/v1/realtime?intent=transcription";

async fn served(setup: Setup) -> Server {
    Server::with(Arc::new(NullRecognizer::new(8_000)), setup).await
}

async fn post(server: &Server, path: &str, token: &str, body: &Value) -> Response {
    let request = http_client().unwrap().post(url(server, path)).bearer_auth(token);
    request.body(body.to_string()).send().await.unwrap()
}

/// Returns a key of each API, with its lifetime in seconds.
async fn made(server: &Server, token: &str) -> [String; 2] {
    let secret: Value = post(server, SECRETS, token, &json!({})).await.json().await.unwrap();
    let grant: Value =
        post(server, GRANT, token, &json!({ "ttl_seconds": 30.0 })).await.json().await.unwrap();
    assert_eq!(grant["expires_in"], 30, "{grant}");
    [&secret["value"], &grant["access_token"]].map(|key| key.as_str().unwrap().to_owned())
}

async fn open(server: &Server, path: &str, key: &str) -> Peer {
    let opened = Peer::ask(server, path, &[("authorization", &format!("Bearer {key}"))]).await;
    opened.unwrap_or_else(|refused| panic!("{path}: {refused:?}"))
}

async fn status_of_stream(server: &Server, key: &str) -> Option<u16> {
    let header = format!("Bearer {key}");
    Peer::ask(server, LISTEN, &[("authorization", &header)]).await.err().map(|refused| refused.status)
}

#[tokio::test]
async fn a_key_opens_streams_and_nothing_else() {
    let server = served(Setup::default()).await;
    let (service, access) = (key(&server), minted(&server));
    for token in [service.as_str(), access.expose_secret()] {
        for key in made(&server, token).await {
            assert!(key.starts_with("ek_"), "{key}");
            let offers = [format!("bearer, {key}"), format!("realtime, openai-insecure-api-key.{key}")];
            for (path, offer) in [LISTEN, REALTIME].into_iter().zip(&offers) {
                let opened = Peer::ask(&server, path, &[("sec-websocket-protocol", offer)]).await;
                assert!(opened.is_ok(), "{path}: {:?}", opened.err());
            }
            assert!(Peer::ask(&server, &format!("/vosk?token={key}"), &[]).await.is_ok());
            let own = AccessToken::new(&key.clone().into(), TokenGeneration(0)).unwrap();
            drop(Socket::start(&server, &own).await);
            for (method, path) in [
                (Method::POST, "/asr"),
                (Method::POST, "/tts"),
                (Method::POST, "/v1/audio/transcriptions"),
                (Method::POST, "/v1/audio/speech"),
                (Method::POST, "/v1/listen"),
                (Method::POST, "/v1/speak"),
                (Method::GET, "/v1/models"),
                (Method::GET, "/console/status"),
                (Method::POST, SECRETS),
                (Method::POST, GRANT),
            ] {
                let request = http_client().unwrap().request(method, url(&server, path)).bearer_auth(&key);
                assert_eq!(request.send().await.unwrap().status(), 403, "{path}");
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_key_has_the_settings_of_its_session() {
    let server = served(Setup::default()).await;
    let session = json!({
        "type": "transcription",
        "audio": { "input": { "format": { "type": "audio/pcmu" }, "turn_detection": null } },
    });
    let body = json!({ "expires_after": { "anchor": "created_at", "seconds": 10 }, "session": session });
    let secret: Value = post(&server, SECRETS, &key(&server), &body).await.json().await.unwrap();
    let told = &secret["session"]["audio"]["input"];
    assert_eq!((&told["format"]["type"], &told["turn_detection"]), (&json!("audio/pcmu"), &Value::Null));
    let mut peer = open(&server, REALTIME, secret["value"].as_str().unwrap()).await;
    let created = peer.message().await;
    assert_eq!(&created["session"]["audio"]["input"], told);
    drop(peer);
    server.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_refused() {
    let server = served(Setup::default()).await;
    let token = key(&server);
    let long = "x".repeat(3_000);
    for (path, body) in [
        (SECRETS, json!({ "expires_after": { "seconds": 9 } })),
        (SECRETS, json!({ "expires_after": { "seconds": 7_201 } })),
        (SECRETS, json!({ "session": { "type": "realtime" } })),
        (SECRETS, json!({ "session": { "type": "transcription", "extra": long } })),
        (SECRETS, json!("x")),
        (GRANT, json!({ "ttl_seconds": 0.5 })),
        (GRANT, json!({ "ttl_seconds": 3_601 })),
        (GRANT, json!({ "ttl_seconds": "x" })),
    ] {
        assert_eq!(post(&server, path, &token, &body).await.status(), 400, "{path} {body}");
    }
    let speech = Terms { scopes: [Scope::Tts].into_iter().collect(), ..Terms::default() };
    let speech = limited_key(&server, speech);
    for path in [SECRETS, GRANT] {
        assert_eq!(post(&server, path, &speech, &json!({})).await.status(), 403);
        assert_eq!(post(&server, path, "wrong", &json!({})).await.status(), 401);
    }
    let [key, _] = made(&server, &token).await;
    let mut forged = key.clone().into_bytes();
    forged[10] ^= 1;
    assert_eq!(status_of_stream(&server, std::str::from_utf8(&forged).unwrap()).await, Some(401));
    server.stop().await;
}

#[tokio::test]
async fn a_key_has_the_budget_and_the_limits_of_its_token() {
    let server = served(Setup::default()).await;
    let audio = Budget { total: Some(2), per_day: None };
    let token = limited_key(&server, Terms { audio, max_sessions: Some(1), ..Terms::default() });
    let [one, other] = made(&server, &token).await;
    let mut peer = open(&server, LISTEN, &one).await;
    assert_eq!(status_of_stream(&server, &other).await, Some(429), "the token has one session");
    peer.audio_in(&[0; 16_000 * 2 * 3], 3_200).await;
    let (_, close) = peer.rest().await;
    assert!(matches!(&close, Said::Close(1008, _)), "{close:?}");
    let usage = server.gateway.authority().usage(Some("test")).unwrap();
    let used = usage.iter().find(|entry| entry.total != Amount::default()).unwrap();
    assert!(used.id.starts_with("st_") && used.total.audio_ms <= 2_000, "{used:?}");
    let elsewhere = Terms { networks: vec!["192.0.2.0/24".parse().unwrap()], ..Terms::default() };
    assert_eq!(post(&server, GRANT, &limited_key(&server, elsewhere), &json!({})).await.status(), 403);
    server.stop().await;
}

#[tokio::test]
async fn a_key_expires_and_its_stream_goes_on_until_its_token_is_revoked() {
    let clock = clock();
    let server = served(Setup { clock: Arc::new(clock.clone()), ..Setup::default() }).await;
    let authority = server.gateway.authority();
    let token = authority.create_service_token("test", Terms::default()).unwrap();
    let keys = made(&server, token.token.expose_secret()).await;
    let mut peers = Vec::new();
    for key in &keys {
        peers.push(open(&server, LISTEN, key).await);
    }
    clock.advance(Duration::from_secs(601));
    for key in &keys {
        assert_eq!(status_of_stream(&server, key).await, Some(401), "it has expired");
    }
    // The token behind the keys is looked at again.
    let other = authority.create_service_token("test", Terms::default()).unwrap();
    authority.revoke_token(&other.id).unwrap();
    for peer in &mut peers {
        peer.audio(&[0; 32_000]).await;
        assert_eq!(peer.hear("Results").await["duration"], 0.5);
    }
    assert_ended_by_revocation(&server, &token.id, peers).await;
    server.stop().await;
}

#[tokio::test]
async fn a_revoked_token_ends_its_keys_and_their_streams_within_a_second() {
    let server = served(Setup::default()).await;
    let authority = server.gateway.authority();
    let token = authority.create_service_token("test", Terms::default()).unwrap();
    let keys = made(&server, token.token.expose_secret()).await;
    let mut peers = Vec::new();
    for (path, key) in [LISTEN, REALTIME, "/vosk"].iter().zip(keys.iter().cycle()) {
        peers.push(open(&server, path, key).await);
    }
    assert_ended_by_revocation(&server, &token.id, peers).await;
    for key in &keys {
        assert_eq!(status_of_stream(&server, key).await, Some(401));
    }
    server.stop().await;
}

#[expect(clippy::disallowed_methods, reason = "the time that a revocation takes")]
async fn assert_ended_by_revocation(server: &Server, id: &str, peers: Vec<Peer>) {
    let revoked = Instant::now();
    server.gateway.authority().revoke_token(id).unwrap();
    for mut peer in peers {
        let (_, close) = peer.rest().await;
        assert!(matches!(&close, Said::Close(1008, _)), "{close:?}");
    }
    assert!(revoked.elapsed() < Duration::from_secs(1), "{:?}", revoked.elapsed());
}

#[tokio::test]
async fn keys_survive_a_restart_and_no_backup() {
    let directory = tempfile::tempdir().unwrap();
    let setup = |state: &Path| Setup { state: Some(state.to_owned()), ..Setup::default() };
    let server = served(setup(directory.path())).await;
    let token = key(&server);
    let keys = made(&server, &token).await;
    server.stop().await;

    let server = served(setup(directory.path())).await;
    for key in &keys {
        assert_eq!(status_of_stream(&server, key).await, None);
    }
    server.stop().await;

    // A backup has no signing key, so it makes no keys.
    let restored = tempfile::tempdir().unwrap();
    backup(directory.path(), &restored.path().join("authority.redb"), Arc::new(clock())).unwrap();
    let server = served(setup(restored.path())).await;
    for key in &keys {
        assert_eq!(status_of_stream(&server, key).await, Some(401));
    }
    assert_eq!(status_of_stream(&server, &token).await, None);
    server.stop().await;
}

#[tokio::test]
async fn a_thousand_keys_take_no_place_of_a_token() {
    let server = served(Setup::default()).await;
    let token = minted(&server);
    let authority = server.gateway.authority();
    let before = authority.tokens(None).unwrap();
    let http = http_client().unwrap();
    let mut keys = std::collections::HashSet::new();
    for _ in 0..1_000 {
        let request = http.post(url(&server, GRANT)).bearer_auth(token.expose_secret());
        let grant: Value = request.send().await.unwrap().json().await.unwrap();
        keys.insert(grant["access_token"].as_str().unwrap().to_owned());
    }
    assert_eq!(keys.len(), 1_000);
    assert_eq!(authority.tokens(None).unwrap(), before);
    assert!(authority.service_tokens(None).unwrap().is_empty());
    server.stop().await;
}
