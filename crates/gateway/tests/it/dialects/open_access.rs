//! Admission by `open` of clients without a key, or with a dummy one, on the gateway's one port.

use std::collections::BTreeMap;

use reqwest::RequestBuilder;
use secrecy::ExposeSecret;
use serde_json::Value;
use voxline_gateway::authority::Terms;
use voxline_gateway::{ConnectionOptions, OpenAccess, Options};

use super::openai::{BOUNDARY, form};
use super::peer::Peer;
use super::stage::Stage;
use voxline_fixtures::gateway::audio::wav;
use voxline_fixtures::gateway::http::url;
use voxline_fixtures::gateway::server::Setup;

const LIVE: [&str; 4] = [
    "/v1/listen?encoding=linear16&sample_rate=16000",
    "/v1/realtime?intent=transcription",
    "/vosk",
    "/v1/speak?encoding=linear16",
];

async fn open_to(network: &str) -> Stage {
    open_behind(network, &[]).await
}

/// Starts a gateway that is open to a network, behind proxies of these networks.
async fn open_behind(network: &str, proxies: &[&str]) -> Stage {
    let open = OpenAccess { project: "test".to_owned(), networks: vec![network.parse().unwrap()] };
    let trusted_proxies = proxies.iter().map(|network| network.parse().unwrap()).collect();
    let connections = ConnectionOptions { trusted_proxies, ..ConnectionOptions::default() };
    let options = Options { open: Some(open), connections, max_failures: 0, ..Options::default() };
    Stage::with(Setup { options, ..Setup::default() }).await
}

/// Returns the requests by which programs have a recording recognised, a text spoken, and models listed.
fn requests(stage: &Stage) -> Vec<(&'static str, RequestBuilder)> {
    let recording = wav(1, 16_000, 32_000);
    let post = |path| (path, stage.http.post(url(&stage.server, path)));
    let multipart = |path| {
        let (path, request) = post(path);
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        (path, request.header("Content-Type", content_type).body(form(&[], Some(&recording))))
    };
    let json = |path, body: &'static str| {
        let (path, request) = post(path);
        (path, request.header("Content-Type", "application/json").body(body))
    };
    let (listen, request) = post("/v1/listen");
    let models = stage.http.get(url(&stage.server, "/v1/models"));
    vec![
        multipart("/v1/audio/transcriptions"),
        multipart("/inference"),
        json(
            "/v1/audio/speech",
            r#"{"model":"tts-1","input":"one","voice":"alloy","response_format":"wav"}"#,
        ),
        json("/v1/speak?encoding=linear16", r#"{"text":"one"}"#),
        (listen, request.body(recording.clone())),
        ("/v1/models", models),
    ]
}

/// Returns the status of each request and of each upgrade to a stream, with these headers.
async fn statuses(stage: &Stage, headers: &[(&str, &str)]) -> Vec<(&'static str, u16)> {
    let mut statuses = Vec::new();
    for (path, mut request) in requests(stage) {
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        statuses.push((path, request.send().await.unwrap().status().as_u16()));
    }
    for path in LIVE {
        // An upgrade succeeds with 101, which a peer does not tell.
        let asked = Peer::ask(&stage.server, path, headers).await;
        statuses.push((path, asked.map_or_else(|refused| refused.status, |_| 101)));
    }
    statuses
}

fn assert_admitted(statuses: &[(&str, u16)], headers: &[(&str, &str)]) {
    for (path, status) in statuses {
        assert!([101, 200].contains(status), "{path}, {headers:?}: {status}");
    }
}

fn assert_refused(statuses: &[(&str, u16)], headers: &[(&str, &str)]) {
    for (path, status) in statuses {
        assert!([401, 403].contains(status), "{path}, {headers:?}: {status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_a_key_or_with_a_dummy_use_the_open_project() {
    let stage = open_to("127.0.0.0/8").await;
    let dummies = ["Bearer sk-dummy", "Token dummy", "Bearer ", "Basic dXNlcjpwYXNz"];
    let headers = dummies.map(|dummy| [("authorization", dummy)]);
    for headers in headers.iter().map(|headers| &headers[..]).chain([&[][..]]) {
        assert_admitted(&statuses(&stage, headers).await, headers);
    }
    let usage = stage.server.gateway.authority().usage(Some("test")).unwrap();
    let open = usage.iter().find(|entry| entry.id.starts_with("open_")).unwrap();
    // Three recordings of two seconds, and two texts of three letters, five times.
    assert_eq!((open.total.audio_ms, open.total.characters), (5 * 3 * 2_000, 5 * 2 * 3));
    // A page that reads usage or makes keys is somebody's, and wants a token of theirs.
    for path in ["/v1/realtime/client_secrets", "/v1/auth/grant"] {
        let answer = stage.http.post(url(&stage.server, path)).body("{}").send().await.unwrap();
        assert_eq!(answer.status(), 401, "{path}");
    }
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_gateway_is_checked_all_the_same() {
    let stage = open_to("127.0.0.0/8").await;
    let authority = stage.server.gateway.authority();
    let revoked = authority.create_service_token("test", Terms::default()).unwrap();
    authority.revoke_token(&revoked.id).unwrap();
    let tokens = [revoked.token.expose_secret().to_owned(), "vxa_unknown".to_owned(), "ek_AAAA".to_owned()];
    for token in tokens {
        let header = format!("Bearer {token}");
        let headers = [("authorization", header.as_str())];
        assert_refused(&statuses(&stage, &headers).await, &headers);
    }
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_clients_of_unnamed_proxies_need_a_token() {
    let stage = open_to("127.0.0.0/8").await;
    let origin = format!("http://{}", stage.server.address);
    let headers = [
        ("origin", origin.as_str()),
        ("x-forwarded-for", "127.0.0.1"),
        ("forwarded", "for=127.0.0.1"),
        ("x-real-ip", "127.0.0.1"),
        ("via", "1.1 proxy"),
    ];
    for header in headers {
        assert_refused(&statuses(&stage, &[header]).await, &[header]);
    }
    // With a token of their own, they are served.
    let own = format!("Bearer {}", stage.token);
    let headers = [("authorization", own.as_str()), ("via", "1.1 proxy")];
    assert_admitted(&statuses(&stage, &headers).await, &headers);
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_a_named_proxy_has_its_own_address() {
    // Another proxy than the one that is named, and one that names no client.
    for (proxies, header) in [
        ("10.0.0.0/8", ("x-forwarded-for", "127.0.0.1")),
        ("127.0.0.0/8", ("x-real-ip", "10.1.1.1")),
        ("127.0.0.0/8", ("forwarded", "for=unknown")),
        ("127.0.0.0/8", ("x-forwarded-for", "192.0.2.1")),
    ] {
        let stage = open_behind("127.0.0.0/8", &[proxies]).await;
        assert_refused(&statuses(&stage, &[header]).await, &[header]);
        stage.server.stop().await;
    }
    let stage = open_behind("10.1.0.0/16", &["127.0.0.0/8"]).await;
    let header = [("x-forwarded-for", "10.1.1.1")];
    assert_admitted(&statuses(&stage, &header).await, &header);
    stage.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_from_other_networks_need_a_token() {
    let stage = open_to("10.0.0.0/8").await;
    assert_refused(&statuses(&stage, &[]).await, &[]);
    let answer = stage.http.get(url(&stage.server, "/v1/models")).send().await.unwrap();
    let body: Value = answer.json().await.unwrap();
    assert_eq!(body["error"]["code"], "invalid_api_key", "{body}");
    stage.server.stop().await;
}

/// Returns the number of audited refusals, by reason.
async fn audited(stage: &Stage) -> BTreeMap<String, usize> {
    let metrics = stage.http.get(url(&stage.server, "/metrics")).send().await.unwrap().text().await.unwrap();
    let counts = metrics.lines().filter_map(|line| {
        let (reason, count) =
            line.strip_prefix("voxline_tokens_refused_total{reason=\"")?.split_once("\"} ")?;
        Some((reason.to_owned(), count.parse().unwrap()))
    });
    counts.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_is_audited_once_with_its_reason() {
    let stage = open_to("10.0.0.0/8").await;
    for (headers, reason) in [
        (&[][..], "address"),
        (&[("authorization", "Bearer sk-dummy")][..], "token"),
        (&[("authorization", "Bearer vxs_unknown")][..], "token"),
    ] {
        let mut expected = audited(&stage).await;
        let refused = statuses(&stage, headers).await;
        assert_refused(&refused, headers);
        *expected.entry(reason.to_owned()).or_default() += refused.len();
        assert_eq!(audited(&stage).await, expected, "{headers:?}");
    }
    stage.server.stop().await;
}
