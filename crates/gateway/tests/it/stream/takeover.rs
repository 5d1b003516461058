//! Sessions that a newer socket takes over, while the older one still sends.

use serde_json::json;
use voxline_gateway::Options;

use super::{SEGMENT, assert_covers, audio, server, token};
use voxline_fixtures::gateway::socket::{Said, Socket};

#[tokio::test]
async fn a_session_moves_while_its_old_socket_still_sends() {
    let (server, recognizer) = server(Options::default()).await;
    let token = token(&server).await;
    let pcm = audio(20 * 16_000);
    let end = pcm.len() as u64;
    let (mut socket, ready) = Socket::start(&server, &token).await;
    let mut moved_at = vec![0];
    for _ in 0..5 {
        // One piece for each answer until the session has moved, and ten pieces ahead of the answers.
        let sending = async {
            let mut at = *moved_at.last().unwrap();
            let mut more = |socket: &mut Socket| {
                let next = (at + 100).min(end);
                socket.audio(&pcm, at, next);
                at = next;
            };
            for _ in 0..10 {
                more(&mut socket);
            }
            loop {
                match socket.next().await {
                    Said::Message(message) => assert_ne!(message["type"], "error"),
                    Said::Close(code, _) => return code,
                }
                more(&mut socket);
            }
        };
        let (code, (new, taken)) = tokio::join!(sending, Socket::resume(&server, &token, &ready, 0));
        assert_eq!(code, 4409);
        moved_at.push(taken["received"].as_u64().unwrap());
        socket = new;
    }
    let from = *moved_at.last().unwrap();
    assert!(from > 0 && from < end, "the old socket should have sent some, not all: {moved_at:?}");
    socket.audio(&pcm, from, end);
    assert_covers(&socket.end(end).await, &pcm, &[(0, end)]);
    assert_eq!(recognizer.recordings(), [pcm]);
    server.stop().await;
}

#[tokio::test]
async fn a_resumed_session_says_what_the_client_has_not_heard() {
    let (server, _) = server(Options::default()).await;
    let token = token(&server).await;
    let pcm = audio(40_000);
    let (mut old, ready) = Socket::start(&server, &token).await;
    old.audio(&pcm, 0, 20_000);
    old.gap(20_000, 30_000);
    while old.finals.len() < 3 {
        old.hear("final").await;
    }
    let (mut new, resumed) = Socket::resume(&server, &token, &ready, 1).await;
    let stands = ["received", "final", "finals"].map(|field| resumed[field].as_u64().unwrap());
    assert_eq!(stands, [30_000, 30_000, 3]);
    new.audio(&pcm, 30_000, 40_000);
    let finals = new.end(40_000).await;
    assert_eq!(finals[..2], old.finals[1..]);
    assert_covers(&finals, &pcm, &[(SEGMENT, 20_000), (30_000, 40_000)]);

    let (_, ready) = Socket::start(&server, &token).await;
    let mut greedy = Socket::dial(&server, &token).await;
    greedy.say(&json!({
        "type": "resume", "session": ready["session"], "resume_key": ready["resume_key"], "finals_seen": 1,
    }));
    assert_eq!(greedy.closed().await.0, 4400);
    drop(greedy);
    server.stop().await;
}

#[tokio::test]
async fn an_old_socket_changes_nothing_any_more() {
    let (server, recognizer) = server(Options::default()).await;
    let token = token(&server).await;
    let pcm = audio(40_000);
    let other = vec![0x5555; 40_000];
    for what in ["audio", "gap", "finish", "flush", "auth", "nonsense", "oversize", "normal", "leave", "drop"]
    {
        let (mut old, ready) = Socket::start(&server, &token).await;
        old.audio(&pcm, 0, 10_000);
        old.acknowledged(10_000).await;
        let (mut new, resumed) = Socket::resume(&server, &token, &ready, 0).await;
        assert_eq!(resumed["received"], 10_000);
        match what {
            "audio" => old.audio(&other, 10_000, 20_000),
            "gap" => old.gap(10_000, 20_000),
            "finish" => old.finish(10_000),
            "flush" => old.say(&json!({ "type": "flush" })),
            "auth" => old.auth("wrong"),
            "nonsense" => old.say(&json!({ "type": "nonsense" })),
            "oversize" => old.frame(10_000, &vec![0; 100_000]),
            _ => {}
        }
        match what {
            // The old socket may go in any way, whether or not it has been told to.
            "normal" => old.wire.close(1000, "").await.unwrap(),
            "leave" => old.wire.close(1001, "").await.unwrap(),
            "drop" => drop(old),
            _ => assert_eq!(old.closed().await.0, 4409, "{what}"),
        }
        new.audio(&pcm, 10_000, 40_000);
        let finals = new.end(40_000).await;
        assert_covers(&finals, &pcm, &[(0, 40_000)]);
        // No flush and no gap was made in between.
        assert_eq!(finals.len(), 5, "{what}");
    }
    assert!(recognizer.recordings().iter().all(|heard| *heard == pcm));
    server.stop().await;
}
