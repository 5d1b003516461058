//! Speech.

use std::sync::Arc;

use serde_json::{Value, json};
use voxline::engine::Voices;
use voxline_testing::DigestRecognizer;

use super::peer::{Peer, Told};
use super::{SEGMENT, digesting, open, served_with};

/// Text of 20 bytes, which the tone speaks with 2,000 samples.
const TEXT: &str = "A tone of 20 letters";

/// Checks the events of an answer. Returns its number of samples.
fn samples(events: &[Told]) -> usize {
    let format =
        |timestamp: u64| json!({ "rate": 24_000, "width": 2, "channels": 1, "timestamp": timestamp });
    let (start, rest) = events.split_first().unwrap();
    assert_eq!((start.kind.as_str(), &start.data), ("audio-start", &format(0)));
    let (stop, chunks) = rest.split_last().unwrap();
    let mut samples = 0;
    for chunk in chunks {
        assert_eq!((chunk.kind.as_str(), &chunk.data), ("audio-chunk", &format(samples as u64 / 24)));
        assert!(
            chunk.payload.len() <= 2_048 && chunk.payload == [0x34, 0x12].repeat(chunk.payload.len() / 2)
        );
        samples += chunk.payload.len() / 2;
    }
    assert_eq!((stop.kind.as_str(), &stop.data), ("audio-stop", &json!({ "timestamp": samples / 24 })));
    samples
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_is_spoken_in_chunks() {
    let (server, _) = digesting().await;
    let mut peer = Peer::connect(&server).await;
    for voice in [
        Value::Null,
        json!({ "name": "tone" }),
        json!({ "language": "ru" }),
        json!({ "language": "en-US" }),
        json!({ "name": "tone-ru", "language": "en" }),
    ] {
        peer.say("synthesize", &json!({ "text": TEXT, "voice": voice })).await;
        assert_eq!(samples(&peer.until("audio-stop").await), 2_000, "{voice}");
    }
    // Older clients write their data into the header.
    peer.say_in_header("synthesize", &json!({ "text": TEXT, "text_format": "text" })).await;
    assert_eq!(samples(&peer.until("audio-stop").await), 2_000);
    peer.say("synthesize", &json!({ "text": " " })).await;
    assert_eq!(samples(&peer.until("audio-stop").await), 0);
    // A client that closes its half still hears the answer.
    peer.say("synthesize", &json!({ "text": TEXT })).await;
    peer.leave().await;
    assert_eq!(samples(&peer.until("audio-stop").await), 2_000);
    assert_eq!(peer.next().await, None);
    let usage = server.gateway.authority().usage(Some("test")).unwrap();
    let open = usage.iter().find(|entry| entry.id.starts_with("open_")).unwrap();
    assert_eq!(open.total.characters, 7 * 20);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_in_pieces_is_spoken_sentence_by_sentence() {
    let (server, _) = digesting().await;
    let mut peer = Peer::connect(&server).await;
    for round in 0..2 {
        peer.say("synthesize-start", &json!({ "voice": { "name": "tone" } })).await;
        for piece in ["One sent", "ence. ", "And the", " next"] {
            peer.say("synthesize-chunk", &json!({ "text": piece })).await;
        }
        // The first sentence is heard before the text is complete.
        let mut events = Vec::new();
        let heard = |events: &[Told]| events.iter().map(|told| told.payload.len() / 2).sum::<usize>();
        while heard(&events) < "One sentence.".len() * 100 {
            events.push(peer.next().await.unwrap());
        }
        peer.say("synthesize-chunk", &json!({ "text": " one!" })).await;
        // Servers that know of no pieces get the whole text, too.
        peer.say("synthesize", &json!({ "text": "One sentence. And the next one!" })).await;
        peer.say("synthesize-stop", &json!({})).await;
        events.extend(peer.until("audio-stop").await);
        assert_eq!(peer.hear("synthesize-stopped").await, json!({}));
        assert_eq!(samples(&events), ("One sentence.".len() + "And the next one!".len()) * 100, "{round}");
    }
    // A text without a piece.
    peer.say("synthesize-start", &json!({})).await;
    peer.say("synthesize-stop", &json!({})).await;
    assert_eq!(samples(&peer.until("audio-stop").await), 0);
    peer.hear("synthesize-stopped").await;
    drop(peer);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_makes_no_sense_is_told_before_the_close() {
    let (server, _) = digesting().await;
    for (kind, data, code) in [
        ("synthesize", json!({ "text": TEXT, "voice": { "name": "hal" } }), "refused"),
        ("synthesize", json!({ "text": TEXT, "voice": { "name": "tone", "speaker": "hal" } }), "refused"),
        ("synthesize", json!({ "text": TEXT, "voice": { "language": "xx" } }), "refused"),
        ("synthesize", json!({ "text": "a".repeat(20_001) }), "refused"),
        ("synthesize", json!({ "text": "<speak/>", "text_format": "ssml" }), "bad-event"),
        ("synthesize", json!({ "text": 7 }), "bad-event"),
        ("synthesize", json!({}), "bad-event"),
        ("synthesize-chunk", json!({ "text": TEXT }), "bad-event"),
        ("synthesize-stop", json!({}), "bad-event"),
    ] {
        let mut peer = Peer::connect(&server).await;
        peer.say(kind, &data).await;
        assert_eq!(peer.refusal().await, code, "{kind}");
    }
    // One thing at a time.
    let mut peer = Peer::connect(&server).await;
    peer.say("synthesize-start", &json!({})).await;
    peer.say("audio-start", &json!({ "rate": 16_000, "width": 2, "channels": 1 })).await;
    assert_eq!(peer.refusal().await, "bad-event");
    drop(peer);
    server.stop().await;
    let none = Arc::new(DigestRecognizer::new(SEGMENT));
    let server = served_with(none, open(), Voices::default()).await;
    let mut peer = Peer::connect(&server).await;
    peer.say("describe", &json!({})).await;
    assert_eq!(peer.hear("info").await["tts"], json!([]));
    peer.say("synthesize", &json!({ "text": TEXT })).await;
    assert_eq!(peer.refusal().await, "refused");
    drop(peer);
    server.stop().await;
}
