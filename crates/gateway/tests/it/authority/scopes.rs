//! Scopes and networks of a token, and the form of a refusal.

use reqwest::{Client, RequestBuilder, StatusCode};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use voxline_gateway::Options;
use voxline_gateway::authority::{Scope, Terms};

use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::authority::{clock, server, service_token, serving};
use voxline_fixtures::gateway::http::{ask_token, by_credentials, http_client, refusal, url};
use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::socket::Socket;
use voxline_fixtures::gateway::tokens::bearer;

const ALL: [Scope; 3] = [Scope::Tts, Scope::AsrShort, Scope::AsrStream];

fn only(scope: Scope) -> Terms {
    Terms { scopes: [scope].into_iter().collect(), ..Terms::default() }
}

/// Returns requests that need only a token, each with its scope and its expected status.
fn requests(server: &Server, http: &Client) -> Vec<(Scope, RequestBuilder, StatusCode)> {
    // The stream request is answered 400 for the headers that it lacks, which are checked after the token.
    let stream = http.get(url(server, "/asr_stream/ws"));
    vec![
        (Scope::Tts, http.get(url(server, "/tts?text=Hello")), StatusCode::OK),
        (Scope::Tts, http.post(url(server, "/tts")).body("Hello"), StatusCode::OK),
        (Scope::AsrShort, http.post(url(server, "/asr")).body(wav(1, 16_000, 1_000)), StatusCode::OK),
        (Scope::AsrStream, stream, StatusCode::BAD_REQUEST),
    ]
}

#[tokio::test]
async fn a_route_opens_to_its_scope_alone() {
    let (server, http) = (server(&clock()).await, http_client().unwrap());
    for scope in ALL {
        let token = service_token(&server, only(scope)).token;
        for (wanted, request, status) in requests(&server, &http) {
            let answer = request.bearer_auth(token.expose_secret()).send().await.unwrap();
            if scope == wanted {
                assert_eq!(answer.status(), status, "{scope:?}");
            } else {
                assert_eq!(answer.headers()["www-authenticate"], r#"Bearer error="insufficient_scope""#);
                assert_eq!(refusal(answer).await, (StatusCode::FORBIDDEN, 4048), "{scope:?} at {wanted:?}");
            }
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn a_token_in_band_needs_the_scope_too() {
    let server = server(&clock()).await;
    let good = service_token(&server, only(Scope::AsrStream)).token;
    let (mut socket, ready) = Socket::start(&server, &bearer(&good)).await;
    socket.auth(service_token(&server, only(Scope::AsrShort)).token.expose_secret());
    let (code, reason, error) = socket.closed().await;
    assert_eq!((code, reason.as_str()), (4403, "token has no scope asr_stream"));
    assert_eq!(error.unwrap()["code"], 4403);
    // The session stays available for a token with the scope.
    let (socket, _) = Socket::resume(&server, &bearer(&good), &ready, 0).await;
    socket.end(0).await;
    server.stop().await;
}

#[tokio::test]
async fn a_token_is_good_from_its_networks_alone() {
    let (server, http) = (server(&clock()).await, http_client().unwrap());
    let from = |network: &str| {
        let networks = vec!["192.0.2.0/24".parse().unwrap(), network.parse().unwrap()];
        service_token(&server, Terms { networks, ..Terms::default() }).token
    };
    let (here, elsewhere) = (from("127.0.0.0/8"), from("10.0.0.0/8"));
    for (_, request, status) in requests(&server, &http) {
        let answer = request.bearer_auth(here.expose_secret()).send().await.unwrap();
        assert_eq!(answer.status(), status);
    }
    for (_, request, _) in requests(&server, &http) {
        let answer = request.bearer_auth(elsewhere.expose_secret()).send().await.unwrap();
        assert_eq!(answer.headers().get("www-authenticate"), None);
        assert_eq!(refusal(answer).await, (StatusCode::FORBIDDEN, 4048));
    }
    let (mut socket, _) = Socket::start(&server, &bearer(&here)).await;
    socket.auth(elsewhere.expose_secret());
    assert_eq!(socket.closed().await.0, 4403);
    server.stop().await;
}

#[tokio::test]
async fn a_token_has_as_many_sessions_as_it_may() {
    let server = server(&clock()).await;
    let terms = Terms { max_sessions: Some(2), ..Terms::default() };
    let (token, other) = (service_token(&server, terms.clone()).token, service_token(&server, terms).token);
    let (first, _) = Socket::start(&server, &bearer(&token)).await;
    let (second, ready) = Socket::start(&server, &bearer(&token)).await;
    let mut third = Socket::dial(&server, &bearer(&token)).await;
    third.say(&json!({ "type": "start", "sample_rate": 16_000 }));
    let (code, reason, _) = third.closed().await;
    assert_eq!((code, reason.as_str()), (4429, "the token has as many sessions as it may"));
    // A session that moves to another socket is not counted twice, and another token has sessions of its
    // own.
    let (moved, _) = Socket::resume(&server, &bearer(&token), &ready, 0).await;
    let (others, _) = Socket::start(&server, &bearer(&other)).await;
    first.end(0).await;
    let (next, _) = Socket::start(&server, &bearer(&token)).await;
    for socket in [moved, others, next] {
        socket.end(0).await;
    }
    drop(second);
    server.stop().await;
}

#[tokio::test]
async fn a_disabled_project_is_told_apart() {
    let (server, http) = (server(&clock()).await, http_client().unwrap());
    let service = service_token(&server, Terms::default()).token;
    let granted: serde_json::Value =
        ask_token(&server, &http, &by_credentials(&server)).await.json().await.unwrap();
    let access = SecretString::from(granted["access_token"].as_str().unwrap());
    let authority = server.gateway.authority();
    authority.set_active("test", false).unwrap();
    for token in [&service, &access] {
        for (_, request, _) in requests(&server, &http) {
            let answer = request.bearer_auth(token.expose_secret()).send().await.unwrap();
            assert_eq!(refusal(answer).await, (StatusCode::BAD_REQUEST, 4049));
        }
    }
    let refresh = json!({
        "client_id": server.credentials.client_id,
        "refresh_token": granted["refresh_token"],
        "grant_type": "refresh_token",
    });
    for body in [by_credentials(&server), refresh] {
        let answer = ask_token(&server, &http, &body).await;
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(answer.json::<serde_json::Value>().await.unwrap()["error"], "invalid_client");
    }
    authority.set_active("test", true).unwrap();
    for (_, request, status) in requests(&server, &http) {
        assert_eq!(request.bearer_auth(access.expose_secret()).send().await.unwrap().status(), status);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_documented_status_is_a_setting() {
    let options = Options { documented_status: true, ..Options::default() };
    let (server, http) = (serving(Setup { options, ..Setup::default() }).await, http_client().unwrap());
    let stream_only = service_token(&server, only(Scope::AsrStream)).token;
    for token in ["wrong", stream_only.expose_secret()] {
        let answer = http.get(url(&server, "/tts?text=a")).bearer_auth(token).send().await.unwrap();
        assert_eq!(refusal(answer).await, (StatusCode::BAD_REQUEST, 4048));
    }
    let none = http.get(url(&server, "/tts?text=a")).send().await.unwrap();
    assert_eq!(refusal(none).await, (StatusCode::BAD_REQUEST, 4048));
    // The errors of the token endpoint are not documented: they stay those of RFC 6749.
    let mut wrong = by_credentials(&server);
    wrong["client_secret"] = json!("wrong");
    assert_eq!(ask_token(&server, &http, &wrong).await.status(), StatusCode::UNAUTHORIZED);
    server.stop().await;
}
