//! Audio: frames, gaps and flushes up to `finish` (S18 to S25).

use serde_json::json;

use super::*;

#[tokio::test]
async fn s18_audio_is_a_position_and_whole_samples() {
    let gateway = gateway().await;
    for length in [0, 7, 8, 9, 11] {
        let mut client = gateway.started().await;
        client
            .binary(&100_u64.to_le_bytes().into_iter().chain([0; 3]).take(length).collect::<Vec<u8>>())
            .await;
        assert_eq!(client.closed().await, (4400, Some(4400)), "{length} bytes");
    }
    gateway.server.stop().await;
}

#[tokio::test]
async fn s19_max_audio_bytes_counts_the_position() {
    let gateway = gateway().await;
    let (mut client, ready) = gateway.start(json!({})).await;
    let most = number(&ready, "max_audio_bytes");
    let frames = (most - 8) / 2;
    client.audio(0, &samples(0, frames)).await;
    client.acknowledged(frames).await;
    client.audio(frames, &samples(0, frames + 1)).await;
    assert_eq!(client.closed().await, (1009, Some(1009)));
    gateway.server.stop().await;
}

#[tokio::test]
async fn s20_audio_is_idempotent_and_leaves_no_hole() {
    let gateway = gateway().await;
    let mut client = gateway.started().await;
    client.audio(0, &samples(0, 100)).await;
    client.audio(50, &samples(50, 150)).await;
    client.acknowledged(150).await;
    client.audio(151, &samples(151, 200)).await;
    assert_eq!(client.closed().await, (4400, Some(4400)));
    gateway.server.stop().await;
}

/// A recogniser that never produces a segment, so that all audio stays unfinal.
struct Silent;

impl Recognizer for Silent {
    fn name(&self) -> &str {
        "silent"
    }

    fn start(&self, _: &RecognitionRequest) -> Result<Box<dyn RecognizerStream>, EngineError> {
        Ok(Box::new(Silent))
    }
}

impl RecognizerStream for Silent {
    fn push(&mut self, _: &[i16]) -> Result<Vec<engine::Segment>, EngineError> {
        Ok(Vec::new())
    }

    fn partial(&mut self) -> Result<PartialResult, EngineError> {
        Ok(PartialResult::Nothing)
    }

    fn flush(&mut self) -> Result<Vec<engine::Segment>, EngineError> {
        Ok(Vec::new())
    }
}

#[tokio::test]
async fn s21_s22_a_gateway_that_is_behind_holds_back_and_audio_beyond_the_window_is_4400() {
    let server = Server::with(Arc::new(Silent), Setup::default()).await;
    let token = minted(&server, "test");
    let (mut client, ready) = Client::start(server.address, &token, json!({ "sample_rate": 8_000 })).await;
    assert!(ready.get("max_unfinal_frames").is_none(), "{ready}");
    let window = number(&ready, "window_frames");
    let second = vec![1; 8_000];
    let (mut sent, mut received) = (0, 0);
    // As long as the gateway acknowledges, it takes more.
    while sent < received + window {
        client.audio(sent, &second).await;
        sent += 8_000;
        // Read all messages sent so far: the pong comes after them.
        client.ping().await;
        loop {
            match client.next("a pong").await {
                Said::Message(message) if message["type"] == "ack" => received = number(&message, "received"),
                Said::Pong => break,
                other => panic!("{other:?} after {sent} frames"),
            }
        }
    }
    assert!(received < sent && sent == received + window, "{received} of {sent}");
    client.audio(sent, &[1]).await;
    assert_eq!(client.closed().await, (4400, Some(4400)));
    server.stop().await;
}

#[tokio::test]
async fn s22_audio_is_acknowledged_by_cursors_that_only_grow() {
    let gateway = gateway().await;
    let (mut client, _) = gateway.start(json!({})).await;
    let mut before = (0, 0);
    for number_of in 1..=20 {
        let end = number_of * 4_000;
        client.audio(end - 4_000, &samples(end - 4_000, end)).await;
        while before.0 < end {
            let ack = client.hear("ack").await;
            let now = (number(&ack, "received"), number(&ack, "final"));
            assert!(now.0 >= before.0 && now.1 >= before.1 && now.1 <= now.0, "{ack} after {before:?}");
            before = now;
        }
    }
    client.close(1000).await;
    gateway.server.stop().await;
}

#[tokio::test]
async fn s23_a_gap_moves_the_timeline_on() {
    let gateway = gateway().await;
    let mut client = gateway.started().await;
    client.say(json!({ "type": "gap", "from": 100, "to": 1_000 })).await;
    client.acknowledged(1_000).await;
    // A repeated gap has no effect.
    client.say(json!({ "type": "gap", "from": 50, "to": 1_000 })).await;
    client.audio(1_000, &samples(1_000, 1_100)).await;
    client.say(json!({ "type": "finish", "through": 1_100 })).await;
    let heard = client.hear_all("done").await;
    let ranges: Vec<(u64, u64)> = heard
        .iter()
        .filter(|message| message["type"] == "final")
        .map(|message| (number(message, "start"), number(message, "end")))
        .collect();
    assert_eq!(ranges, [(0, 100), (1_000, 1_100)]);
    client.close(1000).await;
    for (from, to) in [(100, 99), (99, 98), (101, 200), (100, 1_u64 << 62)] {
        let mut client = gateway.started().await;
        client.say(json!({ "type": "gap", "from": from, "to": to })).await;
        assert_eq!(client.closed().await, (4400, Some(4400)), "{from}..{to}");
    }
    gateway.server.stop().await;
}

#[tokio::test]
async fn s24_a_flush_ends_the_utterance_unless_audio_lies_behind_it() {
    let gateway = gateway().await;
    let (mut client, _) = gateway.start(json!({})).await;
    client.audio(0, &samples(0, 2_000)).await;
    client.say(json!({ "type": "flush", "at": 1_999 })).await;
    client.audio(2_000, &samples(2_000, 3_000)).await;
    client.say(json!({ "type": "flush", "at": 3_000 })).await;
    let first = client.hear("final").await;
    assert_eq!((number(&first, "start"), number(&first, "end")), (0, 3_000));
    client.audio(3_000, &samples(3_000, 4_000)).await;
    client.say(json!({ "type": "flush" })).await;
    assert_eq!(number(&client.hear("final").await, "end"), 4_000);
    client.close(1000).await;
    gateway.server.stop().await;
}

#[tokio::test]
async fn s25_finish_names_the_end_of_what_was_sent() {
    let gateway = gateway().await;
    for through in [99, 101] {
        let mut client = gateway.started().await;
        client.say(json!({ "type": "finish", "through": through })).await;
        assert_eq!(client.closed().await, (4400, Some(4400)), "{through}");
    }
    let mut client = gateway.started().await;
    client.say(json!({ "type": "finish", "through": 100 })).await;
    client.say(json!({ "type": "finish", "through": 100 })).await;
    // Audio that was sent before may be sent again.
    client.audio(50, &samples(50, 100)).await;
    client.hear("done").await;
    client.audio(100, &[0]).await;
    assert_eq!(client.closed().await, (4400, Some(4400)));
    gateway.server.stop().await;
}
