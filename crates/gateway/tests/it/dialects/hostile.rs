//! Clients that keep to no contract: they cost only themselves.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use voxline_gateway::Options;
use voxline_testing::digest;

use super::peer::{Peer, Said};
use super::{SEGMENT, bytes, digesting, key};
use voxline_fixtures::gateway::server::Server;
use voxline_fixtures::noise;

const LISTEN: &str = "/v1/listen?encoding=linear16&sample_rate=16000";

/// Checks that an ordinary client is served.
async fn check_another(server: &Server) {
    let pcm = noise(SEGMENT);
    let mut peer = Peer::open(server, LISTEN, &key(server)).await;
    peer.audio(&bytes(&pcm)).await;
    peer.say(&json!({ "type": "CloseStream" })).await;
    let (messages, close) = peer.rest().await;
    assert_eq!(close, Said::Close(1000, String::new()));
    let text = &messages[0]["channel"]["alternatives"][0]["transcript"];
    assert_eq!(text, &json!(digest(&pcm)));
}

#[tokio::test]
async fn ten_thousand_tiny_messages_are_one_audio() {
    let (server, recognizer) = digesting(Options::default()).await;
    let pcm = noise(10_001 / 2 + 1);
    let sent = &bytes(&pcm)[..10_001];
    let mut peer = Peer::open(&server, LISTEN, &key(&server)).await;
    peer.audio_in(sent, 1).await;
    peer.say(&json!({ "type": "CloseStream" })).await;
    let (messages, close) = peer.rest().await;
    assert_eq!(close, Said::Close(1000, String::new()));
    assert_eq!(messages.last().unwrap()["duration"], 5_000.0 / 16_000.0);
    assert_eq!(recognizer.recordings(), [pcm[..5_000].to_vec()]);
    // Each message of Vosk is answered, even if it completes no sample.
    let mut peer = Peer::open(&server, "/vosk", &key(&server)).await;
    for byte in &sent[..1_000] {
        peer.audio(&[*byte]).await;
        assert!(matches!(peer.next().await, Said::Message(_)));
    }
    drop(peer);
    check_another(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn messages_that_are_too_big_end_their_stream_alone() {
    let (server, _) = digesting(Options::default()).await;
    for path in [LISTEN, "/vosk", "/v1/listen"] {
        // Half a minute of G.711 at 8 kHz is the most that a message may hold.
        for (length, is_text) in [(240_002, false), (15 << 20, false), (15 << 20, true)] {
            let mut peer = Peer::open(&server, path, &key(&server)).await;
            if is_text {
                peer.text(&"x".repeat(length)).await;
            } else {
                peer.audio(&vec![0; length]).await;
            }
            let (_, close) = peer.rest().await;
            // A client that is still writing may find the connection reset.
            assert!(matches!(&close, Said::Close(1009, _) | Said::End), "{path} {length}: {close:?}");
        }
        check_another(&server).await;
    }
    server.stop().await;
}

#[tokio::test]
async fn floods_of_texts_are_limited() {
    let (server, _) = digesting(Options::default()).await;
    for (path, text) in
        [(LISTEN, r#"{"type":"KeepAlive"}"#), (LISTEN, "no JSON"), ("/vosk", r#"{"config":{}}"#)]
    {
        let mut peer = Peer::open(&server, path, &key(&server)).await;
        for _ in 0..5_000 {
            peer.text(text).await;
        }
        let (_, close) = peer.rest().await;
        assert!(matches!(&close, Said::Close(1008, _) | Said::End), "{path} {text}: {close:?}");
    }
    check_another(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_not_read() {
    let (server, _) = digesting(Options::default()).await;
    let path = "/v1/listen?encoding=mulaw&sample_rate=8000&interim_results=true";
    let mut peer = Peer::open(&server, path, &key(&server)).await;
    // Results fill the connection, then the gateway's queue; the rest must wait with the client.
    let mut taken = 0;
    while timeout(Duration::from_secs(3), peer.audio(&[0; 20_000])).await.is_ok() {
        taken += 20_000;
        assert!(taken < 500_000_000, "{taken} bytes of audio were taken from a client that reads nothing");
    }
    check_another(&server).await;
    drop(peer);
    server.stop().await;
}

#[tokio::test]
async fn frames_that_are_no_websocket_end_their_stream_alone() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (server, _) = digesting(Options::default()).await;
    for (path, rubbish) in
        [(LISTEN, &[0xFF; 64][..]), ("/vosk", &[0x81, 0x05, b'h']), ("/vosk", &[0x8B, 0xFF, 0xFF])]
    {
        let mut stream = tokio::net::TcpStream::connect(server.address).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: Token {}\r\n\r\n",
            key(&server)
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.write_all(rubbish).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        let ended = timeout(super::peer::PATIENCE, stream.read_to_end(&mut answer)).await;
        let _ = ended.expect("the gateway ends the connection");
        assert!(answer.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&answer));
    }
    check_another(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn values_that_make_no_sense_are_refused_or_ignored() {
    let (server, _) = digesting(Options::default()).await;
    let long = format!("{LISTEN}&keyterm={}", "a".repeat(60_000));
    let many = format!("{LISTEN}{}", "&keyterm=b".repeat(5_000));
    for path in [long.as_str(), &many, &format!("{LISTEN}&tag=%FF%00&search=%")] {
        let mut peer = Peer::open(&server, path, &key(&server)).await;
        peer.say(&json!({ "type": "CloseStream" })).await;
        assert_eq!(peer.rest().await.1, Said::Close(1000, String::new()));
    }
    let deep = "[".repeat(100_000);
    let mut peer = Peer::open(&server, LISTEN, &key(&server)).await;
    peer.text(&deep).await;
    let error: Value = peer.message().await;
    assert_eq!(error["type"], "Error");
    drop(peer);
    let mut peer = Peer::open(&server, "/vosk", &key(&server)).await;
    peer.text(&deep).await;
    assert_eq!(peer.message().await, json!({ "partial": "" }));
    check_another(&server).await;
    server.stop().await;
}
