//! Clients that keep to no contract: they cost only themselves.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;
use voxline_testing::digest;

use super::super::bytes;
use super::SEGMENT;
use super::digesting;
use super::peer::Peer;
use voxline_fixtures::allocations::Meter;
use voxline_fixtures::gateway::server::Server;
use voxline_fixtures::noise;

/// Largest heap of client and gateway together while a client sends what it announced falsely.
const PEAK_MAX: usize = 2 << 20;

/// Checks that an ordinary client is served.
async fn check_another(server: &Server) {
    let pcm = noise(SEGMENT);
    let mut peer = Peer::connect(server).await;
    peer.utter(&bytes(&pcm)).await;
    assert_eq!(peer.until("transcript").await.pop().unwrap().data["text"], digest(&pcm));
}

#[tokio::test]
async fn a_gigabyte_that_is_announced_is_refused_in_bounded_memory() {
    static METER: Meter = Meter::new();
    let (server, _) = digesting().await;
    // The test and the gateway share a thread.
    let _joined = METER.join();
    let gigabyte = 1_u64 << 30;
    for (header, body) in [
        (format!(r#"{{"type":"audio-chunk","payload_length":{gigabyte}}}"#), &[0; 64_000][..]),
        (format!(r#"{{"type":"transcribe","data_length":{gigabyte}}}"#), &[b' '; 64_000]),
        (r#"{"type":"ping","data_length":400000}"#.to_owned(), &[b' '; 64_000]),
        (format!(r#"{{"type":"audio-chunk","payload_length":{}}}"#, u64::MAX), &[0; 64_000]),
        // A header without an end.
        (r#"{"type":""#.to_owned(), &[b'x'; 64_000]),
    ] {
        METER.reset();
        let mut peer = Peer::connect(&server).await;
        let line = if header.ends_with('}') { format!("{header}\n") } else { header.clone() };
        peer.raw(line.as_bytes()).await;
        for _ in 0..500 {
            if !peer.raw(body).await {
                break;
            }
        }
        // A client that is still writing may find the connection reset.
        if let Some(told) = peer.next().await {
            assert_eq!((told.kind.as_str(), &told.data["code"]), ("error", &json!("bad-frame")), "{header}");
            assert_eq!(peer.next().await, None);
        }
        assert!(METER.peak() < PEAK_MAX, "{header}: {} bytes", METER.peak());
    }
    check_another(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn frames_that_make_no_sense_end_their_connection_alone() {
    let (server, _) = digesting().await;
    for (frame, code) in [
        ("\n", "bad-frame"),
        ("GET / HTTP/1.1\r\n", "bad-frame"),
        ("[]\n", "bad-frame"),
        ("{\"type\":7}\n", "bad-frame"),
        ("{\"type\":\"ping\",\"data_length\":-1}\n", "bad-frame"),
        ("{\"type\":\"ping\",\"data_length\":2}\n[]", "bad-frame"),
        ("{\"type\":\"audio-start\"}\n", "bad-event"),
        ("{\"type\":\"audio-start\",\"data\":{\"rate\":16000,\"width\":3,\"channels\":1}}\n", "bad-event"),
        ("{\"type\":\"audio-start\",\"data\":{\"rate\":16000,\"width\":2,\"channels\":0}}\n", "bad-event"),
        ("{\"type\":\"audio-start\",\"data\":{\"rate\":1,\"width\":2,\"channels\":1}}\n", "refused"),
        ("{\"type\":\"transcribe\",\"data\":{\"transcript_names\":\"x\"}}\n", "bad-event"),
    ] {
        let mut peer = Peer::connect(&server).await;
        peer.raw(frame.as_bytes()).await;
        assert_eq!(peer.refusal().await, code, "{frame}");
    }
    let deep = format!("{{\"type\":\"ping\",\"data\":{}\n", "[".repeat(60_000));
    let mut peer = Peer::connect(&server).await;
    peer.raw(deep.as_bytes()).await;
    assert_eq!(peer.refusal().await, "bad-frame");
    // The format changes within the audio.
    let mut peer = Peer::connect(&server).await;
    peer.audio(&[0; 100], 100).await;
    peer.say_with("audio-chunk", &json!({ "rate": 8_000, "width": 2, "channels": 1 }), &[0; 100]).await;
    assert_eq!(peer.refusal().await, "bad-event");
    // A payload where none belongs is skipped, and so is an event that is not known.
    let mut peer = Peer::connect(&server).await;
    peer.say_with("ping", &json!({}), b"payload").await;
    peer.say_with("run-satellite", &json!({}), &[b'\n'; 1_000]).await;
    peer.say("ping", &json!({ "text": "a" })).await;
    assert_eq!(peer.hear("pong").await["text"], json!(null));
    assert_eq!(peer.hear("pong").await["text"], "a");
    drop(peer);
    check_another(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn ten_thousand_tiny_chunks_are_one_audio() {
    let (server, recognizer) = digesting().await;
    let pcm = noise(5_001);
    let mut peer = Peer::connect(&server).await;
    peer.audio(&bytes(&pcm)[..10_001], 1).await;
    peer.say("audio-stop", &json!({})).await;
    assert_eq!(peer.until("transcript").await.pop().unwrap().data["text"], digest(&pcm[..5_000]));
    assert_eq!(recognizer.recordings(), [pcm[..5_000].to_vec()]);
    drop(peer);
    server.stop().await;
}

#[tokio::test]
async fn floods_of_events_are_limited() {
    let (server, _) = digesting().await;
    for kind in ["transcribe", "run-satellite", "audio-stop"] {
        let mut peer = Peer::connect(&server).await;
        // A server that has closed takes nothing more.
        let flooding = async {
            for _ in 0..5_000 {
                peer.say(kind, &json!({})).await;
            }
        };
        let _ = timeout(Duration::from_secs(20), flooding).await;
        let mut last = None;
        while let Some(told) = peer.next().await {
            last = Some(told);
        }
        // The error may be lost to a reset.
        assert!(last.is_none_or(|told| matches!(told.kind.as_str(), "error" | "transcript")), "{kind}");
    }
    check_another(&server).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_within_its_audio_leaves_nothing_behind() {
    let (server, _) = digesting().await;
    for frame in [
        "{\"type\":\"pi",
        "{\"type\":\"ping\",\"data_length\":9}\n{",
        "{\"type\":\"audio-chunk\",\"payload_length\":9,\"data\":{\"rate\":16000,\"width\":2,\"channels\":1}}\nx",
    ] {
        let mut peer = Peer::connect(&server).await;
        peer.raw(frame.as_bytes()).await;
        peer.leave().await;
        assert_eq!(peer.next().await, None, "{frame}");
    }
    let mut peer = Peer::connect(&server).await;
    peer.audio(&[0; 3_200], 3_200).await;
    peer.leave().await;
    assert_eq!(peer.next().await, None);
    check_another(&server).await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_not_read() {
    let (server, _) = digesting().await;
    let mut peer = Peer::connect(&server).await;
    let text = "A sentence that is spoken. ".repeat(400);
    let mut taken = 0;
    let saying = async |peer: &mut Peer| peer.say("synthesize", &json!({ "text": text })).await;
    while timeout(Duration::from_secs(3), saying(&mut peer)).await.is_ok() {
        taken += 1;
        assert!(taken < 5_000, "{taken} texts were taken from a client that reads nothing");
    }
    check_another(&server).await;
    drop(peer);
    server.stop().await;
}
