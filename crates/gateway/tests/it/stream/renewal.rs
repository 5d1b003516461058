//! Tokens on an open socket: renewal in band, refusal, and the announcement of expiry.

use std::time::Duration;

use reqwest::StatusCode;
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::time::timeout;
use voxline_gateway::Options;
use voxline_gateway::authority::Terms;

use super::{assert_covers, audio, server, serving, token};
use voxline_fixtures::gateway::http::{http_client, url};
use voxline_fixtures::gateway::server::Setup;
use voxline_fixtures::gateway::socket::{CHUNK, Said, Socket};
use voxline_fixtures::gateway::tokens::{bearer, foreign, minted};

#[tokio::test]
async fn a_socket_outlives_its_tokens_when_they_are_renewed_in_band() {
    let lifetime = Duration::from_secs(6);
    let (server, recognizer) = serving(Setup { token_lifetime: lifetime, ..Setup::default() }).await;
    let tokens = server.tokens();
    let mut token = tokens.token().await.unwrap();
    let (mut socket, ready) = Socket::start(&server, &token).await;
    assert_eq!(ready["auth"], true);
    let pcm = audio(5 * CHUNK);
    // Each wait is half a token's lifetime, so that the last is long after the expiry of the first.
    for round in 0..4 {
        socket.audio(&pcm, round * CHUNK, (round + 1) * CHUNK);
        socket.acknowledged((round + 1) * CHUNK).await;
        let quiet = timeout(lifetime / 2, async {
            // A final result may come, and its acknowledgement, but no message about the token.
            loop {
                match socket.next().await {
                    Said::Message(message) if message["type"] == "ack" || message["type"] == "final" => {}
                    Said::Message(message) => return message.to_string(),
                    Said::Close(code, reason) => return format!("close {code} {reason}"),
                }
            }
        });
        assert_eq!(quiet.await.ok(), None);
        token = tokens.newer_than(token.generation()).await.unwrap();
        socket.auth(token.expose());
        let left = socket.hear("auth_ok").await["token_expires_in_ms"].as_u64().unwrap();
        assert!((1..=6_000).contains(&left), "{left}");
    }
    socket.audio(&pcm, 4 * CHUNK, 5 * CHUNK);
    assert_covers(&socket.end(5 * CHUNK).await, &pcm, &[(0, 5 * CHUNK)]);
    assert_eq!(recognizer.recordings(), [pcm]);
    server.stop().await;
}

#[tokio::test]
async fn a_token_without_an_end_ends_nothing() {
    let lifetime = Duration::from_secs(4);
    let (server, _) = serving(Setup { token_lifetime: lifetime, ..Setup::default() }).await;
    let (mut socket, _) = Socket::start(&server, &token(&server).await).await;
    let service = server.gateway.authority().create_service_token("test", Terms::default()).unwrap();
    socket.auth(service.token.expose_secret());
    assert_eq!(socket.hear("auth_ok").await, json!({ "type": "auth_ok" }));
    let silence = timeout(lifetime * 3 / 2, socket.next()).await;
    assert!(silence.is_err(), "the old token still counts");
    socket.end(0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_token_in_band_costs_the_socket_and_not_the_session() {
    let (server, _) = server(Options::default()).await;
    let token = token(&server).await;
    let pcm = audio(20_000);
    let wrong = [foreign(&server), "no-token".to_owned().into(), String::new().into()];
    for wrong in &wrong {
        let (mut socket, ready) = Socket::start(&server, &token).await;
        socket.audio(&pcm, 0, 10_000);
        socket.acknowledged(10_000).await;
        socket.auth(wrong.expose_secret());
        let (code, reason, error) = socket.closed().await;
        let error = error.unwrap();
        assert_eq!((code, &error["code"]), (4401, &json!(4048)));
        let secret = wrong.expose_secret();
        assert!(secret.is_empty() || !format!("{reason} {error}").contains(secret), "{reason} {error}");

        let (mut socket, ready) = Socket::resume(&server, &token, &ready, 0).await;
        assert_eq!(ready["received"], 10_000);
        socket.audio(&pcm, 10_000, 20_000);
        assert_covers(&socket.end(20_000).await, &pcm, &[(0, 20_000)]);
    }
    server.stop().await;
}

#[tokio::test]
async fn a_gateway_that_takes_no_tokens_in_band_says_so() {
    let (server, _) = server(Options { in_band_auth: false, ..Options::default() }).await;
    let (mut socket, ready) = Socket::start(&server, &token(&server).await).await;
    assert_eq!(ready["auth"], false);
    socket.auth(minted(&server).expose_secret());
    assert_eq!(socket.closed().await.0, 4400);
    drop(socket);
    server.stop().await;
}

#[tokio::test]
async fn the_end_of_a_token_is_told_before_it_comes() {
    let lifetime = Duration::from_secs(4);
    let (server, _) = serving(Setup { token_lifetime: lifetime, ..Setup::default() }).await;
    let (mut socket, ready) = Socket::start(&server, &bearer(&minted(&server))).await;
    assert!((1..=4_000).contains(&ready["token_expires_in_ms"].as_u64().unwrap()), "{ready}");
    for round in 0..2 {
        let goaway = socket.hear("goaway").await;
        assert_eq!(goaway["reason"], "token");
        assert!(goaway["deadline_ms"].as_u64().unwrap() <= 400, "{goaway}");
        let next = match socket.next().await {
            Said::Message(message) => message,
            Said::Close(code, reason) => panic!("{code} {reason}"),
        };
        assert_eq!((&next["type"], &next["code"]), (&json!("error"), &json!(4048)), "round {round}");
        assert_eq!(socket.closed().await.0, 4401);
        // The expiry of each token is announced once, also that of the next socket's token.
        (socket, _) = Socket::resume(&server, &bearer(&minted(&server)), &ready, 0).await;
    }
    socket.end(0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_wrong_token_in_band_counts_against_the_address() {
    let (server, _) = server(Options { max_failures: 2, ..Options::default() }).await;
    let token = token(&server).await;
    let (mut first, ready) = Socket::start(&server, &token).await;
    first.auth("wrong");
    assert_eq!(first.closed().await.0, 4401);
    let (mut second, _) = Socket::resume(&server, &token, &ready, 0).await;
    second.auth("wrong");
    assert_eq!(second.closed().await.0, 4401);
    let asked = http_client().unwrap().get(url(&server, "/tts")).bearer_auth(minted(&server).expose_secret());
    assert_eq!(asked.send().await.unwrap().status(), StatusCode::TOO_MANY_REQUESTS);
    server.stop().await;
}
