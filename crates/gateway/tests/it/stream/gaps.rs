//! Gaps in the audio: what surrounds a gap is recognised, and nothing else.

use serde_json::json;
use voxline_gateway::Options;

use super::{assert_covers, audio, server, token};
use voxline_fixtures::gateway::socket::Socket;

#[tokio::test]
async fn what_a_gap_leaves_is_heard_and_nothing_else() {
    let (server, recognizer) = server(Options::default()).await;
    let (mut socket, _) = Socket::start(&server, &token(&server).await).await;
    let pcm = audio(90_000);
    socket.audio(&pcm, 0, 20_000);
    // Audio that the server has already is not part of a gap, wherever the client begins it.
    socket.gap(15_000, 50_000);
    socket.acknowledged(50_000).await;
    socket.audio(&pcm, 50_000, 70_000);
    // A repeated gap, and two adjacent ones.
    socket.gap(20_000, 50_000);
    socket.gap(70_000, 75_000);
    socket.gap(75_000, 80_000);
    socket.acknowledged(80_000).await;
    // The recogniser receives the gap too.
    while socket.final_ < 80_000 {
        socket.hear("ack").await;
    }
    socket.audio(&pcm, 80_000, 90_000);
    let finals = socket.end(90_000).await;
    assert_covers(&finals, &pcm, &[(0, 20_000), (50_000, 70_000), (80_000, 90_000)]);
    let heard = [&pcm[..20_000], &pcm[50_000..70_000], &pcm[80_000..]];
    let recordings = recognizer.recordings();
    assert!(recordings.iter().filter(|heard| !heard.is_empty()).eq(heard.iter()), "other samples were heard");
    server.stop().await;
}

#[tokio::test]
async fn a_session_may_begin_and_end_with_a_gap() {
    let (server, _) = server(Options::default()).await;
    let (mut socket, _) = Socket::start(&server, &token(&server).await).await;
    let pcm = audio(30_000);
    socket.gap(0, 10_000);
    socket.acknowledged(10_000).await;
    socket.audio(&pcm, 10_000, 20_000);
    // Longer than the backlog that may wait for the recogniser.
    let end = 100_000_000_000;
    socket.gap(20_000, end);
    socket.acknowledged(end).await;
    assert_covers(&socket.end(end).await, &pcm, &[(10_000, 20_000)]);

    let (mut socket, _) = Socket::start(&server, &token(&server).await).await;
    socket.gap(0, 5);
    assert_eq!(socket.end(5).await, []);
    server.stop().await;
}

#[tokio::test]
async fn a_gap_leaves_no_frame_over_at_another_rate() {
    let (server, _) = server(Options::default()).await;
    let mut socket = Socket::dial(&server, &token(&server).await).await;
    socket.say(&json!({ "type": "start", "sample_rate": 44_100, "origin": 7 }));
    socket.hear("ready").await;
    let pcm = audio(200_000);
    socket.audio(&pcm, 7, 50_001);
    socket.gap(50_001, 100_003);
    socket.acknowledged(100_003).await;
    socket.audio(&pcm, 100_003, 199_999);
    let finals = socket.end(199_999).await;
    let mut at = 7;
    for segment in &finals {
        assert!(segment.start == at || (at, segment.start) == (50_001, 100_003), "{segment:?} after {at}");
        at = segment.end;
    }
    assert!(at == 199_999 && finals.iter().any(|segment| segment.start == 100_003), "{finals:?}");
    server.stop().await;
}

#[tokio::test]
async fn gaps_that_break_the_protocol_are_refused() {
    let (server, _) = server(Options::default()).await;
    let token = token(&server).await;
    let pcm = audio(100);
    for (from, to) in [(101, 200), (u64::MAX, u64::MAX), (100, u64::MAX), (0, u64::MAX), (101, 0), (100, 99)]
    {
        let (mut socket, _) = Socket::start(&server, &token).await;
        socket.audio(&pcm, 0, 100);
        socket.gap(from, to);
        let (code, reason, error) = socket.closed().await;
        assert_eq!((code, &error.unwrap()["code"]), (4400, &json!(4400)), "{from}..{to}: {reason}");
    }
    // Nothing may follow the end, but a message from before it may be repeated.
    let (mut socket, _) = Socket::start(&server, &token).await;
    socket.gap(0, 100);
    socket.finish(100);
    socket.gap(50, 100);
    socket.hear("done").await;
    socket.gap(100, 101);
    assert_eq!(socket.closed().await.0, 4400);
    drop(socket);
    server.stop().await;
}
