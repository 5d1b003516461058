//! The schema, checked against the real traffic of our client and our gateway, and against mutations of it.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use voxline::session::Settings;
use voxline::transport::WebSocketConnector;
use voxline_testing::DigestRecognizer;

use super::client::frame_at;
use super::schema::check;
use voxline_fixtures::gateway::server::{Server, endpoint};
use voxline_fixtures::gateway::session::transcribe;
use voxline_fixtures::noise;

/// Passes bytes on until their end. Returns them.
async fn pass(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let before = all.len();
        if from.read_buf(&mut all).await.unwrap_or(0) == 0 || to.write_all(&all[before..]).await.is_err() {
            let _ = to.shutdown().await;
            return all;
        }
    }
}

/// Returns the text frames after the head of an HTTP message.
fn texts(bytes: &[u8]) -> Vec<Value> {
    let mut at = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let mut texts = Vec::new();
    while let Some((opcode, head, length)) = frame_at(&bytes[at..]) {
        let masked = bytes[at + 1] & 0x80 != 0;
        at += head;
        let mask = if masked { bytes[at..at + 4].to_vec() } else { vec![0; 4] };
        at += if masked { 4 } else { 0 };
        let payload: Vec<u8> =
            bytes[at..at + length].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        at += length;
        if opcode == 1 {
            texts.push(serde_json::from_slice(&payload).unwrap());
        }
    }
    texts
}

/// Returns the messages of our client and of our gateway in a session of some seconds.
async fn traffic() -> (Vec<Value>, Vec<Value>) {
    let server = Server::start(Arc::new(DigestRecognizer::new(8_000))).await;
    let tap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = WebSocketConnector::new(endpoint(tap.local_addr().unwrap())).unwrap();
    let gateway = server.address;
    let tapping = async {
        let (mut client, _) = tap.accept().await.unwrap();
        let mut server = TcpStream::connect(gateway).await.unwrap();
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        tokio::join!(pass(from_client, to_server), pass(from_server, to_client))
    };
    let (tokens, pcm) = (server.tokens(), noise(40_000));
    let running = transcribe(&connector, &tokens, Settings::new(16_000).with_seed(0), &pcm);
    let (run, (up, down)) = tokio::join!(running, tapping);
    run.result.unwrap();
    server.stop().await;
    (texts(&up), texts(&down))
}

/// Returns messages that a session of a few seconds does not use.
fn others() -> (Vec<Value>, Vec<Value>) {
    let client = [
        json!({ "type": "start", "sample_rate": 8_000, "language": "ru-RU", "partials": false, "latency": "relaxed",
            "task": "translate", "prompt": "Dear Sir,", "keywords": ["voxline", "Anna"], "accuracy": "best",
            "origin": 5, "context": "ru" }),
        json!({ "type": "resume", "session": "a", "resume_key": "b", "finals_seen": 3 }),
        json!({ "type": "gap", "from": 3, "to": 9 }),
        json!({ "type": "auth", "access_token": "token" }),
        json!({ "type": "flush", "at": 9 }),
    ];
    let server = [
        json!({ "type": "auth_ok", "token_expires_in_ms": 1_000 }),
        json!({ "type": "goaway", "reason": "drain", "deadline_ms": 5, "restart": true, "endpoints": ["https://a"] }),
        json!({ "type": "error", "code": 4400, "message": "broken" }),
        json!({ "type": "final", "index": 0, "start": 0, "end": 9, "text": "so", "language": "en", "confidence": 0.5,
            "words": [{ "start": 0, "end": 9, "text": "so", "confidence": 1 }], "context": "en" }),
    ];
    (client.to_vec(), server.to_vec())
}

#[tokio::test]
async fn the_schema_fits_what_both_ends_say() {
    let (up, down) = traffic().await;
    let kinds = |messages: &[Value]| {
        let mut kinds: Vec<String> =
            messages.iter().map(|message| message["type"].as_str().unwrap().to_owned()).collect();
        kinds.sort_unstable();
        kinds.dedup();
        kinds
    };
    assert_eq!(kinds(&up), ["finish", "start"]);
    for kind in ["ready", "ack", "final", "done"] {
        assert!(kinds(&down).iter().any(|said| said == kind), "no {kind} in {:?}", kinds(&down));
    }
    for message in &up {
        check("client", message).unwrap();
        check("server", message).unwrap_err();
    }
    for message in &down {
        check("server", message).unwrap();
        check("client", message).unwrap_err();
    }
}

/// Returns values of every type. At most some of them fit any field.
fn wrong_values() -> Vec<Value> {
    vec![
        json!(-1),
        json!(0.5),
        json!("text"),
        json!(""),
        json!(true),
        json!([1]),
        json!({}),
        json!(null),
        json!(1e300),
    ]
}

/// Each field is left out, and replaced by other values. If the schema accepts a mutation, a reader written
/// from the document accepts it too.
#[tokio::test]
async fn the_schema_takes_no_mutated_message() {
    let (mut up, mut down) = traffic().await;
    let (more_up, more_down) = others();
    up.extend(more_up);
    down.extend(more_down);
    let mut refused = 0;
    for (name, messages) in [("client", up), ("server", down)] {
        for message in messages {
            check(name, &message).unwrap();
            for (field, value) in message.as_object().unwrap() {
                let mut without = message.clone();
                without.as_object_mut().unwrap().remove(field);
                let optional = check(name, &without).is_ok();
                refused += u64::from(!optional);
                for wrong in wrong_values() {
                    let mut mutated = message.clone();
                    mutated[field.as_str()] = wrong.clone();
                    let taken = check(name, &mutated).is_ok();
                    // A value may be replaced by another of its own type, and null means absent.
                    let alike = wrong.is_null() && optional
                        || wrong.is_string() && value.is_string() && field != "type" && field != "reason"
                        || wrong.is_boolean() && value.is_boolean()
                        || field == "confidence"
                            && wrong.as_f64().is_some_and(|number| (0.0..=1.0).contains(&number));
                    assert!(!taken || alike, "{name}: {mutated} is taken");
                    refused += u64::from(!taken);
                }
            }
        }
    }
    assert!(refused > 500, "only {refused} mutations were refused");
}
