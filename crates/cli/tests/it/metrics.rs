//! The metrics for an operator.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::StatusCode;
use secrecy::ExposeSecret;
use tokio::time::timeout;
use voxline_gateway::Options;
use voxline_testing::DigestRecognizer;

use crate::gateway::{url, wav};
use crate::stream::socket::Socket;
use crate::stream::{audio, minted};
use crate::support::http::http_client;
use crate::support::server::{Server, Setup};

/// Returns all samples by name and labels, parsed as by an independent reader of the format.
async fn scrape(server: &Server) -> BTreeMap<String, f64> {
    let answer = http_client().unwrap().get(url(server, "/metrics")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let content_type = answer.headers()["content-type"].to_str().unwrap();
    assert_eq!(content_type, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let text = answer.text().await.unwrap();
    assert!(text.ends_with("# EOF\n"), "{text}");
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    samples.map(sample).collect()
}

#[tokio::test]
async fn what_happened_is_counted() {
    let options = Options { max_sessions: 1, ..Options::default() };
    let server =
        Server::with(Arc::new(DigestRecognizer::new(8_000)), Setup { options, ..Setup::default() }).await;
    let at_first = scrape(&server).await;
    assert_eq!((at_first["voxline_sessions"], at_first["voxline_sessions_limit"]), (0.0, 1.0));

    let http = http_client().unwrap();
    let token = server.tokens().token().await.unwrap();
    // Of 2.75 seconds of audio, 2.5 become final. A gap of one second lies between.
    let (mut socket, ready) = Socket::start(&server, &token).await;
    let pcm = audio(100_000);
    socket.audio(&pcm, 0, 32_000);
    socket.gap(32_000, 48_000);
    socket.audio(&pcm, 48_000, 60_000);
    while socket.final_ < 56_000 {
        socket.hear("ack").await;
    }
    let meanwhile = scrape(&server).await;
    assert_eq!(meanwhile["voxline_sessions"], 1.0);
    assert_eq!(meanwhile["voxline_audio_waiting_seconds"], 0.25);
    let upgrade = http.get(url(&server, "/asr_stream/ws")).bearer_auth(minted(&server).expose_secret());
    let upgrade = upgrade.header("upgrade", "websocket").header("connection", "upgrade");
    let upgrade =
        upgrade.header("sec-websocket-version", "13").header("sec-websocket-protocol", "voxline.asr.v1");
    let refused = upgrade.send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.headers()["retry-after"], "5");
    let (socket, _) = Socket::resume(&server, &token, &ready, 0).await;
    socket.end(60_000).await;

    let asr = |token: &str| {
        let request = http.post(url(&server, "/asr")).header("content-type", "audio/wave");
        request.bearer_auth(token).body(wav(1, 16_000, 24_000)).send()
    };
    let good = minted(&server);
    assert_eq!(asr(good.expose_secret()).await.unwrap().status(), StatusCode::OK);
    assert_eq!(asr("wrong").await.unwrap().status(), StatusCode::UNAUTHORIZED);

    let counted = scrape(&server).await;
    let expected = [
        (r#"voxline_sessions_started_total"#, 1.0),
        (r#"voxline_sessions_resumed_total"#, 1.0),
        (r#"voxline_sessions_refused_total{reason="full"}"#, 1.0),
        (r#"voxline_audio_received_seconds_total{api="stream"}"#, 2.75),
        (r#"voxline_audio_received_seconds_total{api="asr"}"#, 1.5),
        (r#"voxline_audio_recognised_seconds_total"#, 2.75),
        (r#"voxline_audio_gaps_seconds_total"#, 1.0),
        (r#"voxline_audio_waiting_seconds"#, 0.0),
        // Four results of half a second before the gap, one after it, and the rest.
        (r#"voxline_final_latency_seconds_count"#, 6.0),
        // One access token for the client and two for the requests of this test, each granted with a
        // refresh token.
        (r#"voxline_tokens_minted_total{kind="access"}"#, 3.0),
        (r#"voxline_tokens_minted_total{kind="refresh"}"#, 3.0),
        (r#"voxline_tokens_refused_total{reason="token"}"#, 1.0),
        (r#"voxline_http_requests_total{path="/asr",method="POST",status="200"}"#, 1.0),
        (r#"voxline_http_requests_total{path="/asr",method="POST",status="401"}"#, 1.0),
        (r#"voxline_http_requests_total{path="/asr_stream/ws",method="GET",status="101"}"#, 2.0),
    ];
    for (name, value) in expected {
        // Seconds are summed in floating point.
        let told = counted.get(name).copied().unwrap_or(f64::NAN);
        assert!((told - value).abs() < 1e-6, "{name} is {told} and not {value}, of {counted:#?}");
    }
    for name in [
        r#"voxline_payload_bytes_total{api="stream",direction="in"}"#,
        r#"voxline_recogniser_busy_seconds_total{work="live"}"#,
        r#"voxline_recogniser_busy_seconds_total{work="recording"}"#,
        "voxline_recogniser_wait_seconds_count",
    ] {
        assert!(counted[name] > 0.0, "{name} of {counted:#?}");
    }
    let gone = async { while scrape(&server).await["voxline_sessions"] > 0.0 {} };
    timeout(Duration::from_secs(20), gone).await.unwrap();
    server.stop().await;
}
