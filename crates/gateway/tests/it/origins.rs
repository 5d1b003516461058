//! Browsers: the origins whose pages may use the gateway, and the headers that tell the browser so.

use std::sync::Arc;

use reqwest::header::HeaderMap;
use reqwest::{Client, Method, StatusCode};
use voxline_gateway::Options;
use voxline_testing::DigestRecognizer;

use voxline_fixtures::gateway::http::{access_token, http_client, refusal, url};
use voxline_fixtures::gateway::server::{Server, Setup};

const PAGE: &str = "https://page.example";

async fn server(allowed: &[&str]) -> (Server, Client) {
    let cors_origins = allowed.iter().map(|origin| origin.parse().unwrap()).collect();
    let setup = Setup { options: Options { cors_origins, ..Options::default() }, ..Setup::default() };
    (Server::with(Arc::new(DigestRecognizer::new(16_000)), setup).await, http_client().unwrap())
}

/// Sends the preflight request of a browser for a page of `origin`. Returns status and headers of the
/// answer.
async fn preflight(server: &Server, http: &Client, origin: &str) -> (StatusCode, HeaderMap) {
    let asked = http.request(Method::OPTIONS, url(server, "/asr")).header("Origin", origin);
    let asked = asked.header("Access-Control-Request-Method", "POST");
    let told = asked.header("Access-Control-Request-Headers", "authorization").send().await.unwrap();
    (told.status(), told.headers().clone())
}

fn words(headers: &HeaderMap, name: &str) -> Vec<String> {
    let mut words: Vec<String> =
        headers[name].to_str().unwrap().split(',').map(|word| word.trim().to_lowercase()).collect();
    words.sort_unstable();
    words
}

#[tokio::test]
async fn pages_of_other_origins_are_told_nothing_unless_they_are_allowed() {
    let (server, http) = server(&[]).await;
    let (status, headers) = preflight(&server, &http, PAGE).await;
    assert_eq!(status.as_u16(), 405);
    assert!(!headers.keys().any(|name| name.as_str().starts_with("access-control")), "{headers:?}");
    let answer = http.get(url(&server, "/healthz")).header("Origin", PAGE).send().await.unwrap();
    assert!(!answer.headers().contains_key("access-control-allow-origin"));
    server.stop().await;
}

#[tokio::test]
async fn allowed_pages_may_ask_with_a_token_and_read_refusals() {
    let (server, http) = server(&["https://other.example", PAGE]).await;
    // Without a token: a browser's preflight request has none.
    let (status, headers) = preflight(&server, &http, PAGE).await;
    assert_eq!(status.as_u16(), 200);
    assert_eq!(headers["access-control-allow-origin"], PAGE);
    assert_eq!(
        words(&headers, "access-control-allow-headers"),
        [
            "authorization",
            "content-type",
            "openai-organization",
            "openai-project",
            "x-request-id",
            "x-stainless-arch",
            "x-stainless-lang",
            "x-stainless-os",
            "x-stainless-package-version",
            "x-stainless-retry-count",
            "x-stainless-runtime",
            "x-stainless-runtime-version",
            "x-stainless-timeout",
        ]
    );
    assert_eq!(words(&headers, "access-control-allow-methods"), ["get", "post"]);
    assert!(headers.contains_key("x-request-id"));
    let (_, headers) = preflight(&server, &http, "https://foreign.example").await;
    assert!(!headers.contains_key("access-control-allow-origin"), "{headers:?}");

    let refused = http.post(url(&server, "/asr")).header("Origin", PAGE).send().await.unwrap();
    assert_eq!(refused.headers()["access-control-allow-origin"], PAGE);
    assert_eq!(words(refused.headers(), "access-control-expose-headers"), ["retry-after", "x-request-id"]);
    assert!(!refused.headers().contains_key("access-control-allow-credentials"));
    assert_eq!(refusal(refused).await, (StatusCode::UNAUTHORIZED, 4048));
    server.stop().await;

    let (any, http) = self::server(&["*"]).await;
    assert_eq!(preflight(&any, &http, PAGE).await.1["access-control-allow-origin"], "*");
    any.stop().await;
}

#[tokio::test]
async fn sockets_of_foreign_pages_are_refused() {
    let (server, http) = server(&[PAGE]).await;
    let token = access_token(&server, &http).await;
    let ours = format!("http://{}", server.address);
    for (origin, status) in [
        (Some(PAGE), 101),
        (Some(ours.as_str()), 101),
        (None, 101),
        (Some("null"), 403),
        (Some("https://foreign.example"), 403),
    ] {
        let upgrade = http.get(url(&server, "/asr_stream/ws")).bearer_auth(&token);
        let upgrade = upgrade.header("Connection", "Upgrade").header("Upgrade", "websocket");
        let upgrade =
            upgrade.header("Sec-WebSocket-Version", "13").header("Sec-WebSocket-Protocol", "voxline.asr.v1");
        let upgrade = upgrade.header("Sec-WebSocket-Key", "MDEyMzQ1Njc4OWFiY2RlZg==");
        let upgrade = origin.into_iter().fold(upgrade, |upgrade, origin| upgrade.header("Origin", origin));
        let answer = upgrade.send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{origin:?}");
        if status == 403 {
            assert_eq!(refusal(answer).await, (StatusCode::FORBIDDEN, 403));
        }
    }
    server.stop().await;
}
