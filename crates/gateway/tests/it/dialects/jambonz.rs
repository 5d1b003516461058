//! jambonz' custom speech recognition.

use serde_json::{Value, json};
use voxline_gateway::Options;
use voxline_testing::digest;

use super::peer::{Peer, Said};
use super::{SEGMENT, bytes, digesting, key};
use voxline_fixtures::noise;

const PATH: &str = "/jambonz";

fn start(interims: bool) -> Value {
    json!({
        "type": "start", "language": "en-US", "format": "raw", "encoding": "LINEAR16",
        "interimResults": interims, "sampleRateHz": 16_000, "options": {},
    })
}

async fn open(server: &voxline_fixtures::gateway::server::Server) -> Peer {
    let authorization = format!("Bearer {}", key(server));
    Peer::ask(server, PATH, &[("authorization", &authorization)]).await.expect("the token is valid")
}

#[tokio::test]
async fn a_call_is_transcribed_to_its_end() {
    let (server, recognizer) = digesting(Options::default()).await;
    for interims in [false, true] {
        recognizer.forget();
        let pcm = noise(2 * SEGMENT + 500);
        let mut peer = open(&server).await;
        peer.say(&start(interims)).await;
        peer.audio_in(&bytes(&pcm), 321).await;
        peer.say(&json!({ "type": "stop" })).await;
        // Audio after the end is dropped.
        peer.audio(&[1; 100]).await;
        let (messages, close) = peer.rest().await;
        assert_eq!(close, Said::Close(1000, String::new()));
        let (finals, others): (Vec<_>, Vec<_>) =
            messages.iter().partition(|message| message["is_final"] == true);
        let expected: Vec<String> = pcm.chunks(SEGMENT).map(digest).collect();
        let texts: Vec<&Value> =
            finals.iter().map(|message| &message["alternatives"][0]["transcript"]).collect();
        assert_eq!(texts, expected.iter().collect::<Vec<_>>());
        for message in &messages {
            assert_eq!((&message["type"], &message["channel"]), (&json!("transcription"), &json!(1)));
            assert_eq!(message["language"], "en-US");
            assert!(message["alternatives"][0]["confidence"].is_number(), "{message}");
        }
        assert!(interims || others.is_empty(), "{others:?}");
        assert_eq!(recognizer.recordings(), [pcm]);
    }
    server.stop().await;
}

#[tokio::test]
async fn what_makes_no_sense_is_told_before_the_close() {
    let (server, _) = digesting(Options::default()).await;
    let mulaw = json!({ "type": "start", "encoding": "MULAW" }).to_string();
    let rate = json!({ "type": "start", "sampleRateHz": 1 }).to_string();
    for text in ["no JSON", "{}", &mulaw, &rate] {
        let mut peer = open(&server).await;
        peer.text(text).await;
        let (messages, close) = peer.rest().await;
        assert_eq!((messages.len(), &messages[0]["type"]), (1, &json!("error")), "{text}");
        assert!(
            messages[0]["error"].is_string() && matches!(close, Said::Close(1003, _)),
            "{text}: {close:?}"
        );
    }
    let mut peer = open(&server).await;
    peer.audio(&[0; 320]).await;
    assert!(matches!(peer.rest().await.1, Said::Close(1003, _)), "audio came before start");
    // A call that ends before it starts.
    let mut peer = open(&server).await;
    peer.say(&json!({ "type": "stop" })).await;
    assert_eq!(peer.rest().await, (vec![], Said::Close(1000, String::new())));
    server.stop().await;
}
