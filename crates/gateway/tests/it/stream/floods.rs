//! Floods of control messages, which a session's allowance bounds.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use voxline::auth::AccessToken;
use voxline::transport::Message;
use voxline_gateway::Options;

use super::{assert_covers, audio, server, token};
use voxline_fixtures::gateway::server::Server;
use voxline_fixtures::gateway::socket::{Said, Segment, Socket};

#[tokio::test]
async fn a_flood_of_control_messages_costs_the_socket() {
    let (server, _) = server(Options::default()).await;
    let token = token(&server).await;
    let (mut socket, ready) = Socket::start(&server, &token).await;
    let pcm = audio(10_000);
    socket.audio(&pcm, 0, 10_000);
    // The messages that a delayed client may have to send are accepted.
    for _ in 0..900 {
        socket.say(&json!({ "type": "flush" }));
    }
    socket.gap(10_000, 20_000);
    socket.acknowledged(20_000).await;
    for _ in 0..3_000 {
        socket.gap(20_000, 20_000);
    }
    let (code, reason, error) = socket.closed().await;
    assert_eq!((code, &error.unwrap()["code"]), (4429, &json!(4429)));
    assert!(reason.contains("50 control messages a second"), "{reason}");
    // Pings are control messages too.
    let mut socket = resumed_later(&server, &token, &ready).await;
    assert_eq!(socket.received, 20_000);
    for _ in 0..3_000 {
        socket.wire.send(Message::Ping(bytes::Bytes::new()));
    }
    assert_eq!(socket.closed().await.0, 4429);
    assert_covers(&ended_later(&server, &token, &ready, 20_000).await, &pcm, &[(0, 10_000)]);
    server.stop().await;
}

/// Opens a socket that takes over a session whose allowance was used up, as soon as enough of it is
/// restored.
async fn resumed_later(server: &Server, token: &AccessToken, ready: &Value) -> Socket {
    let resuming = async {
        loop {
            let mut socket = Socket::resuming(server, token, ready, 0).await;
            loop {
                match socket.next().await {
                    Said::Message(message) if message["type"] == "ready" => return socket,
                    Said::Message(_) => {}
                    Said::Close(code, reason) => {
                        assert_eq!(code, 4429, "{reason}");
                        break;
                    }
                }
            }
        }
    };
    timeout(Duration::from_secs(30), resuming).await.expect("the allowance comes back")
}

/// Ends a session whose allowance was used up, as soon as enough of it is restored. Returns its final
/// results.
async fn ended_later(server: &Server, token: &AccessToken, ready: &Value, through: u64) -> Vec<Segment> {
    let ending = async {
        loop {
            let mut socket = Socket::resuming(server, token, ready, 0).await;
            socket.finish(through);
            loop {
                match socket.next().await {
                    Said::Message(message) if message["type"] == "done" => return socket.finals,
                    Said::Message(_) => {}
                    Said::Close(code, reason) => {
                        assert_eq!(code, 4429, "{reason}");
                        break;
                    }
                }
            }
        }
    };
    timeout(Duration::from_secs(30), ending).await.expect("the allowance comes back")
}

#[tokio::test]
async fn a_client_that_was_cut_for_a_flood_does_not_resume_at_once() {
    let (server, _) = server(Options::default()).await;
    let token = token(&server).await;
    let (mut socket, ready) = Socket::start(&server, &token).await;
    // The attempt must come within a second. A busy machine may be too slow for that, and tries again.
    let mut refused = false;
    for _ in 0..20 {
        for _ in 0..3_000 {
            socket.say(&json!({ "type": "flush" }));
        }
        assert_eq!(socket.closed().await.0, 4429);
        socket = Socket::resuming(&server, &token, &ready, 0).await;
        let Said::Message(answer) = socket.next().await else { panic!("an error comes before the close") };
        refused = answer["type"] == "error";
        if refused {
            assert_eq!(socket.closed().await.0, 4429);
            break;
        }
    }
    assert!(refused, "attempts to resume cost nothing");
    assert_eq!(ended_later(&server, &token, &ready, 0).await, []);
    server.stop().await;
}

#[tokio::test]
async fn another_socket_brings_no_other_allowance() {
    let (server, _) = server(Options::default()).await;
    let token = token(&server).await;
    let (mut socket, ready) = Socket::start(&server, &token).await;
    // All of this takes less than the fifteen seconds in which so many messages are forgiven.
    for resumed in 0.. {
        assert!(resumed < 10, "{} messages and no end", resumed * 250);
        for _ in 0..250 {
            socket.say(&json!({ "type": "flush" }));
        }
        socket.wire.send(Message::Ping(bytes::Bytes::from_static(b"last")));
        if !socket.answers_ping(b"last").await {
            assert!(resumed >= 3, "cut after {} messages", resumed * 250);
            break;
        }
        socket = Socket::resuming(&server, &token, &ready, 0).await;
    }
    assert_eq!(ended_later(&server, &token, &ready, 0).await, []);
    server.stop().await;
}
