//! The gateway's end of the stream protocol, tested with the documented messages in JSON and bytes, without
//! our client. The recogniser writes digests, so that a final result proves which samples it covers.

mod floods;
mod gaps;
mod renewal;
mod replay;
mod takeover;

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};
use voxline::auth::AccessToken;
use voxline_gateway::Options;
use voxline_testing::DigestRecognizer;

use voxline_fixtures::gateway::server::{Server, Setup};
use voxline_fixtures::gateway::socket::{CHUNK, Segment, Socket};

/// Number of frames in half a second.
const SEGMENT: u64 = 8_000;

/// Returns audio in which every half second differs.
pub(crate) fn audio(frames: u64) -> Vec<i16> {
    (0..frames).map(|frame| ((frame * frame / 7 + frame) as u16).cast_signed()).collect()
}

pub(crate) fn digest(samples: &[i16]) -> String {
    let bytes: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    Sha256::digest(bytes)[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn index(position: u64) -> usize {
    usize::try_from(position).unwrap()
}

async fn server(options: Options) -> (Server, Arc<DigestRecognizer>) {
    serving(Setup { options, ..Setup::default() }).await
}

async fn serving(setup: Setup) -> (Server, Arc<DigestRecognizer>) {
    let recognizer = Arc::new(DigestRecognizer::new(index(SEGMENT)));
    (Server::with(recognizer.clone(), setup).await, recognizer)
}

/// Checks that every segment has the digest of the samples it covers, and that together they cover exactly
/// `covered`.
fn assert_covers(finals: &[Segment], pcm: &[i16], covered: &[(u64, u64)]) {
    for Segment { start, end, text } in finals {
        assert_eq!(*text, digest(&pcm[index(*start)..index(*end)]), "{start}..{end}");
    }
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for &Segment { start, end, .. } in finals {
        match ranges.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => ranges.push((start, end)),
        }
    }
    assert_eq!(ranges, covered);
}

async fn token(server: &Server) -> AccessToken {
    server.tokens().token().await.unwrap()
}

#[tokio::test]
async fn a_gateway_that_stops_tells_and_lets_sessions_end() {
    let (server, _) = server(Options::default()).await;
    let drain = Options::default().drain;
    let token = token(&server).await;
    let (mut socket, _) = Socket::start(&server, &token).await;
    let pcm = audio(20_000);
    socket.audio(&pcm, 0, 10_000);
    socket.acknowledged(10_000).await;
    let ending = async {
        let goaway = socket.hear("goaway").await;
        assert_eq!(goaway["reason"], "drain");
        let left = Duration::from_millis(goaway["deadline_ms"].as_u64().unwrap());
        assert!(left <= drain && left > drain / 2, "{left:?}");
        socket.audio(&pcm, 10_000, 20_000);
        assert_covers(&socket.end(20_000).await, &pcm, &[(0, 20_000)]);
    };
    tokio::join!(server.stop(), ending);
}

#[tokio::test]
async fn sessions_that_do_not_end_are_cut_when_the_gateway_stops() {
    let (server, _) = server(Options { drain: Duration::from_millis(200), ..Options::default() }).await;
    let (mut socket, _) = Socket::start(&server, &token(&server).await).await;
    let watching = async {
        assert_eq!(socket.hear("goaway").await["reason"], "drain");
        assert_eq!(socket.closed().await.0, 1001);
    };
    tokio::join!(server.stop(), watching);
}

#[tokio::test]
async fn frames_of_one_sample_are_heard_like_any_others() {
    let (server, recognizer) = server(Options::default()).await;
    let (mut socket, _) = Socket::start(&server, &token(&server).await).await;
    let pcm = audio(10_000);
    for (at, sample) in (0..).zip(&pcm) {
        socket.frame(at, std::slice::from_ref(sample));
    }
    socket.acknowledged(10_000).await;
    assert_covers(&socket.end(10_000).await, &pcm, &[(0, 10_000)]);
    assert_eq!(recognizer.recordings(), [pcm]);
    server.stop().await;
}

#[tokio::test]
async fn audio_is_acknowledged_four_times_a_second_at_least() {
    let (server, _) = server(Options::default()).await;
    let (mut socket, _) = Socket::start(&server, &token(&server).await).await;
    let pcm = audio(20 * CHUNK);
    socket.audio(&pcm, 0, 20 * CHUNK);
    let mut before = 0;
    while before < 20 * CHUNK {
        socket.hear("ack").await;
        assert!(socket.received - before <= 4_000, "from {before} to {}", socket.received);
        before = socket.received;
    }
    socket.end(20 * CHUNK).await;
    server.stop().await;
}

#[tokio::test]
async fn the_first_partial_result_for_a_segment_is_told_whatever_its_revision() {
    let (server, _) = server(Options::default()).await;
    let mut socket = Socket::dial(&server, &token(&server).await).await;
    socket.say(&json!({ "type": "start", "sample_rate": 16_000, "partials": true }));
    socket.hear("ready").await;
    let pcm = audio(2 * SEGMENT);
    // One partial result for each of the two segments, and so with the same revision.
    for (segment, start, end) in [(0, 0, SEGMENT / 2), (1, SEGMENT / 2, SEGMENT + SEGMENT / 2)] {
        socket.frame(start, &pcm[index(start)..index(end)]);
        let partial = socket.hear("partial").await;
        assert_eq!([&partial["segment"], &partial["revision"]], [&json!(segment), &json!(0)], "{partial}");
        let text = digest(&pcm[index(segment * SEGMENT)..index(end)]);
        assert_eq!(partial["text"], text);
    }
    socket.end(SEGMENT + SEGMENT / 2).await;
    server.stop().await;
}

#[tokio::test]
async fn an_end_that_is_not_where_the_audio_ends_is_refused() {
    let (server, _) = server(Options::default()).await;
    let token = token(&server).await;
    for through in [0, 99, 101, u64::MAX] {
        let (mut socket, _) = Socket::start(&server, &token).await;
        socket.audio(&audio(100), 0, 100);
        socket.finish(through);
        let (code, reason, error) = socket.closed().await;
        assert_eq!((code, &error.unwrap()["code"]), (4400, &json!(4400)), "{through}: {reason}");
    }
    server.stop().await;
}
