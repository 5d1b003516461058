//! Calls that are refused, and peers that break their protocol: each costs itself alone.

use std::net::SocketAddr;

use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::Calls;
use crate::cli::{Place, assert_fails, path};

/// Opens the WebSocket of a peer, with this header.
async fn open(
    door: SocketAddr,
    address: &str,
    header: Option<(&'static str, &str)>,
) -> Result<WebSocketStream<TcpStream>, Error> {
    let mut request = format!("ws://{door}/calls/{address}").into_client_request().unwrap();
    if let Some((name, value)) = header {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    let (socket, _) = client_async(request, TcpStream::connect(door).await.unwrap()).await?;
    Ok(socket)
}

/// Returns the status and the body of a refusal.
async fn refusal(door: SocketAddr, address: &str, header: Option<(&'static str, &str)>) -> (u16, String) {
    match open(door, address, header).await {
        Err(Error::Http(answer)) => {
            let body = answer.body().clone().unwrap_or_default();
            (answer.status().as_u16(), String::from_utf8(body).unwrap())
        }
        Err(error) => panic!("{address}: {error}"),
        Ok(_) => panic!("{address} was admitted"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_taken_from_those_who_may_call() {
    let place = Place::new();
    let secret = place.secret("secret", "s3cret\n");
    let calls = Calls::start(&place, &["--secret-file", path(&secret), "--from", "192.0.2.0/24"]).await;
    let door = calls.websocket;
    // Loopback is not among the networks that need no secret.
    assert_eq!(refusal(door, "twilio", None).await.0, 403);
    assert_eq!(refusal(door, "twilio/wrong", None).await.0, 403);
    let (status, told) = refusal(door, "skype/s3cret", None).await;
    assert!(
        status == 404 && told.contains("no calls are taken by 'skype': expected twilio, telnyx"),
        "{told}"
    );
    let (status, told) = refusal(door, "fork/s3cret?rate=fast", None).await;
    assert!(status == 400 && told.contains("expected a rate in Hz"), "{told}");
    open(door, "twilio/s3cret", None).await.unwrap();
    // Its connection is closed without a word.
    let mut asterisk = TcpStream::connect(calls.audiosocket).await.unwrap();
    assert_eq!(asterisk.read(&mut [0; 1]).await.unwrap_or(0), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_calls_beyond_the_limit_are_refused() {
    let place = Place::new();
    let calls = Calls::start(&place, &["--max-calls", "1"]).await;
    let door = calls.websocket;
    let (status, told) = refusal(door, "twilio", Some(("origin", "https://evil.example"))).await;
    assert!(status == 403 && told.contains("pages may not send calls"), "{told}");
    // A proxy that is not trusted hides where its clients are.
    assert_eq!(refusal(door, "twilio", Some(("x-forwarded-for", "203.0.113.9"))).await.0, 403);
    let call = open(door, "twilio", None).await.unwrap();
    let (status, told) = refusal(door, "twilio", None).await;
    assert!(status == 503 && told.contains("1 calls are under way, which is the limit"), "{told}");
    drop(call);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_breaks_its_protocol_ends_its_call_alone() {
    let place = Place::new();
    let mut calls = Calls::start(&place, &[]).await;
    let mut twilio = open(calls.websocket, "twilio", None).await.unwrap();
    twilio.send(Message::text(r#"{"event":"start","start":"SECRET"}"#)).await.unwrap();
    while twilio.next().await.is_some_and(|message| message.is_ok()) {}
    let mut asterisk = TcpStream::connect(calls.audiosocket).await.unwrap();
    asterisk.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    asterisk.read_to_end(&mut Vec::new()).await.unwrap_or_default();
    let mut silent = open(calls.websocket, "vonage", None).await.unwrap();
    silent.close(None).await.unwrap();

    let events = calls.until_ended(3).await;
    let ended: Vec<&Value> = events.iter().filter(|event| event["event"] == "ended").collect();
    assert_eq!(ended.len(), events.len(), "no call has started: {events:?}");
    for event in ended {
        let error = event["error"].as_str().unwrap_or_default();
        assert!(!error.contains("SECRET"), "{event}");
        match event["reason"].as_str().unwrap() {
            "connection_lost" => assert_eq!(error, ""),
            "peer_fault" => assert!(
                error.starts_with("start of the peer") || error.starts_with("frame of the peer"),
                "{event}"
            ),
            other => panic!("{other}: {event}"),
        }
    }
}

#[test]
fn addresses_and_directories_that_can_not_be_used_are_named() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = place.run(&["calls", "--listen", &address]);
    assert_fails(&output, 2, &["listen on", &address]);
    place.file("file", "");
    let output = place.run(&["calls", "--listen", "127.0.0.1:0", "--record", "file/calls"]);
    assert_fails(&output, 7, &["file/calls"]);
}
