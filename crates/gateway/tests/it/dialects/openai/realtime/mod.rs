//! Live transcription.

mod connections;
mod items;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::super::key;
use super::super::peer::Peer;
use voxline_fixtures::gateway::server::Server;

const PATH: &str = "/v1/realtime?intent=transcription";

/// Opens a connection, and reads the first event.
async fn open(server: &Server) -> Peer {
    let authorization = format!("Bearer {}", key(server));
    let mut peer = Peer::ask(server, PATH, &[("authorization", &authorization)]).await.unwrap();
    assert_eq!(peer.message().await["type"], "session.created");
    peer
}

/// Updates the settings of the audio. Returns the session.
async fn update(peer: &mut Peer, input: Value) -> Value {
    let session = json!({ "type": "transcription", "audio": { "input": input } });
    peer.say(&json!({ "type": "session.update", "session": session })).await;
    peer.hear("session.updated").await["session"].take()
}

async fn manual(peer: &mut Peer) {
    let format = json!({ "type": "audio/pcm", "rate": 16_000 });
    update(peer, json!({ "format": format, "turn_detection": null })).await;
}

async fn append(peer: &mut Peer, audio: &[u8]) {
    peer.say(&json!({ "type": "input_audio_buffer.append", "audio": BASE64_STANDARD.encode(audio) })).await;
}

async fn say(peer: &mut Peer, kind: &str) {
    peer.say(&json!({ "type": format!("input_audio_buffer.{kind}") })).await;
}

/// Returns the events up to the end of an item.
async fn item(peer: &mut Peer) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        events.push(peer.message().await);
        if events.last().unwrap()["type"] == "conversation.item.done" {
            return events;
        }
    }
}

/// Returns the transcript of an item, and what its deltas add up to.
fn transcript(events: &[Value]) -> (&str, String) {
    let of = |kind: &str| {
        let kind = format!("conversation.item.input_audio_transcription.{kind}");
        events.iter().filter(move |event| event["type"] == kind)
    };
    assert!(of("delta").chain(of("completed")).all(|event| event["content_index"] == 0), "{events:?}");
    let deltas = of("delta").map(|event| event["delta"].as_str().unwrap()).collect();
    (of("completed").next().unwrap()["transcript"].as_str().unwrap(), deltas)
}

/// Returns the ends of the types of events.
fn kinds(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap().rsplit('.').next().unwrap()).collect()
}
